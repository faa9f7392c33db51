"""How well annealing finds log Z: against enumeration on small machines, and by its own signs on a large one.

    python benchmarks/annealing.py [--dataset binarized_mnist] [--epochs 10] [--hidden-units 500]

Prints benchmarks/results/annealing.md and writes it, with the same numbers as annealing.json beside it. Machines with
20 hidden units are trained by CD-1, CD-3 and CD-25, as in "On the Quantitative Analysis of Deep Belief Networks"
(Salakhutdinov and Murray, 2008), and one with 500 by persistent CD; about a quarter of an hour on two cores. Nothing is
chosen by the test images, which are scored once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import record
import torch
import typer
from torch import Tensor

import gdm_core
from gdm_core.contract import GenerativeModel
from gdm_core.data import TreatedSplit, evaluation_images, load_dataset, treatment_for
from gdm_core.likelihoods import LogPartition, annealing_report, log_partition
from gdm_core.likelihoods.log_partition import standard_schedule
from gdm_core.randomness import seeded_generator

COMMAND = "python benchmarks/annealing.py"
SMALL_UNITS, LEARNERS = 20, (1, 3, 25)  # hidden units; the k of CD-k
SCHEDULES = (100, 1_000, "standard")  # temperatures
CHAINS, REPORT_IMAGES, REPORT_TEMPERATURES = 100, 100, 1_000
GOALS = {"enumerate": 30.0, "anneal": 30.0}  # seconds


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds it took."""
    begin = time.perf_counter()
    return work(), time.perf_counter() - begin


def trained(data: Any, treatment: Any, epochs: int, **arguments: Any) -> GenerativeModel:
    """An RBM trained on the training split, seed 0."""
    torch.manual_seed(0)
    model = gdm_core.build_model("rbm", data.data_shape, **arguments)
    config = replace(model.default_training, epochs=epochs, batch_size=100, learning_rate=0.05)
    for _ in gdm_core.train(model, TreatedSplit(data.splits["train"], treatment), config):
        pass
    return model.eval()


def annealed(model: GenerativeModel, schedule: int | str) -> tuple[LogPartition, float]:
    """log Z by a schedule, with 100 chains; the seconds are those of the annealing alone."""
    betas = standard_schedule() if schedule == "standard" else torch.linspace(0, 1, schedule, dtype=torch.float64)
    _, seconds = timed(lambda: model.anneal(CHAINS, betas, seeded_generator(0, "timing")))
    return log_partition(model, betas, CHAINS, seeded_generator(0, "log partition"), method="annealed"), seconds


def mean_log_likelihood(model: GenerativeModel, images: Tensor, log_z: float) -> tuple[float, float]:
    """Mean test nats and their standard error over images, given log Z."""
    with torch.no_grad():
        values = -torch.cat([model.energy(part).double() for part in images.split(1000)]) - log_z
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def true_against_annealed(model: GenerativeModel, label: str, images: Tensor) -> list[dict[str, Any]]:
    """A row per schedule: log Z estimated and true, and what the difference does to the test log-likelihood."""
    exact, seconds = timed(lambda: log_partition(model, method="exact").value)
    true, error = mean_log_likelihood(model, images, exact)
    rows = []
    for schedule in SCHEDULES:
        found, annealing = annealed(model, schedule)
        rows.append({
            "machine": label, **_estimate(found, annealing), "true": exact, "enumeration_seconds": seconds,
            "test": true, "standard_error": error, "test_by_estimate": true + exact - found.value,
            "covered": found.low <= exact <= found.high,
        })  # fmt: skip
    return rows


def without_truth(model: GenerativeModel, label: str, images: Tensor) -> list[dict[str, Any]]:
    """A row per schedule of a machine too large to enumerate."""
    rows = []
    for schedule in SCHEDULES:
        found, seconds = annealed(model, schedule)
        test, error = mean_log_likelihood(model, images, found.value)
        rows.append({"machine": label, **_estimate(found, seconds), "test": test, "standard_error": error})
    return rows


def _estimate(found: LogPartition, seconds: float) -> dict[str, Any]:
    return {
        "temperatures": found.temperatures, "value": found.value, "low": found.low, "high": found.high,
        "spread": found.log_weights.std().item(), "effective_sample_size": found.effective_sample_size,
        "doubt": found.doubt, "seconds": seconds,
    }  # fmt: skip


def from_both_sides(model: GenerativeModel, label: str, images: Tensor) -> dict[str, Any]:
    """log Z forwards and backwards, log p of images optimistic and conservative."""
    found, seconds = timed(lambda: annealing_report(model, images[:REPORT_IMAGES], REPORT_TEMPERATURES, CHAINS))
    return {
        "machine": label, "temperatures": REPORT_TEMPERATURES, "images": REPORT_IMAGES, "seconds": seconds,
        "forwards": found.forwards.value, "backwards": found.backwards.value, "is_bound": found.backwards_is_bound,
        "optimistic": found.optimistic.mean().item(), "conservative": found.conservative.mean().item(),
        "gap": found.gap,
    }  # fmt: skip


def enumeration_times() -> list[dict[str, Any]]:
    """Seconds to enumerate log Z at the two sizes there is a goal for."""
    rows = []
    for shape, units in (((1, 28, 28), 20), ((1, 8, 8), 25)):
        torch.manual_seed(0)
        model = gdm_core.build_model("rbm", shape, hidden_units=units)
        _, seconds = timed(model.exact_log_partition)
        rows.append({"pixels": model.dimensions, "units": units, "seconds": seconds})
    return rows


# --- the report -------------------------------------------------------------------------------------------------------


def report(values: dict[str, Any]) -> list[str]:
    """All of it as Markdown."""
    where, epochs = values["where"], values["epochs"]
    lines = record.heading("Annealing", COMMAND, where)
    note = (
        f"{values['dataset']}, {values['treatment']}; {SMALL_UNITS} hidden units, {epochs} epochs, batch 100, seed 0. "
        f"log Z by {CHAINS} chains with its 95 % interval, and by enumeration. Test: mean nats of {values['count']:,} "
        "images, standard error over images, with the true log Z, and as the estimate would have it."
    )
    columns = ["machine", "temperatures", "log Z, annealed", "true", "error", "in the interval", "test",
               "by the estimate", "spread of log w", "effective chains", "s"]  # fmt: skip
    cells = [
        [row["machine"], f"{row['temperatures']:,}", _interval(row), f"{row['true']:.2f}",
         f"{row['value'] - row['true']:+.3f}", "yes" if row["covered"] else "**no**",
         f"{row['test']:.2f} ± {row['standard_error']:.2f}", f"{row['test_by_estimate']:.2f}", f"{row['spread']:.2f}",
         f"{row['effective_sample_size']:.0f}", f"{row['seconds']:.1f}"]
        for row in values["small"]
    ]  # fmt: skip
    lines += record.section("True against annealed", note, columns, cells)
    return lines + _large_section(values) + _sides_section(values) + _enumeration_section(values)


def _large_section(values: dict[str, Any]) -> list[str]:
    note = (
        "Too large to enumerate, trained by persistent CD. Doubt: what the estimate says against itself. Goal: 14,501 "
        f"temperatures and {CHAINS} chains of 784 x 500 in {GOALS['anneal']:.0f} s on two cores (annealing alone)."
    )
    columns = ["machine", "temperatures", "log Z", "test", "spread of log w", "effective chains", "s", "doubt"]
    cells = [
        [row["machine"], f"{row['temperatures']:,}", _interval(row), f"{row['test']:.2f} ± {row['standard_error']:.2f}",
         f"{row['spread']:.2f}", f"{row['effective_sample_size']:.0f}", f"{row['seconds']:.1f}", row["doubt"] or "none"]
        for row in values["large"]
    ]  # fmt: skip
    return record.section("A large machine", note, columns, cells)


def _sides_section(values: dict[str, Any]) -> list[str]:
    note = (
        f"{REPORT_TEMPERATURES:,} temperatures, {CHAINS} chains, the first {REPORT_IMAGES} test images with 10 chains "
        "each. Forwards errs low. Backwards starts at ends of long chains, so it is not a bound. Optimistic: -E(x) "
        "less log Z forwards. Conservative: annealing backwards from each image (RAISE), a lower bound for where the "
        "chains forwards end."
    )
    columns = ["machine", "log Z forwards", "backwards (not a bound)", "optimistic", "conservative", "gap", "s"]
    cells = [
        [row["machine"], f"{row['forwards']:.2f}", f"{row['backwards']:.2f}", f"{row['optimistic']:.2f}",
         f"{row['conservative']:.2f}", f"{row['gap']:.2f}", f"{row['seconds']:.1f}"]
        for row in values["sides"]
    ]  # fmt: skip
    return record.section("From both sides", note, columns, cells)


def _enumeration_section(values: dict[str, Any]) -> list[str]:
    note = f"Random machines; goal {GOALS['enumerate']:.0f} s each on two cores."
    cells = [[str(row["pixels"]), str(row["units"]), f"{row['seconds']:.1f}"] for row in values["enumeration"]]
    return record.section("Enumeration", note, ["pixels", "hidden units", "s"], cells)


def _interval(row: dict[str, Any]) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def main(
    dataset: Annotated[str, typer.Option(help="A data set of binary images, or one that is thresholded.")] = (
        "binarized_mnist"
    ),
    epochs: Annotated[int, typer.Option(help="Of every machine.", min=1)] = 10,
    hidden_units: Annotated[int, typer.Option(help="Of the large machine.", min=1)] = 500,
    folder: Annotated[Path, typer.Option(help="where annealing.md and annealing.json go")] = record.RESULTS,
) -> None:
    """Train, enumerate, anneal."""
    data = load_dataset(dataset)
    treatment = treatment_for(None, data.levels, "binary")
    images = evaluation_images(data.splits["test"], treatment)
    values: dict[str, Any] = {
        "where": record.circumstances(), "dataset": data.name, "treatment": treatment.label, "epochs": epochs,
        "count": len(images), "small": [], "sides": [], "enumeration": enumeration_times(),
    }  # fmt: skip
    for k in LEARNERS:
        model = trained(data, treatment, epochs, hidden_units=SMALL_UNITS, steps=k, persistent=False)
        values["small"] += true_against_annealed(model, f"CD-{k}, {SMALL_UNITS} hidden", images)
    model, label = trained(data, treatment, epochs, hidden_units=hidden_units), f"PCD-1, {hidden_units} hidden"
    values["large"] = without_truth(model, label, images)
    values["sides"].append(from_both_sides(model, label, images))
    record.keep("annealing", report(values), values, folder)


if __name__ == "__main__":
    typer.run(main)

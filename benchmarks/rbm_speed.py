"""How fast a restricted Boltzmann machine learns here and in scikit-learn, and what both have learnt in equal epochs.

    python benchmarks/rbm_speed.py [--threads 2] [--rounds 15]     the speed, about two minutes
    python benchmarks/rbm_speed.py --likelihood --epochs 10        log-likelihoods too: minutes; the speed is kept

Prints benchmarks/results/rbm_speed.md and writes it, with the same numbers as rbm_speed.json beside it. Both machines
have 784 visible and 500 hidden units in float32 and learn by persistent contrastive divergence, 100 chains and one
Gibbs step for each batch of 100 images. Beside them: every phase of training a deep belief network and a deep Boltzmann
machine. Images are those of binarised MNIST (GDM_DATA says where); without them only the speed is measured, on random
ones. Everything that is timed takes turns in a process of its own (turns.py).
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import rbm_contestants as rbm
import record
import torch
import typer
from arithmetic import matrix_rate, share_of_rate
from torch import Tensor
from turns import Turns

from gdm_core.contract import GenerativeModel
from gdm_core.likelihoods import Likelihood, likelihood
from gdm_core.training import train

PRODUCTS = 5  # of batch, pixels and hidden units: all that one step of either needs
DEEP_STEPS = 20  # of a deep machine's phase in a turn: up to ten times the arithmetic
NAME = "rbm_speed"


# --- speed -------------------------------------------------------------------------------------------------------


def measure(images: Tensor, rounds: int) -> dict[str, Any]:
    """Images per second of each, in turns; ratios within each round; the machine's rate in the same rounds."""
    speeds: dict[str, list[float]] = {}
    flat = (rbm.OURS, rbm.THEIRS, rbm.LOOP)
    with Turns(rbm.contestants(images), torch.get_num_threads()) as turns:
        names = list(turns.contestants)
        for name in names:
            turns.seconds(name, 2)  # the first steps set up what later ones use
        rates = []
        for _ in range(rounds):
            rates.append(matrix_rate("cpu"))
            names = [*names[1:], names[0]]  # no place in the order is anybody's for good
            for name in names:
                steps = rbm.SLICE_STEPS if name in flat else DEEP_STEPS
                speeds.setdefault(name, []).append(steps * rbm.BATCH / turns.seconds(name, steps))
    ratios = {
        name: record.spread([a / b for a, b in zip(speeds[name], speeds[rbm.THEIRS], strict=True)])
        for name in (rbm.OURS, rbm.LOOP)
    }
    cost, rate = PRODUCTS * rbm.SHAPE[1] * rbm.SHAPE[2] * rbm.HIDDEN, statistics.median(rates)
    return {
        "images_per_second": {name: record.spread(speeds[name]) for name in turns.contestants}, "ratio": ratios,
        "share_of_matrix_rate": {
            name: share_of_rate(cost, statistics.median(speeds[name]), rate) for name in flat
        },
        "matrix_gflops": record.spread(rates), "rounds": rounds,
        "real_images": len(images) != rbm.SLICE_STEPS * rbm.BATCH,
    }  # fmt: skip


# --- likelihood --------------------------------------------------------------------------------------------------


def learnt(images: dict[str, Tensor], epochs: int, temperatures: int) -> dict[str, Any]:
    """Test log-likelihoods of both after equal epochs, by annealing in our machine, and how long they learnt."""
    ours, rows = rbm.machine(), []
    begin = time.perf_counter()
    for _ in train(ours, rbm.Images(images["train"]), rbm.config(epochs)):
        pass
    rows.append({"name": rbm.OURS, "seconds": time.perf_counter() - begin, **_annealed(ours, images, temperatures)})
    other, flat = rbm.theirs(epochs), images["train"].flatten(1).numpy()
    begin = time.perf_counter()
    other.fit(flat)
    seconds = time.perf_counter() - begin
    rows.append({"name": rbm.THEIRS, "seconds": seconds, **_annealed(rbm.loaded(other, ours), images, temperatures)})
    return {"epochs": epochs, "temperatures": temperatures, "rows": rows}


def _annealed(model: GenerativeModel, images: dict[str, Tensor], temperatures: int) -> dict[str, Any]:
    found: Likelihood = likelihood(model, images["test"], temperatures=temperatures, chains=100)
    log_z = found.log_partition
    return {
        "test": found.mean, "standard_error": found.standard_error, "kind": found.kind, "log_z": log_z.value,
        "log_z_interval": [log_z.low, log_z.high], "effective_sample_size": log_z.effective_sample_size,
        "doubt": log_z.doubt,
    }  # fmt: skip


# --- the report --------------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> list[str]:
    lines = ["# Learning a restricted Boltzmann machine, beside scikit-learn", ""]
    lines.append(f"Made by `python benchmarks/{NAME}.py`; each section says when and where.")
    if speed := found.get("speed"):
        spreads, ratios, shares = speed["images_per_second"], speed["ratio"], speed["share_of_matrix_rate"]
        lines += record.section("Speed", _speed_note(speed), ("", "images/s", "times scikit-learn", "share"), [
            (name, record.spread_text(spreads[name], 1), record.spread_text(ratios.get(name), 1), f"{share:.0%}")
            for name, share in shares.items()
        ])  # fmt: skip
        lines += record.section("Deep machines", DEEP_NOTE, ("", "images/s"), [
            (name, record.spread_text(spread, 1)) for name, spread in spreads.items() if name not in shares
        ])  # fmt: skip
    if learning := found.get("likelihood"):
        columns = ("", "test log p(x), nats", "log Z", "chains that count", "seconds of learning")
        lines += record.section("What has been learnt", _likelihood_note(learning), columns, [
            (row["name"], f"{row['test']:.2f} ± {row['standard_error']:.2f}",
             f"{row['log_z']:.2f} [{row['log_z_interval'][0]:.2f}, {row['log_z_interval'][1]:.2f}]",
             f"{row['effective_sample_size']:.0f} of 100", f"{row['seconds']:.0f}")
            for row in learning["rows"]
        ])  # fmt: skip
        lines += ["", *(f"{row['name']}: {row['doubt']}" for row in learning["rows"] if row["doubt"])]
    return lines


DEEP_NOTE = (
    f"Each phase of their training, in the same rounds as the machines above, {DEEP_STEPS} steps in a turn: layers are "
    "learnt one after another, then all together. The same batches, as many chains, one Gibbs step."
)


def _where(found: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in found["where"].items())


def _speed_note(speed: dict[str, Any]) -> str:
    kind = "binarised MNIST" if speed["real_images"] else "random images"
    return (
        f"{_where(speed)}. Persistent contrastive divergence, 784-{rbm.HIDDEN}, {rbm.BATCH} chains, one Gibbs step, "
        f"batches of {rbm.BATCH} ({kind}), float32. Medians over {speed['rounds']} rounds of {rbm.SLICE_STEPS} steps "
        "each in turns, with the lowest and the highest; each in a process of its own while the others wait; ratios "
        "are taken within a round. A step of ours also computes the numbers that are logged; the training loop also "
        "draws the batches, shuffled. Share: of the rate at which this machine "
        f"multiplied matrices ({record.spread_text(speed['matrix_gflops'], 1)} GFLOP/s), by the {PRODUCTS} products "
        "that a step of either consists of."
    )


def _likelihood_note(learning: dict[str, Any]) -> str:
    return (
        f"{_where(learning)}. After {learning['epochs']} epochs of binarised MNIST at a learning rate of {rbm.RATE} "
        "(ours falls linearly to 0, scikit-learn's is constant and its batches are never shuffled). Estimates on all "
        f"test images by our annealing, 100 chains, {learning['temperatures']} temperatures: on average too good. "
        "± is the standard error over images; the interval of log Z is its 95 % one."
    )


def main(
    rounds: Annotated[int, typer.Option(help="turns of each")] = 15,
    threads: Annotated[int | None, typer.Option(help="torch's threads; its own choice if not named")] = None,
    compare: Annotated[bool, typer.Option("--likelihood", help="compare what is learnt, not the speed")] = False,
    epochs: Annotated[int, typer.Option(help="for the comparison of likelihoods")] = 10,
    temperatures: Annotated[int, typer.Option(help="of its annealing")] = 10_000,
    folder: Annotated[Path, typer.Option(help="where rbm_speed.md and rbm_speed.json go")] = record.RESULTS,
) -> None:
    """Time learning against scikit-learn's BernoulliRBM on this machine, or compare what is learnt."""
    torch.set_num_threads(threads or torch.get_num_threads())
    images, where = rbm.binarised_mnist(), record.circumstances(packages=("torch", "scikit-learn", "numpy"))
    found = record.read(NAME, folder)
    if compare:
        if images is None:
            raise typer.BadParameter("--likelihood needs binarised MNIST")
        found["likelihood"] = {**learnt(images, epochs, temperatures), "where": where}
    else:
        data = rbm.random_images() if images is None else images["train"]
        found["speed"] = {**measure(data, rounds), "where": where}
    record.keep(NAME, report(found), found, folder)


if __name__ == "__main__":
    typer.run(main)

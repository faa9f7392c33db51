"""How fast a restricted Boltzmann machine learns here and in scikit-learn, and what both have learnt in equal epochs.

    python benchmarks/rbm_speed.py [--threads 2] [--rounds 15]     the speed, about half a minute
    python benchmarks/rbm_speed.py --likelihood --epochs 10        log-likelihoods too: minutes; the speed is kept

Prints benchmarks/results/rbm_speed.md and writes it, with the same numbers as rbm_speed.json beside it. Both machines
have 784 visible and 500 hidden units in float32 and learn by persistent contrastive divergence, 100 chains and one
Gibbs step for each batch of 100 images. Images are those of binarised MNIST (GDM_DATA says where); without them only
the speed is measured, on random ones.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import record
import torch
import typer
from arithmetic import matrix_rate, share_of_rate
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

import gdm_core
from gdm_core.contract import Batch, GenerativeModel, TrainingConfig
from gdm_core.data import DataError, evaluation_images, load_dataset, treatment_for
from gdm_core.likelihoods import Likelihood, likelihood
from gdm_core.randomness import seeded_generator
from gdm_core.training import train

SHAPE, HIDDEN, BATCH, RATE = (1, 28, 28), 500, 100, 0.05
PRODUCTS = 5  # of batch, pixels and hidden units: all that one step of either needs
SLICE_STEPS = 20  # learning steps of each in a turn
OURS, THEIRS, LOOP = "ours", "scikit-learn", "ours, in the training loop"
NAME = "rbm_speed"


@dataclass(frozen=True)
class Images:
    """Binary images in memory, as the loop takes them."""

    images: Tensor  # (N, 1, 28, 28)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows])


def binarised_mnist() -> dict[str, Tensor] | None:
    """Training and test images, where they are at hand."""
    try:
        dataset = load_dataset("binarized_mnist")
    except DataError as error:
        typer.echo(f"random images, since there is no binarised MNIST: {error}")
        return None
    treatment = treatment_for("threshold", dataset.levels, "binary")
    return {split: evaluation_images(dataset.splits[split], treatment) for split in ("train", "test")}


def machine() -> GenerativeModel:
    torch.manual_seed(0)
    return gdm_core.build_model("rbm", SHAPE, hidden_units=HIDDEN, steps=1, chains=BATCH)


def config(epochs: int) -> TrainingConfig:
    return TrainingConfig(epochs=epochs, batch_size=BATCH, learning_rate=RATE)


def theirs(epochs: int) -> BernoulliRBM:
    return BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=BATCH, n_iter=epochs, random_state=0)


# --- speed -------------------------------------------------------------------------------------------------------


def contestants(images: Tensor) -> dict[str, Callable[[], object]]:
    """What does one learning step of each; scikit-learn's is what its `fit` does with a batch."""
    batches = [Batch(part) for part in images.split(BATCH)]
    flat = [part.images.flatten(1).numpy() for part in batches]
    update = next(machine().training_phases(config(1))).update
    other, random = theirs(1).fit(np.concatenate(flat)), np.random.RandomState(0)
    looped = machine()
    loop = train(looped, Images(images), replace(config(1), epochs=1_000_000))
    turn = {OURS: 0, THEIRS: 0}

    def following(name: str) -> int:
        turn[name] = (turn[name] + 1) % len(batches)
        return turn[name]

    assert flat[0].dtype == other.components_.dtype == np.float32
    return {
        OURS: lambda: update(batches[following(OURS)]),
        THEIRS: lambda: other._fit(flat[following(THEIRS)], random),
        LOOP: lambda: next(loop),
    }


def measure(images: Tensor, rounds: int) -> dict[str, Any]:
    """Images per second of each, in turns; their ratios within each round; the machine's rate in the same rounds."""
    steps = contestants(images)
    speeds, rates = {name: [] for name in steps}, []
    for step in steps.values():
        _speed(step)  # the first turn sets up what later ones use
    for _ in range(rounds):
        rates.append(matrix_rate("cpu"))
        for name, step in steps.items():
            speeds[name].append(_speed(step))
    ratios = {
        name: record.spread([a / b for a, b in zip(speeds[name], speeds[THEIRS], strict=True)])
        for name in (OURS, LOOP)
    }
    cost = PRODUCTS * SHAPE[1] * SHAPE[2] * HIDDEN
    shares = {name: share_of_rate(cost, statistics.median(speeds[name]), statistics.median(rates)) for name in speeds}
    return {
        "images_per_second": {name: record.spread(values) for name, values in speeds.items()}, "ratio": ratios,
        "share_of_matrix_rate": shares, "matrix_gflops": record.spread(rates), "rounds": rounds,
        "real_images": len(images) != SLICE_STEPS * BATCH,
    }  # fmt: skip


def _speed(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(SLICE_STEPS):
        step()
    return SLICE_STEPS * BATCH / (time.perf_counter() - begin)


# --- likelihood --------------------------------------------------------------------------------------------------


def learnt(images: dict[str, Tensor], epochs: int, temperatures: int) -> dict[str, Any]:
    """Test log-likelihoods of both after equal epochs, by annealing in our machine, and how long they learnt."""
    ours, rows = machine(), []
    begin = time.perf_counter()
    for _ in train(ours, Images(images["train"]), config(epochs)):
        pass
    rows.append({"name": OURS, "seconds": time.perf_counter() - begin, **_annealed(ours, images, temperatures)})
    other, flat = theirs(epochs), images["train"].flatten(1).numpy()
    begin = time.perf_counter()
    other.fit(flat)
    seconds = time.perf_counter() - begin
    rows.append({"name": THEIRS, "seconds": seconds, **_annealed(loaded(other, ours), images, temperatures)})
    return {"epochs": epochs, "temperatures": temperatures, "rows": rows}


def loaded(other: BernoulliRBM, ours: GenerativeModel) -> GenerativeModel:
    """A machine of ours with scikit-learn's parameters; where its annealing starts is a matter of the images alone."""
    model = machine()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(np.ascontiguousarray(other.components_)))
        model.hidden_bias.copy_(torch.from_numpy(other.intercept_hidden_))
        model.visible_bias.copy_(torch.from_numpy(other.intercept_visible_))
        model.base_visible_bias.copy_(ours.base_visible_bias)
    return model


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
        lines += record.section("Speed", _speed_note(speed), ("", "images/s", "times scikit-learn", "share"), [
            (name, record.spread_text(spread, 1), record.spread_text(speed["ratio"].get(name), 1),
             f"{speed['share_of_matrix_rate'][name]:.0%}")
            for name, spread in speed["images_per_second"].items()
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


def _where(found: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in found["where"].items())


def _speed_note(speed: dict[str, Any]) -> str:
    kind = "binarised MNIST" if speed["real_images"] else "random images"
    return (
        f"{_where(speed)}. Persistent contrastive divergence, 784-{HIDDEN}, {BATCH} chains, one Gibbs step, batches of "
        f"{BATCH} ({kind}), float32. Medians over {speed['rounds']} rounds of {SLICE_STEPS} steps each in turns, with "
        "the lowest and the highest; ratios are taken within a round. A step of ours also computes the numbers that "
        "are logged; the training loop also draws the batches, shuffled. Share: of the rate at which this machine "
        f"multiplied matrices ({record.spread_text(speed['matrix_gflops'], 1)} GFLOP/s), by the {PRODUCTS} products "
        "that a step of either consists of."
    )


def _likelihood_note(learning: dict[str, Any]) -> str:
    return (
        f"{_where(learning)}. After {learning['epochs']} epochs of binarised MNIST at a learning rate of {RATE} (ours "
        "falls linearly to 0, scikit-learn's is constant and its batches are never shuffled). Estimates on all test "
        f"images by our annealing, 100 chains, {learning['temperatures']} temperatures: on average too good. "
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
    images, where = binarised_mnist(), record.circumstances(packages=("torch", "scikit-learn", "numpy"))
    found = record.read(NAME, folder)
    if compare:
        if images is None:
            raise typer.BadParameter("--likelihood needs binarised MNIST")
        found["likelihood"] = {**learnt(images, epochs, temperatures), "where": where}
    else:
        noise = torch.rand(SLICE_STEPS * BATCH, *SHAPE, generator=seeded_generator(0, "rbm speed"))
        data = (noise < 0.13).float() if images is None else images["train"]
        found["speed"] = {**measure(data, rounds), "where": where}
    record.keep(NAME, report(found), found, folder)


if __name__ == "__main__":
    typer.run(main)

"""How fast every registered model trains and samples on this machine, beside what the machine itself can do.

    python benchmarks/speed.py [--threads 2] [--device cpu]        about two minutes

Prints benchmarks/results/speed.md and writes it, with the same numbers as speed.json beside it. Every model is built at
8x8 (its defaults) and at 28x28 (sizes from the papers), and trained by the loop that trains everything, on random
images kept in memory. What is compared is measured in turns, in many short rounds: each row is a median over rounds, so
that a slow moment of the machine falls on all rows alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import record
import torch
import typer
from incremental_sampling import measure_plain, plain_section
from torch import Tensor

import gdm_core
from gdm_core.contract import Batch, GenerativeModel, Samples, TrainingConfig, has
from gdm_core.randomness import seeded_generator
from gdm_core.training import Progress, train

SMALL, LARGE = (1, 8, 8), (1, 28, 28)
IMAGES = 2000  # random ones, in memory
SAMPLES = 64
ROUNDS = 5
SLICE, SAMPLING_SLICE = 0.4, 0.05  # seconds of each a round, at least one step or one call
MATRIX = 2048
COMMAND = "python benchmarks/speed.py"


@dataclass(frozen=True)
class Case:
    """A model to time: its shape, what its constructor is told, and the batch size."""

    model: str
    shape: tuple[int, int, int]
    arguments: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None  # None: the model's default


PAPER_SIZES = {  # at 28x28; the first two as in pytorch-generative, the third as scikit-learn's BernoulliRBM with CD-1
    "nade": ({"hidden_units": 500}, 128),
    "pixel_cnn": ({"blocks": 15, "channels": 16}, 64),
    "rbm": ({"hidden_units": 500, "persistent": False}, 100),
    "vae": ({"hidden_units": 200, "latent_units": 50}, 100),
    "dcgan": ({}, 128),
}


class RandomImages:
    """Random images as a model takes them (binary, half of them on, or real), ready in memory."""

    def __init__(self, model: GenerativeModel, device: str) -> None:
        x = torch.rand(IMAGES, *model.data_shape, generator=seeded_generator(0, "speed"))
        self.images = (x if model.pixels == "real" else x.round()).to(device)

    def __len__(self) -> int:
        return IMAGES

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows.to(self.images.device)])


class Timed:
    """A case under way: training goes on from round to round."""

    def __init__(self, case: Case, device: str) -> None:
        torch.manual_seed(0)
        self.case, self.device = case, device
        self.model = gdm_core.build_model(case.model, case.shape, **case.arguments).to(device)
        default = self.model.default_training
        self.config = replace(default, batch_size=case.batch_size or default.batch_size, device=device)
        self.steps = training_steps(self.model, RandomImages(self.model, device), self.config)
        self.training: list[float] = []  # images per second
        self.sampling: list[float] = []  # seconds for SAMPLES images

    def train_a_while(self, seconds: float) -> float:
        """Images per second over whole steps."""
        images, begin = 0, self._now()
        while images == 0 or time.perf_counter() - begin < seconds:
            progress = next(self.steps)
            images += progress.images - (progress.step - 1) * self.config.batch_size  # an epoch's last batch is smaller
        return images / (self._now() - begin)

    def sample(self) -> float:
        """Seconds for SAMPLES images, in eval mode; the mean of several where that is quick."""
        self.model.eval()
        times, begin = 0, self._now()
        while times == 0 or time.perf_counter() - begin < SAMPLING_SLICE:
            self.model.sample(SAMPLES, generator=seeded_generator(0, "speed", device=self.device))
            times += 1
        return (self._now() - begin) / times

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


def training_steps(model: GenerativeModel, data: RandomImages, config: TrainingConfig) -> Iterator[Progress]:
    """Steps without end: a model that trains for one epoch only is trained again."""
    while True:
        yield from train(model, data, replace(config, epochs=10_000))


def cases() -> list[Case]:
    """Every registered model at both sizes."""
    names = gdm_core.list_models()
    large = [Case(name, LARGE, *PAPER_SIZES.get(name, ({}, None))) for name in names]
    return [Case(name, SMALL) for name in names] + large


def matrix_rate(device: str) -> float:
    """GFLOP/s of one float32 product of two 2048 x 2048 matrices: 2 n^3 operations."""
    a = torch.rand(MATRIX, MATRIX, device=device)
    product = a @ a  # what the first one sets up is not the machine's rate
    if device != "cpu":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    torch.matmul(a, a, out=product)
    if device != "cpu":
        torch.cuda.synchronize()
    return 2 * MATRIX**3 / (time.perf_counter() - begin) / 1e9


def measure(device: str) -> tuple[list[dict[str, Any]], list[float]]:
    """A row per case, and the machine's rate in every round."""
    timed, rates = [Timed(case, device) for case in cases()], []
    for one in timed:
        next(one.steps)  # the first step and the first sample set up what later ones use
        one.sample()
    for _ in range(ROUNDS):
        rates.append(matrix_rate(device))
        for one in timed:
            one.training.append(one.train_a_while(SLICE))
            if has(one.model, Samples):
                one.sampling.append(one.sample())
    return [_row(one) for one in timed], rates


def _row(one: Timed) -> dict[str, Any]:
    return {
        "model": one.case.model, "data_shape": list(one.case.shape), "arguments": one.model.arguments,
        "batch_size": one.config.batch_size, "parameters": sum(p.numel() for p in one.model.parameters()),
        "training_images_per_second": record.spread(one.training), "sampling_seconds": record.spread(one.sampling),
    }  # fmt: skip


def training_section(rows: list[dict[str, Any]], rates: list[float], device: str) -> list[str]:
    rate = record.spread(rates)
    note = (
        f"Medians over {ROUNDS} rounds taken in turns, with the lowest and the highest. Training: images/s of whole "
        f"learning steps in float32, at least {SLICE} s a round, on {IMAGES} random images in memory (binary, or real "
        f"for models of real pixels). Sampling: ms for one call that draws {SAMPLES} images. "
        "Random weights and images, seed 0. In the "
        f"same rounds this machine multiplied {MATRIX} x {MATRIX} matrices in float32 at {rate['median']:.0f} GFLOP/s "
        f"[{rate['low']:.0f}, {rate['high']:.0f}], on {device} with {torch.get_num_threads()} threads."
    )
    columns = ["model", "images", "sizes", "batch", "parameters", "training, images/s", f"{SAMPLES} samples, ms"]
    return record.section("Training and sampling", note, columns, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    sizes = ", ".join(f"{key} {value}" for key, value in PAPER_SIZES.get(row["model"], ({}, 0))[0].items())
    large = tuple(row["data_shape"]) == LARGE
    return [
        row["model"], record.size_text(row["data_shape"]), sizes if large and sizes else "defaults",
        str(row["batch_size"]), f"{row['parameters']:,}", record.spread_text(row["training_images_per_second"], 1),
        record.spread_text(row["sampling_seconds"], 1000),
    ]  # fmt: skip


def main(
    threads: Annotated[int | None, typer.Option(help="torch's threads; its own choice if not named")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Time every registered model on this machine."""
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no GPU here")
    torch.set_num_threads(threads or torch.get_num_threads())
    where, begin = record.circumstances(device), time.perf_counter()
    rows, rates = measure(device)
    plain = measure_plain([(SMALL, {}), (LARGE, PAPER_SIZES["pixel_cnn"][0])], device)
    seconds = time.perf_counter() - begin
    lines = record.heading("Speed", COMMAND, where) + [f"Took {seconds:.0f} s."]
    values = {**where, "seconds": seconds, "matrix_gflops": record.spread(rates), "models": rows, "pixel_cnn": plain}
    name = "speed" if device == "cpu" else f"speed-{device}"
    record.keep(name, lines + training_section(rows, rates, where["device"]) + plain_section(plain), values)


if __name__ == "__main__":
    typer.run(main)

"""How fast every registered model trains and samples on this machine, beside what the machine itself can do.

    python benchmarks/speed.py [--threads 2] [--device cpu]        every model, about ten minutes
    python benchmarks/speed.py --models nade,pixel_cnn             some: the rows of the others stay as they were
    python benchmarks/speed.py --device cuda                       speed-cuda.md: also a thousand images by a CUDA graph

Prints benchmarks/results/speed.md and writes it, with the same numbers as speed.json beside it. Every model is built at
8x8 (its defaults) and at 28x28 (sizes from the papers), and trained by the loop that trains everything, on random
images kept in memory. What is compared is measured in turns, in many short rounds: each row is a median over rounds, so
that a slow moment of the machine falls on all rows alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import record
import torch
import typer
from arithmetic import MATRIX, learning_step_cost, matrix_rate
from incremental_sampling import graphs_section, measure_graphs, measure_plain, plain_section, settle
from speed_table import models_section, peers_section
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
COMMAND = "python benchmarks/speed.py"


@dataclass(frozen=True)
class Case:
    """A model to time: its shape, what its constructor is told, and the batch size."""

    model: str
    shape: tuple[int, int, int]
    arguments: dict[str, Any] = field(default_factory=dict)
    batch_size: int | None = None  # None: the model's default


PAPER_SIZES = {  # at 28x28; the first four as in pytorch-generative, the fifth as scikit-learn's BernoulliRBM with CD-1
    "nade": ({"hidden_units": 500}, 128),
    "made": ({}, 128),
    "pixel_cnn": ({"blocks": 15, "channels": 16}, 64),
    "gated_pixel_cnn": ({"blocks": 10, "channels": 128}, 16),
    "rbm": ({"hidden_units": 500, "persistent": False}, 100),
    "vae": ({"hidden_units": 200, "latent_units": 50}, 100),
    "dcgan": ({}, 128),
}
PLAIN = [  # what is sampled the plain way too
    ("pixel_cnn", SMALL, {}),
    ("pixel_cnn", LARGE, PAPER_SIZES["pixel_cnn"][0]),
    ("gated_pixel_cnn", SMALL, {}),
    ("gated_pixel_cnn", LARGE, {}),
]
GRAPHS = [("pixel_cnn", LARGE, PAPER_SIZES["pixel_cnn"][0])]  # what a GPU draws a thousand images of


class RandomImages:
    """Random images as a model takes them (binary, half of them on; levels; or real), ready in memory."""

    def __init__(self, model: GenerativeModel, device: str) -> None:
        x = torch.rand(IMAGES, *model.data_shape, generator=seeded_generator(0, "speed"))
        steps = None if model.pixels == "real" else model.levels - 1
        self.images = (x if steps is None else (x * steps).round() / steps).to(device)

    def __len__(self) -> int:
        return IMAGES

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows.to(self.images.device)], rows % 10)  # classes, for models that learn from them


class Timed:
    """A case under way: training goes on from round to round."""

    def __init__(self, case: Case, device: str) -> None:
        torch.manual_seed(0)
        self.case, self.device = case, device
        self.model = gdm_core.build_model(case.model, case.shape, **case.arguments).to(device)
        default = self.model.default_training
        self.config = replace(default, batch_size=case.batch_size or default.batch_size, device=device)
        self.steps = training_steps(self.model, RandomImages(self.model, device), self.config)
        next(self.steps)  # the first step sets up what later ones use
        self.cost, self.counted = learning_step_cost(self.model, self.steps, self.config)
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
        settle(self.model, SAMPLES, self.device)  # models take turns, and only the last one's graph is kept
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


def cases(models: list[str]) -> list[Case]:
    """These models at both sizes."""
    large = [Case(name, LARGE, *PAPER_SIZES.get(name, ({}, None))) for name in models]
    return [Case(name, SMALL) for name in models] + large


def measure(models: list[str], device: str, where: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per model and size, with the machine's rate in the same rounds."""
    timed, rates = [Timed(case, device) for case in cases(models)], []
    for one in timed:
        if has(one.model, Samples):
            one.sample()  # the first sample sets up what later ones use
    for _ in range(ROUNDS):
        rates.append(matrix_rate(device))
        for one in timed:
            one.training.append(one.train_a_while(SLICE))
            if has(one.model, Samples):
                one.sampling.append(one.sample())
    return [{**_row(one), "matrix_gflops": record.spread(rates), "where": where} for one in timed]


def _row(one: Timed) -> dict[str, Any]:
    return {
        "model": one.case.model, "data_shape": list(one.case.shape), "arguments": one.model.arguments,
        "sizes": ", ".join(f"{key} {value}" for key, value in one.case.arguments.items()),
        "batch_size": one.config.batch_size, "parameters": sum(p.numel() for p in one.model.parameters()),
        "training_images_per_second": record.spread(one.training), "sampling_seconds": record.spread(one.sampling),
        "multiply_adds_per_image": one.cost, "counted": one.counted,
    }  # fmt: skip


def report(rows: list[dict[str, Any]], plain: list[dict[str, Any]], graphs: list[dict[str, Any]]) -> list[str]:
    """The report of all rows there are, whenever they were measured."""
    note = (
        f"Medians over {ROUNDS} rounds taken in turns, with the lowest and the highest. Training: images/s of whole "
        f"learning steps in float32, at least {SLICE} s a round, on {IMAGES} random images in memory (of the pixels "
        f"that the model takes first). Samples: ms for one call that draws {SAMPLES} images. Weights and images are "
        "random, seed 0. Mult-adds: of one image's learning step, those that matrix products and convolutions did, "
        "masked weights included, or those that the formulas of a model without such products need; blank where "
        "nothing was counted. Share: of the rate at which this machine multiplied "
        f"{MATRIX} x {MATRIX} matrices in float32 in the same rounds (matrix GFLOP/s)."
    )
    lines = ["# Speed", "", f"Made by `{COMMAND}`; each row says when and where.", *models_section(rows, note)]
    lines += peers_section(rows, SAMPLES) + (plain_section(plain) if plain else [])
    return lines + (graphs_section(graphs) if graphs else [])


def main(
    models: Annotated[str | None, typer.Option(help="names with commas between them; all if none is named")] = None,
    threads: Annotated[int | None, typer.Option(help="torch's threads; its own choice if not named")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    folder: Annotated[Path, typer.Option(help="where speed.md and speed.json go")] = record.RESULTS,
) -> None:
    """Time models on this machine."""
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no GPU here")
    known = gdm_core.list_models()
    chosen = models.split(",") if models else known
    if unknown := set(chosen) - set(known):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    torch.set_num_threads(threads or torch.get_num_threads())
    name, where = "speed" if device == "cpu" else f"speed-{device}", record.circumstances(device)
    before = record.read(name, folder)
    rows = before.get("models", [])
    for row in measure(chosen, device, where):
        rows = record.with_row(rows, row, ("model", "data_shape"))
    rows = sorted((row for row in rows if row["model"] in known), key=lambda row: (row["data_shape"], row["model"]))
    plain = before.get("plain", [])
    for row in measure_plain([size for size in PLAIN if size[0] in chosen], device):
        plain = record.with_row(plain, row, ("model", "data_shape"))
    graphs = before.get("graphs", [])
    for row in measure_graphs([size for size in GRAPHS if size[0] in chosen], device):
        graphs = record.with_row(graphs, row, ("model", "data_shape"))
    record.keep(name, report(rows, plain, graphs), {"models": rows, "plain": plain, "graphs": graphs}, folder)


if __name__ == "__main__":
    typer.run(main)

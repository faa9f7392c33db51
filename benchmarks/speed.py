"""How fast every registered model trains and samples on this machine, beside what the machine itself can do.

    python benchmarks/speed.py [--threads 2] [--device cpu]        about two minutes

Prints benchmarks/results/speed.md and writes it, with the same numbers as speed.json beside it. Every model is built at
8x8 (its defaults) and at 28x28 (sizes from the papers), and trained by the loop that trains everything, on random
images kept in memory. What is compared is measured in turns, in many short rounds: each row is a median over rounds, so
that a slow moment of the machine falls on all rows alike.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import record
import torch
import typer
from torch import Tensor

import gdm_core
from gdm_core.contract import Batch, GenerativeModel, Samples, TrainingConfig, has
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.randomness import seeded_generator
from gdm_core.training import Progress, train

SMALL, LARGE = (1, 8, 8), (1, 28, 28)
IMAGES = 2000  # random ones, in memory
SAMPLES, PLAIN_SAMPLES = 64, 16
ROUNDS, PLAIN_ROUNDS = 5, 3
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
        "training_images_per_second": _spread(one.training), "sampling_seconds": _spread(one.sampling),
    }  # fmt: skip


def _spread(values: list[float]) -> dict[str, float] | None:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)} if values else None


@torch.no_grad()
def plain_sample(model: GenerativeModel, n: int, generator: torch.Generator) -> Tensor:
    """Sampling from a PixelCNN as published: the whole network on the whole image for every value."""
    uniforms = draw_uniforms(model, n, None, 1.0, generator)
    x = torch.zeros_like(uniforms)
    colours, height, width = model.data_shape
    for row, column, colour in itertools.product(range(height), range(width), range(colours)):
        place = (slice(None), colour, row, column)
        x[place] = model.distribution.sample(model.logits(x)[place], uniforms[place], 1.0)
    return x


def measure_plain(device: str) -> list[dict[str, Any]]:
    """PixelCNN's incremental sampling against the plain way, in turns, from the same noise."""
    rows = []
    for case in (Case("pixel_cnn", SMALL), Case("pixel_cnn", LARGE, PAPER_SIZES["pixel_cnn"][0])):
        torch.manual_seed(0)
        model = gdm_core.build_model(case.model, case.shape, **case.arguments).to(device).eval()
        rounds = [_one_plain_round(model, device) for _ in range(PLAIN_ROUNDS)]
        incremental, plain = ([one[way] for one in rounds] for way in ("incremental", "plain"))
        rows.append({
            "data_shape": list(case.shape), "arguments": model.arguments, "images": PLAIN_SAMPLES,
            "incremental_seconds": _spread(incremental), "plain_seconds": _spread(plain),
            "ratio": _spread([p / i for p, i in zip(plain, incremental, strict=True)]),
            "equal_pixels": statistics.mean(one["equal"] for one in rounds),
        })  # fmt: skip
    return rows


def _one_plain_round(model: GenerativeModel, device: str) -> dict[str, float]:
    def timed(draw: Callable[[torch.Generator], Tensor]) -> tuple[Tensor, float]:
        begin = time.perf_counter()
        x = draw(seeded_generator(0, "speed", device=device)).cpu()
        return x, time.perf_counter() - begin

    x, incremental = timed(lambda generator: model.sample(PLAIN_SAMPLES, generator=generator))
    y, plain = timed(lambda generator: plain_sample(model, PLAIN_SAMPLES, generator))
    return {"incremental": incremental, "plain": plain, "equal": (x == y).double().mean().item()}


def training_section(rows: list[dict[str, Any]], rates: list[float], device: str) -> list[str]:
    rate = _spread(rates)
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
        row["model"], _shape(row), sizes if large and sizes else "defaults", str(row["batch_size"]),
        f"{row['parameters']:,}", _text(row["training_images_per_second"], 1), _text(row["sampling_seconds"], 1000),
    ]  # fmt: skip


def plain_section(rows: list[dict[str, Any]]) -> list[str]:
    note = (
        f"{PLAIN_SAMPLES} images from the same noise, the two ways in turns, {PLAIN_ROUNDS} rounds: each pixel's new "
        "activations once, against the whole network on the whole image for every pixel. Equal: the share of pixels "
        "that come out the same in float32 (a draw that falls within rounding of its probability may differ)."
    )
    columns = ["images", "incremental, ms", "plain, ms", "plain / incremental", "equal"]
    cells = [
        [_shape(row), _text(row["incremental_seconds"], 1000), _text(row["plain_seconds"], 1000),
         _text(row["ratio"], 1), f"{row['equal_pixels']:.2%}"]
        for row in rows
    ]  # fmt: skip
    return record.section("PixelCNN: incremental sampling", note, columns, cells)


def _shape(row: dict[str, Any]) -> str:
    return "x".join(map(str, row["data_shape"][1:]))


def _text(spread: dict[str, float] | None, scale: float) -> str:
    if spread is None:
        return ""
    median, low, high = (_number(scale * spread[key]) for key in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


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
    plain = measure_plain(device)
    seconds = time.perf_counter() - begin
    lines = record.heading("Speed", COMMAND, where) + [f"Took {seconds:.0f} s."]
    values = {**where, "seconds": seconds, "matrix_gflops": _spread(rates), "models": rows, "pixel_cnn": plain}
    name = "speed" if device == "cpu" else f"speed-{device}"
    record.keep(name, lines + training_section(rows, rates, where["device"]) + plain_section(plain), values)


if __name__ == "__main__":
    typer.run(main)

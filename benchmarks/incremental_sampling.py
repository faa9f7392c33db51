"""Incremental sampling of the PixelCNNs against the plain way, for the speed benchmark."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import record
import torch
from torch import Tensor

import gdm_core
from gdm_core.contract import GenerativeModel
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.randomness import seeded_generator

SAMPLES, ROUNDS = 16, 3


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


def measure_plain(
    sizes: Sequence[tuple[str, tuple[int, int, int], dict[str, Any]]], device: str
) -> list[dict[str, Any]]:
    """A row for each (model, data shape, constructor arguments): the two ways in turns, from the same noise."""
    rows = []
    for name, shape, arguments in sizes:
        torch.manual_seed(0)
        model = gdm_core.build_model(name, shape, **arguments).to(device).eval()
        rounds = [_one_plain_round(model, device) for _ in range(ROUNDS)]
        incremental, plain = ([one[way] for one in rounds] for way in ("incremental", "plain"))
        rows.append({
            "model": name, "data_shape": list(shape), "arguments": model.arguments, "images": SAMPLES,
            "incremental_seconds": record.spread(incremental), "plain_seconds": record.spread(plain),
            "ratio": record.spread([p / i for p, i in zip(plain, incremental, strict=True)]),
            "equal_pixels": statistics.mean(one["equal"] for one in rounds),
        })  # fmt: skip
    return rows


def _one_plain_round(model: GenerativeModel, device: str) -> dict[str, float]:
    def timed(draw: Callable[[torch.Generator], Tensor]) -> tuple[Tensor, float]:
        begin = time.perf_counter()
        x = draw(seeded_generator(0, "speed", device=device)).cpu()
        return x, time.perf_counter() - begin

    x, incremental = timed(lambda generator: model.sample(SAMPLES, generator=generator))
    y, plain = timed(lambda generator: plain_sample(model, SAMPLES, generator))
    return {"incremental": incremental, "plain": plain, "equal": (x == y).double().mean().item()}


def plain_section(rows: list[dict[str, Any]]) -> list[str]:
    note = (
        f"{SAMPLES} images from the same noise, the two ways in turns, {ROUNDS} rounds: each pixel's new "
        "activations once, against the whole network on the whole image for every pixel. Equal: the share of pixels "
        "that come out the same in float32 (a draw that falls within rounding of its probability may differ)."
    )
    columns = ["model", "images", "incremental, ms", "plain, ms", "plain / incremental", "equal"]
    cells = [
        [row["model"], record.size_text(row["data_shape"]), record.spread_text(row["incremental_seconds"], 1000),
         record.spread_text(row["plain_seconds"], 1000), record.spread_text(row["ratio"], 1),
         f"{row['equal_pixels']:.2%}"]
        for row in rows
    ]  # fmt: skip
    return record.section("PixelCNNs: incremental sampling", note, columns, cells)

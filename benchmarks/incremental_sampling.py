"""Incremental sampling of the PixelCNNs against the plain way, and on a GPU by a graph, for the speed benchmark."""

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
from gdm_core.layers.raster_sampling import last
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.randomness import seeded_generator

SAMPLES, ROUNDS = 16, 3
GRAPH_SAMPLES, GRAPH_GOAL = 1000, 5.0  # images in one call, and the seconds within which they are wanted

Size = tuple[str, tuple[int, int, int], dict[str, Any]]  # model, data shape, constructor arguments


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


def measure_plain(sizes: Sequence[Size], device: str) -> list[dict[str, Any]]:
    """A row for each size: the two ways in turns, from the same noise."""
    rows = []
    for name, shape, arguments in sizes:
        torch.manual_seed(0)
        model = gdm_core.build_model(name, shape, **arguments).to(device).eval()
        settle(model, SAMPLES, device)
        rounds = [_one_plain_round(model, device) for _ in range(ROUNDS)]
        incremental, plain = ([one[way] for one in rounds] for way in ("incremental", "plain"))
        rows.append({
            "model": name, "data_shape": list(shape), "arguments": model.arguments, "images": SAMPLES,
            "incremental_seconds": record.spread(incremental), "plain_seconds": record.spread(plain),
            "ratio": record.spread([p / i for p, i in zip(plain, incremental, strict=True)]),
            "equal_pixels": statistics.mean(one["equal"] for one in rounds),
        })  # fmt: skip
    return rows


def settle(model: GenerativeModel, n: int, device: str) -> float:
    """On a GPU draw n images twice, once to warm up and once to record a graph; seconds that the recording took."""
    seconds = 0.0
    for _ in range(0 if device == "cpu" else 2):
        _, seconds = _timed(lambda generator: model.sample(n, generator=generator), device)
    return seconds


def _timed(draw: Callable[[torch.Generator], Tensor], device: str) -> tuple[Tensor, float]:
    """What was drawn from the same noise as ever, on the host, and the seconds until it was there."""
    begin = time.perf_counter()
    x = draw(seeded_generator(0, "speed", device=device)).cpu()
    return x, time.perf_counter() - begin


def _one_plain_round(model: GenerativeModel, device: str) -> dict[str, float]:
    x, incremental = _timed(lambda generator: model.sample(SAMPLES, generator=generator), device)
    y, plain = _timed(lambda generator: plain_sample(model, SAMPLES, generator), device)
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


def measure_graphs(sizes: Sequence[Size], device: str, images: int = GRAPH_SAMPLES) -> list[dict[str, Any]]:
    """A row for each size, on a GPU only: one call by a graph and one value after value, in turns, from one noise."""
    rows = []
    for name, shape, arguments in sizes if device != "cpu" else ():
        torch.manual_seed(0)
        model = gdm_core.build_model(name, shape, **arguments).to(device).eval()
        recording = settle(model, images, device)
        rounds = [graph_round(model, images, device) for _ in range(ROUNDS)]
        rows.append({
            "model": name, "data_shape": list(shape), "arguments": model.arguments, "images": images,
            "recording_seconds": recording, **{way: record.spread([one[way] for one in rounds]) for way in rounds[0]},
        })  # fmt: skip
    return rows


def graph_round(model: GenerativeModel, images: int, device: str) -> dict[str, float]:
    """Seconds of `sample`, which replays a graph, and of its steps, which do not; the share of equal pixels."""
    x, graph = _timed(lambda generator: model.sample(images, generator=generator), device)
    y, steps = _timed(lambda generator: last(model.sample_steps(images, generator=generator)), device)
    return {"graph": graph, "steps": steps, "equal": (x == y).double().mean().item()}


def graphs_section(rows: list[dict[str, Any]]) -> list[str]:
    note = (
        f"All images of a row in one call, {ROUNDS} rounds, until they are on the host. By a graph: one launch for "
        "everything that is done for a batch. Without: one for each layer of each value. Recording: the call that "
        f"records the graph, once for a kind of batch. Wanted: {GRAPH_SAMPLES} images in {GRAPH_GOAL:g} s. Equal: the "
        "share of pixels that come out the same in float32."
    )
    columns = ["model", "images", "drawn", "by a graph, s", "without, s", "recording, s", "within the time", "equal"]
    cells = [
        [row["model"], record.size_text(row["data_shape"]), str(row["images"]), record.spread_text(row["graph"], 1),
         record.spread_text(row["steps"], 1), f"{row['recording_seconds']:.3g}",
         "yes" if row["graph"]["median"] * GRAPH_SAMPLES <= GRAPH_GOAL * row["images"] else "**no**",
         f"{row['equal']['median']:.2%}"]
        for row in rows
    ]  # fmt: skip
    return record.section("CUDA graphs: a batch in one launch", note, columns, cells)

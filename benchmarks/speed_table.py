"""The report of the speed benchmark, made from its rows: every model, then those that another library has too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import record
from arithmetic import share_of_rate

LARGE = [1, 28, 28]
COLUMNS = [
    "model", "images", "sizes", "batch", "parameters", "training, images/s", "mult-adds an image", "share of rate",
    "samples, ms", "matrix GFLOP/s", "made",
]  # fmt: skip
PEER_MATRIX = 217.0  # GFLOP/s of the machine that the peer's numbers were measured on, 2 quiet cores


@dataclass(frozen=True)
class Peer:
    """A measured number of pytorch-generative (commit d1f0a5c), and how many times as fast this project wants to be."""

    model: str
    arguments: dict[str, int]  # of ours, as far as they make it the same architecture
    what: Literal["training", "sampling"]
    images: int  # learnt per second, or drawn at once
    seconds: float
    goal: float | None = None
    sizes: str = ""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


PEERS = [
    Peer("nade", {"hidden_units": 500}, "training", 229, 1, 4, "784-500, batch 128"),
    Peer("nade", {"hidden_units": 500}, "sampling", 16, 0.03, None, "784-500"),
    Peer("made", {}, "training", 31_000, 1, None, "784-500, batch 128"),
    Peer("made", {}, "sampling", 16, 0.23, None, "784-500"),
    Peer("pixel_cnn", {"blocks": 15, "channels": 16}, "training", 396, 1, None, "15 blocks, 16 channels"),
    Peer("pixel_cnn", {"blocks": 15, "channels": 16}, "sampling", 16, 6.3, 50, "15 blocks, 16 channels"),
    Peer("gated_pixel_cnn", {"blocks": 10, "channels": 128}, "training", 38, 10, None, "10 blocks, 128 channels"),
    Peer("gated_pixel_cnn", {"blocks": 10, "channels": 128}, "sampling", 4, 58, 100, "10 blocks, 128 channels"),
]


def models_section(rows: list[dict[str, Any]], note: str) -> list[str]:
    return record.section("Training and sampling", note, COLUMNS, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    where, rate, count = row["where"], row["matrix_gflops"], row["multiply_adds_per_image"]
    share = share_of_rate(count, row["training_images_per_second"]["median"], rate["median"])
    made = f"{where['date']}, {where['commit']}, {where['device']}, {where['threads']} threads, load {where['load']}"
    return [
        row["model"], record.size_text(row["data_shape"]), row["sizes"] or "defaults", str(row["batch_size"]),
        f"{row['parameters']:,}", record.spread_text(row["training_images_per_second"], 1),
        f"{count:.2e}{' (formula)' if row['counted'] == 'formula' else ''}" if row["counted"] else "",
        f"{share:.1%}" if row["counted"] else "", record.spread_text(row["sampling_seconds"], 1000),
        record.spread_text(rate, 1), made,
    ]  # fmt: skip


def peers_section(rows: list[dict[str, Any]], samples: int) -> list[str]:
    note = (
        f"pytorch-generative (commit d1f0a5c), measured before on two quiet cores that did {PEER_MATRIX:.0f} GFLOP/s "
        f"of float32 matrix products; here the medians of the table above: training, and sampling {samples} images at "
        "once, where the peer's seconds are taken to grow with the number of images. At equal rate: the ratio if the "
        "machine had multiplied as fast as that one, for rows of a busier moment or a faster machine. Goals: those set "
        "against these very numbers. Both in one run, and whether every model is at least as fast: peer_speed.md."
    )
    columns = ["model", "sizes", "images/s of", "the peer", "here", "ratio", "at equal rate", "goal", "reached"]
    found = [(peer, row) for peer in PEERS for row in rows if is_same(peer, row)]
    return record.section("Beside pytorch-generative", note, columns, [_peer_cells(*pair, samples) for pair in found])


def is_same(peer: Peer, row: dict[str, Any]) -> bool:
    """Whether a row is of the peer's architecture and image size."""
    same = all(row["arguments"].get(name) == value for name, value in peer.arguments.items())
    return row["model"] == peer.model and list(row["data_shape"]) == LARGE and same


def speed_up(peer: Peer, row: dict[str, Any], samples: int) -> tuple[float, float]:
    """(images/s here, how many times the peer's)."""
    if peer.what == "training":
        ours = row["training_images_per_second"]["median"]
    else:
        ours = samples / row["sampling_seconds"]["median"]
    return ours, ours / peer.images_per_second


def _peer_cells(peer: Peer, row: dict[str, Any], samples: int) -> list[str]:
    ours, ratio = speed_up(peer, row, samples)
    reached = {None: "", True: "yes", False: "**no**"}[None if peer.goal is None else ratio >= peer.goal]
    return [
        peer.model, peer.sizes, peer.what, f"{peer.images_per_second:,.3g}", f"{ours:,.4g}", f"{ratio:.3g}",
        f"{ratio * PEER_MATRIX / row['matrix_gflops']['median']:.3g}",
        "" if peer.goal is None else f"{peer.goal:g}", reached,
    ]  # fmt: skip

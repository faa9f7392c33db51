"""Built-in examples of a data set for trying anomaly scores: normal images, and odd ones made of normal images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gdm_core.data import corruptions
from gdm_core.data.dataset import ImageDataset, Split
from gdm_core.randomness import seeded_generator


@dataclass(frozen=True, eq=False)
class Examples:
    """Stored images, uint8 (n, C, H, W): normal ones, and odd ones by what was done to them."""

    normal: Tensor
    odd: dict[str, Tensor]


def examples(dataset: ImageDataset, count: int = 8) -> Examples:
    """`count` validation images, taking turns between the classes, and seven odd sets of as many; the same every time.

    From validation, because calibration images would be compared with themselves and test is for final evaluation.
    """
    normal = take_turns(dataset.splits["validation"], count)
    levels = dataset.levels

    def stream(purpose: str) -> torch.Generator:
        return seeded_generator(0, "examples", purpose)

    odd = {
        "inverted": corruptions.inverted(normal, levels),
        "shuffled pixels": corruptions.shuffled(normal, stream("shuffled")),
        "pasted block": corruptions.pasted_block(normal, levels, stream("block"))[0],
        "halves of two images": corruptions.spliced(normal),
        "noise": corruptions.noise(normal, levels, stream("noise")),
        "constant": corruptions.constant(normal, levels),
    }
    if normal.shape[-1] == normal.shape[-2]:
        odd["turned by 90 degrees"] = corruptions.turned(normal)
    return Examples(normal, odd)


def take_turns(split: Split, count: int) -> Tensor:
    """The first `count` images when the classes take turns; without labels simply the first ones."""
    if split.labels is None:
        return split.images[:count]
    turns = torch.zeros(len(split), dtype=torch.long)
    for label in split.labels.unique():
        rows = split.labels == label
        turns[rows] = torch.arange(int(rows.sum()))
    order = sorted(range(len(split)), key=lambda row: (int(turns[row]), int(split.labels[row])))
    return split.images[torch.tensor(order[:count])]

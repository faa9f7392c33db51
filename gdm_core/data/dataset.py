"""What a data set is: images stored as integer levels, in splits that never overlap, with a digest of every byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.data.errors import DataError
from gdm_core.data.treatments import Treatment
from gdm_core.randomness import seeded_generator

SPLIT_NAMES = ("train", "validation", "calibration", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Images as stored: uint8 (N, C, H, W) with values 0..levels-1, and labels int64 (N,) where there are any."""

    images: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> Split:
        """The split of the given rows, a tensor of their numbers, in their order."""
        labels = None if self.labels is None else self.labels.index_select(0, rows)
        return Split(self.images.index_select(0, rows), labels)  # whole rows at once: five times as fast as [rows]


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Four splits of one set of images. `load_dataset(**specification)` gives the same data set again."""

    name: str  # short, and legal in the name of a registered model
    splits: Mapping[str, Split]  # "train", "validation", "calibration", "test"
    levels: int  # how many values a stored pixel can take
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what a user must know, such as files that were skipped
    specification: dict = field(default_factory=dict)
    pixels: str | None = None  # the kind its values are meant as, for models that take it; None leaves it to the model
    digest: str = field(init=False)  # 16 hex digits

    def __post_init__(self) -> None:
        for name in SPLIT_NAMES:
            if name not in self.splits or not len(self.splits[name]):
                raise DataError(f"data set {self.name!r} has no images in its {name} split")
        _check_stored(self.name, self.splits, self.levels)
        object.__setattr__(self, "splits", MappingProxyType(dict(self.splits)))
        object.__setattr__(self, "digest", digest_of(self.splits))

    @property
    def data_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.splits["train"].images.shape[1:]
        return channels, height, width

    @property
    def counts(self) -> dict[str, int]:
        """How many images each split has."""
        return {name: len(split) for name, split in self.splits.items()}


class TreatedSplit:
    """A split as a model sees it in training: what `training.train` takes as its data.

    Random treatments (dynamic, real) are drawn anew for every batch of every epoch, from a stream that depends on the
    seed, the epoch and the batch's first row alone, so that a resumed run sees the same pixels.
    """

    def __init__(self, split: Split, treatment: Treatment, seed: int = 0) -> None:
        self.split, self.treatment, self.seed = split, treatment, seed

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        """The images (and labels) of these rows in this epoch."""
        generator = None
        if self.treatment.is_random:
            generator = seeded_generator(self.seed, "pixels", epoch, int(rows[0]))
        chosen = self.split.take(rows)
        return Batch(self.treatment(chosen.images, generator), chosen.labels)


def evaluation_images(split: Split, treatment: Treatment) -> Tensor:
    """The split's images (N, C, H, W) in the one fixed draw that likelihoods are computed on, in the split's order."""
    return treatment(split.images, seeded_generator(0, "evaluation"))


def digest_of(splits: Mapping[str, Split]) -> str:
    """sha256 over names, shapes, images and labels of all splits, its first 16 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(splits):
        for kind, tensor in (("images", splits[name].images), ("labels", splits[name].labels)):
            if tensor is not None:
                digest.update(f"{name} {kind} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))
    return digest.hexdigest()[:16]


def _check_stored(name: str, splits: Mapping[str, Split], levels: int) -> None:
    shapes = {tuple(split.images.shape[1:]) for split in splits.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise DataError(f"data set {name!r} must hold images (N, C, H, W) of one shape, got {sorted(shapes)}")
    for key, split in splits.items():
        if split.images.dtype != torch.uint8:
            raise DataError(f"the {key} images of data set {name!r} must be uint8 levels, got {split.images.dtype}")
        if int(split.images.max()) >= levels:
            found = int(split.images.max())
            raise DataError(f"the {key} images of data set {name!r} must lie in 0..{levels - 1}, found {found}")
        if split.labels is not None and len(split.labels) != len(split):
            raise DataError(f"the {key} split of data set {name!r} has {len(split)} images, {len(split.labels)} labels")

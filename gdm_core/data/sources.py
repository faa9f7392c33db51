"""Where data sets come from: one function a source, `load_dataset` by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from gdm_core.data.dataset import DataError, ImageDataset, Split
from gdm_core.data.splits import deal

DIGITS_SIZES = {"train": 1097, "validation": 150, "calibration": 250, "test": 300}


def data_root() -> Path:
    """The folder of downloaded data sets: GDM_DATA, else a cache folder under the home directory."""
    return Path(os.environ.get("GDM_DATA") or Path.home() / ".cache" / "gdm-data").expanduser()


def list_datasets() -> list[str]:
    """The names `load_dataset` takes."""
    return [*_SOURCES, "folder:PATH"]


def load_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
) -> ImageDataset:
    """Load a data set by name; `folder:PATH` is a user's own folder of images, brought to `size` and `channels`.

    `root` is where downloaded sets lie (default: `data_root()`), `seed` decides the splits that are not given.
    Raises DataError where the name is unknown, or naming the file that is missing and what would supply it.
    """
    if name not in _SOURCES:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(list_datasets())}")
    if size is not None or channels is not None:
        raise DataError(f"size and channels belong to folder data sets; {name} has its own")
    specification = {"name": name, "seed": seed} | ({} if root is None else {"root": str(root)})
    return _SOURCES[name](Path(root) if root is not None else data_root(), seed, specification)


def _digits(root: Path, seed: int, specification: dict) -> ImageDataset:
    """The 1,797 handwritten digits of scikit-learn: 8x8, 17 levels, embedded in the package."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)  # (1797, 1, 8, 8)
    splits = deal(Split(images, torch.from_numpy(bunch.target).long()), DIGITS_SIZES, seed)
    return ImageDataset("digits", splits, 17, tuple(map(str, range(10))), specification=specification)


_SOURCES: dict[str, Callable[[Path, int, dict], ImageDataset]] = {"digits": _digits}

"""A fifth of CIFAR-10 in one file, for trying colour without a network: not the set that published numbers are about.

Read from ROOT/CIFAR10-subset/cifar10_subset.npz: train_images, test_images (N, 32, 32, 3) uint8, train_labels,
test_labels (N,) and class_names. A tenth of the training images is for validation and as many for calibration.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from gdm_core.data.dataset import ImageDataset, Split
from gdm_core.data.errors import DataError
from gdm_core.data.splits import deal, shares

HELD_OUT = 1 / 10


def load_cifar10_subset(root: Path, seed: int, specification: dict) -> ImageDataset:
    """(3, 32, 32), 256 levels, 8,000 / 1,000 / 1,000 / 2,000.

    Raises DataError naming the file where it is missing or broken.
    """
    file = root / "CIFAR10-subset" / "cifar10_subset.npz"
    if not file.exists():
        raise DataError(
            f"cifar10_subset needs {file.name} in {file.parent}: put it there, or set GDM_DATA to the folder that "
            f"holds {file.parent.name} (the whole set is cifar10)"
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            given, test = (_as_split(arrays, part) for part in ("train", "test"))
            class_names = tuple(map(str, arrays["class_names"]))
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read ({error}): get the file again") from error
    sizes = shares(len(given), {"validation": HELD_OUT, "calibration": HELD_OUT}, rest="train")
    splits = deal(given, sizes, seed) | {"test": test}
    return ImageDataset("cifar10_subset", splits, 256, class_names, specification=specification)


def _as_split(arrays: np.lib.npyio.NpzFile, part: str) -> Split:
    images = torch.from_numpy(arrays[f"{part}_images"]).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64)))

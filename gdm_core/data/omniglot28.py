"""Omniglot at 28x28: 1,623 characters of 50 alphabets, each drawn by 20 people; binary, ink is 1.

Read from ROOT/OMNIGLOT28/omniglot28.npz: images with 8 pixels a byte (`np.packbits`), drawer, alphabet (both a number
an image) and alphabet_names. The drawings of persons 16 to 20 are the test images; labels are alphabets. These are the
originals sampled to 28x28, not the grey file of Burda, Grosse and Salakhutdinov (2016) that published likelihoods on
"OMNIGLOT" are about.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from gdm_core.data.dataset import ImageDataset, Split
from gdm_core.data.errors import DataError
from gdm_core.data.splits import deal, shares

SIZE = 28
LAST_TRAINING_DRAWER = 15
HELD_OUT = 1 / 12


def load_omniglot28(root: Path, seed: int, specification: dict) -> ImageDataset:
    """(1, 28, 28), 2 levels, 20,287 / 2,029 / 2,029 / 8,115.

    Raises DataError naming the file where it is missing or broken.
    """
    file = root / "OMNIGLOT28" / "omniglot28.npz"
    if not file.exists():
        raise DataError(
            f"omniglot28 needs {file.name} in {file.parent}: put it there, or set GDM_DATA to the folder that holds "
            f"{file.parent.name}"
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            pixels = np.unpackbits(arrays["images"], axis=1, count=SIZE * SIZE).reshape(-1, 1, SIZE, SIZE)
            whole = Split(torch.from_numpy(pixels), torch.from_numpy(arrays["alphabet"].astype(np.int64)))
            is_given = torch.from_numpy(arrays["drawer"] <= LAST_TRAINING_DRAWER)
            class_names = tuple(map(str, arrays["alphabet_names"]))
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read ({error}): get the file again") from error
    given, test = (whole.take(rows.nonzero()[:, 0]) for rows in (is_given, ~is_given))
    sizes = shares(len(given), {"validation": HELD_OUT, "calibration": HELD_OUT}, rest="train")
    splits = deal(given, sizes, seed) | {"test": test}
    return ImageDataset("omniglot28", splits, 2, class_names, specification=specification)

"""The fixed binarised MNIST of Larochelle and Murray (2011): every pixel drawn once, as Bernoulli(intensity).

The standard set for comparing log-likelihoods in nats. Two forms of file are read, from ROOT/BinarizedMNIST:
`binarized_mnist.npz`, with 8 pixels a byte under the keys train, valid and test, their width and height under `shape`
and, where present, labels under train_label, valid_label and test_label; or the three original text files
`binarized_mnist_train.amat`, `..._valid.amat` and `..._test.amat`, one image a line. The given validation images are
halved into validation and calibration.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import torch

from gdm_core.data.dataset import ImageDataset, Split
from gdm_core.data.errors import DataError
from gdm_core.data.splits import deal

_PARTS = ("train", "valid", "test")


def load_binarized_mnist(root: Path, seed: int, specification: dict) -> ImageDataset:
    """(1, 28, 28), 2 levels, 50,000 / 5,000 / 5,000 / 10,000; labels where the file has them.

    Raises DataError naming the folder and the files where they are missing or broken.
    """
    folder = root / "BinarizedMNIST"
    packed, texts = folder / "binarized_mnist.npz", [folder / f"binarized_mnist_{part}.amat" for part in _PARTS]
    if packed.exists():
        train, valid, test = _read_packed(packed)
    elif all(text.exists() for text in texts):
        train, valid, test = map(_read_text, texts)
    else:
        raise DataError(
            f"binarized_mnist needs binarized_mnist.npz, or {', '.join(text.name for text in texts)}, in {folder}: "
            "put them there, or set GDM_DATA to the folder that holds BinarizedMNIST"
        )
    half = len(valid) // 2
    held_out = deal(valid, {"validation": len(valid) - half, "calibration": half}, seed)
    splits = {"train": train, **held_out, "test": test}
    return ImageDataset("binarized_mnist", splits, 2, tuple(map(str, range(10))), specification=specification)


def _read_packed(file: Path) -> list[Split]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return [_unpack(arrays, part) for part in _PARTS]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read ({error}): get the file again") from error


def _unpack(arrays: np.lib.npyio.NpzFile, part: str) -> Split:
    height, width = (int(size) for size in arrays["shape"]) if "shape" in arrays else (28, 28)
    pixels = np.unpackbits(arrays[part], axis=1, count=height * width)
    labels = arrays[f"{part}_label"] if f"{part}_label" in arrays else None
    return Split(
        torch.from_numpy(np.ascontiguousarray(pixels)).view(-1, 1, height, width),
        None if labels is None else torch.from_numpy(labels.astype(np.int64)),
    )


def _read_text(file: Path) -> Split:
    data = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    is_pixel = (data == ord("0")) | (data == ord("1"))
    if not (is_pixel | np.isin(data, list(b" \t\r\n"))).all():
        raise DataError(f"{file} must hold 0 and 1 with spaces between them, one image a line")
    lines = int((data == ord("\n")).sum()) + int(bool(len(data)) and data[-1] != ord("\n"))
    count = int(is_pixel.sum())
    side = math.isqrt(count // max(lines, 1))
    if not side or side * side * lines != count:
        raise DataError(f"{file} must hold one square image a line, found {count} pixels in {lines} lines")
    return Split(torch.from_numpy(data[is_pixel] - ord("0")).view(lines, 1, side, side))

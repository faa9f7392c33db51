"""MNIST and its relatives, by torchvision: the test images as given, the 60,000 others dealt to three splits.

Files are looked for in torchvision's layout, ROOT/MNIST/raw/train-images-idx3-ubyte and so on; a `.gz` beside them is
unpacked once. What is missing is downloaded once, checked against torchvision's md5 sums, and put in place whole or
not at all.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.request
import zlib
from pathlib import Path

from gdm_core.data.dataset import ImageDataset, Split
from gdm_core.data.errors import DataError
from gdm_core.data.splits import deal, shares

TORCHVISION_SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
HELD_OUT = {"validation": 1 / 12, "calibration": 1 / 12}  # of the training images: 5,000 of 60,000
DOWNLOAD_TIMEOUT = 20  # seconds without an answer


def load_torchvision_set(name: str, root: Path, seed: int, download: bool, specification: dict) -> ImageDataset:
    """`mnist`, `fashion_mnist` or `kmnist`: (1, 28, 28), 256 levels, 50,000 / 5,000 / 5,000 / 10,000.

    Raises DataError naming the folder and the files where some are missing and cannot be downloaded, or are broken.
    """
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION_SETS[name])
    folder = root / kind.__name__ / "raw"
    _provide(name, kind, folder, download)
    try:
        given, test = (_as_split(kind(str(root), train=train, download=False)) for train in (True, False))
    except (ValueError, RuntimeError, AssertionError, IndexError, KeyError, OSError) as error:
        message = f"the files of {name} in {folder} cannot be read ({error}): delete them and get them again"
        raise DataError(message) from error
    splits = deal(given, shares(len(given), HELD_OUT, rest="train"), seed) | {"test": test}
    return ImageDataset(name, splits, 256, tuple(kind.classes), specification=specification)


def _as_split(data: object) -> Split:
    return Split(data.data.unsqueeze(1), data.targets.long())


def _provide(name: str, kind: type, folder: Path, download: bool) -> None:
    """Make sure that the four unpacked files are there."""
    missing, problem = [], None
    for packed, checksum in kind.resources:
        file = folder / packed
        if not file.with_suffix("").exists() and not file.exists() and download and problem is None:
            problem = _download(kind.mirrors, file, checksum)
        if not file.with_suffix("").exists():
            _unpack(file) if file.exists() else missing.append(packed)
    if missing:
        reason = f"; the download failed: {problem}" if problem else ""
        raise DataError(
            f"{name} needs {', '.join(missing)} in {folder}: put them there, or set GDM_DATA to the folder that "
            f"holds {kind.__name__}/raw, or load it once with a network{reason}"
        )


def _download(mirrors: list[str], file: Path, checksum: str) -> str | None:
    """Fetch one file; returns what went wrong, or None."""
    problem = "there is no mirror"
    for mirror in mirrors:
        try:
            with urllib.request.urlopen(f"{mirror}{file.name}", timeout=DOWNLOAD_TIMEOUT) as answer:
                data = answer.read()
        except OSError as error:  # URLError, timeouts and refused connections
            problem = f"{mirror}: {getattr(error, 'reason', error)}"
            continue
        if hashlib.md5(data, usedforsecurity=False).hexdigest() == checksum:
            _write_whole(file, data)
            return None
        problem = f"{mirror} sent a file with another checksum"
    return problem


def _unpack(file: Path) -> None:
    try:
        data = gzip.decompress(file.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file} is broken ({error}): delete it and get it again") from error
    _write_whole(file.with_suffix(""), data)


def _write_whole(file: Path, data: bytes) -> None:
    """Put a file in place by renaming, so that another process never sees half of it."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        message = f"cannot write {file} ({error.strerror}): set GDM_DATA to a folder that can be written"
        raise DataError(message) from error

"""A user's own folder of images as a data set; class sub-folders and given splits are optional.

PATH/*.png                         no classes, four splits dealt by the seed
PATH/CLASS/*.png                   classes, stratified
PATH/train/..., PATH/test/...      given splits (train, validation or val, calibration, test), each with or without
                                   classes. Without a calibration folder the validation images are halved; any other
                                   split that is not given comes out of train.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gdm_core.data.dataset import SPLIT_NAMES, ImageDataset, Split
from gdm_core.data.errors import DataError, ImageError, printable
from gdm_core.data.intake import MAXIMUM_BYTES, decode_image, to_stored
from gdm_core.data.splits import deal, shares

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SHARES = {"validation": 0.08, "calibration": 0.12, "test": 0.10}
MINIMUM_IMAGES = 20
MAXIMUM_MEMORY = 2 * 2**30  # bytes of stored pixels
_SPLIT_FOLDERS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "calibration": "calibration", "test": "test",
}  # fmt: skip


@dataclass(frozen=True)
class _File:
    path: Path
    name: str  # relative to the data set's folder
    split: str | None
    class_name: str | None


def load_folder(path: str | Path, size: int = 32, channels: int = 1, seed: int = 0) -> ImageDataset:
    """The images under a folder, brought to (channels, size, size) with 256 levels.

    Files that cannot be used are left out and named in the data set's notes, and so are exact copies of a file, which
    would otherwise land on both sides of a split. Hidden files, and links that lead out of the folder, are passed by.
    Raises DataError where there is no such folder, too few images, or more than memory should hold.
    """
    if not 2 <= size <= 1024 or channels not in (1, 3):
        raise DataError(f"a folder needs size 2 to 1024 and 1 or 3 channels, got size {size}, channels {channels}")
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: give the path of a folder of images, as in folder:pictures")
    notes: list[str] = []
    files = _find(folder, notes)
    _check_memory(folder, len(files), (channels, size, size))
    images, kept = _read(files, (channels, size, size), notes)
    if len(kept) < MINIMUM_IMAGES:
        why = f" ({notes[0]})" if notes else ""
        raise DataError(f"{folder} has {len(kept)} usable images, at least {MINIMUM_IMAGES} are needed{why}")
    files, images = [files[row] for row in kept], images[kept]
    labels, class_names = _labels(files, notes)
    splits = _split(files, Split(images, labels), seed)
    specification = {"name": f"folder:{folder}", "size": size, "channels": channels, "seed": seed}
    return ImageDataset(folder_name(folder), splits, 256, class_names, tuple(notes), specification)


def folder_name(folder: Path) -> str:
    """The short, legal name of a folder data set: 'folder-screws' of /data/Screws."""
    slug = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower())[:40].strip("-")
    return f"folder-{slug or hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


def _find(folder: Path, notes: list[str]) -> list[_File]:
    """All image files in sorted order; what is passed by is noted."""
    tops = {entry.name: _SPLIT_FOLDERS.get(entry.name.lower()) for entry in _visible(folder) if entry.is_dir()}
    has_splits = "train" in tops.values() and len(set(tops.values()) - {None}) > 1
    files, others = [], []
    for path in _walk(folder, folder.resolve()):
        parts = path.relative_to(folder).parts
        split = tops.get(parts[0]) if has_splits else None
        below = parts[1:] if has_splits else parts
        if path.suffix.lower() not in SUFFIXES or (has_splits and split is None):
            others.append("/".join(parts))
            continue
        files.append(_File(path, "/".join(parts), split, below[0] if len(below) > 1 else None))
    if others:
        notes.append(f"passed by {_some(others, 'file')} that are no images or lie outside the given splits")
    return files


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder} ({error.strerror}): check its permissions") from error


def _walk(folder: Path, root: Path) -> Iterator[Path]:
    for entry in _visible(folder):
        if entry.is_symlink() and (entry.is_dir() or not entry.resolve().is_relative_to(root)):
            continue  # no linked folders at all: they can lead out, or round in circles
        if entry.is_dir():
            yield from _walk(entry, root)
        elif entry.is_file():
            yield entry


def _check_memory(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    needed = count * shape[0] * shape[1] * shape[2]
    if needed > MAXIMUM_MEMORY:
        raise DataError(
            f"the {count} images of {folder} at {shape[0]} x {shape[1]} x {shape[2]} take {needed / 2**30:.1f} GiB, "
            f"more than {MAXIMUM_MEMORY / 2**30:.0f}: choose a smaller size, or fewer images"
        )


def _read(files: list[_File], shape: tuple[int, int, int], notes: list[str]) -> tuple[Tensor, list[int]]:
    """Decode all files by worker threads, (N, C, H, W), and the rows that can be used."""
    images = torch.zeros(len(files), *shape, dtype=torch.uint8)

    def read(row: int) -> str | ImageError:
        try:
            data = _bytes_of(files[row])
            images[row] = to_stored(decode_image(data, files[row].name), shape, 256)
        except ImageError as error:
            return error
        return hashlib.sha256(data).hexdigest()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
        results = list(workers.map(read, range(len(files))))
    broken = [str(result) for result in results if isinstance(result, ImageError)]
    if broken:
        notes.append(f"skipped {_some(broken, 'broken image', separator='; ').rstrip(',')}")
    return images, _without_copies(files, results, notes)


def _bytes_of(file: _File) -> bytes:
    try:
        if file.path.stat().st_size > MAXIMUM_BYTES:
            raise ImageError(f"{printable(file.name)} is larger than {MAXIMUM_BYTES >> 20} MiB: make it smaller")
        return file.path.read_bytes()
    except OSError as error:
        raise ImageError(f"{printable(file.name)} cannot be read ({error.strerror}): check its permissions") from error


def _without_copies(files: list[_File], results: list[str | ImageError], notes: list[str]) -> list[int]:
    """The usable rows, each file's content once; a copy in a later split wins, so that held-out data stays whole."""
    rank = {name: position for position, name in enumerate(reversed(SPLIT_NAMES))} | {None: 0}
    usable = [row for row, result in enumerate(results) if isinstance(result, str)]
    first: dict[str, int] = {}
    for row in sorted(usable, key=lambda row: (rank[files[row].split], row)):
        first.setdefault(results[row], row)
    copies = [files[row].name for row in usable if first[results[row]] != row]
    if copies:
        notes.append(f"left out {_some(copies, 'file')} whose content is an exact copy of another file's")
    return sorted(first.values())


def _labels(files: list[_File], notes: list[str]) -> tuple[Tensor | None, tuple[str, ...]]:
    names = sorted({file.class_name for file in files} - {None})
    if not names:
        return None, ()
    if any(file.class_name is None for file in files):
        notes.append("some images lie in class folders and some do not: labels are not used")
        return None, ()
    missing = sorted(set(names) - {file.class_name for file in files if file.split in (None, "train")})
    if missing:
        notes.append(f"{', '.join(map(printable, missing))} occur only in held-out images, not in train")
    return torch.tensor([names.index(file.class_name) for file in files]), tuple(names)


def _split(files: list[_File], everything: Split, seed: int) -> dict[str, Split]:
    """The given splits, and those that are missing, dealt by the seed."""
    rows = {name: [row for row, file in enumerate(files) if file.split == name] for name in (None, *SPLIT_NAMES)}
    splits = {name: everything.take(torch.tensor(rows[name])) for name in SPLIT_NAMES if rows[name]}
    if "validation" in splits and "calibration" not in splits and len(splits["validation"]) > 1:
        half = len(splits["validation"]) // 2
        sizes = {"validation": len(splits["validation"]) - half, "calibration": half}
        splits |= deal(splits["validation"], sizes, seed)
    if splits and "train" not in splits:
        raise DataError("the train folder has no usable images: a data set with given splits needs some")
    source = splits.get("train", everything)
    missing = {name: share for name, share in SHARES.items() if name not in splits}
    return splits | deal(source, shares(len(source), missing, rest="train"), seed)


def _some(names: list[str], what: str, separator: str = ", ") -> str:
    shown = separator.join(map(printable, names[:5]))
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''}: {shown}{' and more' if len(names) > 5 else ''},"

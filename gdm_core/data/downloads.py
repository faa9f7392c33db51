"""Files of published data sets: found, unpacked or downloaded once, checked, put in place whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gdm_core.data.errors import DataError, printable

DOWNLOAD_TIMEOUT = 20  # seconds without an answer
_DAMAGE = (EOFError, OSError, KeyError, zlib.error, tarfile.TarError)


@dataclass(frozen=True)
class Published:
    """A file as it is published: where it belongs, its md5 sum, where it may be had, and the files it unpacks to."""

    file: Path
    checksum: str
    mirrors: Sequence[str]  # addresses without the file's name
    holds: Sequence[Path]  # the file itself where it is not packed


def provide(name: str, wanted: Sequence[Published], folder: str, download: bool) -> None:
    """Make sure that all unpacked files of the data set `name` are there.

    Raises DataError naming what is missing, and `folder`, the one that the data root should hold.
    """
    missing, problem = [], None
    for one in wanted:
        if all(held.exists() for held in one.holds):
            continue
        if not one.file.exists() and download and problem is None:
            problem = _download(one)
        _unpack(one) if one.file.exists() else missing.append(one.file)
    if missing:
        reason = f"; the download failed: {problem}" if problem else ""
        raise DataError(
            f"{name} needs {', '.join(file.name for file in missing)} in {missing[0].parent}: put them there, or set "
            f"GDM_DATA to the folder that holds {folder}, or load it once with a network{reason}"
        )


def _download(one: Published) -> str | None:
    """Fetch one file; returns what went wrong, or None."""
    problem = "there is no mirror"
    for mirror in one.mirrors:
        try:
            with urllib.request.urlopen(f"{mirror}{one.file.name}", timeout=DOWNLOAD_TIMEOUT) as answer:
                data = answer.read()
        except OSError as error:  # URLError, timeouts and refused connections
            problem = f"{mirror}: {getattr(error, 'reason', error)}"
            continue
        if hashlib.md5(data, usedforsecurity=False).hexdigest() == one.checksum:
            _write_whole(one.file, data)
            return None
        problem = f"{mirror} sent a file with another checksum"
    return problem


def _unpack(one: Published) -> None:
    """Unpack what is not there yet: of an archive the files named in `holds`, and nothing else."""
    for held in one.holds:
        if not held.exists():
            _write_whole(held, _content(one.file, held))


def _content(packed: Path, held: Path) -> bytes:
    try:
        if packed.name.endswith(".tar.gz"):
            with tarfile.open(packed) as archive:
                return archive.extractfile(f"{held.parent.name}/{held.name}").read()
        return gzip.decompress(packed.read_bytes())
    except (*_DAMAGE, AttributeError) as error:  # None in place of a file: the archive has a folder of that name
        raise DataError(f"{packed} is broken ({printable(error)}): delete it and get it again") from error


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

"""Zip archives of pictures, opened in memory: nothing is written to disk, and what an archive can cost is bounded.

Refused whole: broken archives, zip64 ones, more than 1,000 members, more than 512 MiB unpacked. Refused member by
member: paths that climb out, encryption, archives inside, a packing ratio that only bombs have.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from gdm_core.data.errors import ImageError, printable

MAXIMUM_MEMBERS = 1_000
MAXIMUM_UNPACKED = 512 * 2**20  # bytes, all members together
MAXIMUM_RATIO = 200  # unpacked to packed, of members above 1 MiB
_END = b"PK\x05\x06"
_LOCATOR_64 = b"PK\x06\x07"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError)
_MAXIMUM_DIRECTORY = 1_024 * MAXIMUM_MEMBERS  # bytes of the archive's table of contents


def is_archive(data: bytes) -> bool:
    """Whether these bytes are a zip archive, by their content."""
    return data.startswith((b"PK\x03\x04", _END))


def archive_members(data: bytes, name: str, problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (archive/member, bytes) of the files in a zip; what is refused is added to `problems`, one sentence each.

    Raises ImageError where the archive as a whole is refused.
    """
    name = printable(name)
    with _open(data, name) as archive:
        for member in archive.infolist():
            if member.filename.endswith("/") or _is_housekeeping(member.filename):
                continue
            shown = f"{name}/{printable(member.filename or '(without a name)')}"
            try:
                yield shown, _unpack(archive, member)
            except ImageError as problem:
                problems.append(f"{shown} {problem}")


def _open(data: bytes, name: str) -> zipfile.ZipFile:
    """The archive, once it is known that it may be read."""
    _check_directory(data, name)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (*_DAMAGE, struct.error) as error:
        raise ImageError(f"{name} is a broken zip archive ({printable(error)}): pack it again") from error
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if len(members) > MAXIMUM_MEMBERS:
        raise ImageError(f"{name} holds {len(members)} files, more than {MAXIMUM_MEMBERS}: pack fewer into one archive")
    if unpacked > MAXIMUM_UNPACKED:
        limit = MAXIMUM_UNPACKED >> 20
        raise ImageError(f"{name} unpacks to {unpacked >> 20} MiB, more than {limit}: pack less into one archive")
    return archive


def _check_directory(data: bytes, name: str) -> None:
    """Look at the size of the table of contents before anything reads it: a few MiB can list millions of files."""
    end = data.rfind(_END)
    if end < 0 or len(data) < end + 22:
        raise ImageError(f"{name} is a broken zip archive (its end is missing): pack it again")
    if _LOCATOR_64 in data[max(0, end - 64) : end] or struct.unpack_from("<I", data, end + 12)[0] > _MAXIMUM_DIRECTORY:
        raise ImageError(f"{name} lists more files than are read from one archive: pack at most {MAXIMUM_MEMBERS}")


def _refusal(member: zipfile.ZipInfo) -> str | None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        return "has a path that leads out of the archive and was left out: pack it without such paths"
    if member.flag_bits & 0x1:
        return "is encrypted and was left out: pack it without a password"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed by a method that is not read here: pack it as an ordinary zip"
    if member.file_size > 2**20 and member.file_size > MAXIMUM_RATIO * max(1, member.compress_size):
        return f"unpacks to more than {MAXIMUM_RATIO} times its size, as only zip bombs do, and was left out"
    return None


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes, never more than its header says. Raises ImageError saying why it is left out."""
    refusal = _refusal(member)
    if refusal:
        raise ImageError(refusal)
    try:
        with archive.open(member) as file:
            content = file.read(member.file_size)
    except _DAMAGE as error:
        raise ImageError(f"is broken ({printable(error)}): pack it again") from error
    if len(content) != member.file_size:
        raise ImageError("is broken (it is shorter than the archive says): pack it again")
    if is_archive(content):
        raise ImageError("is an archive inside an archive and was not opened: upload it by itself")
    return content


def _is_housekeeping(filename: str) -> bool:
    """What operating systems leave in archives: not the user's, and not worth a word."""
    path = PurePosixPath(filename)
    known = path.name.startswith("._") or path.name in (".DS_Store", "Thumbs.db", "desktop.ini")
    return known or "__MACOSX" in path.parts

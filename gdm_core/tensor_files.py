"""Tensors in safetensors files, whose header is checked by hand before a byte of data is read.

A safetensors file is: 8 bytes (little-endian length of the header), the header (JSON: name -> dtype, shape,
data_offsets), the data. A file from elsewhere is held against a table {name: {"shape": [...], "dtype": "F32"}} that the
caller trusts more than the file; whatever differs is refused by `StorageError` while nothing but the header is in
memory. Reference: https://github.com/huggingface/safetensors (the format's own description).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

HEADER_LIMIT = 8 * 2**20  # bytes
DTYPES: dict[torch.dtype, tuple[str, int]] = {
    torch.float64: ("F64", 8), torch.float32: ("F32", 4), torch.float16: ("F16", 2), torch.bfloat16: ("BF16", 2),
    torch.int64: ("I64", 8), torch.int32: ("I32", 4), torch.int16: ("I16", 2), torch.int8: ("I8", 1),
    torch.uint8: ("U8", 1), torch.bool: ("BOOL", 1),
}  # fmt: skip
BYTES_PER_ELEMENT = dict(DTYPES.values())

Table = dict[str, dict[str, Any]]


class StorageError(ValueError):
    """A stored model or tensor file is not what it says it is: one sentence, naming the file and what to do."""


def tensor_table(tensors: Mapping[str, Tensor]) -> Table:
    """{name: {"shape", "dtype"}} of tensors, also of those on the meta device; in the file's order (sorted names)."""
    return {
        name: {"shape": list(tensor.shape), "dtype": DTYPES[tensor.dtype][0]}
        for name, tensor in sorted(tensors.items())
    }


def table_bytes(table: Table) -> int:
    """How many bytes the data of a table's tensors take."""
    return sum(math.prod(entry["shape"]) * BYTES_PER_ELEMENT[entry["dtype"]] for entry in table.values())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either the old one or the whole new one, whatever happens in between."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Table:
    """Write tensors (from any device, views and tied ones too) atomically; returns their table."""
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(own))
    return tensor_table(own)


def read_tensors(path: Path, table: Table, limit: int, digest: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file, after it was held against the table (and its SHA-256, where known); all finite.

    Raises StorageError before memory is taken where names, shapes, dtypes or sizes differ, or are above `limit` bytes.
    """
    check_header(path, table, limit)
    if digest is not None and file_digest(path) != digest:
        raise StorageError(f"{path} is damaged: its SHA-256 is not the one in model.json; fetch or train it again")
    try:
        tensors = load_file(str(path))
    except SafetensorError as error:
        raise StorageError(f"{path} is not a readable safetensors file ({error}); fetch or train it again") from None
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise StorageError(f"{path} holds NaN or infinite values in {_some(bad)}; use an earlier version")
    return tensors


def check_header(path: Path, table: Table, limit: int) -> None:
    """Hold a file's header and size against a table, reading the header alone."""
    if table_bytes(table) > limit:
        raise StorageError(f"{path} would need {table_bytes(table):,} bytes of memory, more than {limit:,} allowed")
    header, data_bytes = _header(path)
    if header.keys() != table.keys():
        missing, extra = sorted(table.keys() - header.keys()), sorted(header.keys() - table.keys())
        raise StorageError(f"{path} is not the expected file: missing {_some(missing)}, unexpected {_some(extra)}")
    for name, entry in table.items():
        found = {"shape": header[name].get("shape"), "dtype": header[name].get("dtype")}
        if found != {"shape": list(entry["shape"]), "dtype": entry["dtype"]}:
            raise StorageError(f"{path}: tensor {name!r} is {_words(found)}, but should be {_words(entry)}")
    _check_offsets(path, header, data_bytes)


def read_header(path: Path, limit: int) -> Table:
    """The table of a file for which none is known, checked in itself (offsets, size) and against `limit` bytes."""
    header, _ = _header(path)
    table = {name: {"shape": e.get("shape"), "dtype": e.get("dtype")} for name, e in header.items()}
    check_table(table, path)
    check_header(path, table, limit)
    return table


def check_table(table: Any, source: Path) -> None:
    """Raise StorageError unless this is a table: names with a known dtype and a shape of whole numbers."""
    if not isinstance(table, dict):
        raise StorageError(f"{source}: the table of tensors is not an object")
    for name, entry in table.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        whole = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**48 for size in shape)
        if not whole or len(shape) > 8 or entry.get("dtype") not in BYTES_PER_ELEMENT:
            raise StorageError(f"{source}: tensor {name!r} has no sensible shape and dtype")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The header and the number of data bytes behind it."""
    if not path.is_file():
        raise StorageError(f"{path} is missing; fetch the whole model folder again")
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise StorageError(f"{path} is not a safetensors file, or cut short ({size} bytes); fetch it again")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise StorageError(f"{path} is not a safetensors file: its header is not JSON; fetch it again") from None
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise StorageError(f"{path} is not a safetensors file: its header is not a table; fetch it again")
    header.pop("__metadata__", None)
    return header, size - 8 - length


def _check_offsets(path: Path, header: dict[str, dict[str, Any]], data_bytes: int) -> None:
    """The tensors must fill the data without a gap, an overlap or a rest."""
    spans = [(entry.get("data_offsets"), name, entry) for name, entry in header.items()]
    if not all(isinstance(span, list) and len(span) == 2 and all(type(at) is int for at in span) for span, *_ in spans):
        raise StorageError(f"{path} is damaged: its header has bad offsets; fetch it again")
    position = 0
    for (start, end), name, entry in sorted(spans, key=lambda item: item[0]):
        if start != position or end - start != table_bytes({name: entry}):
            raise StorageError(f"{path} is damaged: tensor {name!r} is not where its header says; fetch it again")
        position = end
    if position != data_bytes:
        raise StorageError(f"{path} has {data_bytes:,} bytes of data where {position:,} belong; fetch it again")


def _some(names: list[str]) -> str:
    return ", ".join(name[:80] for name in names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "") or "none"


def _words(entry: dict[str, Any]) -> str:
    return f"{str(entry['dtype'])[:20]} {str(entry['shape'])[:80]}"

"""The card of a stored model, model.json: what the model is, checked before anything else of it is touched."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import gdm_core.models  # noqa: F401  (registers every architecture)
from gdm_core.contract import PIXEL_KINDS
from gdm_core.data.treatments import Treatment
from gdm_core.registry import check_arguments, model_class
from gdm_core.tensor_files import StorageError, Table, check_table, write_atomically

SCHEMA_VERSION = 1
CARD = "model.json"
CARD_LIMIT = 4 * 2**20  # bytes of JSON
WHOLE_NUMBER_LIMIT = 2**20  # of a constructor argument
PART_LIMIT = 1000  # of an argument that is a list
SIDE_LIMIT, DIMENSION_LIMIT = 4096, 2**24  # of images


@dataclass(frozen=True)
class Card:
    """model.json: what a stored model is. `treatment` and `dataset` are plain dictionaries; `tensors` and
    `calibration` are tables {name: {"shape", "dtype"}}; `digests` are the SHA-256 of the tensor files."""

    schema_version: int
    architecture: str
    arguments: dict[str, Any]
    data_shape: tuple[int, int, int]
    pixels: str
    levels: int | None
    treatment: dict[str, Any]
    dataset: dict[str, Any]  # name, digest, levels, specification, class_names
    tensors: Table
    calibration: Table
    digests: dict[str, str]
    created: str  # ISO 8601, UTC
    extra: dict[str, Any] = field(default_factory=dict)


def read_card(directory: Path | str) -> Card:
    """The card of a stored model, checked in itself; no weights are read.

    Raises StorageError: missing, too large, not JSON, a newer schema, an unknown architecture, bad arguments or sizes.
    """
    path = Path(directory) / CARD
    content = _read_json(path)
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise StorageError(f"{path} has schema version {version!r}, this program reads {SCHEMA_VERSION}; update it")
    known = {entry.name for entry in fields(Card)}
    if content.keys() != known:
        raise StorageError(f"{path} is not a model card: {', '.join(sorted(content.keys() ^ known))[:200]} do not fit")
    _check_types(content, path)
    _check_values(content, path)
    return Card(**{**content, "data_shape": tuple(content["data_shape"])})


def write_card(card: Card, directory: Path) -> None:
    """Write model.json atomically; StorageError where the card holds what JSON cannot say (NaN among it)."""
    path = directory / CARD
    try:
        text = json.dumps(asdict(card), indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StorageError(f"{path} was not written: the card holds what JSON cannot say ({error})") from None
    write_atomically(path, text.encode())


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise StorageError(f"{path} is missing: this folder is not a stored model")
    if path.stat().st_size > CARD_LIMIT:
        raise StorageError(f"{path} is larger than {CARD_LIMIT:,} bytes: this is not a model card")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise StorageError(f"{path} is not JSON, or cut short; fetch or train the model again") from None
    if not isinstance(content, dict):
        raise StorageError(f"{path} is not a model card: it is no JSON object")
    return content


def _check_types(content: dict[str, Any], path: Path) -> None:
    expected = {
        "architecture": str, "arguments": dict, "data_shape": list, "pixels": str, "levels": (int, type(None)),
        "treatment": dict, "dataset": dict, "digests": dict, "created": str, "extra": dict,
    }  # fmt: skip
    wrong = [key for key, kind in expected.items() if not isinstance(content[key], kind)]
    if wrong:
        raise StorageError(f"{path} is not a model card: {', '.join(wrong)} of the wrong type")
    check_table(content["tensors"], path)
    check_table(content["calibration"], path)


def _check_values(content: dict[str, Any], path: Path) -> None:
    shape = content["data_shape"]
    whole = len(shape) == 3 and all(type(size) is int and 1 <= size <= SIDE_LIMIT for size in shape)
    if not whole or math.prod(shape) > DIMENSION_LIMIT or content["pixels"] not in PIXEL_KINDS:
        raise StorageError(f"{path}: no image has shape {str(shape)[:60]} and pixels {content['pixels'][:20]!r}")
    try:
        model_class(content["architecture"])
        check_arguments(content["architecture"], content["arguments"])
        Treatment.from_dict(content["treatment"])
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise StorageError(f"{path} cannot be used: {error}") from None
    for name, value in content["arguments"].items():
        _check_size(name, value, path)


def _check_size(name: str, value: Any, path: Path) -> None:
    """No argument may ask for a network that takes for ever to build."""
    if isinstance(value, list | tuple):
        if len(value) > PART_LIMIT:
            raise StorageError(f"{path}: the argument {name} has {len(value)} parts, {PART_LIMIT} are allowed")
        for part in value:
            _check_size(name, part, path)
    elif isinstance(value, int | float) and abs(value) > WHOLE_NUMBER_LIMIT:
        raise StorageError(f"{path}: the argument {name}={value} is beyond {WHOLE_NUMBER_LIMIT:,}")

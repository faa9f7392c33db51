"""A model as data: model.json (the card), model.safetensors (weights), calibration.safetensors. No code, no pickle.

The card says everything needed to rebuild the model: architecture, constructor arguments, image shape, pixel treatment,
data set, and the table of tensors. Loading trusts nothing: the card is checked, the safetensors header is held against
the card's table, the table against the architecture (built without memory, on the meta device); only then is memory
taken. What does not fit is refused by StorageError: one sentence that names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdm_core.card import CARD, SCHEMA_VERSION, Card, read_card, write_card
from gdm_core.contract import GenerativeModel
from gdm_core.data.treatments import Treatment
from gdm_core.outline import model_outline
from gdm_core.registry import build_model
from gdm_core.tensor_files import StorageError, check_header, file_digest, read_tensors, tensor_table, write_tensors

__all__ = ["Card", "StorageError", "StoredModel", "load_model", "read_card", "save_model"]

WEIGHTS, CALIBRATION = "model.safetensors", "calibration.safetensors"
DATA_FILES = (CARD, WEIGHTS, CALIBRATION)
WEIGHTS_LIMIT, CALIBRATION_LIMIT = 16 * 2**30, 512 * 2**20  # bytes
BUILD_SLACK = 1000  # registrations beyond four per tensor in the table: containers, activations


@dataclass(frozen=True)
class StoredModel:
    """A rebuilt model in eval mode with its card and the calibration tensors (none: an empty dictionary)."""

    model: GenerativeModel
    card: Card
    calibration: dict[str, Tensor]

    @property
    def treatment(self) -> Treatment:
        """The way from stored levels to what this model sees."""
        return Treatment.from_dict(self.card.treatment)


def save_model(
    model: GenerativeModel,
    directory: Path | str,
    *,
    dataset: dict[str, Any],
    treatment: Treatment,
    calibration: dict[str, Tensor] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a model built by `build_model` into a folder. Each file is replaced atomically, the card last.

    Raises StorageError where the weights are not finite, the card is not JSON, or a dictionary holds NaN.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    _check_savable(model, folder)
    tensors = write_tensors(folder / WEIGHTS, model.state_dict())
    digests = {WEIGHTS: file_digest(folder / WEIGHTS)}
    (folder / CALIBRATION).unlink(missing_ok=True)
    table = write_tensors(folder / CALIBRATION, calibration) if calibration else {}
    if calibration:
        digests[CALIBRATION] = file_digest(folder / CALIBRATION)
    card = Card(
        SCHEMA_VERSION, model.name, dict(model.arguments), model.data_shape, model.pixels, model.levels,
        treatment.to_dict(), dict(dataset), tensors, table, digests,
        datetime.now(UTC).isoformat(timespec="seconds"), dict(extra or {}),
    )  # fmt: skip
    write_card(card, folder)


def load_model(directory: Path | str, device: str = "cpu") -> StoredModel:
    """Rebuild a stored model, in eval mode; what is not as it says is refused (StorageError) before memory is taken."""
    folder = Path(directory)
    card = read_card(folder)
    check_header(folder / WEIGHTS, card.tensors, WEIGHTS_LIMIT)
    check_header(folder / CALIBRATION, card.calibration, CALIBRATION_LIMIT) if card.calibration else None
    _check_architecture(card, folder)
    weights = read_tensors(folder / WEIGHTS, card.tensors, WEIGHTS_LIMIT, card.digests.get(WEIGHTS, ""))
    calibration = _read_calibration(card, folder)
    with torch.random.fork_rng(devices=[]):
        model = build_model(card.architecture, card.data_shape, **card.arguments)
    model.load_state_dict(weights)
    return StoredModel(model.to(device).eval(), card, calibration)


def _read_calibration(card: Card, folder: Path) -> dict[str, Tensor]:
    if not card.calibration:
        return {}
    return read_tensors(folder / CALIBRATION, card.calibration, CALIBRATION_LIMIT, card.digests.get(CALIBRATION, ""))


def _check_savable(model: GenerativeModel, folder: Path) -> None:
    if not hasattr(model, "arguments"):
        raise StorageError("only a model made by gdm_core.build_model can be saved: its arguments are not known")
    bad = [name for name, t in model.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise StorageError(f"{folder} was not written: {bad[0]} is not finite; train with a smaller learning rate")


def _check_architecture(card: Card, folder: Path) -> None:
    """The card's table must be that of the architecture, which is built on the meta device: shapes without memory."""
    try:
        parts = 4 * len(card.tensors) + BUILD_SLACK
        model = model_outline(card.architecture, card.data_shape, card.arguments, parts)
    except ValueError as error:
        raise StorageError(f"{folder / CARD} cannot be used: {error}") from None
    if (model.pixels, model.levels) != (card.pixels, card.levels):
        raise StorageError(f"{folder / CARD}: pixels are {card.pixels}, the arguments make a model of {model.pixels}")
    built = tensor_table(model.state_dict())
    if built != card.tensors:
        differing = sorted(n for n in built.keys() | card.tensors.keys() if built.get(n) != card.tensors.get(n))
        raise StorageError(f"{folder / CARD}: tensor {differing[0]!r} is not the one a {card.architecture} has")

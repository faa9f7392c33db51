"""Registration: a model folder becomes a version of a registered model, and aliases point at versions.

The version is data (gdm_core.storage), with a models-from-code python function beside it for people without this
project: `mlflow.pyfunc.load_model("models:/digits-nade@champion").predict(images)`; pyfunc_model.py says what it does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gdm_core.data.treatments import Treatment
from gdm_core.registry import model_class
from gdm_core.storage import DATA_FILES, Card, load_model
from pipelines.environment import PACKAGES, package_versions
from pipelines.store import client, store_errors
from pipelines.tracker import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACT_FOLDER, DATA_FOLDER = "model", "artifacts"  # in a run; in a version: where the data files are
LATEST = "latest"  # MLflow keeps this alias itself: always the newest version
HISTORY_TAG = "gdm.alias_history"
HISTORY_LENGTH = 200
PYFUNC_PARAMETERS = {"method": "score", "n": 16, "seed": 0, "temperature": 1.0, "scorer": ""}


@dataclass(frozen=True)
class AliasChange:
    """One entry of a registered model's alias history; `version` is None where the alias was removed."""

    alias: str
    version: str | None
    time: str  # ISO 8601, UTC


def model_name(dataset: str, model: str) -> str:
    """The registered name, DATASET-MODEL, of characters legal in an address."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", f"{dataset}-{model}").strip("-")


def register_folder(store: MlflowClient, run_id: str, directory: Path, name: str, tags: Mapping[str, str]) -> str:
    """Upload a model folder to its run and make it a version, which becomes `latest`. A run registers once.

    Raises StorageError where the folder is no model, StoreError where the store refuses.
    """
    card = load_model(directory).card  # what cannot be loaded is not registered
    tags = {**tags, **_card_tags(card)}  # what the checked card says counts
    with store_errors():
        return _version_of_run(store, name, run_id) or _new_version(store, run_id, directory, card, name, tags)


def set_alias(name: str, alias: str, version: str) -> None:
    """Point an alias at a version, and remember it in the history, from which one can roll back."""
    _check_alias(alias)
    store = client()
    with store_errors():
        store.set_registered_model_alias(name, alias, version)
    _remember(store, name, AliasChange(alias, str(version), _now()))


def delete_alias(name: str, alias: str) -> None:
    """Take an alias away; the version stays."""
    _check_alias(alias)
    store = client()
    with store_errors():
        store.delete_registered_model_alias(name, alias)
    _remember(store, name, AliasChange(alias, None, _now()))


def alias_history(name: str, alias: str | None = None) -> list[AliasChange]:
    """What the aliases of a registered model pointed at, oldest first; of one alias where given."""
    store = client()
    with store_errors():
        changes = _history(store, name)
    return [change for change in changes if alias in (None, change.alias)]


def previous_version(name: str, alias: str = "champion") -> str | None:
    """The version an alias pointed at before the present one: where a roll-back leads. None where there was none.

    Of those that are still registered; and whoever moved the alias, also where MLflow's own pages did, without history.
    """
    history, store = alias_history(name, alias), client()
    with store_errors():
        present = store.get_registered_model(name).aliases.get(alias)
        there = {str(version.version) for version in store.search_model_versions(f"name = '{name}'")}
    earlier = [change.version for change in history if change.version in there - {str(present)}]
    return earlier[-1] if earlier else None


def write_pyfunc(directory: Path, card: Card, destination: Path) -> None:
    """Write a model folder as MLflow's python function, with gdm_core's code, into a new folder."""
    import mlflow

    core = Path(importlib.util.find_spec("gdm_core").submodule_search_locations[0])
    files = {name: (directory / name).as_uri() for name in DATA_FILES if (directory / name).is_file()}
    mlflow.pyfunc.save_model(
        path=str(destination),
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts=files,
        code_paths=[str(core)],
        signature=_signature(card),
        input_example=(_example(card), PYFUNC_PARAMETERS),
        pip_requirements=[f"{name}=={version}" for name, version in package_versions(PACKAGES).items()],
        metadata={"architecture": card.architecture, "pixels": card.pixels, "dataset": card.dataset.get("name", "")},
    )


def _new_version(
    store: MlflowClient, run_id: str, directory: Path, card: Card, name: str, tags: Mapping[str, str]
) -> str:
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as temporary:
        write_pyfunc(directory.resolve(), card, Path(temporary) / ARTIFACT_FOLDER)
        store.log_artifacts(run_id, str(Path(temporary) / ARTIFACT_FOLDER), ARTIFACT_FOLDER)
    with contextlib.suppress(MlflowException):  # it may be there already; what else is wrong shows in the next line
        store.create_registered_model(name)
    source = f"{store.get_run(run_id).info.artifact_uri}/{ARTIFACT_FOLDER}"
    return str(store.create_model_version(name, source, run_id, tags=dict(tags)).version)


def _card_tags(card: Card) -> dict[str, str]:
    """What a list of versions shows even where the run is gone."""
    return {
        "gdm.model": card.architecture,
        "gdm.family": model_class(card.architecture).family,
        "gdm.dataset": str(card.dataset.get("name", "")),
        "gdm.dataset_digest": str(card.dataset.get("digest", "")),
        "gdm.treatment": Treatment.from_dict(card.treatment).label,
        "gdm.pixels": card.pixels,
        "gdm.data_shape": "x".join(map(str, card.data_shape)),
    }


def _version_of_run(store: MlflowClient, name: str, run_id: str) -> str | None:
    found = [v for v in store.search_model_versions(f"run_id = '{run_id}'") if v.name == name]
    return str(found[0].version) if found else None


def _signature(card: Card) -> Any:
    import numpy
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    types = {str: "string", int: "long", float: "double"}
    images = TensorSpec(numpy.dtype("float32"), (-1, *card.data_shape))
    parameters = [ParamSpec(key, types[type(value)], value) for key, value in PYFUNC_PARAMETERS.items()]
    return ModelSignature(inputs=Schema([images]), params=ParamSchema(parameters))


def _example(card: Card) -> Any:
    import numpy

    return numpy.zeros((1, *card.data_shape), dtype=numpy.float32)


def _check_alias(alias: str) -> None:
    if alias.lower() == LATEST:
        raise StoreError(
            f"the alias {alias!r} always means the newest version and cannot be moved: choose another name"
        )


def _remember(store: MlflowClient, name: str, change: AliasChange) -> None:
    """Append to the history unless the alias stands there already."""
    with store_errors():
        changes = _history(store, name)
        before = [entry.version for entry in changes if entry.alias == change.alias][-1:]
        if before != [change.version]:
            entries = [vars(entry) for entry in [*changes, change][-HISTORY_LENGTH:]]
            store.set_registered_model_tag(name, HISTORY_TAG, json.dumps(entries))


def _history(store: MlflowClient, name: str) -> list[AliasChange]:
    text = store.get_registered_model(name).tags.get(HISTORY_TAG, "[]")
    try:
        return [AliasChange(**entry) for entry in json.loads(text)]
    except (ValueError, TypeError):
        raise StoreError(f"the tag {HISTORY_TAG} of {name} is not a history: delete that tag in MLflow's UI") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

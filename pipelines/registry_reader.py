"""Reading the registry: which versions there are, with the numbers of their runs, and the models themselves.

Only data is read: the card, the weights and the calibration, checked by gdm_core.storage. The code that lies beside
them, for people without this project, is never run here.
"""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gdm_core.contract import GenerativeModel
from gdm_core.storage import DATA_FILES, StorageError, StoredModel
from gdm_core.storage import load_model as load_stored
from pipelines.model_files import data_folder
from pipelines.registered_model import LATEST
from pipelines.run_reader import RunRecord, _time, find_runs
from pipelines.store import client, store_errors, store_exists
from pipelines.tracker import StoreError

MODEL_URI = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class LogPartition:
    """log Z and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model, with the numbers of the run it comes from. None: the run has no such number.

    `test_mean` is in nats per image, of the kind `likelihood_kind`, over `test_count` test images treated as
    `treatment` says; only versions of equal data set, shape and treatment may share an axis.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    run_id: str
    run_status: str | None
    experiment_id: str | None
    created: datetime
    architecture: str
    family: str
    dataset: str
    dataset_digest: str
    treatment: str
    pixels: str
    data_shape: tuple[int, ...]
    likelihood_kind: str  # "exact", "lower bound", "estimate", "none"
    test_mean: float | None
    test_standard_error: float | None
    test_count: int | None
    bits_per_dimension: float | None
    log_partition: LogPartition | None
    validation_mean: float | None
    parameters: int | None
    training_seconds: float | None
    sampling_seconds: float | None  # for 64 images
    epochs: int | None
    frechet_distance: float | None
    tags: dict[str, str]

    @property
    def uri(self) -> str:
        """models:/NAME/VERSION"""
        return f"models:/{self.name}/{self.version}"


def list_versions() -> list[ModelVersion]:
    """Every version of every model registered by this project, newest first, in four queries for all."""
    if not store_exists():
        return []
    store = client()
    with store_errors():
        models = {model.name: model for model in _all_pages(store.search_registered_models, 1000)}
        versions = [version for version in _all_pages(store.search_model_versions, 10000) if version.name in models]
    runs = find_runs({version.run_id for version in versions if version.run_id})
    newest = {version.name: version.version for version in sorted(versions, key=lambda v: int(v.version))}
    aliases = {name: {**model.aliases, LATEST: newest.get(name)} for name, model in models.items()}
    joined = [_join(version, aliases[version.name], runs.get(version.run_id)) for version in versions]
    return sorted((v for v in joined if v.architecture), key=lambda v: (v.created, v.name), reverse=True)


def get_version(uri: str) -> ModelVersion:
    """The version an address means, models:/NAME/VERSION or models:/NAME@ALIAS; StoreError where it is gone."""
    found = _find(uri)
    aliases = {alias: found.version for alias in found.aliases}
    aliases[LATEST] = _find(f"models:/{found.name}@{LATEST}").version
    return _join(found, aliases, find_runs([found.run_id]).get(found.run_id) if found.run_id else None)


def resolve(uri: str) -> tuple[str, str]:
    """(name, version) of an address."""
    found = _find(uri)
    return found.name, str(found.version)


def load_model(uri: str) -> GenerativeModel:
    """A registered model, ready to use: `load_model("models:/digits-nade@champion").sample(16)`.

    Raises StoreError (no such model, store down) or StorageError (its files are not what they say).
    """
    return load_registered(uri).model


def load_registered(uri: str, device: str = "cpu") -> StoredModel:
    """A registered model with its card and calibration tensors. From a server it is fetched once and kept on disk."""
    folder, kept = data_folder(_find(uri))
    try:
        return load_stored(folder, device)
    except StorageError:
        if not kept:
            raise
    shutil.rmtree(folder)  # the copy on this machine went bad: fetch it once more
    return load_stored(data_folder(_find(uri))[0], device)


def version_files(uri: str) -> dict[str, Path]:
    """The data files of a version on this machine (fetched where need be): {"model.json": path, ...}."""
    folder, _ = data_folder(_find(uri))
    return {name: folder / name for name in DATA_FILES if (folder / name).is_file()}


def _find(uri: str) -> Any:
    match = MODEL_URI.fullmatch(uri)
    if not match:
        raise StoreError(f"{uri!r} is no model address: write models:/NAME/VERSION or models:/NAME@ALIAS")
    from mlflow.exceptions import MlflowException

    store = client()
    with store_errors():
        try:
            if match["alias"]:
                return store.get_model_version_by_alias(match["name"], match["alias"])
            return store.get_model_version(match["name"], match["version"])
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    raise StoreError(f"there is no model {uri} in the registry: choose another, see `python -m pipelines list`")


def _all_pages(search: Any, page_size: int) -> list[Any]:
    page = search(max_results=page_size)
    found = list(page)
    while page.token:
        page = search(max_results=page_size, page_token=page.token)
        found += page
    return found


def _join(version: Any, aliases: dict[str, Any], run: RunRecord | None) -> ModelVersion:
    tags = {**(run.tags if run else {}), **version.tags}
    metrics = run.metrics if run else {}
    return ModelVersion(
        name=version.name,
        version=str(version.version),
        aliases=tuple(sorted(alias for alias, at in aliases.items() if str(at) == str(version.version))),
        run_id=version.run_id or "",
        run_status=run.status if run else None,
        experiment_id=run.experiment_id if run else None,
        created=_time(version.creation_timestamp),
        architecture=tags.get("gdm.model", ""),
        family=tags.get("gdm.family", ""),
        dataset=tags.get("gdm.dataset", ""),
        dataset_digest=tags.get("gdm.dataset_digest", ""),
        treatment=tags.get("gdm.treatment", ""),
        pixels=tags.get("gdm.pixels", ""),
        data_shape=tuple(int(size) for size in tags.get("gdm.data_shape", "").split("x") if size.isdigit()),
        likelihood_kind=tags.get("gdm.likelihood_kind", "none"),
        tags=tags,
        **_numbers(metrics),
    )


def _numbers(metrics: dict[str, float]) -> dict[str, Any]:
    """A run's final metrics under the names of ModelVersion."""

    def whole(key: str) -> int | None:
        return int(metrics[key]) if math.isfinite(metrics.get(key, math.nan)) else None

    interval = [metrics.get(f"log_partition/{part}") for part in ("value", "low", "high")]
    return {
        "test_mean": metrics.get("test/log_likelihood"),
        "test_standard_error": metrics.get("test/standard_error"),
        "test_count": whole("test/count"),
        "bits_per_dimension": metrics.get("test/bits_per_dimension"),
        "log_partition": None if None in interval else LogPartition(*interval),
        "validation_mean": metrics.get("validation/final_log_likelihood"),
        "parameters": whole("parameters"),
        "training_seconds": metrics.get("training_seconds"),
        "sampling_seconds": metrics.get("sampling_seconds"),
        "epochs": whole("epochs"),
        "frechet_distance": metrics.get("frechet_distance"),
    }

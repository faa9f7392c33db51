"""Where artifacts lie: beside the SQLite file, or behind a server, under the same address mlflow-artifacts:/PATH.

Addresses without a place in them: the folder may be renamed, and served or not served, and every file is still found.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.tracking import get_tracking_uri


def LocalOrServedArtifacts(  # noqa: N802  (MLflow calls it as it calls a class)
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    """The repository of the scheme mlflow-artifacts: `artifacts/PATH` beside a SQLite store, else MLflow's own."""
    store = tracking_uri or get_tracking_uri()
    if not store.startswith("sqlite:///"):
        return MlflowArtifactsRepository(artifact_uri, tracking_uri=store, registry_uri=registry_uri)
    return LocalArtifactRepository(local_path(artifact_uri, store).as_uri())


def local_path(artifact_uri: str, store: str) -> Path:
    """The file or folder of mlflow-artifacts:/PATH in a SQLite store; ValueError where PATH climbs out of it."""
    root = (Path(store.removeprefix("sqlite:///").partition("?")[0]).absolute().parent / "artifacts").resolve()
    place = (root / unquote(urlparse(artifact_uri).path).lstrip("/")).resolve()
    if not place.is_relative_to(root):
        raise ValueError(f"{artifact_uri} climbs out of {root}: the store was tampered with")
    return place

"""The data files of a registered version on this machine: in the store's own folder, or fetched from a server once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from gdm_core.card import CARD, CARD_LIMIT, read_card
from gdm_core.storage import CALIBRATION, WEIGHTS, StorageError
from gdm_core.tensor_files import HEADER_LIMIT, table_bytes
from pipelines.registered_model import DATA_FOLDER
from pipelines.store import ARTIFACT_SCHEME, is_server, store_address, store_errors


def data_folder(version: Any) -> tuple[Path, bool]:
    """The folder of a version's data files, and whether it is a copy kept on this machine (else it is the store's)."""
    address = store_address()
    source = f"{version.source}/{DATA_FOLDER}"
    if not is_server(address) and source.startswith(f"{ARTIFACT_SCHEME}:"):
        from pipelines.artifact_store import local_path

        return local_path(source, address), False
    identity = "|".join(map(str, (address, version.name, version.version, version.run_id, version.creation_timestamp)))
    folder = model_cache() / hashlib.sha256(identity.encode()).hexdigest()[:24]
    if not folder.is_dir():
        _fetch(source, folder, address)
    return folder, True


def model_cache() -> Path:
    """Where models fetched from a server are kept: GDM_MODEL_CACHE, else ~/.cache/gdm-models."""
    return Path(os.environ.get("GDM_MODEL_CACHE") or Path.home() / ".cache" / "gdm-models")


def _fetch(source: str, folder: Path, address: str) -> None:
    """Download the data files, each only after its size was found to be what the card allows."""
    from mlflow.artifacts import list_artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with store_errors(address), tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        listed = list_artifacts(artifact_uri=source, tracking_uri=address)
        sizes = {entry.path.rpartition("/")[2]: entry.file_size or 0 for entry in listed if not entry.is_dir}
        limits = {CARD: CARD_LIMIT}
        _download(source, CARD, sizes, limits, Path(temporary), address)
        card = read_card(temporary)
        limits[WEIGHTS] = table_bytes(card.tensors) + HEADER_LIMIT
        if card.calibration:
            limits[CALIBRATION] = table_bytes(card.calibration) + HEADER_LIMIT
        for name in list(limits)[1:]:
            _download(source, name, sizes, limits, Path(temporary), address)
        if not folder.is_dir():
            Path(temporary, "complete").mkdir()
            for name in limits:
                os.replace(Path(temporary) / name, Path(temporary) / "complete" / name)
            os.replace(Path(temporary) / "complete", folder)


def _download(
    source: str, name: str, sizes: dict[str, int], limits: dict[str, int], folder: Path, address: str
) -> None:
    from mlflow.artifacts import download_artifacts

    if name not in sizes:
        raise StorageError(f"{source}/{name} is missing: register the model again")
    if sizes[name] > limits[name]:
        raise StorageError(f"{source}/{name} has {sizes[name]:,} bytes, at most {limits[name]:,} belong: not fetched")
    download_artifacts(artifact_uri=f"{source}/{name}", dst_path=str(folder), tracking_uri=address)

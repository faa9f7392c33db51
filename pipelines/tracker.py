"""What a training run writes to. `tracking.MlflowTracker` writes to a store, `offline.OfflineTracker` to a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL.Image import Image

OFFLINE_VERSION = "offline"  # of a model that is registered later, when its run is taken in
RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class StoreError(RuntimeError):
    """The store of runs and models cannot be used: one sentence that says which store and what to do."""


class Tracker(Protocol):
    """One run. Every method may raise StoreError. Each (metric, step) and (image, step) stands once: what a resumed
    run logs again is skipped, the first stands."""

    run_id: str

    def log_parameters(self, values: Mapping[str, Any]) -> None:
        """What the run was asked for; values become text. A value, once written, cannot change."""
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Facts that may change later, `gdm.*` among them."""
        ...

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at a step (the epoch, counted from 1)."""
        ...

    def log_image(self, key: str, image: Image, step: int) -> None:
        """A picture at a step, such as the sample grid under the key "samples"."""
        ...

    def log_file(self, path: Path | str, folder: str | None = None) -> None:
        """A file, kept under its own name in a folder of the run's artifacts."""
        ...

    def log_json(self, value: Any, name: str) -> None:
        """A value as a JSON file, for instance under "evaluation.json"."""
        ...

    def log_dataset(self, name: str, digest: str, splits: Mapping[str, int], source: str) -> None:
        """The data set: its digest, the number of images of each split, and where it is from."""
        ...

    def register(self, directory: Path | str, name: str, tags: Mapping[str, str]) -> str:
        """Register a model folder (`gdm_core.storage.save_model`); it becomes `latest`. Returns the version."""
        ...

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias of a registered model at a version."""
        ...

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Close the run."""
        ...

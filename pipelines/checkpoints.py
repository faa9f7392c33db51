"""Checkpoints: a run's state on disk, replaced whole or not at all, read without running code."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipelines.store import PROJECT_ROOT, is_server, sqlite_path, store_address

STATE, CONFIGURATION = "checkpoint.pt", "configuration.json"


def store_folder() -> Path:
    """Where this machine keeps what belongs to the store but not in it: beside the SQLite file, else in mlruns/."""
    address = store_address()
    return PROJECT_ROOT / "mlruns" if is_server(address) else sqlite_path(address).parent


def checkpoint_folder(run_id: str, offline: Path | None = None) -> Path:
    """The folder of a run's checkpoint: in the store's folder, or in the offline run's own."""
    return (offline / run_id if offline else store_folder() / "checkpoints" / run_id) / ("state" if offline else "")


def resume_command(run_id: str, offline: Path | None = None) -> str:
    """What takes a run up again from its checkpoint, as a user types it."""
    place = f" --offline {shlex.quote(str(offline))}" if offline else ""
    return f"python -m pipelines train --resume {run_id}{place}"


class Checkpoint:
    """One run's checkpoint. `save` replaces it atomically: a kill at any moment leaves the old one or the new one."""

    def __init__(self, folder: Path, every_seconds: float = 10.0) -> None:
        self.folder, self.every_seconds = folder, every_seconds
        self._last = time.monotonic()

    def begin(self, configuration: str) -> None:
        """Keep what the run was asked for, so that it can be taken up again even before its first checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.folder / CONFIGURATION, lambda path: path.write_text(configuration))

    def configuration(self) -> str:
        """What the run was asked for; ValueError where no such run was started on this machine."""
        path = self.folder / CONFIGURATION
        if not path.is_file():
            raise ValueError(
                f"there is nothing to resume in {self.folder}: the run finished, or was started elsewhere; "
                "`python -m pipelines rerun RUN_ID` repeats it from the start"
            )
        return path.read_text()

    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every_seconds

    def save(self, state: dict[str, Any]) -> None:
        _replace(self.folder / STATE, lambda path: torch.save(state, path))
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The last state, or None before the first; never runs code from the file."""
        path = self.folder / STATE
        return torch.load(path, weights_only=True) if path.is_file() else None

    def remove(self) -> None:
        """The run is over: nothing is left to resume."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside, flush to the disk, then take the place of the old file in one step."""
    beside = path.with_name(path.name + ".writing")
    write(beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)

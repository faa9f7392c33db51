"""Runs of a machine that reaches no server: written to a folder, taken in later as if logged live.

DIR/RUN/events.jsonl has one JSON object a line (offline_events.py); DIR/RUN/files holds what the lines name. Nothing
here needs a server or MLflow until a folder is taken in by `import_directory`.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from pipelines.environment import environment, git_tags
from pipelines.offline_events import EVENTS, FILES, logged_steps
from pipelines.offline_import import ImportReport, import_directory
from pipelines.tracker import OFFLINE_VERSION, RunStatus, StoreError

__all__ = ["ImportReport", "OfflineTracker", "import_directory"]


class OfflineTracker:
    """Implements `Tracker` in a folder. With `run_id` it goes on with a run of that folder."""

    def __init__(self, directory: Path | str, experiment: str, name: str, run_id: str | None = None) -> None:
        self.run_id = run_id or uuid.uuid4().hex
        self.folder = Path(directory) / self.run_id
        if run_id and not (self.folder / EVENTS).is_file():
            raise StoreError(f"there is no offline run {run_id} in {directory}: resume it where it was started")
        (self.folder / FILES).mkdir(parents=True, exist_ok=True)
        self._seen = self._mend() if run_id else set()
        if not run_id:
            self._write("start", experiment=experiment, name=name)
            self.set_tags(git_tags())
            self.log_json(environment(), "requirements.json")

    def log_parameters(self, values: Mapping[str, Any]) -> None:
        self._write("parameters", values={key: str(value) for key, value in values.items()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._write("tags", values={key: str(value) for key, value in tags.items()})

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """The values, and the machine's load at this moment."""
        fresh = {key: float(value) for key, value in {**values, **_system_metrics()}.items()}
        fresh = {key: value for key, value in fresh.items() if ("metrics", key, step) not in self._seen}
        self._seen |= {("metrics", key, step) for key in fresh}
        if fresh:
            self._write("metrics", values=fresh, step=step)

    def log_image(self, key: str, image: Image.Image, step: int) -> None:
        if ("image", key, step) in self._seen:
            return
        self._seen.add(("image", key, step))
        file = f"{uuid.uuid4().hex}.png"
        image.save(self.folder / FILES / file)
        self._write("image", key=key, step=step, file=file)

    def log_file(self, path: Path | str, folder: str | None = None) -> None:
        file = f"{uuid.uuid4().hex}/{Path(path).name}"
        (self.folder / FILES / file).parent.mkdir()
        shutil.copyfile(path, self.folder / FILES / file)
        self._write("file", file=file, folder=folder)

    def log_json(self, value: Any, name: str) -> None:
        folder, _, file_name = name.rpartition("/")
        file = f"{uuid.uuid4().hex}/{file_name}"
        (self.folder / FILES / file).parent.mkdir()
        (self.folder / FILES / file).write_text(json.dumps(value, indent=1))
        self._write("file", file=file, folder=folder or None)

    def log_dataset(self, name: str, digest: str, splits: Mapping[str, int], source: str) -> None:
        self._write("dataset", name=name, digest=digest, splits=dict(splits), source=source)

    def register(self, directory: Path | str, name: str, tags: Mapping[str, str]) -> str:
        """Keep the model folder; it is registered when taken in, so the version is not known yet: "offline"."""
        shutil.copytree(directory, self.folder / FILES / "model", dirs_exist_ok=True)
        self._write("register", file="model", name=name, tags=dict(tags))
        return OFFLINE_VERSION

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self._write("alias", name=name, alias=alias, version=version)

    def finish(self, status: RunStatus = "FINISHED") -> None:
        self._write("finish", status=status)

    def _mend(self) -> set[tuple[str, str, int]]:
        """End a line that was cut off when the run was killed; returns which metrics and images stand already."""
        path = self.folder / EVENTS
        if not path.read_bytes().endswith(b"\n"):
            with path.open("a") as file:
                file.write("\n")
        return logged_steps(path)

    def _write(self, event: str, **content: Any) -> None:
        line = json.dumps({"event": event, "time": int(time.time() * 1000), **content})
        with (self.folder / EVENTS).open("a") as file:
            file.write(line + "\n")


def _system_metrics() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": memory.percent,
        "system/system_memory_usage_megabytes": memory.used / 1e6,
    }

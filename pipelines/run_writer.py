"""A run written to MLflow: parameters, metrics, images, files, data set, system metrics, registration."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image

from pipelines.environment import environment, git_tags
from pipelines.store import ARTIFACT_SCHEME, client, store_address, store_errors
from pipelines.tracker import RunStatus, StoreError

SYSTEM_METRICS_SECONDS = 5
IMAGE_NAME = re.compile(r"images/(?P<key>.+)\+step\+(?P<step>\d+)\+timestamp\+(?P<time>\d+)\+[^+]+\.png$")


class MlflowTracker:
    """A new run in the experiment of a data set, or, with `run_id`, the same run taken up again.

    Implements `Tracker`. `system_metrics` samples processor, memory and GPU every few seconds in a thread.
    """

    def __init__(
        self, experiment: str, name: str, run_id: str | None = None, system_metrics: bool = True,
        start_time: int | None = None,
    ) -> None:  # fmt: skip
        self.address = store_address()
        self.client = client(self.address)
        self._steps: dict[str, set[int]] = {}
        self._images: set[tuple[str, int]] | None = None if run_id else set()
        self._resumed = run_id is not None
        with store_errors(self.address):
            self.run_id = self._resume(run_id) if run_id else self._create(experiment, name, start_time)
            self._monitor = self._start_monitor() if system_metrics else None

    def log_parameters(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        parameters = [Param(key, str(value)[:6000]) for key, value in values.items()]
        with store_errors(self.address):
            for start in range(0, len(parameters), 100):  # the server's limit per request
                self.client.log_batch(self.run_id, params=parameters[start : start + 100])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        with store_errors(self.address):
            self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log_metrics(self, values: Mapping[str, float], step: int, time_ms: int | None = None) -> None:
        from mlflow.entities import Metric

        with store_errors(self.address):
            now = time_ms or _now()
            fresh = [key for key in values if step not in self._stored_steps(key)]
            metrics = [Metric(key, float(values[key]), now, step) for key in fresh]
            for start in range(0, len(metrics), 1000):
                self.client.log_batch(self.run_id, metrics=metrics[start : start + 1000])
        for key in fresh:
            self._steps[key].add(step)

    def log_image(self, key: str, image: Image, step: int, time_ms: int | None = None) -> None:
        with store_errors(self.address):
            if (key, step) in self._stored_images():
                return
            self.client.log_image(self.run_id, image, key=key, step=step, timestamp=time_ms, synchronous=True)
        self._stored_images().add((key, step))

    def log_file(self, path: Path | str, folder: str | None = None) -> None:
        with store_errors(self.address):
            self.client.log_artifact(self.run_id, str(path), folder)

    def log_json(self, value: Any, name: str) -> None:
        folder, _, file_name = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / file_name
            path.write_text(json.dumps(value, indent=1))
            self.log_file(path, folder or None)

    def log_dataset(self, name: str, digest: str, splits: Mapping[str, int], source: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, "local", json.dumps({"uri": source}), None, json.dumps(dict(splits)))
        with store_errors(self.address):
            inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
            self.client.log_inputs(self.run_id, datasets=inputs)

    def register(self, directory: Path | str, name: str, tags: Mapping[str, str]) -> str:
        from pipelines.registered_model import register_folder

        return register_folder(self.client, self.run_id, Path(directory), name, tags)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        from pipelines.registered_model import set_alias

        set_alias(name, alias, version)

    def finish(self, status: RunStatus = "FINISHED", end_time: int | None = None) -> None:
        if self._monitor is not None:
            self._finish_monitor(self._monitor)
        with store_errors(self.address):
            self.client.set_terminated(self.run_id, status, end_time)

    def _create(self, experiment: str, name: str, start_time: int | None) -> str:
        tags = {"mlflow.runName": name, "mlflow.source.type": "LOCAL", "mlflow.source.name": "pipelines", **git_tags()}
        run = self.client.create_run(self._experiment_id(experiment), start_time, tags, name)
        self.run_id = run.info.run_id
        self.log_json(environment(), "requirements.json")
        return self.run_id

    def _resume(self, run_id: str) -> str:
        self.client.get_run(run_id)  # an unknown run fails here, by name
        self.client.update_run(run_id, "RUNNING")
        return run_id

    def _experiment_id(self, name: str) -> str:
        """The experiment of a data set. Its artifacts have an address without a place in it (see artifact_store)."""
        from mlflow.exceptions import MlflowException

        if re.search(r"[/\\]", name) or name in ("", ".", ".."):
            raise StoreError(f"no experiment can be called {name!r}: its files would climb out of the store's folder")
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=f"{ARTIFACT_SCHEME}:/{name}")
            except MlflowException:
                found = self.client.get_experiment_by_name(name)  # another run may have been the first
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise StoreError(f"the experiment {name!r} was deleted: restore it with `mlflow experiments restore`")
        return found.experiment_id

    def _stored_steps(self, key: str) -> set[int]:
        """The steps a metric has already; read from the store once, and only for a resumed run."""
        if key not in self._steps:
            history = self.client.get_metric_history(self.run_id, key) if self._resumed else []
            self._steps[key] = {metric.step for metric in history}
        return self._steps[key]

    def _stored_images(self) -> set[tuple[str, int]]:
        if self._images is None:
            found = (IMAGE_NAME.match(entry.path) for entry in self.client.list_artifacts(self.run_id, "images"))
            self._images = {(match["key"].replace("~", "/"), int(match["step"])) for match in found if match}
        return self._images

    def _start_monitor(self) -> Any:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        monitor = SystemMetricsMonitor(
            self.run_id, SYSTEM_METRICS_SECONDS, resume_logging=self._resumed, tracking_uri=self.address
        )
        monitor.start()
        return monitor

    def _finish_monitor(self, monitor: Any) -> None:
        """Stop the thread and log a last sample, so that the shortest run has one."""
        with store_errors(self.address):
            monitor.finish()
            monitor.collect_metrics()
            monitor.publish_metrics(monitor.aggregate_metrics())
            monitor.mlflow_logger.flush()


def _now() -> int:
    return int(time.time() * 1000)

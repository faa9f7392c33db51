"""Reading runs: what was asked, what came out, curves, sample grids and files. No MLflow type leaves here."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy

from gdm_core.tensor_files import StorageError, read_header, read_tensors
from pipelines.run_writer import IMAGE_NAME
from pipelines.store import ARTIFACT_SCHEME, client, is_server, store_address, store_errors, store_exists, ui_address
from pipelines.tracker import StoreError

LIKELIHOOD_FILE = "likelihood.safetensors"
LIKELIHOOD_LIMIT = 256 * 2**20  # bytes
SIGNS_OF_LIFE = ("system/cpu_utilization_percentage", "train/loss")
PAGE = 1000
RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class RunRecord:
    """One run. `status` is RUNNING, FINISHED, FAILED, KILLED or SCHEDULED; `metrics` holds the last value of each."""

    run_id: str
    name: str
    status: str
    experiment: str  # the data set's name
    experiment_id: str
    start: datetime
    end: datetime | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]

    @property
    def seconds(self) -> float:
        """How long it took, or has been running."""
        return ((self.end or datetime.now(UTC)) - self.start).total_seconds()


def runs(dataset: str | None = None, status: str | None = None, limit: int = 200) -> list[RunRecord]:
    """The runs, newest first; of one data set, of one status, at most `limit`. Empty where no store was made yet."""
    if not store_exists():
        return []
    store = client()
    with store_errors():
        names = _experiments(store, dataset)
        wanted = f"attributes.status = '{_word(status)}'" if status else ""
        order = ["attributes.start_time DESC"]
        found = store.search_runs(list(names), wanted, max_results=limit, order_by=order) if names else []
        return [_record(run, names) for run in found]


def runs_tagged(tag: str, value: str) -> list[RunRecord]:
    """The runs with a tag of exactly this value, newest first."""
    if not store_exists():
        return []
    store = client()
    with store_errors():
        names = _experiments(store)
        found = store.search_runs(list(names), f"tags.`{tag}` = '{_word(value)}'", max_results=PAGE) if names else []
        return [_record(run, names) for run in found]


def get_run(run_id: str) -> RunRecord:
    """One run; StoreError where there is none of this id."""
    return get_runs([run_id])[_known_id(run_id)]


def get_runs(run_ids: Iterable[str]) -> dict[str, RunRecord]:
    """Runs by id, in one query for all of them. StoreError names an id that is not there."""
    wanted = [_known_id(run_id) for run_id in dict.fromkeys(run_ids)]
    found = find_runs(wanted)
    missing = [run_id for run_id in wanted if run_id not in found]
    if missing:
        raise StoreError(f"there is no run {missing[0]} in the store: see `python -m pipelines list`")
    return found


def find_runs(run_ids: Iterable[str]) -> dict[str, RunRecord]:
    """Those of the runs that exist, in one query."""
    wanted = list(run_ids)
    if not wanted or not store_exists():
        return {}
    store = client()
    with store_errors():
        names = _experiments(store)
        pages = (wanted[start : start + 200] for start in range(0, len(wanted), 200))
        found = [run for page in pages for run in _search_by_id(store, list(names), page)]
        return {run.info.run_id: _record(run, names) for run in found}


def metric_history(run_id: str, key: str) -> list[tuple[int, float]]:
    """A curve: (step, value), by step; empty where the run has no such metric."""
    store = client()
    with store_errors():
        history = store.get_metric_history(_known_id(run_id), key)
    return sorted({metric.step: metric.value for metric in history}.items())


def last_sign_of_life(run: RunRecord) -> datetime:
    """When a run last logged its loss or the machine's load, which a live one does every few seconds; else its start.

    A run whose process was killed stays RUNNING in the store: nobody was left to say otherwise.
    """
    store = client()
    with store_errors():
        histories = [store.get_metric_history(_known_id(run.run_id), key) for key in SIGNS_OF_LIFE]
    times = [metric.timestamp for history in histories for metric in history]
    return max([run.start, *map(_time, times)])


def sample_grids(run_id: str) -> dict[str, dict[int, str]]:
    """The pictures of a run: {key: {step: path}}, by step; `read_file` gives the PNG."""
    grids: dict[str, dict[int, str]] = {}
    for path in list_files(run_id, "images"):
        if match := IMAGE_NAME.match(path):
            grids.setdefault(match["key"].replace("~", "/"), {})[int(match["step"])] = path
    return {key: dict(sorted(steps.items())) for key, steps in sorted(grids.items())}


def list_files(run_id: str, folder: str | None = None) -> list[str]:
    """The paths of the files in one folder of a run's artifacts, sorted."""
    store = client()
    with store_errors():
        return sorted(entry.path for entry in store.list_artifacts(_known_id(run_id), folder) if not entry.is_dir)


def read_file(run_id: str, path: str) -> bytes:
    """A file of a run's artifacts; StoreError where it is not there."""
    if path.startswith("/") or ".." in Path(path).parts:
        raise StoreError(f"{path} is no path inside a run")
    address, store = store_address(), client()
    with store_errors(address), tempfile.TemporaryDirectory() as temporary:
        local = local_run_folder(address, _known_id(run_id))
        found = local / path if local else Path(store.download_artifacts(run_id, path, temporary))
        if found.is_file():
            return found.read_bytes()
    raise StoreError(f"run {run_id} has no file {path}: look at the run's artifacts in MLflow")


def per_image_likelihood(run_id: str) -> dict[str, numpy.ndarray]:
    """Per-image log-likelihoods in nats, float64: {"validation": (N,), "test": (N,)}. Empty where the run has none."""
    if LIKELIHOOD_FILE not in list_files(run_id):
        return {}
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / LIKELIHOOD_FILE
        path.write_bytes(read_file(run_id, LIKELIHOOD_FILE))
        tensors = read_tensors(path, read_header(path, LIKELIHOOD_LIMIT), LIKELIHOOD_LIMIT)
    bad = [name for name, values in tensors.items() if values.dim() != 1]
    if bad:
        raise StorageError(
            f"{LIKELIHOOD_FILE} of run {run_id}: {bad[0]!r} is not one number per image; "
            f"`python -m pipelines rerun {run_id}` repeats the run"
        )
    return {name: values.double().numpy() for name, values in tensors.items()}


def run_link(experiment_id: str, run_id: str) -> str | None:
    """The run's page in MLflow's own UI, or None where no UI is known."""
    return _ui(f"experiments/{experiment_id}/runs/{run_id}")


def model_link(name: str, version: str | None = None) -> str | None:
    """A registered model's page, or a version's, in MLflow's own UI, or None where no UI is known."""
    return _ui(f"models/{name}/versions/{version}" if version else f"models/{name}")


def _ui(page: str) -> str | None:
    address = ui_address()
    return f"{address}/#/{page}" if address else None


@lru_cache(maxsize=1000)
def local_run_folder(address: str, run_id: str) -> Path | None:
    """The folder of a run's artifacts where it is on this machine (a SQLite store), else None."""
    uri = client(address).get_run(run_id).info.artifact_uri
    if is_server(address) or not uri.startswith(f"{ARTIFACT_SCHEME}:"):
        return None
    from pipelines.artifact_store import local_path

    return local_path(uri, address)


def _experiments(store: Any, name: str | None = None) -> dict[str, str]:
    """id -> name of the experiments; MLflow's own experiment 0 is not ours."""
    found = store.search_experiments(max_results=PAGE, filter_string=f"name = '{_word(name)}'" if name else None)
    return {experiment.experiment_id: experiment.name for experiment in found if experiment.experiment_id != "0"}


def _search_by_id(store: Any, experiments: list[str], run_ids: list[str]) -> list[Any]:
    listed = ", ".join(f"'{_known_id(run_id)}'" for run_id in run_ids)
    return store.search_runs(experiments, f"attributes.run_id IN ({listed})", max_results=PAGE) if experiments else []


def _record(run: Any, experiments: dict[str, str]) -> RunRecord:
    info = run.info
    return RunRecord(
        info.run_id, info.run_name or info.run_id[:8], info.status, experiments[info.experiment_id],
        info.experiment_id, _time(info.start_time), _time(info.end_time) if info.end_time else None,
        dict(run.data.params), dict(run.data.metrics),
        {key: value for key, value in run.data.tags.items()},
    )  # fmt: skip


def _known_id(run_id: str) -> str:
    if not RUN_ID.fullmatch(run_id):
        raise StoreError(f"{run_id!r} is no run id: it has 32 characters, 0-9 and a-f")
    return run_id


def _word(text: str) -> str:
    """Text that may stand in a query."""
    if "'" in text or "\\" in text:
        raise StoreError(f"{text!r} cannot be searched for: take out the quotes")
    return text


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)

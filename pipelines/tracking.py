"""Tracking and registry: the one door for training, the command line and the dashboard.

Writing: `MlflowTracker`. Reading runs: `runs`, `get_run`, `metric_history`, `sample_grids`, `read_file`,
`per_image_likelihood`. Reading models: `list_versions`, `get_version`, `load_model`, `load_registered`. Everything
raises StoreError where the store is down or lacks what was asked for, StorageError where a file is not what it says.
"""

from gdm_core.storage import StorageError, StoredModel
from pipelines.registered_model import (
    AliasChange,
    alias_history,
    delete_alias,
    model_name,
    previous_version,
    set_alias,
)
from pipelines.registry_reader import (
    LogPartition,
    ModelVersion,
    get_version,
    list_versions,
    load_model,
    load_registered,
    resolve,
    version_files,
)
from pipelines.run_reader import (
    RunRecord,
    get_run,
    get_runs,
    last_sign_of_life,
    list_files,
    metric_history,
    model_link,
    per_image_likelihood,
    read_file,
    run_link,
    runs,
    sample_grids,
)
from pipelines.run_writer import MlflowTracker
from pipelines.store import store_address, store_exists
from pipelines.tracker import StoreError, Tracker

__all__ = [
    "AliasChange", "LogPartition", "MlflowTracker", "ModelVersion", "RunRecord", "StorageError", "StoreError",
    "StoredModel", "Tracker", "alias_history", "delete_alias", "get_run", "get_runs", "get_version",
    "last_sign_of_life", "list_files", "list_versions", "load_model", "load_registered", "metric_history",
    "model_link", "model_name", "per_image_likelihood", "previous_version", "read_file", "resolve", "run_link",
    "runs", "sample_grids", "set_alias", "store_address", "store_exists", "ui_link", "version_files",
]  # fmt: skip


def ui_link(record: RunRecord | ModelVersion) -> str | None:
    """The page of a run or of a registered version in MLflow's own UI (GDM_MLFLOW_UI), or None where none is known."""
    if isinstance(record, RunRecord):
        return run_link(record.experiment_id, record.run_id)
    return model_link(record.name, record.version)

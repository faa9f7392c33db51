"""Runs in a real store: what is logged is read back, each step once, served or not, wherever the folder moves."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from gdm_core.tensor_files import StorageError, write_tensors
from pipelines import tracking
from pipelines.tracking import MlflowTracker, StoreError
from tests.stores import NAME, finished_run, new_store, prepared_database, server, store, tiny_model, using  # noqa: F401

RUN = "0" * 32


@pytest.fixture(scope="module")
def run_id(store: Path) -> str:  # noqa: F811
    """One run with everything a run logs, interrupted and resumed."""
    tracker = MlflowTracker("digits", "whole")
    tracker.log_parameters({"model": "nade", "seed": 3, "long": "x" * 9000})
    tracker.set_tags({"gdm.model": "nade"})
    tracker.log_dataset("digits", "0123456789abcdef", {"train": 1000, "test": 360}, "scikit-learn")
    for step in (1, 2, 3):
        tracker.log_metrics({"train/loss": 10.0 - step, "images_per_second": 100.0}, step)
        tracker.log_image("samples", Image.new("L", (20, 20), step), step)
    resumed = MlflowTracker("digits", "whole", run_id=tracker.run_id)
    for step in (2, 3, 4):
        resumed.log_metrics({"train/loss": 10.0 - step, "images_per_second": 777.0}, step)
        resumed.log_image("samples", Image.new("L", (20, 20), step), step)
    resumed.log_json({"kind": "exact"}, "evaluation.json")
    write_tensors(store / "likelihood.safetensors", {"test": torch.tensor([-1.0, -2.0]), "validation": torch.zeros(3)})
    resumed.log_file(store / "likelihood.safetensors")
    resumed.finish()
    return tracker.run_id


def test_a_run_is_read_back_as_it_was_logged(run_id: str) -> None:
    record = tracking.get_run(run_id)
    assert (record.name, record.status, record.experiment) == ("whole", "FINISHED", "digits")
    assert record.params["model"] == "nade" and record.params["seed"] == "3" and len(record.params["long"]) == 6000
    assert record.metrics["train/loss"] == 6.0
    assert record.tags["gdm.model"] == "nade"
    assert len(record.tags["mlflow.source.git.commit"]) == 40
    assert any(key.startswith("system/") for key in record.metrics)
    assert 0 <= record.seconds < 600
    assert b"torch" in tracking.read_file(run_id, "requirements.json")
    assert tracking.list_files(run_id) == ["evaluation.json", "likelihood.safetensors", "requirements.json"]


def test_each_metric_step_and_each_image_stands_once(run_id: str) -> None:
    """MLflow itself keeps duplicates; the history is asked directly."""
    from pipelines.store import client

    history = client().get_metric_history(run_id, "images_per_second")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 100), (2, 100), (3, 100), (4, 777)]
    assert tracking.metric_history(run_id, "train/loss") == [(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0)]
    grids = tracking.sample_grids(run_id)
    assert list(grids) == ["samples"] and list(grids["samples"]) == [1, 2, 3, 4]
    pictures = [path for path in tracking.list_files(run_id, "images") if path.endswith(".png")]
    assert len(pictures) == 4
    assert tracking.read_file(run_id, grids["samples"][4]).startswith(b"\x89PNG")


def test_the_data_set_is_an_input_with_its_digest(run_id: str) -> None:
    from pipelines.store import client

    (found,) = client().get_run(run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("digits", "0123456789abcdef")
    assert "360" in found.dataset.profile


def test_per_image_likelihoods_are_read_back(run_id: str) -> None:
    values = tracking.per_image_likelihood(run_id)
    assert values["test"].tolist() == [-1, -2] and values["test"].dtype == numpy.float64
    assert values["validation"].shape == (3,)


def test_a_damaged_likelihood_file_is_refused(store: Path) -> None:  # noqa: F811
    tracker = MlflowTracker("digits", "damaged", system_metrics=False)
    (store / "likelihood.safetensors").write_bytes(b"\x80\x04nonsense")
    tracker.log_file(store / "likelihood.safetensors")
    tracker.finish("FAILED")
    with pytest.raises(StorageError, match="likelihood.safetensors"):
        tracking.per_image_likelihood(tracker.run_id)


def test_runs_are_filtered(run_id: str) -> None:
    other = MlflowTracker("folder-screws", "other", system_metrics=False)
    other.finish("KILLED")
    assert other.run_id in {run.run_id for run in tracking.runs()}
    assert {run.experiment for run in tracking.runs("folder-screws")} == {"folder-screws"}
    assert {run.status for run in tracking.runs(status="KILLED")} == {"KILLED"}
    assert len(tracking.runs(limit=1)) == 1
    assert tracking.runs("no such data set") == []
    assert tracking.runs()[0].start >= tracking.runs()[-1].start


def test_asking_for_what_is_not_there_says_so(run_id: str) -> None:
    with pytest.raises(StoreError, match=f"no run {RUN}"):
        tracking.get_run(RUN)
    with pytest.raises(StoreError, match="no run id"):
        tracking.get_run("../../etc/passwd")
    with pytest.raises(StoreError, match="no file"):
        tracking.read_file(run_id, "nothing.json")
    for path in ("../requirements.json", "/etc/passwd", "images/../../x"):
        with pytest.raises(StoreError, match="no path inside"):
            tracking.read_file(run_id, path)
    with pytest.raises(StoreError, match="quotes"):
        tracking.runs("x' OR name = 'y")
    with pytest.raises(StoreError):
        MlflowTracker("digits", "resumed", run_id=RUN)
    assert tracking.metric_history(run_id, "no such metric") == []


def test_every_artifact_lies_beside_the_database(run_id: str, store: Path) -> None:  # noqa: F811
    from pipelines.store import client

    run = client().get_run(run_id)
    assert run.info.artifact_uri == f"mlflow-artifacts:/digits/{run_id}/artifacts"
    assert run.info.experiment_id != "0"
    assert (store / "artifacts" / "digits" / run_id / "artifacts" / "evaluation.json").is_file()


def test_links_lead_into_the_ui(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tracking.get_run(run_id)
    assert tracking.ui_link(record) is None
    monkeypatch.setenv("GDM_MLFLOW_UI", "http://127.0.0.1:5001/")
    assert tracking.ui_link(record) == f"http://127.0.0.1:5001/#/experiments/{record.experiment_id}/runs/{run_id}"


# --- stores that are down, and starting at once ------------------------------------------------------------------


def test_a_store_that_was_never_made_is_empty_and_stays_unmade(tmp_path: Path) -> None:
    with using(f"sqlite:///{tmp_path / 'mlflow.db'}"):
        assert tracking.runs() == [] and tracking.list_versions() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["postgresql://me:secret@host/db", "nonsense", "file:///tmp/x"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with using(address), pytest.raises(StoreError, match="MLFLOW_TRACKING_URI") as error:
        tracking.runs()
    assert "secret" not in str(error.value)


def test_a_server_that_is_down_is_named_in_seconds() -> None:
    start = time.monotonic()
    with using("http://me:secret@127.0.0.1:9"), pytest.raises(StoreError, match="does not answer") as error:
        tracking.list_versions()
    assert time.monotonic() - start < 8 and "secret" not in str(error.value)


def test_a_damaged_database_is_named_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database at all, but long enough to look at " * 100)
    start = time.monotonic()
    with using(f"sqlite:///{tmp_path / 'mlflow.db'}"), pytest.raises(StoreError, match="mlflow.db cannot be read"):
        tracking.runs()
    assert time.monotonic() - start < 5


def test_a_locked_database_is_named(tmp_path: Path) -> None:
    import sqlite3

    address = new_store(tmp_path)
    with using(address):
        holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            tracking.runs()
        holder.execute("ROLLBACK")
        holder.close()
        assert tracking.runs() == []


def test_a_database_that_vanished_is_named(tmp_path: Path) -> None:
    with using(new_store(tmp_path)):
        MlflowTracker("digits", "run", system_metrics=False).finish()
        (tmp_path / "mlflow.db").rename(tmp_path / "elsewhere.db")
        with pytest.raises(StoreError, match="gone"):
            MlflowTracker("digits", "run", system_metrics=False)
        assert not (tmp_path / "mlflow.db").exists()


def test_programs_that_start_at_once_make_one_database() -> None:
    assert prepared_database().stat().st_size > 100_000


# --- a real server, and moving the folder ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """A model trained without a server; the folder renamed; then served, and a model trained through the server."""
    base = tmp_path_factory.mktemp("move")
    with using(new_store(base / "old")):
        finished_run(base / "a", -7.0, seed=1)
        expected = {"1": densities("1")}
    (base / "old").rename(base / "new")
    with server(base / "new") as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDM_MODEL_CACHE", str(base / "cache"))
        with using(address):
            finished_run(base / "b", -6.0, seed=2)
            expected["2"] = densities("2")
        yield {"folder": base / "new", "expected": expected, "cache": base / "cache", "server": address}


def densities(version: str) -> torch.Tensor:
    """log p of the same images by a registered version, which is loaded from the store."""
    images = torch.bernoulli(torch.full((5, 1, 4, 4), 0.5), generator=torch.Generator().manual_seed(0))
    return tracking.load_model(f"models:/{NAME}/{version}").log_prob(images)


def both_versions_are_there(expected: dict[str, torch.Tensor]) -> None:
    listed = {version.version: version for version in tracking.list_versions() if version.name == NAME}
    assert {key: version.test_mean for key, version in listed.items()} == {"1": -7.0, "2": -6.0}
    for key, version in listed.items():
        assert torch.equal(densities(key), expected[key])
        assert b"torch" in tracking.read_file(version.run_id, "requirements.json")


def test_what_was_trained_without_a_server_is_served_after_a_rename(moved: dict) -> None:
    with using(moved["server"]):
        both_versions_are_there(moved["expected"])


def test_the_python_function_is_loaded_through_the_server(moved: dict) -> None:
    import mlflow

    with using(moved["server"]):
        model = mlflow.pyfunc.load_model(f"models:/{NAME}/2")
    samples = model.predict(numpy.zeros((1, 1, 4, 4), numpy.float32), params={"method": "sample", "n": 3})
    assert samples.shape == (3, 1, 4, 4) and set(samples.ravel()) <= {0.0, 1.0}


def test_what_was_trained_with_a_server_is_there_without_it_after_a_rename(moved: dict, tmp_path: Path) -> None:
    """The folder is copied, for a server is looking at it, to another place; nothing in it knows of a place."""
    shutil.copytree(moved["folder"], tmp_path / "third")
    with using(f"sqlite:///{tmp_path / 'third' / 'mlflow.db'}"):
        both_versions_are_there(moved["expected"])
    assert str(moved["folder"].parent).encode() not in (tmp_path / "third" / "mlflow.db").read_bytes()


def test_a_run_through_a_server_is_read_back(moved: dict, tmp_path: Path) -> None:
    with using(moved["server"]):
        tracker = MlflowTracker("digits", "served")
        tracker.log_metrics({"train/loss": 1.0}, 1)
        tracker.log_image("samples", Image.new("L", (20, 20)), 1)
        tracker.finish()
        again = MlflowTracker("digits", "served", run_id=tracker.run_id, system_metrics=False)
        again.log_metrics({"train/loss": 5.0}, 1)
        again.log_image("samples", Image.new("L", (20, 20)), 1)
        again.finish()
        record = tracking.get_run(tracker.run_id)
        assert record.status == "FINISHED" and record.metrics["train/loss"] == 1.0
        assert [path for path in tracking.list_files(record.run_id, "images") if path.endswith("png")] == [
            tracking.sample_grids(record.run_id)["samples"][1]
        ]
        assert tracking.ui_link(record).startswith(moved["server"])
        tracker.set_alias(NAME, "champion", "1")
        assert tracking.resolve(f"models:/{NAME}@champion") == (NAME, "1")


def test_a_model_from_a_server_is_fetched_once_and_a_bad_copy_again(moved: dict) -> None:
    with using(moved["server"]):
        uri = f"models:/{NAME}/2"
        weights = tracking.version_files(uri)["model.safetensors"]
        assert weights.is_relative_to(moved["cache"])
        before = weights.stat().st_mtime_ns
        tracking.load_model(uri)
        assert weights.stat().st_mtime_ns == before
        weights.write_bytes(weights.read_bytes()[:-4])
        assert torch.equal(densities("2"), moved["expected"]["2"])
        assert sorted(path.name for path in weights.parent.iterdir()) == [
            "calibration.safetensors", "model.json", "model.safetensors"
        ]  # fmt: skip


def test_a_server_s_file_that_is_too_large_is_not_fetched(moved: dict, tmp_path: Path) -> None:
    with using(moved["server"]):
        tracker = MlflowTracker("digits", "large", system_metrics=False)
        version = tracker.register(tiny_model(tmp_path / "model"), "digits-large", {})
        tracker.finish()
        stored = moved["folder"] / "artifacts" / "digits" / tracker.run_id
        with (stored / "artifacts/model/artifacts/model.safetensors").open("r+b") as file:
            file.truncate(2**33)
        with pytest.raises(StorageError, match="not fetched"):
            tracking.load_model(f"models:/digits-large/{version}")

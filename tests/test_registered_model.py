"""Registered models: versions, aliases and their history, and the python function for people without this project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch

from gdm_core.anomaly.scorers import score_images
from gdm_core.randomness import seeded_generator
from pipelines import tracking
from pipelines.store import client
from pipelines.tracking import MlflowTracker, StorageError, StoreError
from tests.stores import NAME, finished_run, new_store, store, tiny_model, using  # noqa: F401

ROOT = Path(tracking.__file__).parents[1]


@pytest.fixture(scope="module")
def versions(store: Path) -> list[tuple[str, str]]:  # noqa: F811
    """Three registered runs; the second is champion, after the first."""
    found = [finished_run(store / f"model{seed}", -8.0 + seed, seed) for seed in range(3)]
    tracking.set_alias(NAME, "champion", "1")
    tracking.set_alias(NAME, "champion", "2")
    tracking.set_alias(NAME, "champion", "2")
    return found


def test_a_version_has_the_numbers_of_its_run(versions: list[tuple[str, str]]) -> None:
    version = tracking.get_version(f"models:/{NAME}@champion")
    assert (version.name, version.version, version.uri) == (NAME, "2", f"models:/{NAME}/2")
    assert version.run_id == versions[1][0]
    assert (version.architecture, version.family, version.dataset) == (
        "independent_bernoulli", "autoregressive", "digits"
    )  # fmt: skip
    assert (version.treatment, version.pixels, version.data_shape) == ("binary, on if >= 0.5", "binary", (1, 4, 4))
    assert (version.likelihood_kind, version.test_mean, version.test_standard_error) == ("exact", -7.0, 0.1)
    assert (version.test_count, version.epochs, version.log_partition, version.frechet_distance) == (360, 1, None, None)
    assert version.dataset_digest == "0123456789abcdef" and version.run_status == "FINISHED"
    assert version.aliases == ("champion",)


def test_the_list_is_what_single_look_ups_say(versions: list[tuple[str, str]]) -> None:
    listed = tracking.list_versions()
    assert [version.version for version in listed] == ["3", "2", "1"]
    assert [version.aliases for version in listed] == [("latest",), ("champion",), ()]
    assert listed == [tracking.get_version(version.uri) for version in listed]


def test_versions_are_listed_in_a_fixed_number_of_queries(
    versions: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many versions there are: no query per version."""
    from mlflow import MlflowClient

    calls: list[str] = []

    def counted(name: str):
        method = getattr(MlflowClient, name)
        return lambda self, *args, **kwargs: (calls.append(name), method(self, *args, **kwargs))[1]

    for name in [name for name in vars(MlflowClient) if name.startswith(("get_", "search_"))]:
        monkeypatch.setattr(MlflowClient, name, counted(name))
    tracking.list_versions()
    assert len(calls) == 4, calls


def test_addresses_resolve(versions: list[tuple[str, str]]) -> None:
    assert tracking.resolve(f"models:/{NAME}@latest") == (NAME, "3")
    assert tracking.resolve(f"models:/{NAME}@champion") == (NAME, "2")
    assert tracking.resolve(f"models:/{NAME}/1") == (NAME, "1")
    for gone in (
        f"models:/{NAME}@nobody",
        f"models:/{NAME}/99",
        "models:/no-such-model/1",
        "models:/no-such-model@latest",
    ):
        with pytest.raises(StoreError, match="there is no model"):
            tracking.get_version(gone)
    for wrong in (NAME, f"models:/{NAME}", "models:/a/b/1", "runs:/1", f"models:/{NAME}/latest"):
        with pytest.raises(StoreError, match="no model address"):
            tracking.resolve(wrong)


def test_a_version_that_was_deleted_is_no_way_back(tmp_path: Path) -> None:
    with using(new_store(tmp_path)):
        for seed in range(3):
            finished_run(tmp_path / f"model{seed}", -8.0, seed)
            tracking.set_alias(NAME, "champion", str(seed + 1))
        assert tracking.previous_version(NAME) == "2"
        client().delete_model_version(NAME, "2")
        assert tracking.previous_version(NAME) == "1"


def test_the_alias_history_leads_back(versions: list[tuple[str, str]]) -> None:
    history = tracking.alias_history(NAME, "champion")
    assert [change.version for change in history] == ["1", "2"]
    assert tracking.previous_version(NAME) == "1"
    client().set_registered_model_alias(NAME, "champion", "1")  # as MLflow's own pages do it, without our history
    assert tracking.previous_version(NAME) == "2"
    tracking.set_alias(NAME, "champion", "2")
    tracking.set_alias(NAME, "old", "1")
    tracking.delete_alias(NAME, "old")
    assert [change.version for change in tracking.alias_history(NAME, "old")] == ["1", None]
    with pytest.raises(StoreError, match="no model"):
        tracking.resolve(f"models:/{NAME}@old")
    with pytest.raises(StoreError, match="newest"):
        tracking.set_alias(NAME, "latest", "1")
    with pytest.raises(StoreError):
        tracking.set_alias(NAME, "champion", "99")
    assert tracking.resolve(f"models:/{NAME}@champion") == (NAME, "2")


def test_a_run_registers_once(store: Path, tmp_path: Path) -> None:  # noqa: F811
    tracker = MlflowTracker("digits", "twice", system_metrics=False)
    folder = tiny_model(tmp_path / "model")
    assert tracker.register(folder, "digits-twice", {}) == tracker.register(folder, "digits-twice", {}) == "1"


def test_what_cannot_be_loaded_is_not_registered(store: Path, tmp_path: Path) -> None:  # noqa: F811
    tracker = MlflowTracker("digits", "broken", system_metrics=False)
    folder = tiny_model(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(StorageError, match="model.safetensors"):
        tracker.register(folder, "digits-broken", {})
    assert not [version for version in tracking.list_versions() if version.name == "digits-broken"]


def test_registered_names_are_legal() -> None:
    assert tracking.model_name("digits", "nade") == "digits-nade"
    assert tracking.model_name("folder:/my pictures/Ä", "vae") == "folder-my-pictures-vae"


def test_no_code_of_the_registry_runs_when_a_model_is_loaded(store: Path, tmp_path: Path) -> None:  # noqa: F811
    """The code that lies beside the data is replaced by code that would leave a trace."""
    tracker = MlflowTracker("digits", "trap", system_metrics=False)
    version = tracker.register(tiny_model(tmp_path / "model"), "digits-trap", {})
    model = store / "artifacts" / "digits" / tracker.run_id / "artifacts" / "model"
    trace = tmp_path / "trace"
    for file in [*model.rglob("*.py"), model / "python_model.pkl"]:
        file.write_text(f"open({str(trace)!r}, 'w')")
    assert tracking.load_registered(f"models:/digits-trap/{version}").card.architecture == "independent_bernoulli"
    assert not trace.exists()


def test_a_damaged_version_is_refused(store: Path, tmp_path: Path) -> None:  # noqa: F811
    tracker = MlflowTracker("digits", "damaged", system_metrics=False)
    version = tracker.register(tiny_model(tmp_path / "model"), "digits-damaged", {})
    weights = tracking.version_files(f"models:/digits-damaged/{version}")["model.safetensors"]
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(StorageError, match="model.safetensors"):
        tracking.load_model(f"models:/digits-damaged/{version}")


def test_a_name_registered_by_others_is_left_out(versions: list[tuple[str, str]]) -> None:
    from pipelines.store import client

    client().create_registered_model("foreign")
    client().create_model_version("foreign", "mlflow-artifacts:/elsewhere/model")
    assert "foreign" not in {version.name for version in tracking.list_versions()}
    with pytest.raises(StorageError, match="missing"):
        tracking.load_model("models:/foreign/1")


# --- the python function, in an empty directory outside the checkout -----------------------------------------------

PROGRAM = """
import json, sys, mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
images = numpy.load(sys.argv[2])
def ask(**params):
    try:
        return model.predict(images, params=params).tolist()
    except Exception as error:
        return str(error)
import gdm_core
answers = {
    "default": model.predict(images).tolist(), "score": ask(method="score", scorer="likelihood"),
    "p": ask(method="p_value"), "sample": ask(method="sample", n=16, seed=5),
    "again": ask(method="sample", n=16, seed=5),
    "other": ask(method="sample", n=16, seed=6), "wrong": ask(method="dance"), "scorer": ask(scorer="nose"),
    "signature": str(model.metadata.signature),
    "code": gdm_core.__file__, "log_likelihood": ask(method="log_likelihood"),
}
json.dump(answers, open("answers.json", "w"))
"""


@pytest.fixture(scope="module")
def answers(versions: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a program without this checkout gets; only the artifact store's entry point is installed."""
    empty, site = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("site")
    information = site / "deep_generative_models-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: deep-generative-models\nVersion: 0.1.0\n")
    entry = "[mlflow.artifact_repository]\nmlflow-artifacts = pipelines.artifact_store:LocalOrServedArtifacts\n"
    (information / "entry_points.txt").write_text(entry)
    (site / "pipelines").mkdir()
    for name in ("__init__.py", "artifact_store.py"):
        shutil.copy(ROOT / "pipelines" / name, site / "pipelines")
    numpy.save(empty / "images.npy", images())
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, f"models:/{NAME}@champion", "images.npy"],
        cwd=empty, env=environment, check=True, timeout=120,
    )  # fmt: skip
    return json.loads((empty / "answers.json").read_text())


def images() -> numpy.ndarray:
    """Grey images: they are thresholded as the training data was."""
    return numpy.random.default_rng(0).random((6, 1, 4, 4)).astype(numpy.float32)


def test_the_python_function_runs_the_code_that_came_with_it(answers: dict) -> None:
    assert not answers["code"].startswith(str(ROOT))


def test_the_python_function_gives_the_scores_of_the_project(answers: dict) -> None:
    stored = tracking.load_registered(f"models:/{NAME}@champion")
    x = stored.treatment((torch.from_numpy(images()) * 16).round().to(torch.uint8))
    expected = score_images(stored.model, "likelihood", x).tolist()
    assert answers["default"] == answers["score"] == expected
    assert answers["log_likelihood"] == pytest.approx([-score for score in expected])
    counts = stored.calibration["score.likelihood"]
    assert answers["p"] == [(1 + (counts >= score).sum().item()) / (1 + len(counts)) for score in expected]


def test_the_python_function_samples_by_seed(answers: dict) -> None:
    model = tracking.load_model(f"models:/{NAME}@champion")
    assert numpy.shape(answers["sample"]) == (16, 1, 4, 4)
    assert answers["sample"] == answers["again"] != answers["other"]
    assert answers["sample"] == model.sample(16, generator=seeded_generator(5, "sample")).tolist()


def test_the_python_function_names_what_it_does_not_know(answers: dict) -> None:
    assert "dance" in answers["wrong"] and "log_likelihood" in answers["wrong"]
    assert "nose" in answers["scorer"] and "likelihood" in answers["scorer"]
    assert "(-1, 1, 4, 4)" in answers["signature"] and "temperature" in answers["signature"]


def test_registration_is_quick(store: Path, tmp_path: Path) -> None:  # noqa: F811
    tracker = MlflowTracker("digits", "quick", system_metrics=False)
    folder = tiny_model(tmp_path / "model")
    start = time.monotonic()
    tracker.register(folder, "digits-quick", {})
    assert time.monotonic() - start < 5  # 0.1 s on a quiet machine

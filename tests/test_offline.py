"""Runs written to a folder are taken in as if logged live, once, and what is broken is named while the rest goes on."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from gdm_core.storage import load_model
from gdm_core.tensor_files import write_tensors
from pipelines import tracking
from pipelines.offline import OfflineTracker, import_directory
from pipelines.tracker import StoreError, Tracker
from pipelines.tracking import MlflowTracker
from tests.stores import NAME, store, tiny_model, using  # noqa: F401

ROOT = Path(tracking.__file__).parents[1]


def log_everything(tracker: Tracker, folder: Path) -> None:
    """What a training run writes, to whatever tracker."""
    tracker.log_parameters({"model": "independent_bernoulli", "seed": 3, "rate": 0.5})
    tracker.set_tags({"gdm.model": "independent_bernoulli", "gdm.likelihood_kind": "exact"})
    tracker.log_dataset("digits", "0123456789abcdef", {"train": 10}, "scikit-learn")
    for step in (1, 2):
        tracker.log_metrics({"train/loss": 10.0 / step, "odd": float("nan")}, step)
        tracker.log_image("samples", Image.new("L", (20, 20), step), step)
    tracker.log_metrics({"test/log_likelihood": -7.5}, 2)
    tracker.log_json([1, 2, {"a": None}], "numbers/evaluation.json")
    write_tensors(folder / "likelihood.safetensors", {"test": torch.tensor([-1.0, -2.0])})
    tracker.log_file(folder / "likelihood.safetensors")
    tracker.register(tiny_model(folder / "model"), NAME, {"note": "x"})


def offline_run(folder: Path) -> OfflineTracker:
    tracker = OfflineTracker(folder / "runs", "digits", "remote")
    log_everything(tracker, folder)
    tracker.finish()
    return tracker


def of_interest(run_id: str) -> dict:
    """Everything of a run that should not depend on how it came into the store."""
    record = tracking.get_run(run_id)
    grids = tracking.sample_grids(run_id)["samples"]
    return {
        "params": record.params, "status": record.status, "experiment": record.experiment,
        "metrics": {
            key: str(tracking.metric_history(run_id, key)) for key in record.metrics if not key.startswith("system/")
        },
        "tags": {key: value for key, value in record.tags.items() if key.startswith("gdm.") and "import" not in value},
        "pixels": {step: tracking.read_file(run_id, path) for step, path in grids.items()},
        "files": tracking.list_files(run_id), "json": tracking.read_file(run_id, "numbers/evaluation.json"),
        "likelihood": {key: values.tolist() for key, values in tracking.per_image_likelihood(run_id).items()},
    }  # fmt: skip


def test_an_imported_run_is_what_a_live_one_is(store: Path, tmp_path: Path) -> None:  # noqa: F811
    live = MlflowTracker("digits", "remote")
    log_everything(live, tmp_path)
    live.finish()
    offline = offline_run(tmp_path)
    report = import_directory(tmp_path / "runs")
    run_id = report.imported[offline.run_id]
    imported, expected = of_interest(run_id), of_interest(live.run_id)
    imported["tags"].pop("gdm.import_digest")
    assert imported == expected
    assert report.problems == []
    assert "system/cpu_utilization_percentage" in tracking.get_run(run_id).metrics
    assert tracking.get_run(run_id).tags["gdm.source"] == f"import:{offline.run_id}"
    name, version = report.versions[offline.run_id]
    found = tracking.get_version(f"models:/{name}/{version}")
    assert (found.run_id, found.test_mean, found.likelihood_kind) == (run_id, -7.5, "exact")
    logit = load_model(tmp_path / "model").model.logit
    assert torch.equal(tracking.load_model(found.uri).logit, logit)


def test_importing_twice_imports_once(store: Path, tmp_path: Path) -> None:  # noqa: F811
    offline = offline_run(tmp_path)
    first = import_directory(tmp_path / "runs")
    runs, versions = len(tracking.runs()), len(tracking.list_versions())
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    for folder in ("runs", "copy"):
        again = import_directory(tmp_path / folder)
        assert again.imported == {} and again.known == {offline.run_id: first.imported[offline.run_id]}
    assert (len(tracking.runs()), len(tracking.list_versions())) == (runs, versions)


def test_a_run_that_went_on_is_completed_not_doubled(store: Path, tmp_path: Path) -> None:  # noqa: F811
    """Taken in while running, then once more when it is done; the killed line in between is mended."""
    first = OfflineTracker(tmp_path, "digits", "interrupted")
    first.log_metrics({"train/loss": 3.0}, 1)
    events = tmp_path / first.run_id / "events.jsonl"
    run_id = import_directory(tmp_path).imported[first.run_id]
    assert tracking.get_run(run_id).status == "KILLED"
    with events.open("a") as file:
        file.write('{"event": "metrics", "ti')  # killed in the middle of a write
    resumed = OfflineTracker(tmp_path, "digits", "interrupted", run_id=first.run_id)
    resumed.log_metrics({"train/loss": 99.0}, 1)
    resumed.log_metrics({"train/loss": 2.0}, 2)
    resumed.finish()
    report = import_directory(tmp_path)
    assert report.imported == {first.run_id: run_id}
    assert [problem.partition("jsonl, ")[2][:6] for problem in report.problems] == ["line 5"]
    assert tracking.metric_history(run_id, "train/loss") == [(1, 3.0), (2, 2.0)]
    assert tracking.get_run(run_id).status == "FINISHED"


def test_broken_lines_and_files_are_named_and_the_rest_is_taken_in(store: Path, tmp_path: Path) -> None:  # noqa: F811
    offline = offline_run(tmp_path)
    folder = tmp_path / "runs" / offline.run_id
    lines = (folder / "events.jsonl").read_text().splitlines()
    of = {json.loads(line)["event"]: json.loads(line) for line in lines}
    climbing = json.dumps({**of["file"], "file": "../../../secret.txt"})
    (tmp_path / "secret.txt").write_text("secret")
    wrong = [
        "nonsense",
        "[]",
        '{"event": "explode", "time": 1}',
        '{"event": "metrics", "time": 1, "values": {"a": "b"}, "step": 1}',
    ]
    (folder / "events.jsonl").write_text("\n".join([*lines[:-1], *wrong, climbing, lines[-1]]) + "\n")
    (folder / "files" / of["image"]["file"]).write_bytes(b"\x89PNG broken")
    shutil.copy(folder / "files/model/model.json", folder / "files/model/model.safetensors")
    (tmp_path / "runs" / ("f" * 32)).mkdir()
    (tmp_path / "runs" / ("f" * 32) / "events.jsonl").write_text("")
    good = OfflineTracker(tmp_path / "runs", "digits", "good")
    good.finish()

    report = import_directory(tmp_path / "runs")
    assert set(report.imported) == {offline.run_id, good.run_id}
    said = "\n".join(report.problems)
    assert all(word in said for word in ("line", "secret.txt", "image was left out", "model.safetensors", "f" * 32))
    assert len(report.problems) == len(wrong) + 4 and all("\n" not in problem for problem in report.problems)
    record = tracking.get_run(report.imported[offline.run_id])
    assert record.status == "FINISHED" and record.metrics["test/log_likelihood"] == -7.5
    assert list(tracking.sample_grids(record.run_id)["samples"]) == [1]
    assert "secret.txt" not in tracking.list_files(record.run_id)
    assert report.versions == {}


@pytest.mark.parametrize(
    "event",
    [
        {"event": "image", "key": "x", "step": 1, "file": "\0"},
        {"event": "file", "file": "\ud800", "folder": None},
        {"event": "metrics", "values": {"large": 10**400}, "step": 1},
    ],
)
def test_what_no_file_system_and_no_number_can_be_is_one_problem(store: Path, tmp_path: Path, event: dict) -> None:  # noqa: F811
    first, second = offline_run(tmp_path), OfflineTracker(tmp_path / "runs", "digits", "good")
    second.finish()
    events = tmp_path / "runs" / first.run_id / "events.jsonl"
    lines = events.read_text().splitlines()
    events.write_text("\n".join([*lines[:-1], json.dumps({**event, "time": 1}), lines[-1]]) + "\n")
    report = import_directory(tmp_path / "runs")
    assert set(report.imported) == {first.run_id, second.run_id}
    assert len(report.problems) == 1 and f"{event['event']} was left out" in report.problems[0]


def test_a_run_of_an_experiment_that_climbs_is_left_out_and_the_rest_goes_on(store: Path, tmp_path: Path) -> None:  # noqa: F811
    first, second = offline_run(tmp_path), OfflineTracker(tmp_path / "runs", "digits", "good")
    second.finish()
    events = tmp_path / "runs" / first.run_id / "events.jsonl"
    events.write_text(events.read_text().replace('"experiment": "digits"', '"experiment": "../../climbing"', 1))
    report = import_directory(tmp_path / "runs")
    assert set(report.imported) == {second.run_id} and len(report.problems) == 1 and "climb" in report.problems[0]
    assert {run.experiment for run in tracking.runs()} == {"digits"}


def test_an_import_that_could_not_decide_the_champion_decides_it_next_time(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:  # fmt: skip
    offline = offline_run(tmp_path)

    def down(name: str, version: str) -> None:
        raise StoreError("the store went away")

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.offline_import.promote_if_better", down)
        assert "went away" in import_directory(tmp_path / "runs").problems[0]
    decided: list[tuple[str, str]] = []
    monkeypatch.setattr("pipelines.offline_import.promote_if_better", lambda *version: decided.append(version))
    again = import_directory(tmp_path / "runs")
    assert set(again.imported) == {offline.run_id} and again.problems == []
    assert decided == [again.versions[offline.run_id]]
    run_id = again.imported[offline.run_id]
    assert len([version for version in tracking.list_versions() if version.run_id == run_id]) == 1
    import_directory(tmp_path / "runs")
    assert len(decided) == 1


def test_an_import_names_aliases_of_its_own_model_only_and_its_card_has_the_last_word(
    store: Path, tmp_path: Path,  # noqa: F811
) -> None:  # fmt: skip
    live = MlflowTracker("digits", "here")
    live.register(tiny_model(tmp_path / "here"), "digits-other", {})  # version 1 of another model
    live.finish()
    offline = OfflineTracker(tmp_path / "runs", "digits", "remote")
    offline.register(tiny_model(tmp_path / "model"), NAME, {"gdm.dataset_digest": "forged", "note": "kept"})
    offline.set_alias(NAME, "mine", "1")
    offline.set_alias("digits-other", "champion", "1")
    offline.finish()
    report = import_directory(tmp_path / "runs")
    assert len(report.problems) == 1 and "digits-other is not what this run registered" in report.problems[0]
    name, number = report.versions[offline.run_id]
    version = tracking.get_version(f"models:/{name}/{number}")
    assert "mine" in version.aliases
    assert "champion" not in tracking.get_version("models:/digits-other/1").aliases
    assert version.dataset_digest == "0123456789abcdef" and version.tags["note"] == "kept"


def test_a_folder_without_runs_and_a_dead_store_are_named(store: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(StoreError, match="no offline runs"):
        import_directory(tmp_path)
    with pytest.raises(StoreError, match="no offline run"):
        OfflineTracker(tmp_path, "digits", "x", run_id="0" * 32)
    OfflineTracker(tmp_path, "digits", "x").finish()
    with using("http://127.0.0.1:9"), pytest.raises(StoreError, match="does not answer"):
        import_directory(tmp_path)


def test_writing_offline_needs_no_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import of it fails from here on
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    offline = offline_run(tmp_path)
    assert (tmp_path / "runs" / offline.run_id / "events.jsonl").is_file()


def test_mlflow_is_imported_when_needed_and_not_before() -> None:
    """It takes two seconds. Only the files that MLflow itself loads name it at their top."""
    sources = {path.name: ast.parse(path.read_text()) for path in (ROOT / "pipelines").glob("*.py")}
    eager = {name for name, tree in sources.items() if any(_imports_mlflow(statement) for statement in tree.body)}
    assert eager == {"artifact_store.py", "pyfunc_model.py"}


def _imports_mlflow(statement: ast.stmt) -> bool:
    modules = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
    modules += [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
    return any(module.split(".")[0] == "mlflow" for module in modules)

"""A run killed at the worst moment goes on as if it had never stopped: equal weights, every metric step once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gdm_core.training import Progress
from pipelines import run_reader
from pipelines.configuration import RunConfiguration, resolve
from pipelines.offline import OfflineTracker
from pipelines.run_writer import MlflowTracker
from pipelines.tracker import StoreError
from pipelines.training_run import RunResult, resume_run, start_run

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"epochs": 4, "batch_size": 300, "threads": 1, "device": "cpu"}  # four steps an epoch
RUNS = {
    "vae": {"arguments": {"hidden_units": 16, "latent_units": 3}, "treatment": "real"},
    "rbm": {"arguments": {"hidden_units": 8, "sampling_steps": 5}, "treatment": None},
}

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from pipelines.configuration import RunConfiguration
from pipelines.training_run import start_run

def die():
    os.kill(os.getpid(), signal.SIGKILL)

steps = 0
def watch(progress):
    global steps
    steps += 1
    if moment == "mid-epoch" and steps == 11:  # the third step of the third epoch; the checkpoint is of the tenth
        die()

moment, folder, configuration = sys.argv[1], sys.argv[2], RunConfiguration.from_json(sys.argv[3])
whole, saves = torch.save, 0
def save(state, path):
    global saves
    saves += 1
    whole(state, path)
    if moment == "mid-write" and saves == 7:
        os.truncate(path, os.path.getsize(path) // 2)  # what a kill half-way through leaves behind
        die()

torch.save = save
start_run(configuration, offline=Path(folder) if folder else None, checkpoint_seconds=0.0, watch=watch,
          announce=lambda line: print(line, flush=True))
"""


def configuration(model: str) -> RunConfiguration:
    return resolve(model, "digits", **RUNS[model], **QUICK)[0]


def killed_run(model: str, moment: str, folder: str, store: str) -> str:
    """The id of a run whose process died by SIGKILL."""
    command = [sys.executable, "-c", KILLED, moment, folder, configuration(model).to_json()]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.split()[1]


def uninterrupted(model: str, folder: Path) -> RunResult:
    return start_run(configuration(model), offline=folder, announce=lambda _: None)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return address


def test_killed_in_mid_epoch_it_ends_with_the_same_weights_and_every_step_once(tmp_path: Path, store: str) -> None:
    run_id = killed_run("vae", "mid-epoch", "", store)
    assert run_reader.get_run(run_id).status == "RUNNING"
    result = resume_run(run_id, announce=lambda _: None)
    whole = uninterrupted("vae", tmp_path / "whole")
    assert result.run_id == run_id and result.weights_digest == whole.weights_digest
    assert [step for step, _ in run_reader.metric_history(run_id, "train/loss")] == [1, 2, 3, 4]
    assert run_reader.get_run(run_id).status == "FINISHED"
    assert result.evaluation.likelihoods["test"].values.equal(whole.evaluation.likelihoods["test"].values)
    with pytest.raises(ValueError, match="nothing to resume"):
        resume_run(run_id, announce=lambda _: None)
    repeated = start_run(
        RunConfiguration.from_json(run_reader.read_file(run_id, "configuration.json").decode()),
        offline=tmp_path / "repeated", announce=lambda _: None,
    )  # fmt: skip
    assert repeated.weights_digest == whole.weights_digest


def test_killed_in_mid_write_it_goes_on_from_the_checkpoint_before(tmp_path: Path, store: str) -> None:
    folder = tmp_path / "runs"
    run_id = killed_run("rbm", "mid-write", str(folder), store)
    assert (folder / run_id / "state" / "checkpoint.pt.writing").exists()
    result = resume_run(run_id, offline=folder, announce=lambda _: None)
    assert result.weights_digest == uninterrupted("rbm", tmp_path / "whole").weights_digest


def test_a_store_that_goes_away_keeps_the_first_error_and_the_checkpoint(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with monkeypatch.context() as patch:

        def down(self: MlflowTracker, *_: object) -> None:
            raise StoreError(f"the store is down, call {len(said)}")

        def watch(progress: Progress) -> None:
            if progress.epoch == 2:
                for method in ("log_metrics", "log_file", "set_tags", "finish"):
                    patch.setattr(MlflowTracker, method, down)

        with pytest.raises(StoreError, match="call 1"):  # the others come of marking the run
            start_run(configuration("vae"), checkpoint_seconds=0.0, watch=watch, announce=said.append)
    run_id = said[0].split()[1]
    assert said[1:] == [
        f"`python -m pipelines train --resume {run_id}` goes on from the last checkpoint",
        "what stopped the run could not be written to it: the store is down, call 2",  # its traceback
        "what stopped the run could not be written to it: the store is down, call 3",  # that it failed
    ]
    assert run_reader.get_run(run_id).status == "RUNNING"
    resumed = resume_run(run_id, announce=lambda _: None)
    assert resumed.weights_digest == uninterrupted("vae", tmp_path / "whole").weights_digest
    assert [step for step, _ in run_reader.metric_history(run_id, "train/loss")] == [1, 2, 3, 4]


def test_a_full_disk_does_not_hide_what_stopped_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    def watch(progress: Progress) -> None:
        monkeypatch.setattr(OfflineTracker, "log_file", full)
        raise ValueError("the real cause")

    with pytest.raises(ValueError, match="the real cause"):
        start_run(configuration("vae"), offline=tmp_path, watch=watch, announce=said.append)
    assert said[1:] == ["what stopped the run could not be written to it: no space left on device"]
    events = (tmp_path / said[0].split()[1] / "events.jsonl").read_text()
    assert '"status": "FAILED"' in events  # which still could be written

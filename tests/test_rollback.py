"""A run that diverges goes back to the end of its last good epoch and goes on at half the learning rate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch, DivergenceError
from gdm_core.registry import build_model
from gdm_core.training import Progress
from gdm_core.updates import AdversarialUpdate, GradientUpdate
from pipelines import run_reader
from pipelines.checkpoints import Checkpoint
from pipelines.configuration import RunConfiguration, reload, resolve, treatment_of
from pipelines.offline import OfflineTracker
from pipelines.report import result_report
from pipelines.rollback import Watcher, train_going_back
from pipelines.run_outcome import weights_digest
from pipelines.run_writer import MlflowTracker
from pipelines.tracker import Tracker
from pipelines.training_run import start_run
from tests.stores import new_store

EPOCHS, STEPS, RATE = 4, 4, 0.01


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    address = new_store(tmp_path / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return address


def configuration() -> RunConfiguration:
    return resolve(
        "vae", "digits", arguments={"hidden_units": 16, "latent_units": 3}, treatment="real", epochs=EPOCHS,
        batch_size=300, learning_rate=RATE, threads=1, device="cpu",
    )[0]  # fmt: skip


def diverge(monkeypatch: pytest.MonkeyPatch, above: float, step: int, poison: Callable | None = None) -> None:
    """Make every update go wrong at a step of the phase, counted from 0, while its learning rate is above a bound."""
    learn = GradientUpdate.__call__

    def call(self: GradientUpdate, batch: Batch) -> dict[str, Tensor]:
        metrics = learn(self, batch)
        if self.learning_rate > above and round(batch.progress * EPOCHS * STEPS) == step:
            metrics = (poison or not_a_number)(self, metrics)
        return metrics

    monkeypatch.setattr(GradientUpdate, "__call__", call)


def not_a_number(update: GradientUpdate, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value * torch.nan for name, value in metrics.items()}


def broken_weight(update: GradientUpdate, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        next(update.model.parameters()).fill_(torch.inf)
    return metrics


def refusal(update: GradientUpdate, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    raise DivergenceError("the sign was seen: try a smaller learning rate")


def run(
    folder: Path, seconds: float = 1e9, watch: Watcher | None = None, tracker: Tracker | None = None
) -> tuple[str, list[str]]:
    """Train, on from the checkpoint in the folder where there is one; the weights' digest, and what was said."""
    asked, lines = configuration(), []
    dataset, treatment = reload(asked), treatment_of(asked)
    torch.manual_seed(0)
    model = build_model("vae", dataset.data_shape, **asked.arguments)
    checkpoint = Checkpoint(folder, seconds)
    checkpoint.begin(asked.to_json())
    tracker = tracker or OfflineTracker(folder, "digits", "a run")
    state = checkpoint.load()
    train_going_back(model, dataset, treatment, asked.config, tracker, checkpoint, watch, lines.append, state)
    return weights_digest(model), [line for line in lines if line.startswith("diverged")]


def test_it_recovers_is_logged_and_every_step_stands_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: str
) -> None:
    diverge(monkeypatch, above=RATE / 3, step=9)  # in the third epoch, at the first rate and at its half
    tracker = MlflowTracker("digits", "a run", system_metrics=False)
    _, said = run(tmp_path, tracker=tracker)
    tags = run_reader.get_run(tracker.run_id).tags
    assert [step for step, _ in run_reader.metric_history(tracker.run_id, "train/loss")] == [1, 2, 3, 4]
    assert run_reader.metric_history(tracker.run_id, "rollback/learning_rate") == [(1, RATE / 2), (2, RATE / 4)]
    assert run_reader.metric_history(tracker.run_id, "rollback/epoch") == [(1, 2.0), (2, 2.0)]
    assert tags["gdm.rollbacks"] == "2" and [tags["gdm.rollback.1"], tags["gdm.rollback.2"]] == said
    assert "epoch 3" in said[0] and "the end of epoch 2 with learning rate 0.005 (1 of at most 3 times)" in said[0]


def test_what_follows_is_what_half_the_rate_would_have_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the last good epoch on: same weights, optimiser, order and noise, another learning rate."""
    learn, rates = GradientUpdate.__call__, []

    def slower(self: GradientUpdate, batch: Batch) -> dict[str, Tensor]:
        self.learning_rate = RATE if batch.progress < 0.5 else RATE / 2
        rates.append(self.learning_rate)
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GradientUpdate, "__call__", slower)
        expected, _ = run(tmp_path / "expected")
    assert rates == [RATE] * 8 + [RATE / 2] * 8
    diverge(monkeypatch, above=RATE / 2, step=10)
    assert run(tmp_path / "diverged")[0] == expected


@pytest.mark.parametrize("poison", [not_a_number, broken_weight, refusal])
@pytest.mark.parametrize("step, back_to", [(2, "the start"), (7, "the end of epoch 1 ")])
def test_each_sign_at_each_place_goes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, poison: Callable, step: int, back_to: str
) -> None:
    diverge(monkeypatch, RATE / 2, step, poison)
    _, (said,) = run(tmp_path, seconds=0.0)
    assert f"Going back to {back_to}" in said and "try a smaller learning rate" in said


@pytest.mark.parametrize("stop", [3, 9, 12, 15])
def test_interrupted_anywhere_it_ends_with_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: int
) -> None:
    """Before it diverges, in the epoch that does, right after going back, and later; by any clock."""
    diverge(monkeypatch, above=RATE / 2, step=10)
    (whole, _), steps = run(tmp_path / "whole"), []

    def watch(progress: Progress) -> None:
        steps.append(progress.step)
        if len(steps) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 0.0, watch)
    resumed, said = run(tmp_path / "stopped")
    assert resumed == whole and len(said) == (stop < 11)


def test_no_checkpoint_holds_what_diverged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    diverge(monkeypatch, RATE / 2, 6, broken_weight)
    states, save = [], Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: (states.append(state["loop"]), save(self, state)))
    run(tmp_path, seconds=0.0)
    assert len(states) == EPOCHS * STEPS + 1 + 2  # one more on going back, and the second epoch's steps 1 and 2 again
    assert all(value.isfinite().all() for state in states for value in state["model"].values())


def test_a_hopeless_run_fails_after_three_times(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    diverge(monkeypatch, above=0.0, step=5, poison=refusal)
    lines: list[str] = []
    with pytest.raises(DivergenceError, match="sign was seen.* gone back 3 times .*0.00125.*smaller learning rate"):
        start_run(configuration(), announce=lines.append)
    assert sum(line.startswith("diverged") for line in lines) == 3
    (failed,) = run_reader.runs()
    assert failed.status == "FAILED" and failed.tags["gdm.health"] == "bad"
    assert b"DivergenceError: the sign was seen" in run_reader.read_file(failed.run_id, "traceback.txt")


@pytest.mark.parametrize("times", [0, 2])
def test_how_often_it_went_back_is_a_finding_of_its_health(
    monkeypatch: pytest.MonkeyPatch, store: str, times: int
) -> None:
    """Kept in the evaluation, logged as a number, and part of the verdict; also for a model with no other finding."""
    diverge(monkeypatch, above=RATE / (1.5 * times) if times else RATE, step=9)
    result = start_run(configuration(), announce=lambda line: None)
    (record,) = run_reader.runs()
    kept = json.loads(run_reader.read_file(record.run_id, "evaluation.json"))["health"]
    (finding,) = [one for one in kept["findings"] if one["name"] == "divergence"]
    assert finding["value"] == record.metrics["health/divergence"] == times
    assert finding["verdict"] == kept["verdict"] == record.tags["gdm.health"] == ("watch" if times else "good")
    assert (f"learning rate {RATE / 4:.4g} in the place of {RATE:.4g}" in finding["sentence"]) == bool(times)
    assert (finding["sentence"] in result_report(result)) == bool(times)


def test_an_adversarial_update_keeps_its_own_rates_over_those_of_a_state() -> None:
    def update(rate: float) -> AdversarialUpdate:
        return AdversarialUpdate(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), None, None, rate)

    slower = update(0.1)
    slower.load_state_dict(update(0.2).state_dict())
    assert {group["lr"] for o in slower.optimisers.values() for group in o.param_groups} == {0.1}

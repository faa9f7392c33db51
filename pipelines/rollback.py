"""Training that goes back where it diverges: to the end of the last good epoch, then on at half the learning rate.

The end of an epoch, and not the checkpoint, which is saved by the clock: whether it was interrupted or not, a run that
diverges goes back to the same place, and ends with the same weights. The first epoch goes back to the start.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from gdm_core.contract import DivergenceError, GenerativeModel, TrainingConfig
from gdm_core.data import ImageDataset, TreatedSplit, Treatment
from gdm_core.health import Finding, divergence
from gdm_core.training import Progress, check_finite, train
from pipelines.checkpoints import Checkpoint
from pipelines.epoch_log import EpochLog
from pipelines.selection import Selection
from pipelines.tracker import Tracker

Watcher = Callable[[Progress], None]
MOST_ROLLBACKS = 3
START: dict[str, Any] = {"loop": None, "log": None, "selection": None}  # a run that has no state yet


class Rollbacks:
    """How often a run has gone back, and where to: `good` is the run's state at the end of its last good epoch."""

    def __init__(self, model: GenerativeModel, config: TrainingConfig, state: dict[str, Any] | None = None) -> None:
        self.count: int = state["count"] if state else 0
        self.good: dict[str, Any] = state["good"] if state else START
        self._config, self._first_weights = config, copy.deepcopy(model.state_dict())

    @property
    def config(self) -> TrainingConfig:
        """What to train with now."""
        return dataclasses.replace(self._config, learning_rate=self._config.learning_rate / 2**self.count)

    @property
    def epochs(self) -> int:
        """How many epochs, over all phases, lie before the place to go back to."""
        return self.good["log"]["count"] if self.good["log"] else 0

    def keep(self, state: dict[str, Any]) -> None:
        """An epoch has ended well. The loop's state is copied, because training goes on in its tensors."""
        self.good = state | {"loop": copy.deepcopy(state["loop"])}

    def go_back(self, model: GenerativeModel, error: DivergenceError) -> str:
        """Count one more and put the first weights back, over which `good` is loaded; returns a sentence about it.

        Raises DivergenceError where it has been often enough.
        """
        if self.count == MOST_ROLLBACKS:
            raise DivergenceError(
                f"{error}. The run has gone back {self.count} times and halved its learning rate to "
                f"{self.config.learning_rate:.4g}, in vain: start a new run with a smaller learning rate than that"
            ) from error
        self.count += 1
        model.load_state_dict(self._first_weights)
        place = f"the end of epoch {self.epochs}" if self.epochs else "the start"
        return (
            f"diverged: {error}. Going back to {place} with learning rate {self.config.learning_rate:.4g} "
            f"({self.count} of at most {MOST_ROLLBACKS} times)"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "good": self.good}


def train_going_back(
    model: GenerativeModel, dataset: ImageDataset, treatment: Treatment, config: TrainingConfig, tracker: Tracker,
    checkpoint: Checkpoint, watch: Watcher | None, announce: Callable[[str], None], resume: dict[str, Any] | None,
) -> tuple[float, Finding]:  # fmt: skip
    """Train to the end, going back where learning diverges; the seconds to the weights, and how often it did."""
    rollbacks = Rollbacks(model, config, resume["rollbacks"] if resume else None)
    state = resume or START
    while True:
        try:
            seconds = _train_from(state, model, dataset, treatment, rollbacks, tracker, checkpoint, watch)
            return seconds, divergence(rollbacks.count, config.learning_rate, rollbacks.config.learning_rate)
        except DivergenceError as error:
            sentence = rollbacks.go_back(model, error)
            announce(sentence)
            _log_rollback(tracker, rollbacks, sentence)
            state = rollbacks.good
            checkpoint.save({**state, "rollbacks": rollbacks.state_dict(), "data": dataset.digest})


def _train_from(
    state: dict[str, Any], model: GenerativeModel, dataset: ImageDataset, treatment: Treatment, rollbacks: Rollbacks,
    tracker: Tracker, checkpoint: Checkpoint, watch: Watcher | None,
) -> float:  # fmt: skip
    """The loop with everything around it; leaves the selected weights in the model, returns seconds of training."""
    config, selection = rollbacks.config, Selection(state["selection"])
    log = EpochLog(model, dataset, treatment, config, tracker, selection, state["log"])

    def now(progress: Progress) -> dict[str, Any]:
        return {"loop": progress.state_dict(), "log": log.state_dict(), "selection": selection.state_dict()}

    for progress in train(model, TreatedSplit(dataset.splits["train"], treatment, config.seed), config, state["loop"]):
        if watch is not None:
            watch(progress)
        if progress.end_of_epoch:
            log.epoch(progress)
            rollbacks.keep(now(progress))
        if checkpoint.due():
            check_finite(progress, model)
            checkpoint.save({**now(progress), "rollbacks": rollbacks.state_dict(), "data": dataset.digest})
    selection.restore(model)
    return log.training_seconds


def _log_rollback(tracker: Tracker, rollbacks: Rollbacks, sentence: str) -> None:
    """The event, by its number: an epoch may diverge more than once, and each metric stands once at a step."""
    numbers = {"rollback/learning_rate": rollbacks.config.learning_rate, "rollback/epoch": float(rollbacks.epochs)}
    tracker.log_metrics(numbers, rollbacks.count)
    tracker.set_tags({"gdm.rollbacks": str(rollbacks.count), f"gdm.rollback.{rollbacks.count}": sentence})

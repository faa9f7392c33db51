"""The loop: one generator for every model. Whoever iterates logs, saves, evaluates, stops early by `break`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from gdm_core.contract import AUTOCASTS, Batch, DivergenceError, GenerativeModel, Phase, TrainingConfig
from gdm_core.randomness import random_state, seeded_generator, set_random_state


class TrainingData(Protocol):
    """What the loop needs of data: its size, and the images of given rows as the model takes them in an epoch."""

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor, epoch: int) -> Batch: ...


@dataclass
class Progress:
    """Where training stands after one step. `state_dict()` is everything needed to go on from exactly here."""

    phase: str
    phase_index: int
    epoch: int  # within the phase, from 0
    epochs: int
    step: int  # within the epoch, from 1
    steps: int
    images: int  # seen in this epoch
    images_per_epoch: int
    _totals: dict[str, Tensor] = field(repr=False)
    _state: Any = field(repr=False)

    @property
    def end_of_epoch(self) -> bool:
        return self.step == self.steps

    @property
    def metrics(self) -> dict[str, float]:
        """The epoch's mean of every number the update returned, so far."""
        return {name: float(total) / self.step for name, total in self._totals.items()}

    def state_dict(self) -> dict[str, Any]:
        return self._state()


def train(
    model: GenerativeModel, data: TrainingData, config: TrainingConfig, resume: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train a model phase by phase, yielding after every step.

    With `resume` (a `Progress.state_dict()`) it goes on as if never interrupted, bit for bit on a CPU. The random
    state is put back after every yield: drawing samples in between changes nothing.
    """
    torch.manual_seed(config.seed)
    model.train()
    for index, phase in enumerate(model.training_phases(config)):
        if resume is not None and index < resume["phase"]:
            continue
        start = resume if resume is not None and index == resume["phase"] else None
        if start is not None:
            _restore(model, phase, start)
        yield from _train_phase(model, data, config, phase, index, start)


def _train_phase(
    model: GenerativeModel, data: TrainingData, config: TrainingConfig, phase: Phase, index: int, start: dict | None
) -> Iterator[Progress]:
    steps = -(-len(data) // config.batch_size)
    first_epoch, first_step = (start["epoch"], start["step"]) if start else (0, 0)
    totals: dict[str, Tensor] = dict(start["totals"]) if start else {}
    for epoch in range(first_epoch, phase.epochs):
        order = torch.randperm(len(data), generator=seeded_generator(config.seed, "order", index, epoch))
        for step in range(first_step, steps):
            rows = order[step * config.batch_size : (step + 1) * config.batch_size]
            batch = data.batch(rows, epoch).to(config.device)
            batch.progress = (epoch * steps + step) / (phase.epochs * steps)
            with _autocast(config):
                metrics = phase.update(batch)
            if phase.finish is not None and (epoch + 1, step + 1) == (phase.epochs, steps):
                phase.finish()
            totals = {name: totals.get(name, 0.0) + value.detach() for name, value in metrics.items()}
            seen = step * config.batch_size + len(rows)
            yield from _report(model, phase, index, epoch, step + 1, steps, seen, len(data), totals)
        first_step, totals = 0, {}


def _report(
    model: GenerativeModel, phase: Phase, index: int, epoch: int, step: int, steps: int, seen: int, size: int,
    totals: dict[str, Tensor],
) -> Iterator[Progress]:  # fmt: skip
    """Yield where training stands; afterwards the random state and the training mode are what they were before."""
    before = random_state()

    def state() -> dict[str, Any]:
        return {
            "phase": index, "epoch": epoch, "step": step, "totals": totals, "random": before,
            "model": model.state_dict(), "update": phase.update.state_dict(),
        }  # fmt: skip

    progress = Progress(phase.name, index, epoch, phase.epochs, step, steps, seen, size, totals, state)
    if progress.end_of_epoch:
        check_finite(progress, model)
    yield progress
    model.train()
    set_random_state(before)


def check_finite(progress: Progress, model: GenerativeModel) -> None:
    """Raise DivergenceError where a number of this epoch or a weight is NaN or infinite."""
    bad = [name for name, value in progress.metrics.items() if not math.isfinite(value)]
    bad = bad or [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        raise DivergenceError(
            f"{', '.join(bad)} became NaN or infinite in epoch {progress.epoch + 1} of phase {progress.phase!r}: "
            "try a smaller learning rate"
        )


def _restore(model: GenerativeModel, phase: Phase, state: dict[str, Any]) -> None:
    model.load_state_dict(state["model"])
    phase.update.load_state_dict(state["update"])
    set_random_state(state["random"])


def _autocast(config: TrainingConfig) -> contextlib.AbstractContextManager:
    dtype = AUTOCASTS[config.precision]
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(config.device).type, dtype=dtype)

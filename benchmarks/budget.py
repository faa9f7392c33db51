"""Training that ends on time: how fast a model learns is measured first, then as many images are planned as fit.

The whole training is planned before it starts, because the learning rate falls over the planned course: a training that
is cut off when its time is over has never seen the small learning rates that are worth most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gdm_core.contract import Batch, GenerativeModel, TrainingConfig
from gdm_core.randomness import seeded_generator
from gdm_core.training import Progress, TrainingData, train

WARM_UP_SHARE, WARM_UP_SECONDS, WARM_UP_STEPS = 0.03, 20.0, 3  # of the budget, at most; at least so many steps
VALIDATION_SHARE = 0.1  # of the budget at most


@dataclass(frozen=True)
class Plan:
    """How many images a training will see, in rounds of equal length with a validation after each."""

    images: int
    rounds: int

    @property
    def images_per_round(self) -> int:
        return max(1, self.images // self.rounds)


class Rounds:
    """A training set in the rounds of a plan: no image is seen again before every other one has been seen as often.

    A round is what the loop takes for an epoch; it may be shorter than a pass over the set, or longer.
    """

    def __init__(self, data: TrainingData, plan: Plan, seed: int) -> None:
        self.data, self.plan, self.seed = data, plan, seed
        self._epoch, self._rows = -1, torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return self.plan.images_per_round

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        """The images at these places of round `epoch`; where pixels are drawn anew, that is done for every round."""
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._round(epoch)
        return self.data.batch(self._rows[rows], epoch)

    def _round(self, epoch: int) -> Tensor:
        """The rows of a round, cut from passes over the set in an order of their own each, (images_per_round,)."""
        size, begin = len(self.data), epoch * len(self)
        first, last = begin // size, (begin + len(self) - 1) // size
        passes = [
            torch.randperm(size, generator=seeded_generator(self.seed, "pass", number))
            for number in range(first, last + 1)
        ]
        return torch.cat(passes)[begin - first * size :][: len(self)]


def plan_training(
    seconds: float, images_per_second: float, validation_seconds: float, images_per_pass: int, most_passes: float
) -> Plan:
    """As many images as fit into the seconds, at most `most_passes` times the set; about a round for every pass.

    Validations take a tenth of the time at most: where one is expensive there are fewer rounds, but always one.
    """
    affordable = max(1, int(VALIDATION_SHARE * seconds / max(validation_seconds, 1e-9)))
    passes = min(most_passes, seconds * images_per_second / images_per_pass)
    rounds = min(affordable, max(1, math.ceil(passes)))
    fitting = (seconds - rounds * validation_seconds) * images_per_second
    return Plan(max(1, int(min(fitting, most_passes * images_per_pass))), rounds)


def learning_speed(
    build: Callable[[], GenerativeModel], data: TrainingData, config: TrainingConfig, budget: float
) -> float:
    """Images per second of whole learning steps, on a model that is thrown away afterwards."""
    steps = _steps_without_end(build(), data, config)
    next(steps)  # what the first step sets up is not the speed
    allowed = min(WARM_UP_SECONDS, WARM_UP_SHARE * budget)
    taken, images, seconds, begin = 0, 0, 0.0, now(config.device)
    while taken < WARM_UP_STEPS or seconds < allowed:
        progress = next(steps)
        images += progress.images - (progress.step - 1) * config.batch_size  # an epoch's last batch is smaller
        taken, seconds = taken + 1, now(config.device) - begin
    return images / seconds


def _steps_without_end(model: GenerativeModel, data: TrainingData, config: TrainingConfig) -> Iterator[Progress]:
    while True:
        yield from train(model, data, replace(config, epochs=10_000))


def now(device: str) -> float:
    """Seconds, once the device has done what it was told."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()

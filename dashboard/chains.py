"""Running a model's Markov chain as a background job, and what can be said of how it mixes. No web in here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy
import torch
from torch import Tensor

from dashboard.jobs import Job
from gdm_core.chain_statistics import autocorrelation_time
from gdm_core.contract import GenerativeModel
from gdm_core.energies import FEW_GUESSES, energy_or_bound, has_energy, what_is_low
from gdm_core.randomness import seeded_generator

FRAMES = 60  # moments that are kept to be looked at
NEIGHBOURS, MOST_NEIGHBOURS = 5, 5_000  # of training images, which say what class an image has
BURN_IN = 0.1  # the share of the steps that is left out of what is said of the chain at rest
DRIFT_ERRORS = 5.0  # standard errors beyond which a change between the halves of the chains is no chance
EDGE, SATURATED = 1e-3, 0.5  # how near 0 or 1 a pixel is at the edge; how many more than in the data are too many

Classify = Callable[[Tensor], numpy.ndarray]  # images (N, C, H, W) -> classes (N,)


@dataclass(frozen=True, eq=False)
class Course:
    """n chains over T steps: `frames` (K, n, C, H, W) at `moments` (K,) of them, the start being moment 0.

    `values` (T + 1, n) is the energy where the model has one or a bound on it, else the mean brightness, at the start
    and every step.
    """

    frames: Tensor
    moments: list[int]
    values: Tensor
    what: str  # "energy", "bound on the free energy" or "brightness"
    data: Tensor  # the same of images of the data, (N,)
    classes: numpy.ndarray | None  # (K, n)
    data_edge: float  # the share of the data's pixels at 0 or 1
    pixels: str
    drawn: dict[Any, Any] = field(default_factory=dict)  # its pictures, kept by who draws it

    @cached_property
    def settled(self) -> Tensor:
        """The values after the burn-in."""
        return self.values[max(1, int(BURN_IN * len(self.values))) :]

    @cached_property
    def autocorrelation_time(self) -> float:
        """In steps, after the burn-in; infinite where nothing changes."""
        return autocorrelation_time(self.settled) if len(self.settled) > 1 else float("inf")

    @property
    def under_way(self) -> bool:
        """Whether the chains still move in one direction after the burn-in, by more than chance in their number."""
        half = len(self.settled) // 2
        if half < 1 or self.settled.shape[1] < 2:
            return False
        drift = self.settled[half:].mean(0) - self.settled[:half].mean(0)  # of each chain
        error = drift.std().item() / len(drift) ** 0.5
        return abs(drift.mean().item()) > DRIFT_ERRORS * error > 0

    @property
    def changed_class(self) -> float | None:
        """The share of chains whose class at the end is not the one they had after the burn-in."""
        if self.classes is None:
            return None
        first = next(k for k, moment in enumerate(self.moments) if moment >= BURN_IN * self.moments[-1])
        return float((self.classes[-1] != self.classes[first]).mean())

    @property
    def saturation(self) -> float | None:
        """How many more pixels are at 0 or 1 at the end than in the data, as a share; None for binary pixels."""
        return None if self.pixels == "binary" else share_at_the_edge(self.frames[-1]) - self.data_edge


def running(
    model: GenerativeModel, lock: AbstractContextManager, start: Tensor, steps: int, temperature: float, seed: int,
    classify: Classify | None, data: Tensor,
) -> Callable[[Job], Course]:  # fmt: skip
    """The work of a job that runs chains from images (n, C, H, W); one seed gives the same course every time.

    The lock is held for one step at a time. `data` (N, C, H, W) is what the chains are compared with.
    """
    every, energetic = max(1, -(-steps // FRAMES)), has_energy(model)

    def measure(x: Tensor) -> Tensor:
        return (energy_or_bound(model, x, FEW_GUESSES) if energetic else x.flatten(1).mean(1)).double()

    def work(job: Job) -> Course:
        chain = model.chain_steps(start, temperature, seeded_generator(seed, "chain"))
        frames, moments = [start], [0]
        with lock, torch.no_grad():
            values, of_data = [measure(start)], measure(data)
        for step in range(1, steps + 1):
            with lock, torch.no_grad():
                x = next(chain)
                values.append(measure(x))
            if step % every == 0 or step == steps:
                frames.append(x)
                moments.append(step)
            job.report(step / (steps + 1), x)
        classes = None if classify is None else numpy.stack([classify(frame) for frame in frames])
        return Course(
            torch.stack(frames), moments, torch.stack(values), what_is_low(model) if energetic else "brightness",
            of_data, classes, share_at_the_edge(data), model.pixels,
        )  # fmt: skip

    return work


def noise(model: GenerativeModel, n: int, seed: int) -> Tensor:
    """Images (n, C, H, W) of independent pixels, every value as likely as any other."""
    uniform = torch.rand(n, *model.data_shape, generator=seeded_generator(seed, "noise"))
    if model.pixels == "real":
        return uniform
    return (uniform * model.levels).floor().clamp_max(model.levels - 1) / (model.levels - 1)


def nearest_neighbours(images: Tensor, labels: Tensor) -> Classify:
    """The class that most of the five nearest of these images (N, C, H, W) have; distances in pixels."""
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = images[:MOST_NEIGHBOURS], labels[:MOST_NEIGHBOURS]
    known = KNeighborsClassifier(NEIGHBOURS).fit(images.flatten(1).numpy(), labels.numpy())
    return lambda x: known.predict(x.flatten(1).numpy())


def share_at_the_edge(x: Tensor) -> float:
    """The share of pixels at 0 or 1."""
    return ((x < EDGE) | (x > 1 - EDGE)).double().mean().item() if x.numel() else 0.0

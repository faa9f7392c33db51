"""Completing an image as a background job, step by step where the model can, and whether that is exact. No web."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dashboard.jobs import Job
from dashboard.masks import known_of
from gdm_core.contract import (
    Classifies,
    CompletesStepwise,
    ExactLikelihood,
    GenerativeModel,
    InAnyOrder,
    PixelLikelihood,
    RunsChains,
    has,
)
from gdm_core.randomness import seeded_generator

PORTION = 4  # images at a time where a step is the whole completion: so long the model is taken, and so much memory
FRAMES = 48  # at most so many moments of a completion are kept to be shown again


@dataclass(frozen=True, eq=False)
class Completions:
    """n completions of one image, how they formed, and how likely they are."""

    images: Tensor  # (n, C, H, W)
    frames: Tensor  # (T, n, C, H, W), the last one being `images`
    log_prob: Tensor | None  # (n,) in nats, None where the model has no exact likelihood
    original: float | None  # log p of the image that was completed
    drawn: dict[Any, Any] = field(default_factory=dict)  # its pictures, kept by who draws it


def why(model: GenerativeModel, unknown: Tensor, of_class: bool = False) -> tuple[bool, str]:
    """Whether completions of this mask are drawn exactly from p(unknown | known), and one sentence why.

    `of_class`: from p(unknown | known, class), a class being held like the known pixels.
    """
    target = "p(unknown | known, class)" if of_class else "p(unknown | known)"
    if model.completion_is_exact(known_of(unknown)):
        if not unknown.any():
            return True, "Nothing is unknown, so there is nothing to draw."
        if has(model, InAnyOrder):
            return True, (
                "The model takes pixels in any order, here the known ones first: each completion is a draw from "
                f"{target} in such an order. Other orders may disagree with it, and log p is their average."
            )
        return True, (
            "Each unknown pixel is drawn given every known pixel that bears on it, so that together they are a draw "
            f"from {target}."
        )
    if has(model, RunsChains):
        return False, (
            "The unknown pixels are drawn by a Markov chain while the known ones are held fixed: it comes ever nearer "
            f"to {target}, but is stopped after a number of steps."
        )
    if has(model, PixelLikelihood):
        return False, (
            "The model draws in its own order, and here known pixels come after unknown ones: a draw cannot look ahead "
            "to them, and is only chosen afterwards by how well it fits them."
        )
    return False, f"The model draws near {target}, and not exactly from it."


def classes_of(model: GenerativeModel) -> int:
    """How many classes a completion can be asked of; 0 where `complete` takes no labels."""
    takes = has(model, Classifies) and "labels" in inspect.signature(model.complete).parameters
    return int(model.classes) if takes else 0


def completing(
    model: GenerativeModel, lock: AbstractContextManager, x: Tensor, unknown: Tensor, n: int, seed: int,
    temperature: float, label: int | None = None,
) -> Callable[[Job], Completions]:  # fmt: skip
    """The work of a job that completes an image x (C, H, W) n times; one seed gives the same completions every time.

    A `label` is held like the known pixels, by a model of which `classes_of` says that it can be.

    The lock is held for one step at a time, so that nobody who wants the same model waits for the whole. Exact
    stepwise completions form all at once; others are drawn a few at a time, because their first step does it all.
    """
    known = known_of(unknown)
    stepwise = has(model, CompletesStepwise)
    size = n if stepwise and model.completion_is_exact(known) else PORTION

    def work(job: Job) -> Completions:
        films = []
        for start in range(0, n, size):
            count = min(size, n - start)
            generator = seeded_generator(seed, "completion", start)
            images = x.expand(count, *x.shape).clone()
            films.append(Film(unknown.numel() if stepwise else 1))
            for step in _steps(model, lock, images, known, temperature, generator, stepwise, label):
                films[-1].add(step)
                job.report((start + count * films[-1].share) / (n + 1), torch.cat([film.last for film in films]))
        images = torch.cat([film.last for film in films])
        log_prob = _log_prob(model, lock, torch.cat([x[None], images])) if has(model, ExactLikelihood) else None
        return Completions(
            images, _together(films), None if log_prob is None else log_prob[1:],
            None if log_prob is None else float(log_prob[0]),
        )  # fmt: skip

    return work


def _steps(
    model: GenerativeModel, lock: AbstractContextManager, x: Tensor, known: Tensor, temperature: float,
    generator: torch.Generator, stepwise: bool, label: int | None,
) -> Iterator[Tensor]:  # fmt: skip
    """The completions (n, C, H, W) as they form, the lock free between two of them."""
    asked = {"temperature": temperature, "generator": generator}
    if label is not None:
        asked["labels"] = torch.full((len(x),), label)
    if not stepwise:
        with lock, torch.inference_mode():
            images = model.complete(x, known, **asked)
        yield images
        return
    steps = model.complete_steps(x, known, **asked)
    while True:
        with lock, torch.inference_mode():
            step = next(steps, None)
        if step is None:
            return
        yield step


@dataclass(eq=False)
class Film:
    """Up to about FRAMES moments of a completion that takes `expected` steps, leaving out those without a change."""

    expected: int
    frames: list[Tensor] = field(default_factory=list)
    count: int = 0
    last: Tensor | None = None

    @property
    def share(self) -> float:
        """The share of the steps that is done."""
        return min(1.0, self.count / self.expected)

    def add(self, step: Tensor) -> None:
        """Take the next step."""
        self.last = step
        if self.count % max(1, self.expected // FRAMES) == 0 and not (self.frames and self.frames[-1].equal(step)):
            self.frames.append(step)
        self.count += 1


def _together(films: list[Film]) -> Tensor:
    """Films of a few images each as one (T, n, C, H, W), those that end earlier standing still."""
    frames = [film.frames if film.frames[-1].equal(film.last) else [*film.frames, film.last] for film in films]
    longest = max(map(len, frames))
    return torch.cat([torch.stack(part + part[-1:] * (longest - len(part))) for part in frames], dim=1)


def _log_prob(model: GenerativeModel, lock: AbstractContextManager, x: Tensor) -> Tensor:
    values = []
    for part in x.split(PORTION):
        with lock, torch.inference_mode():
            values.append(model.log_prob(part))
    return torch.cat(values)

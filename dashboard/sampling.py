"""Drawing samples as a background job, step by step where the model can. No web in here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from dashboard.jobs import Job
from gdm_core.contract import GenerativeModel, PixelLikelihood, SamplesStepwise, has
from gdm_core.randomness import seeded_generator

CHAIN_STEPS = 51  # a guess for models that are not drawn row by row, until they have been drawn once
_steps_seen: dict[tuple, int] = {}


def sampling(
    model: GenerativeModel, lock: AbstractContextManager, n: int, seed: int, temperature: float,
    labels: Tensor | None = None,
) -> Callable[[Job], Tensor]:  # fmt: skip
    """The work of a job that draws n images (n, C, H, W), of classes `labels` (n,) where they are given.

    One seed gives the same images every time.

    The lock is held for one step at a time, so that nobody who wants the same model waits for the whole.
    """

    def work(job: Job) -> Tensor:
        generator = seeded_generator(seed, "samples")
        if not has(model, SamplesStepwise):
            with lock, torch.inference_mode():
                return model.sample(n, labels, temperature=temperature, generator=generator)
        steps = model.sample_steps(n, labels, temperature=temperature, generator=generator)
        return _draw(job, steps, lock, (model.name, model.data_shape, str(model.arguments)), _guess(model))

    return work


def _draw(job: Job, steps: Iterator[Tensor], lock: AbstractContextManager, kind: tuple, guess: int) -> Tensor:
    expected, count, images = _steps_seen.get(kind, guess), 0, None
    while True:
        with lock, torch.inference_mode():
            step = next(steps, None)
        if step is None:
            break
        images, count = step, count + 1
        job.report(min(count / expected, 0.99), images)
    _steps_seen[kind] = count
    return images


def _guess(model: GenerativeModel) -> int:
    return model.data_shape[1] if has(model, PixelLikelihood) else CHAIN_STEPS

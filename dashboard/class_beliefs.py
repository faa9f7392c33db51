"""Which class a model finds images to be of, how often it is right, and its images of a class: jobs. No web in here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from dashboard.jobs import Job
from dashboard.sampling import sampling
from gdm_core.contract import GenerativeModel, Samples, SamplesStepwise, has
from gdm_core.randomness import seeded_generator

TEST_IMAGES = 500  # at most so many test images, the first ones
PORTION = 10  # images at a time: so long the model is taken


@dataclass(frozen=True)
class Knowledge:
    """How many classes a model knows, and whether it draws images of a chosen one."""

    classes: int
    draws_classes: bool


@dataclass(frozen=True, eq=False)
class Measured:
    """How well N labelled images were classified: which correctly (N,) bool, -log p(y | x) in nats (N,) float64."""

    correct: Tensor
    loss: Tensor

    @property
    def accuracy(self) -> tuple[float, float]:
        """The share of correct ones and its standard error."""
        return _mean_and_error(self.correct.double())

    @property
    def log_loss(self) -> tuple[float, float]:
        """The mean of -log p(y | x) in nats and its standard error."""
        return _mean_and_error(self.loss)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Images (n, C, H, W) of one class, and log p(y | x) of each in nats (n, K), as the model finds them itself."""

    images: Tensor
    log_prob: Tensor


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error; NaN where one value says nothing of their spread."""
    error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return float(values.mean()), error


def knowing(model: GenerativeModel, lock: AbstractContextManager) -> Callable[[Job], Knowledge]:
    """The work of a job that finds out what a model knows of classes."""

    def work(job: Job) -> Knowledge:
        with lock, torch.inference_mode():
            classes = model.class_log_prob(torch.zeros(1, *model.data_shape)).shape[1]
        job.report(0.5)
        return Knowledge(classes, draws_classes(model, lock, classes))

    return work


def draws_classes(model: GenerativeModel, lock: AbstractContextManager, classes: int) -> bool:
    """Whether its samples heed their labels: it takes every class there is, and refuses one that there is not.

    A sampler that refuses all labels has none, and one that takes any number ignores it.
    """
    return has(model, Samples) and _takes(model, lock, classes - 1) and not _takes(model, lock, classes)


def _takes(model: GenerativeModel, lock: AbstractContextManager, label: int) -> bool:
    labels, generator = torch.tensor([label]), seeded_generator(0, "labels")
    try:
        with lock, torch.inference_mode():
            if has(model, SamplesStepwise):
                next(iter(model.sample_steps(1, labels, generator=generator)))
            else:
                model.sample(1, labels, generator=generator)
    except ValueError:
        return False
    return True


def believing(model: GenerativeModel, lock: AbstractContextManager, x: Tensor) -> Callable[[Job], Tensor]:
    """The work of a job that gives log p(y | x) in nats of images (N, C, H, W), (N, K) float64.

    The lock is held for some images at a time, so that nobody who wants the same model waits for the whole.
    """

    def work(job: Job) -> Tensor:
        found: list[Tensor] = []
        for portion in x.split(PORTION):
            with lock, torch.inference_mode():
                found.append(model.class_log_prob(portion).double().cpu())
            job.report(len(found) * PORTION / (len(x) + PORTION))
        return torch.cat(found)

    return work


def measuring(
    model: GenerativeModel, lock: AbstractContextManager, x: Tensor, labels: Tensor
) -> Callable[[Job], Measured]:
    """The work of a job that classifies images whose classes `labels` (N,) are known."""
    believe = believing(model, lock, x)

    def work(job: Job) -> Measured:
        log_prob = believe(job)
        return Measured(log_prob.argmax(1) == labels, -log_prob.gather(1, labels[:, None])[:, 0])

    return work


def drawing(
    model: GenerativeModel, lock: AbstractContextManager, n: int, label: int, seed: int
) -> Callable[[Job], Drawn]:
    """The work of a job that draws n images of a class; one seed gives the same images every time."""
    draw = sampling(model, lock, n, seed, 1.0, torch.full((n,), label))

    def work(job: Job) -> Drawn:
        drawn = draw(job)
        return Drawn(drawn, believing(model, lock, drawn)(job))

    return work

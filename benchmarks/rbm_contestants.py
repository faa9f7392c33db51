"""The machines whose learning is timed: ours, scikit-learn's, and the deep ones that are stacked from ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import record  # noqa: F401
import torch
import typer
from sklearn.neural_network import BernoulliRBM
from torch import Tensor
from turns import Step

import gdm_core
from gdm_core.contract import Batch, GenerativeModel, TrainingConfig
from gdm_core.data import DataError, evaluation_images, load_dataset, treatment_for
from gdm_core.randomness import seeded_generator
from gdm_core.training import train

SHAPE, HIDDEN, BATCH, RATE = (1, 28, 28), 500, 100, 0.05
SLICE_STEPS = 100  # learning steps of each in a turn
OURS, THEIRS, LOOP = "ours", "scikit-learn", "ours, in the training loop"
DEEP = {"dbn": (500, 500, 2000), "dbm": (500, 1000)}


@dataclass(frozen=True)
class Images:
    """Binary images in memory, as the loop takes them."""

    images: Tensor  # (N, 1, 28, 28)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images.index_select(0, rows))


def binarised_mnist() -> dict[str, Tensor] | None:
    """Training and test images, where they are at hand."""
    try:
        dataset = load_dataset("binarized_mnist")
    except DataError as error:
        typer.echo(f"random images, since there is no binarised MNIST: {error}")
        return None
    treatment = treatment_for("threshold", dataset.levels, "binary")
    return {split: evaluation_images(dataset.splits[split], treatment) for split in ("train", "test")}


def random_images() -> Tensor:
    """As many as a turn takes, as many pixels on as in binarised MNIST."""
    noise = torch.rand(SLICE_STEPS * BATCH, *SHAPE, generator=seeded_generator(0, "rbm speed"))
    return (noise < 0.13).float()


def machine() -> GenerativeModel:
    torch.manual_seed(0)
    return gdm_core.build_model("rbm", SHAPE, hidden_units=HIDDEN, steps=1, chains=BATCH)


def config(epochs: int) -> TrainingConfig:
    return TrainingConfig(epochs=epochs, batch_size=BATCH, learning_rate=RATE)


def theirs(epochs: int) -> BernoulliRBM:
    return BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=BATCH, n_iter=epochs, random_state=0)


def loaded(other: BernoulliRBM, ours: GenerativeModel) -> GenerativeModel:
    """A machine of ours with scikit-learn's parameters; where its annealing starts is a matter of the images alone."""
    model = machine()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(np.ascontiguousarray(other.components_)))
        model.hidden_bias.copy_(torch.from_numpy(other.intercept_hidden_))
        model.visible_bias.copy_(torch.from_numpy(other.intercept_visible_))
        model.base_visible_bias.copy_(ours.base_visible_bias)
    return model


# --- one step of each ----------------------------------------------------------------------------------------------


def contestants(images: Tensor) -> dict[str, Callable[[], Step]]:
    """What makes one learning step of each, in another process: pixels are sent as bytes."""
    pixels = images.bool().numpy()
    deep = {
        f"{model} {'-'.join(map(str, (SHAPE[1] * SHAPE[2], *units)))}, {phase}": partial(deep_step, model, at, pixels)
        for model, units in DEEP.items()
        for at, phase in enumerate(phases(model))
    }
    flat = {OURS: our_step, THEIRS: their_step, LOOP: loop_step}
    return {name: partial(make, pixels) for name, make in flat.items()} | deep


def our_step(pixels: np.ndarray) -> Step:
    update, batches = next(machine().training_phases(config(1))).update, _batches(pixels)
    return lambda: update(next(batches))


def their_step(pixels: np.ndarray) -> Step:
    """What scikit-learn's `fit` does with a batch."""
    flat = [part.flatten(1).numpy() for part in _images(pixels).split(BATCH)]
    other, random, batches = theirs(1).fit(np.concatenate(flat)), np.random.RandomState(0), itertools.cycle(flat)
    assert flat[0].dtype == other.components_.dtype == np.float32
    return lambda: other._fit(next(batches), random)


def loop_step(pixels: np.ndarray) -> Step:
    """The training loop with everything it does for a batch."""
    loop = train(machine(), Images(_images(pixels)), replace(config(1), epochs=1_000_000))
    return lambda: next(loop)


def deep_step(model: str, phase: int, pixels: np.ndarray) -> Step:
    """One phase of a deep machine's training, with fresh weights in every layer."""
    torch.manual_seed(0)
    deep = gdm_core.build_model(model, SHAPE, hidden_units=DEEP[model], steps=1, chains=BATCH)
    update, batches = list(deep.training_phases(config(100)))[phase].update, _batches(pixels)
    return lambda: update(next(batches))


def phases(model: str) -> list[str]:
    """The names of the phases of a deep machine's training."""
    deep = gdm_core.build_model(model, SHAPE, hidden_units=DEEP[model])
    return [phase.name for phase in deep.training_phases(config(100))]


def _batches(pixels: np.ndarray) -> Iterator[Batch]:
    return itertools.cycle([Batch(part) for part in _images(pixels).split(BATCH)])


def _images(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).float()

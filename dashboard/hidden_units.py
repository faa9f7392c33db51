"""How much each hidden unit of a model is used by images, and which images drive it. No web in here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from dashboard.jobs import Job
from gdm_core.contract import GenerativeModel

IMAGES = 1000  # at most so many images
TOP = 16  # images that switch a unit on most
PORTION = 50  # images at a time: so long the model is taken
NEVER, ALWAYS = 0.05, 0.95  # a unit that stays below on every image never fires; one that stays above always does


@dataclass(frozen=True, eq=False)
class Layer:
    """The mean activations in [0, 1] of U hidden units over N images: mean, lowest and highest, (U,) float64 each.

    `top` (U, T) are the numbers of the T images that switch a unit on most, `top_activation` (U, T) how much they do.
    """

    count: int
    mean: Tensor
    low: Tensor
    high: Tensor
    top: Tensor
    top_activation: Tensor

    @property
    def never(self) -> Tensor:
        """Which units stay off on every image, (U,) bool."""
        return self.high < NEVER

    @property
    def always(self) -> Tensor:
        """Which units are on on every image, (U,) bool."""
        return self.low > ALWAYS

    def in_words(self) -> str:
        """The shares of units that never and that always fire."""
        units = len(self.mean)
        never, always = int(self.never.sum()), int(self.always.sum())
        return (
            f"Of {units} units, {never} ({never / units:.1%}) never fire (below {NEVER:.0%} on each of {self.count} "
            f"validation images) and {always} ({always / units:.1%}) always do (above {ALWAYS:.0%} on each of them)."
        )

    def unit_in_words(self, unit: int) -> str:
        """One unit's use, and whether it says anything."""
        range_ = f"{float(self.low[unit]):.1%} to {float(self.high[unit]):.1%}"
        verdict = " It never fires." if self.never[unit] else " It always fires." if self.always[unit] else ""
        return (
            f"Switched on to {float(self.mean[unit]):.1%} on average over {self.count} validation images, and from "
            f"{range_} on single ones.{verdict}"
        )


def layer_of(activations: Tensor) -> Layer:
    """What is to be known of a layer from its units' activations (N, U)."""
    values = activations.double()
    top = values.T.sort(dim=1, descending=True, stable=True)
    return Layer(
        len(values), values.mean(0), values.amin(0), values.amax(0), top.indices[:, :TOP], top.values[:, :TOP]
    )


def measuring(model: GenerativeModel, lock: AbstractContextManager, x: Tensor) -> Callable[[Job], list[Layer]]:
    """The work of a job that shows images (N, C, H, W) to a model: its layers, the one next to the images first.

    The lock is held for some images at a time, so that nobody who wants the same model waits for the whole.
    """

    def work(job: Job) -> list[Layer]:
        parts = []
        for portion in x.split(PORTION):
            with lock, torch.inference_mode():
                parts.append([layer.cpu() for layer in model.hidden_layers(portion)])
            job.report(len(parts) * PORTION / (len(x) + PORTION))
        return [layer_of(torch.cat(portions)) for portions in zip(*parts, strict=True)]

    return work


def driving_images(x: Tensor, layer: Layer, units: Tensor) -> Tensor:
    """For each of these units the mean of the images that switch it on most, weighted by how much, (U, C, H, W)."""
    weight = layer.top_activation[units] + 1e-12  # all the same where a unit is off on all of them
    weight = weight / weight.sum(1, keepdim=True)
    return torch.einsum("ut,utchw->uchw", weight, x[layer.top[units]].double())


def weight_norms(weights: Tensor) -> Tensor:
    """The length of each unit's weights (U, C, H, W), (U,) float64."""
    return weights.double().flatten(1).norm(dim=1)

"""A machine of Gaussian pixels: its noise, and the moments of the pixels seen, where its chains and annealing start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.special import ndtri

if TYPE_CHECKING:
    from gdm_core.models.energy.gaussian_rbm import GaussianRBM

START_MEAN, START_SIGMA = 0.5, 0.25  # of the pixels, before there are any


class PixelMoments:
    """Counts real pixels while a machine learns and keeps its `base_mean` and `base_sigma` at their moments.

    A machine that has never been trained also starts to learn at the first batch's moments; one whose sigma is not
    learnt has that of the images throughout.
    """

    def __init__(self, model: GaussianRBM) -> None:
        self.model = model
        self.totals = torch.zeros(2, model.dimensions, dtype=torch.float64, device=model.device)  # of v and of v^2
        self.images_seen = 0

    @torch.no_grad()
    def count(self, v: Tensor) -> None:
        """Take in images as vectors (N, D)."""
        model, first = self.model, self.images_seen == 0
        untrained = (model.base_mean == START_MEAN).all()  # not read: that would wait for a GPU
        self.totals += torch.stack([v.sum(0), v.square().sum(0)])
        self.images_seen += len(v)
        mean, square = self.totals / self.images_seen
        sigma = (square - mean**2).clamp_min(0).sqrt().clamp_min(1.1 * model.minimum_sigma)
        model.base_mean.copy_(mean)
        model.base_sigma.copy_(sigma)
        log_sigma = (sigma - model.minimum_sigma).log()
        if first:
            _replace(model.visible_bias, mean, untrained)
        if not model.learn_sigma:
            model.log_sigma.copy_(log_sigma)
        elif first:
            _replace(model.log_sigma, log_sigma, untrained)

    def state_dict(self) -> dict[str, Any]:
        return {"totals": self.totals, "images_seen": self.images_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals = state["totals"].to(self.totals.device, copy=True)
        self.images_seen = state["images_seen"]


def _replace(parameter: Tensor, values: Tensor, where: Tensor) -> None:
    """Give a parameter new values if `where` (a scalar) is true."""
    parameter.copy_(torch.where(where, values.to(parameter), parameter))


def draw_noise(model: GaussianRBM, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Uniforms (n, hidden) and normals (n, D). A generator draws on its own device."""
    how = {"generator": generator, "dtype": model.weight.dtype}
    how["device"] = model.device if generator is None else generator.device
    uniforms = torch.rand(n, len(model.hidden_bias), **how)
    return uniforms.to(model.device), torch.randn(n, model.dimensions, **how).to(model.device)


def moments_start(model: GaussianRBM, uniforms: Tensor) -> Tensor:
    """Independent pixels with the moments of the training images, (n, D), from uniforms (n, C, H, W)."""
    return torch.addcmul(model.base_mean, model.base_sigma, ndtri(uniforms.flatten(1).clamp(1e-6, 1 - 1e-6)))

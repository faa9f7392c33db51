"""Denoising score matching: an energy whose slope points from a noisy image back to the image, learnt without chains.

    L = mean over images and noise levels s of 1/2 |s grad E(x + s u; s) - u|^2,     u ~ N(0, I)

Its minimum is at grad E(y; s) = -grad log p_s(y), p_s being the data with noise of standard deviation s added. The
slope is a derivative already, so that learning takes a second one.

Papers: "A Connection Between Score Matching and Denoising Autoencoders", Vincent, 2011; a geometric set of levels as in
"Generative Modeling by Estimating Gradients of the Data Distribution", Song and Ermon, 2019. Ours: the score is the
slope of an energy, which Song and Ermon's network need not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, DivergenceError

if TYPE_CHECKING:
    from gdm_core.models.energy.deep_energy import DeepEnergy


# A sign of divergence. An energy without slope has a loss of D / 2, and runs that go well stay about there or below.
LARGEST_LOSS = 50.0  # times D / 2


class DenoisingScoreMatching(nn.Module):
    """The model with the loss that a gradient update takes.

    Raises DivergenceError where that is far worse than an energy without any slope would do. There are no chains whose
    saturation or energies could tell more.
    """

    def __init__(self, model: DeepEnergy) -> None:
        super().__init__()
        self.model = model

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Each image with noise of a level of its own, by torch's global random state."""
        x = batch.images
        with torch.autocast(x.device.type, enabled=False):
            levels = self.model.noise_scales()
            chosen = torch.randint(len(levels), (len(x),), device=x.device)
            loss = score_matching_loss(self.model, x, levels.to(x)[chosen], torch.randn_like(x))
        self._check(loss.item())
        return {"loss": loss}

    def _check(self, loss: float) -> None:
        bound = LARGEST_LOSS * self.model.dimensions / 2
        if not loss <= bound:
            raise DivergenceError(
                f"the score matching loss is {loss:.4g}, and {self.model.dimensions / 2:.4g} without any slope "
                f"(allowed are {bound:.4g}): try a smaller learning rate"
            )


def score_matching_loss(model: DeepEnergy, x: Tensor, levels: Tensor, normals: Tensor) -> Tensor:
    """L over images x (N, C, H, W) with noise of standard deviations `levels` (N,): a scalar with a graph."""
    scale = levels.view(-1, 1, 1, 1)
    with torch.enable_grad():
        noisy = (x + scale * normals).requires_grad_()
        (slope,) = torch.autograd.grad(model.tempered_energy(noisy, levels).sum(), noisy, create_graph=True)
    return (scale * slope - normals).square().flatten(1).sum(1).mean() / 2

"""The distributions between a Gaussian restricted Boltzmann machine and independent Gaussian pixels.

    f_beta(v) = - (1 - beta) sum_i (v_i - m_i)^2 / (2 s_i^2) - beta sum_i (v_i - b_i)^2 / (2 sigma_i^2)
                + sum_j softplus(beta a_j(v)),    a(v) = c + W ((v - b) / sigma)

with m = `base_mean` and s = `base_sigma`, those of the training pixels; log Z_0 = sum_i log(s_i sqrt(2 pi)) + hidden
log 2. Given the hidden units the pixels are Gaussian at every beta: precisions and precisions times means add up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdm_core.models.energy.gaussian_pixels import draw_noise
from gdm_core.models.energy.partition.tempered_rbm import Chains, bernoulli, softplus

if TYPE_CHECKING:
    from gdm_core.models.energy.gaussian_rbm import GaussianRBM


class TemperedGaussianMachine:
    """A `Tempered` family; its states are `Chains` of real vectors (n, D) and what they send to the hidden units."""

    def __init__(self, machine: GaussianRBM) -> None:
        self.machine, self.sigma, self.bias = machine, machine.sigma().detach(), machine.visible_bias.detach()
        self.base_mean, self.base_sigma = machine.base_mean, machine.base_sigma

    def base_log_partition(self) -> Tensor:
        """log Z_0, a float64 scalar."""
        pixels = (self.base_sigma.double().log() + 0.5 * math.log(2 * math.pi)).sum()
        return pixels + len(self.machine.hidden_bias) * math.log(2)

    def base_sample(self, n: int, generator: torch.Generator | None) -> Chains:
        """Independent pixels with the training images' moments."""
        _, normals = draw_noise(self.machine, n, generator)
        return self.at(torch.addcmul(self.base_mean, self.base_sigma, normals))

    def at(self, v: Tensor) -> Chains:
        """Chains that stand at vectors (n, D)."""
        return Chains(v, self.machine.hidden_logits(v))

    def at_images(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Chains, Tensor]:
        """Chains that stand at images (n, C, H, W), (n,) zeros: nothing is drawn."""
        return self.at(self.machine.as_vectors(x)), x.new_zeros(len(x), dtype=torch.float64)

    def log_density(self, state: Chains, beta: float) -> Tensor:
        """f_beta(v), (n,) float64: terms in the machine's precision, sums in double."""
        base = ((state.v - self.base_mean) / self.base_sigma).square().sum(1, dtype=torch.float64)
        own = ((state.v - self.bias) / self.sigma).square().sum(1, dtype=torch.float64)
        return softplus(beta * state.logits).sum(1, dtype=torch.float64) - (1 - beta) / 2 * base - beta / 2 * own

    def step(self, state: Chains, beta: float, generator: torch.Generator | None) -> Chains:
        """h ~ p_beta(h | v), then v ~ p_beta(v | h)."""
        for_hidden, normals = draw_noise(self.machine, len(state.v), generator)
        h = bernoulli(beta * state.logits, for_hidden)
        base_weight, own_weight = (1 - beta) / self.base_sigma.square(), beta / self.sigma.square()
        precision = base_weight + own_weight
        mean = (base_weight * self.base_mean + own_weight * self.machine.visible_mean(h)) / precision
        return self.at(torch.addcmul(mean, precision.rsqrt(), normals))

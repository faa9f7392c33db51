"""The distributions between a restricted Boltzmann machine and one that knows only the pixels' frequencies.

    f_beta(v) = (1 - beta) b_0'v + beta b'v + sum_j softplus(beta a_j(v)),    a = c + W v,

with b_0 = `base_visible_bias`; at beta = 0 pixels are independent and log Z_0 = sum_i softplus(b_0i) + hidden log 2.
As in "On the Quantitative Analysis of Deep Belief Networks" (Salakhutdinov and Murray, 2008).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from gdm_core.models.energy.rbm import RestrictedBoltzmannMachine


class Chains(NamedTuple):
    """Visible vectors (n, D) and what they send to the hidden units, a(v) (n, hidden), which every use needs."""

    v: Tensor
    logits: Tensor


class TemperedMachine:
    """A `Tempered` family of a machine with `weight`, `visible_bias`, `hidden_bias` and `base_visible_bias`."""

    def __init__(self, machine: RestrictedBoltzmannMachine) -> None:
        self.machine, self.base = machine, machine.base_visible_bias
        self.change = machine.visible_bias.detach() - self.base

    def base_log_partition(self) -> Tensor:
        """log Z_0, a float64 scalar."""
        return softplus(self.base.double()).sum() + len(self.machine.hidden_bias) * math.log(2)

    def base_sample(self, n: int, generator: torch.Generator | None) -> Chains:
        """Independent pixels at the training frequencies."""
        _, uniforms = self.machine.uniforms(n, generator)
        return self.at(bernoulli(self.base.expand_as(uniforms), uniforms))

    def at(self, v: Tensor) -> Chains:
        """Chains that stand at visible vectors (n, D)."""
        return Chains(v, self.machine.hidden_logits(v))

    def at_images(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Chains, Tensor]:
        """Chains that stand at images (n, C, H, W), (n,) zeros: nothing is drawn."""
        return self.at(self.machine.as_vectors(x)), x.new_zeros(len(x), dtype=torch.float64)

    def log_density(self, state: Chains, beta: float) -> Tensor:
        """f_beta(v), (n,) float64: terms in the machine's precision, sums in double."""
        visible = torch.mv(state.v, torch.add(self.base, self.change, alpha=beta)).double()
        return visible + softplus(beta * state.logits).sum(1, dtype=torch.float64)

    def step(self, state: Chains, beta: float, generator: torch.Generator | None) -> Chains:
        """h ~ p_beta(h | v), then v ~ p_beta(v | h)."""
        for_hidden, for_visible = self.machine.uniforms(len(state.v), generator)
        h = bernoulli(beta * state.logits, for_hidden)
        bias = torch.add(self.base, self.change, alpha=beta)
        return self.at(bernoulli(torch.addmm(bias, h, self.machine.weight, alpha=beta), for_visible))


def bernoulli(logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """1 where the uniform lies below sigmoid(logits / temperature), else 0, in the uniforms' type."""
    p = torch.sigmoid(logits.detach() if temperature == 1 else logits.detach() / temperature)
    return torch.lt(uniforms, p, out=torch.empty_like(uniforms))  # six times as fast as by way of booleans


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp x)."""
    return F.softplus(x, threshold=40)  # the default of 20 is off by 2e-9, which float64 would show

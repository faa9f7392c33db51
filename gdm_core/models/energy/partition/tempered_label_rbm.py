"""The distributions between a label RBM and one that knows only the pixels' frequencies.

    f_beta(v) = (1 - beta) b_0'v + beta b'v + log sum_y exp(beta d_y + sum_j softplus(beta (c_j + U_jy + W_j v)))

with b_0 = `base_visible_bias`; at beta = 0 pixels are independent and
log Z_0 = sum_i softplus(b_0i) + log classes + hidden log 2. Labels and hidden units are summed over, which leaves the
weights less spread than if the chains carried labels. Annealing as in "On the Quantitative Analysis of Deep Belief
Networks" (Salakhutdinov and Murray, 2008).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gdm_core.layers.raster_model import choose
from gdm_core.models.energy.partition.tempered_rbm import bernoulli, softplus

if TYPE_CHECKING:
    from gdm_core.models.energy.label_rbm import LabelRBM


class LabelChains(NamedTuple):
    """Visible vectors (n, D) and what they and each class send to the hidden units, (n, K, hidden)."""

    v: Tensor
    logits: Tensor


class TemperedLabelMachine:
    """A `Tempered` family of a label RBM; its states are images."""

    def __init__(self, machine: LabelRBM) -> None:
        self.machine, self.base = machine, machine.base_visible_bias
        self.change = machine.visible_bias.detach() - self.base

    def base_log_partition(self) -> Tensor:
        """log Z_0, a float64 scalar."""
        hidden, classes = self.machine.label_weight.shape
        return softplus(self.base.double()).sum() + math.log(classes) + hidden * math.log(2)

    def base_sample(self, n: int, generator: torch.Generator | None) -> LabelChains:
        """Independent pixels at the training frequencies."""
        uniforms = self.machine.uniforms(n, generator).visible
        return self.at(bernoulli(self.base.expand_as(uniforms), uniforms))

    def at(self, v: Tensor) -> LabelChains:
        """Chains that stand at visible vectors (n, D)."""
        return LabelChains(v, self.machine.class_hidden_logits(v))

    def at_images(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[LabelChains, Tensor]:
        """Chains that stand at images (n, C, H, W), (n,) zeros: nothing is drawn."""
        return self.at(self.machine.as_vectors(x)), x.new_zeros(len(x), dtype=torch.float64)

    def log_density(self, state: LabelChains, beta: float) -> Tensor:
        """f_beta(v), (n,) float64: terms in the machine's precision, sums in double."""
        visible = torch.mv(state.v, torch.add(self.base, self.change, alpha=beta)).double()
        return visible + self._class_terms(state, beta).logsumexp(1)

    def step(self, state: LabelChains, beta: float, generator: torch.Generator | None) -> LabelChains:
        """y ~ p_beta(y | v), h ~ p_beta(h | v, y), then v ~ p_beta(v | h)."""
        uniforms = self.machine.uniforms(len(state.v), generator)
        labels = choose(self._class_terms(state, beta), uniforms.label)
        chosen = state.logits[torch.arange(len(labels), device=labels.device), labels]  # (n, hidden)
        h = bernoulli(beta * chosen, uniforms.hidden)
        bias = torch.add(self.base, self.change, alpha=beta)
        return self.at(bernoulli(torch.addmm(bias, h, self.machine.weight, alpha=beta), uniforms.visible))

    def _class_terms(self, state: LabelChains, beta: float) -> Tensor:
        """log p_beta(y | v) up to a constant of v, (n, K) float64."""
        hidden = softplus(beta * state.logits).sum(2, dtype=torch.float64)
        return hidden + beta * self.machine.label_bias.detach().double()

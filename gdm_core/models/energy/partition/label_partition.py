"""log Z of a label RBM by enumeration: one layer over all its states, the other one and the label in closed form.

    Z = sum_h exp(c'h) prod_i (1 + exp(b_i + (h'W)_i)) sum_y exp(d_y + h'U_y)
      = sum_v exp(b'v) sum_y exp(d_y) prod_j (1 + exp(c_j + U_jy + W_j v))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdm_core.models.energy.partition.enumeration import blocks_of_states, states_of
from gdm_core.models.energy.partition.tempered_rbm import softplus

if TYPE_CHECKING:
    from gdm_core.models.energy.label_rbm import LabelRBM


@torch.no_grad()
def log_partition_with_labels(machine: LabelRBM) -> Tensor:
    """log Z, a float64 scalar; the smaller layer is enumerated. ValueError above 30 units."""
    hidden, pixels = machine.weight.shape
    terms, others = (_hidden_terms, pixels) if hidden <= pixels else (_pixel_terms, hidden)
    units = min(hidden, pixels)
    blocks = blocks_of_states(units, others * machine.classes, machine.device)
    return torch.stack([terms(machine, states_of(part, units)).logsumexp(0) for part in blocks]).logsumexp(0)


def _hidden_terms(machine: LabelRBM, h: Tensor) -> Tensor:
    """log sum over v and y of exp(-E(v, y, h)), (S,)."""
    visible = softplus(machine.visible_bias.double() + h @ machine.weight.double()).sum(1)
    label = (machine.label_bias.double() + h @ machine.label_weight.double()).logsumexp(1)
    return h @ machine.hidden_bias.double() + visible + label


def _pixel_terms(machine: LabelRBM, v: Tensor) -> Tensor:
    """log sum over y and h of exp(-E(v, y, h)), (S,)."""
    hidden = machine.hidden_bias.double() + v @ machine.weight.double().T
    classes = softplus(hidden[:, None] + machine.label_weight.double().T).sum(2) + machine.label_bias.double()
    return v @ machine.visible_bias.double() + classes.logsumexp(1)

"""Why another layer cannot harm: it begins as the one below it, upside down.

A machine p(x, h) = p(x | h) p(h) defines its own prior p(h) over hidden units. Keep p(x | h) and the posterior
q = p(h | x), which so far is exact, and model h by a second machine whose weights are the transpose of the first's:

    log p(x) = E_q[log p(x | h) + log p(h) - log q(h | x)],

unchanged, with equality. Whatever the second machine then gains on h ~ q(h | x), this bound gains as well.

Reference: "A Fast Learning Algorithm for Deep Belief Nets" (Hinton, Osindero and Teh, 2006), section 4. Ours: the
second machine may have more hidden units than the first has pixels; these begin with small weights, nearly idle.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from gdm_core.models.energy.dbn import DeepBeliefNetwork


@torch.no_grad()
def turn_upside_down(model: DeepBeliefNetwork, layer: int) -> None:
    """Tie recognition to machine `layer`, and make every machine above the one below it upside down, where it fits."""
    if layer < len(model.recognition_weights):
        model.recognition_weights[layer].copy_(model.machines[layer].weight)
    for i, (below, above) in enumerate(itertools.pairwise(model.machines[layer:]), layer + 1):
        if len(above.hidden_bias) < below.dimensions:
            return
        above.weight[: below.dimensions] = below.weight.T
        above.hidden_bias[: below.dimensions] = below.visible_bias
        above.visible_bias.copy_(below.hidden_bias)
        above.base_visible_bias.copy_(below.hidden_bias)  # until its own data have been counted
        if i < len(model.recognition_weights):
            model.recognition_weights[i].copy_(above.weight)

"""A deep Boltzmann machine folded to a restricted one.

Given the odd layers the even ones are independent of each other, and vice versa. The even layers, the pixels first, are
the visible units of a restricted machine and the odd layers its hidden units; the weights between layers that are no
neighbours are zero. Its energy is that of the deep machine, hence also its Gibbs chains, its annealing and its log Z.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gdm_core.models.energy.rbm import RestrictedBoltzmannMachine


@torch.no_grad()
def fold(weights: Sequence[Tensor], biases: Sequence[Tensor], base: Tensor) -> RestrictedBoltzmannMachine:
    """From W_l (units of layer l, of layer l - 1), b_l (units of layer l) and the even layers' base-rate bias."""
    sizes = [len(bias) for bias in biases]
    even, odd = range(0, len(sizes), 2), range(1, len(sizes), 2)

    def between(above: int, below: int) -> Tensor:
        if abs(above - below) > 1:
            return base.new_zeros(sizes[above], sizes[below])
        return weights[below] if below < above else weights[above].T

    with torch.device("meta"):  # a shell, for which nothing is drawn
        machine = RestrictedBoltzmannMachine((sum(sizes[::2]), 1, 1), sum(sizes[1::2]))
    weight = torch.cat([torch.cat([between(above, below) for below in even], 1) for above in odd])
    machine.weight = nn.Parameter(weight, requires_grad=False)
    machine.visible_bias = nn.Parameter(torch.cat([biases[layer] for layer in even]), requires_grad=False)
    machine.hidden_bias = nn.Parameter(torch.cat([biases[layer] for layer in odd]), requires_grad=False)
    machine.base_visible_bias = base
    return machine


def unfold(even: Tensor, odd: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """[v, h_1, ..., h_L] from states of the even and of the odd layers, (N, units of all of them)."""
    parts = [even.split(list(sizes[::2]), 1), odd.split(list(sizes[1::2]), 1)]
    return [parts[layer % 2][layer // 2] for layer in range(len(sizes))]

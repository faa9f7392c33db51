"""log Z of two layers by enumeration: a layer of binary units over all its states, the other one in closed form.

    Z = sum over s of exp(a's) prod_i (1 + exp(b_i + (s'M)_i)),    s in {0, 1}^units
"""

from __future__ import annotations

import torch
from torch import Tensor

from gdm_core.models.energy.partition import sums_as_products
from gdm_core.models.energy.partition.tempered_rbm import softplus

MOST_ENUMERABLE_UNITS = 30  # 2^30 terms take minutes to hours; more would never end
BLOCK = 1 << 22  # numbers in memory at once where a sum runs over many combinations


def blocks_of_states(units: int, others: int, device: torch.device) -> tuple[Tensor, ...]:
    """The numbers 0 to 2^units - 1 in parts of at most 2^22 / `others`. ValueError above 30 units."""
    check_enumerable(units)
    return torch.arange(2**units, device=device).split(max(1, BLOCK // others))


def check_enumerable(units: int) -> None:
    """Raise ValueError above 30 units."""
    if units > MOST_ENUMERABLE_UNITS:
        raise ValueError(f"enumerating 2^{units} states is too much (at most 2^{MOST_ENUMERABLE_UNITS}): anneal")


def states_of(numbers: Tensor, units: int) -> Tensor:
    """The bits of numbers (n,) as binary vectors (n, units), float64."""
    return (numbers[:, None] >> torch.arange(units, device=numbers.device) & 1).double()


@torch.no_grad()
def log_partition_of_layers(weight: Tensor, bias: Tensor, other_bias: Tensor) -> Tensor:
    """log Z of E(s, t) = - bias's - other_bias't - s'Wt, W (units, others): a float64 scalar; the smaller is summed."""
    weight, inner, outer = weight.double(), bias.double(), other_bias.double()
    if len(inner) > len(outer):
        weight, inner, outer = weight.T, outer, inner
    check_enumerable(len(inner))
    if sums_as_products.fits(weight, outer):
        return sums_as_products.log_sum(weight, inner, outer)
    totals = []
    for numbers in blocks_of_states(len(inner), len(outer), weight.device):
        s = states_of(numbers, len(inner))  # (block, units)
        totals.append((s @ inner + softplus(s @ weight + outer).sum(1)).logsumexp(0))
    return torch.stack(totals).logsumexp(0)


@torch.no_grad()
def log_sum_of_gaussians(weight: Tensor, bias: Tensor) -> Tensor:
    """log of the sum over h of exp(c'h + |W'h|^2 / 2), W (units, D): what binary units leave of Gaussian ones."""
    weight, bias, totals = weight.double(), bias.double(), []
    for numbers in blocks_of_states(len(bias), weight.shape[1], weight.device):
        h = states_of(numbers, len(bias))  # (block, units)
        totals.append((h @ bias + 0.5 * (h @ weight).square().sum(1)).logsumexp(0))
    return torch.stack(totals).logsumexp(0)

"""Exact sums over binary units that are all connected: as many terms as they have states.

    log sum over s of exp(a's + s'Cs / 2),    s = (t, r): over the states of t one by one, over r in closed form, if
    no two units of r are connected: sum_t exp(a_t't + t'C_tt t / 2) prod_i (1 + exp(a_ri + (C_rt t)_i))
"""

from __future__ import annotations

import torch
from torch import Tensor

from gdm_core.layers.raster_model import choose
from gdm_core.models.energy.partition.enumeration import BLOCK, blocks_of_states, states_of
from gdm_core.models.energy.partition.tempered_rbm import softplus
from gdm_core.models.energy.sampling.gibbs_scan import Units


def layers_to_sum(units: Units, first: int) -> tuple[slice, slice]:
    """Of a machine whose `first` units are one layer and the others another: those to sum one by one, and the rest.

    A layer without connections among its units is left for closed form; the larger one where neither has any.
    """
    everything = len(units.coupling)
    layers = slice(0, first), slice(first, everything)
    connected = {layer for layer in (0, 1) for block in units.blocks
                 if block.connected and (block.units.start >= first) == layer}  # fmt: skip
    if len(connected) == 2:
        return slice(0, everything), slice(0, 0)
    smaller = int(everything - first < first)
    one_by_one = connected.pop() if connected else smaller
    return layers[one_by_one], layers[1 - one_by_one]


@torch.no_grad()
def log_sum_of_units(units: Units, one_by_one: slice, rest: slice) -> Tensor:
    """The sum over all units, those of `rest` in closed form, a float64 scalar. ValueError above 30 one by one."""
    coupling, bias = units.coupling.double(), units.bias.double()
    inner, across = coupling[one_by_one, one_by_one], coupling[one_by_one, rest]
    totals = []
    for numbers in blocks_of_states(len(inner), len(inner) + across.shape[1], inner.device):
        t = states_of(numbers, len(inner))  # (S, units)
        own = ((bias[one_by_one] + t @ inner / 2) * t).sum(1)
        totals.append((own + softplus(bias[rest] + t @ across).sum(1)).logsumexp(0))
    return torch.stack(totals).logsumexp(0)


@torch.no_grad()
def draw_units(units: Units, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """All units drawn by uniforms (n, 1) from a table of their states, for n biases (n, U): (n, U) and log p (n,)."""
    size = units.bias.shape[1]
    s = states_of(torch.arange(2**size, device=units.bias.device), size)  # (S, U)
    own, drawn, log_probs = (s @ units.coupling.double() / 2 * s).sum(1), [], []
    for bias, uniform in zip(*(x.double().split(max(1, BLOCK >> size)) for x in (units.bias, uniforms)), strict=True):
        log_p = (own + bias @ s.T).log_softmax(1)  # (biases at once, S)
        rows = choose(log_p, uniform)
        drawn.append(s[rows])
        log_probs.append(log_p.gather(1, rows[:, None])[:, 0])
    return torch.cat(drawn).to(units.bias.dtype), torch.cat(log_probs)


def log_sums_of_units(units: Units) -> Tensor:
    """The sum over all units, none in closed form, for each of n biases (n, U): (n,), in their type."""
    size = units.bias.shape[1]
    coupling, bias = units.coupling.double(), units.bias.double()
    totals = []
    for numbers in blocks_of_states(size, max(1, len(bias)), bias.device):
        s = states_of(numbers, size)  # (S, U)
        own = (s @ coupling / 2 * s).sum(1)
        totals.append((own[:, None] + s @ bias.T).logsumexp(0))
    return torch.stack(totals).logsumexp(0).to(units.bias.dtype)

"""A quick sum over all states of a layer of binary units, in which no exponential is computed twice.

    log Z = log sum over s of exp(a's) prod_i (1 + exp(x_i(s))),    x(s) = b + s'M,    s in {0, 1}^units

The units are parted into low and high ones, so that exp(x_i(s)) is a product of two numbers from short tables, and the
logarithm is taken of products of many factors. Each factor is scaled by the largest it can be, exp(-c_i), and as many
are multiplied as cannot run out of float64's range.
"""

from __future__ import annotations

import torch
from torch import Tensor

TABLE = 1 << 19  # numbers in the low units' table: it stays in a processor's cache
RANGE = 600.0  # nats that a product of factors may span; float64 has about 700
MOST_HALVINGS = 5


def largest_exponents(weight: Tensor, outer: Tensor) -> Tensor:
    """c_i: the largest x_i(s) over all s, at least 0, (others,); weight (units, others)."""
    return (outer + weight.clamp_min(0).sum(0)).clamp_min(0)


def fits(weight: Tensor, outer: Tensor) -> bool:
    """Whether every single factor stays in range, so that `log_sum` is exact."""
    return bool(largest_exponents(weight, outer).max() < RANGE)


def log_sum(weight: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    """log Z of weight (units, others), inner bias a (units,) and outer bias b (others,), all float64: a scalar."""
    units, others = weight.shape
    low = min(units, max(1, (TABLE // others).bit_length() - 1))
    c = largest_exponents(weight, outer)
    halvings = _halvings(c)
    weight, outer, c = _padded(weight, outer, c, 2**halvings)
    low_states, high_states = _states(low, weight.device), _states(units - low, weight.device)
    x_low = torch.addmm(outer[:, None], weight[:low].T, low_states.T)  # (others, 2^low)
    x_high = weight[low:].T @ high_states.T  # (others, 2^high)
    top = x_low.max(1, keepdim=True).values
    e_low, e_high, floor = (x_low - top).exp(), (x_high + top - c[:, None]).exp(), (-c).exp()[:, None]
    a_low, a_high = low_states @ inner[:low], high_states @ inner[low:]
    factors, totals = torch.empty_like(e_low), []
    for column, a in zip(e_high.unbind(1), a_high, strict=True):
        torch.addcmul(floor, e_low, column[:, None], out=factors)
        left = factors
        for _ in range(halvings):
            left, right = left.chunk(2)
            left *= right
        totals.append((left.log().sum(0) + a_low).logsumexp(0) + a)
    return torch.stack(totals).logsumexp(0) + c.sum()


def _halvings(c: Tensor) -> int:
    """How often the factors can be multiplied two by two: no group of them spans more than the range."""
    largest = c.sort(descending=True).values
    for halvings in range(MOST_HALVINGS, 0, -1):
        if largest[: 2**halvings].sum() < RANGE:
            return halvings
    return 0


def _padded(weight: Tensor, outer: Tensor, c: Tensor, multiple: int) -> tuple[Tensor, Tensor, Tensor]:
    """With others added whose factor is 1 (c = 0, b = -inf as far as float64 can tell), up to a multiple."""
    missing = -len(outer) % multiple
    return (
        torch.cat([weight, weight.new_zeros(len(weight), missing)], 1),
        torch.cat([outer, outer.new_full((missing,), -1e4)]),
        torch.cat([c, c.new_zeros(missing)]),
    )


def _states(units: int, device: torch.device) -> Tensor:
    """All binary vectors, (2^units, units), float64."""
    return (torch.arange(2**units, device=device)[:, None] >> torch.arange(units, device=device) & 1).double()

"""A linear layer whose connections are masked in each call, and the degrees that masks follow from.

    y = (M * W) x + b,    M_kj = 1 where unit k may see unit j

The mask multiplies the weights in the forward pass and is never written into them, so that one set of weights serves
many masks. A hidden unit of degree m sees the first m inputs of an order and nothing else.
Reference: Germain, Gregor, Murray, Larochelle: MADE: Masked Autoencoder for Distribution Estimation (2015).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class MaskedLinear(nn.Linear):
    """`nn.Linear` with a mask (out, in) for each call."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (N, in) -> (N, out). The mask has the weight's dtype: booleans would be converted in every call."""
        return functional.linear(x, _Masked.apply(self.weight, mask), self.bias)


class _Masked(torch.autograd.Function):
    """W * M, whose gradient is masked where it lies: new memory for it would cost MADE more than the arithmetic.

    Only for a product that a linear layer alone reads, whose gradient therefore is nobody else's.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        to_be_differentiated = torch.is_grad_enabled()
        return gradient * mask if to_be_differentiated else gradient.mul_(mask), None


def spread_degrees(count: int, units: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """`count` assignments of degrees to the units of a layer, (count, units).

    The same degrees each time, spread evenly over 1..D - 1, dealt out at random.
    """
    even = torch.linspace(1, dimensions, units + 1, dtype=torch.float64)[:-1].long()
    return even[torch.rand(count, units, generator=generator, dtype=torch.float64).argsort(dim=1, stable=True)]

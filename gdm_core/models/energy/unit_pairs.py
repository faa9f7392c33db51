"""One number for each pair of units: a symmetric matrix with a zero diagonal, by construction."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unconnected_pairs(units: int) -> nn.Parameter:
    """A zero for each pair i < j, row by row: (units (units - 1) / 2,)."""
    return nn.Parameter(torch.zeros(units * (units - 1) // 2))


def symmetric(pairs: Tensor | None, units: int, like: Tensor) -> Tensor:
    """The matrix (units, units) of one number per pair, or of zeros where there are none, in the type of `like`."""
    matrix = like.new_zeros(units, units)
    if pairs is None:
        return matrix
    upper = matrix.index_put(_places(matrix), pairs)
    return upper + upper.T


def mean_products(s: Tensor, p: Tensor) -> Tensor:
    """The mean over n rows of s_i p_j and of s_j p_i, both (n, units), for each pair i < j."""
    products = s.T @ p / len(s)
    return (products + products.T)[_places(products)] / 2


def _places(matrix: Tensor) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(*matrix.shape, offset=1, device=matrix.device)
    return first, second

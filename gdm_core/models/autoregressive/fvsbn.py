"""A fully visible sigmoid belief network: every pixel is a logistic regression on all pixels before it.

    log p(x) = sum_i log sigmoid((2 x_i - 1) (b_i + sum_{j<i} W_ij x_j))

W is strictly lower triangular in raster order. Without hidden units the likelihood is concave: there is one optimum,
and what a deeper model gains over it is what logistic regression cannot express.

Papers: Neal: Connectionist Learning of Belief Networks (1992); fully visible in Frey: Graphical Models for Machine
Learning and Digital Communication (1998). Changed: Adam in place of gradient ascent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdm_core.contract import TrainingConfig
from gdm_core.layers.pixel_distribution import Bernoulli
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.value_sequence import in_images, in_sequence
from gdm_core.registry import register


@register("fvsbn", family="autoregressive", paper="Frey, 1998")
class FVSBN(RasterModel):
    """Parameters: `weight` (D, D), of which only the part below the diagonal is read, and `bias` (D); unconstrained.

    Dimensions are in raster order, colours in order within a pixel. The training defaults were chosen on the validation
    images of digits, where 40 epochs more begin to overfit.
    """

    default_training = TrainingConfig(epochs=40, batch_size=32, learning_rate=1e-2)

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__(data_shape)
        self.distribution = Bernoulli()
        self.weight = nn.Parameter(torch.zeros(self.dimensions, self.dimensions))
        self.bias = nn.Parameter(torch.zeros(self.dimensions))

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i = 1 | x_{<i}), (N, C, H, W, 1)."""
        logits = functional.linear(in_sequence(x), self.weight.tril(-1), self.bias)  # (N, D)
        return in_images(logits[..., None], self.data_shape)

    def incremental(self, n: int) -> IncrementalFVSBN:
        """The network one dimension at a time, for n images in O(D) each."""
        return IncrementalFVSBN(self, n)


class IncrementalFVSBN:
    """The network one dimension at a time for n images: remembers the values so far."""

    @torch.no_grad()
    def __init__(self, model: FVSBN, n: int) -> None:
        self.model, self.dimension = model, -1
        self.values = model.weight.new_zeros(n, model.dimensions)

    def begin_row(self) -> None:
        """The network sees a sequence; rows mean nothing to it."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, 1)."""
        self.dimension += 1
        i = self.dimension
        return (self.values[:, :i] @ self.model.weight[i, :i] + self.model.bias[i])[:, None]

    def write(self, values: Tensor, column: int, colour: int) -> None:
        self.values[:, self.dimension] = values

"""NADE: a neural network per conditional, all sharing one weight matrix, so that log p(x) costs O(D H).

    log p(x) = sum_d log p(x_d | x_{<d}),    p(x_d = 1 | x_{<d}) = sigmoid(b_d + V_d . h_d),
    h_d = sigmoid(c + sum_{j<d} W_j x_j)

The sum inside h_d grows by one term from pixel to pixel, so it is carried along instead of computed anew.
Paper: Larochelle, Murray: The Neural Autoregressive Distribution Estimator (2011). Changed: Adam instead of plain
stochastic gradient descent; the D x H activations of long inputs are recomputed in the backward pass, not stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gdm_core.contract import TrainingConfig
from gdm_core.layers.pixel_distribution import Bernoulli
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.shared_hidden_units import SharedHiddenUnits
from gdm_core.registry import register

FEW = 64  # dimensions up to which all hidden units are held at once


@register("nade", family="autoregressive", paper="Larochelle and Murray, 2011")
class NADE(RasterModel):
    """NADE over binary pixels in raster order (colours in order within a pixel).

    Parameters: `weight` (D, H), `hidden_bias` (H), `output_weight` (D, H), `visible_bias` (D); all unconstrained.
    The training defaults were chosen on the validation images of digits; a fifth of this learning rate, for 30 epochs
    of batches of 64, was 2.8 nats worse.
    """

    default_training = TrainingConfig(epochs=40, batch_size=32, learning_rate=1e-2)

    def __init__(self, data_shape: Sequence[int], hidden_units: int = 128) -> None:
        super().__init__(data_shape)
        self.distribution = Bernoulli()
        if hidden_units < 1:
            raise ValueError(f"hidden_units must be at least 1, got {hidden_units}")
        size, scale = (self.dimensions, hidden_units), 1 / math.sqrt(self.dimensions)
        self.weight = nn.Parameter(scale * torch.randn(size))
        self.output_weight = nn.Parameter(torch.randn(size) / math.sqrt(hidden_units))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_units))
        self.visible_bias = nn.Parameter(torch.zeros(self.dimensions))

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_d = 1 | x_{<d}), (N, C, H, W, 1)."""
        v = x.permute(0, 2, 3, 1).flatten(1)  # (N, D)
        way = _all_at_once if self.dimensions <= FEW else SharedHiddenUnits.apply
        logits = way(v, self.weight, self.output_weight, self.hidden_bias, self.visible_bias)
        channels, height, width = self.data_shape
        return logits.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)[..., None]

    def incremental(self, n: int) -> IncrementalNADE:
        """The network one dimension at a time, for n images in O(D H) each."""
        return IncrementalNADE(self, n)


def _all_at_once(v: Tensor, weight: Tensor, output_weight: Tensor, hidden_bias: Tensor, visible_bias: Tensor) -> Tensor:
    """The logits (N, D) with all hidden units (N, D, H) in memory: the faster way for few dimensions."""
    terms = v[:, :-1, None] * weight[:-1]  # (N, D - 1, H)
    a = torch.cat([hidden_bias.expand(len(v), 1, -1), terms], 1).cumsum(1)  # c + sum_{j<d} W_j x_j
    return (torch.sigmoid(a) * output_weight).sum(-1) + visible_bias


class IncrementalNADE:
    """The network one dimension at a time for n images: carries a = c + sum_{j<d} W_j x_j along."""

    @torch.no_grad()
    def __init__(self, model: NADE, n: int) -> None:
        self.model, self.dimension = model, -1
        self.a = model.hidden_bias.repeat(n, 1)

    def begin_row(self) -> None:
        """NADE sees a sequence; rows mean nothing to it."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, 1)."""
        self.dimension += 1
        d, h = self.dimension, torch.sigmoid(self.a)
        return (h @ self.model.output_weight[d] + self.model.visible_bias[d])[:, None]

    def write(self, values: Tensor, column: int, colour: int) -> None:
        self.a += values[:, None] * self.model.weight[self.dimension]

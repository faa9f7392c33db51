"""RNADE: NADE for real pixels, each of them a mixture of Gaussians given the pixels before it.

    log p(x) = sum_d log p(x_d | x_{<d}),    p(x_d | x_{<d}) a mixture with the parameters V_d h_d + b_d,
    h_d = relu(rho_d a_d),    a_d = c + sum_{j<d} W_j x_j

a_d grows by one term from pixel to pixel, so it is carried along; the learnt rho_d keeps a sum of many terms in the
range of a sum of few.

Paper: Uria, Murray, Larochelle: RNADE: The Real-valued Neural Autoregressive Density-Estimator (2013). Changed: pixels
lie in [0, 1] and so do the Gaussians, truncated and renormalised, so that the density is one on [0, 1]^D; their scales
are bounded from below; rho_d starts at 1 / sqrt(d); Adam in place of stochastic gradients scaled by the deviations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gdm_core.contract import TrainingConfig
from gdm_core.layers.mixture_of_truncated_gaussians import MixtureOfTruncatedGaussians
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.value_sequence import in_images, in_sequence
from gdm_core.registry import register

BLOCK = 64  # dimensions whose hidden units are in memory at once
ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid}


@register("rnade", family="autoregressive", paper="Uria, Murray and Larochelle, 2013")
class RNADE(RasterModel):
    """RNADE over real pixels in raster order (colours in order within a pixel).

    Parameters: `weight` (D, H), `hidden_bias` (H), `rescaling` (D), `output_weight` (D, 3 components, H) and
    `output_bias` (D, 3 components); all unconstrained. `levels` is the number of levels before dequantising, None where
    there were none. The training defaults were chosen on the validation images of digits.
    """

    default_training = TrainingConfig(epochs=20, batch_size=32, learning_rate=1e-2)
    pixel_kinds = ("real",)

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: int = 64,
        components: int = 20,
        activation: Literal["relu", "sigmoid"] = "relu",
        levels: int | None = None,
    ) -> None:
        super().__init__(data_shape, "real", levels)
        for name, value in (("hidden_units", hidden_units), ("components", components)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = ACTIVATIONS[activation]
        self.distribution = MixtureOfTruncatedGaussians(components)
        dimensions, parameters = self.dimensions, self.distribution.parameters
        self.weight = nn.Parameter(torch.empty(dimensions, hidden_units).normal_(std=0.1))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_units))
        self.rescaling = nn.Parameter(torch.arange(1, dimensions + 1).float().rsqrt())
        size = (dimensions, parameters, hidden_units)
        self.output_weight = nn.Parameter(torch.empty(size).normal_(std=0.3 / math.sqrt(hidden_units)))
        self.output_bias = nn.Parameter(self.distribution.spread_out().repeat(dimensions, 1))

    def logits(self, x: Tensor) -> Tensor:
        """The mixture's parameters of p(x_d | x_{<d}), (N, C, H, W, 3 components).

        Of long images the hidden units of a block are recomputed in the backward pass: D x H of them are never stored.
        """
        values, a, parts = in_sequence(x), self.hidden_bias.expand(len(x), -1), []
        with torch.autocast(x.device.type, enabled=False):  # a sum of D terms in half precision would drift
            for first in range(0, self.dimensions, BLOCK):
                if torch.is_grad_enabled() and self.dimensions > BLOCK:
                    part, a = checkpoint(self._block, values, a, first, use_reentrant=False)
                else:
                    part, a = self._block(values, a, first)
                parts.append(part)
        return in_images(torch.cat(parts).transpose(0, 1), self.data_shape)

    def _block(self, values: Tensor, a: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """The parameters of a block of B dimensions (B, N, 3 components), and a (N, H) after it, from a before it."""
        block = slice(first, first + BLOCK)
        terms = values.T[block, :, None] * self.weight[block, None]  # (B, N, H)
        sums = torch.cat([a[None], terms]).cumsum(0)
        h = self.activation(self.rescaling[block, None, None] * sums[:-1])
        return h @ self.output_weight[block].mT + self.output_bias[block, None], sums[-1]

    def incremental(self, n: int) -> IncrementalRNADE:
        """The network one dimension at a time, for n images in O(D H) each."""
        return IncrementalRNADE(self, n)


class IncrementalRNADE:
    """The network one dimension at a time for n images: carries a = c + sum_{j<d} W_j x_j along."""

    @torch.no_grad()
    def __init__(self, model: RNADE, n: int) -> None:
        self.model, self.dimension = model, -1
        self.a = model.hidden_bias.repeat(n, 1)

    def begin_row(self) -> None:
        """RNADE sees a sequence; rows mean nothing to it."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, 3 components)."""
        self.dimension += 1
        d, model = self.dimension, self.model
        return model.activation(model.rescaling[d] * self.a) @ model.output_weight[d].T + model.output_bias[d]

    def write(self, values: Tensor, column: int, colour: int) -> None:
        self.a += values[:, None] * self.model.weight[self.dimension]

"""The network of a deep energy: convolutions that halve the image while it is large enough, then a weighted sum.

Its activation x sigmoid(x) has slopes everywhere, which score matching differentiates once more, and is divided by its
largest slope. With spectral normalisation every weight matrix W is used as W / |W|, |W| its largest singular value,
where the matrix of a convolution has a row for each output channel. A k x k convolution with stride s sees each value
at most ceil(k / s)^2 times, so that the network's slope is bounded whatever the parameters are:

    |grad f| <= 2 product over the convolutions of ceil(k / s),     (2 because pixels become 2 x - 1)

Paper: "Spectral Normalization for Generative Adversarial Networks", Miyato, Kataoka, Koyama and Yoshida, 2018. Ours:
the singular value is computed and not followed by one power iteration a step, so that no weight is ever ahead of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_SLOPE = 1.09983932  # of x sigmoid(x)
MOST_HALVINGS = 4


class EnergyNetwork(nn.Module):
    """f(x, a): images (N, C, H, W) in [0, 1], and with `conditional` a number (N,) about each, to (N,).

    `channels` feature maps next to the image, twice as many after each halving of its sides down to 2 pixels or 3.
    """

    def __init__(
        self, data_shape: Sequence[int], channels: int, spectral_norm: bool = False, conditional: bool = False
    ) -> None:
        super().__init__()
        colours, height, width = data_shape
        self.spectral_norm, self.conditional = spectral_norm, conditional
        halvings = min(MOST_HALVINGS, max(0, int(math.log2(min(height, width))) - 1))
        layers = [nn.Conv2d(colours + conditional, channels, 3, 1, 1)]
        for before in (channels * 2**stage for stage in range(halvings)):
            layers.append(nn.Conv2d(before, 2 * before, 4, 2, 1))
        if not halvings:
            layers.append(nn.Conv2d(channels, channels, 3, 1, 1))
        self.convolutions = nn.ModuleList(layers)
        places = (height // 2**halvings) * (width // 2**halvings)
        self.last = nn.Linear(layers[-1].out_channels * places, 1, bias=False)  # a constant would change nothing

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = 2 * x - 1
        if self.conditional:
            plane = condition.to(h.dtype).view(-1, 1, 1, 1).expand(len(h), 1, *h.shape[2:])
            h = torch.cat([h, plane], 1)
        for layer in self.convolutions:
            h = F.conv2d(h, self.weight(layer), layer.bias, layer.stride, layer.padding)  # (N, maps, h, w)
            h = F.silu(h) / LARGEST_SLOPE
        return F.linear(h.flatten(1), self.weight(self.last))[:, 0]

    def weight(self, layer: nn.Conv2d | nn.Linear) -> Tensor:
        """The weight as it is used."""
        if not self.spectral_norm:
            return layer.weight
        return layer.weight / torch.linalg.matrix_norm(layer.weight.flatten(1), 2)

    def largest_slope(self) -> float:
        """The bound on |grad f| with spectral normalisation."""
        return 2.0 * math.prod(-(-layer.kernel_size[0] // layer.stride[0]) for layer in self.convolutions)

"""PixelCNN: a convolutional network whose every output sees only pixels that come earlier in raster order.

    log p(x) = sum_i log p(x_i | x_1, ..., x_{i-1}),    i row by row, and colour by colour within a pixel

One pass computes all conditionals: a 7x7 convolution with mask A, residual blocks (1x1, 3x3, 1x1) with mask B, two 1x1
layers, and a Bernoulli or softmax per value. The masks leave a blind spot to the right above each pixel, as published.

Paper: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016). Changed: inputs are scaled to
[-1, 1], so that the zeros around the image differ from both colours of a binary one; `position_bias` adds a learnt bias
for every place after the first layer, for images that are centred, and `dropout` acts on each block's output and the
head (both off unless asked for); sampling is incremental: each pixel's activations are computed once instead of the
whole image for every pixel, with the same result.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdm_core.contract import TrainingConfig
from gdm_core.layers.causal_convolution import CausalConvolution, ConvolutionCache, PointwiseCache, check_kernel_size
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.layers.raster_model import RasterModel
from gdm_core.registry import register


class ResidualBlock(nn.Module):
    """h + W3 relu(W2 * relu(W1 relu(h))): 1x1 from 2h to h features, 3x3 at h, 1x1 back to 2h, all mask B."""

    def __init__(self, channels: int, colours: int) -> None:
        super().__init__()
        self.narrow = CausalConvolution(2 * channels, channels, 1, "B", colours)
        self.spread = CausalConvolution(channels, channels, 3, "B", colours)
        self.widen = CausalConvolution(channels, 2 * channels, 1, "B", colours)

    @property
    def layers(self) -> list[CausalConvolution]:
        return [self.narrow, self.spread, self.widen]

    def forward(self, h: Tensor, dropout: float = 0.0) -> Tensor:
        y = h
        for layer in self.layers:
            y = layer(y.relu())
        return h + functional.dropout(y, dropout)


@register("pixel_cnn", family="autoregressive", paper="van den Oord et al., 2016")
class PixelCNN(RasterModel):
    """PixelCNN with `blocks` residual blocks of 2 * `channels` features.

    `channels` must be at least the number of colours: features are split into one group per colour.
    A thousand small images want a `dropout` of about 0.6 and a `position_bias`; large data sets want more `blocks`.
    """

    default_training = TrainingConfig(epochs=14, batch_size=32, learning_rate=2e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        channels: int = 32,
        blocks: int = 4,
        kernel_size: int = 7,
        dropout: float = 0.0,
        position_bias: bool = False,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        colours = self.data_shape[0]
        if channels < colours:
            raise ValueError(f"channels must be at least the {colours} colours of the images, got {channels}")
        if blocks < 0:
            raise ValueError(f"blocks must be at least 0, got {blocks}")
        check_kernel_size(kernel_size)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.dropout = dropout
        self.distribution = distribution_of(pixels, self.levels)
        features = 2 * channels
        self.place = nn.Parameter(torch.zeros(features, *self.data_shape[1:])) if position_bias else None
        self.first = CausalConvolution(colours, features, kernel_size, "A", colours)
        self.blocks = nn.ModuleList(ResidualBlock(channels, colours) for _ in range(blocks))
        self.head = CausalConvolution(features, features, 1, "B", colours)
        self.output = CausalConvolution(features, colours * self.distribution.parameters, 1, "B", colours)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i | predecessors) for every value: (N, C, H, W, 1), or (..., levels)."""
        return self._network(x)

    def _network(self, x: Tensor, dropout: float = 0.0) -> Tensor:
        h = self.first(2 * x - 1)  # (N, 2 channels, H, W)
        if self.place is not None:
            h = h + self.place
        for block in self.blocks:
            h = block(h, dropout)
        y = functional.dropout(self.head(h.relu()).relu(), dropout)
        y = self.output(y)  # (N, C * parameters, H, W)
        return y.unflatten(1, (x.shape[1], -1)).movedim(2, -1)

    def training_logits(self, x: Tensor) -> Tensor:
        """The same with dropout in training mode."""
        return self._network(x, self.dropout if self.training else 0.0)

    def incremental(self, n: int) -> IncrementalPixelCNN:
        """The network one pixel at a time, for n images."""
        return IncrementalPixelCNN(self, n)


class IncrementalPixelCNN:
    """The network of a PixelCNN, one pixel at a time for n images: see `IncrementalNetwork`."""

    @torch.no_grad()
    def __init__(self, model: PixelCNN, n: int) -> None:
        width = model.data_shape[2]
        self.first, self.places = ConvolutionCache(model.first, n, width), _by_place(model.first, model.place)
        self.blocks = [
            (PointwiseCache(block.narrow, n), ConvolutionCache(block.spread, n, width), PointwiseCache(block.widen, n))
            for block in model.blocks
        ]
        self.head, self.output = PointwiseCache(model.head, n), PointwiseCache(model.output, n)
        self.row = -1

    def begin_row(self) -> None:
        self.row += 1
        self.first.begin_row()
        for _, spread, _ in self.blocks:
            spread.begin_row()

    def write(self, values: Tensor, column: int, colour: int) -> None:
        torch.sub(2 * values[:, None], 1, out=self.first.slot(column, colour))

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        h = self.first.step(column, colour)
        if self.places is not None:
            h += self.places[self.row][column][colour]
        for narrow, spread, widen in self.blocks:
            torch.clamp_min(h, 0, out=narrow.slots[colour])
            torch.clamp_min(narrow.step(colour), 0, out=spread.slots[colour][column])
            torch.clamp_min(spread.step(column, colour), 0, out=widen.slots[colour])
            widen.add_to(h, colour)
        torch.clamp_min(h, 0, out=self.head.slots[colour])
        torch.clamp_min(self.head.step(colour), 0, out=self.output.slots[colour])
        return self.output.step(colour)


def _by_place(layer: CausalConvolution, place: Tensor | None) -> list[list[tuple[Tensor, ...]]] | None:
    """The biases of each row, column and colour group, cut once: places[row][column][colour]."""
    if place is None:
        return None
    sizes = [end - start for start, end in itertools.pairwise(layer.out_bounds)]
    return [[bias.split(sizes) for bias in row] for row in place.permute(1, 2, 0).contiguous()]

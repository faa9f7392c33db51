"""The network of a PixelRNN: a masked convolution, residual blocks around LSTMs over the image, two 1x1 layers.

    h = W_A * x + p,    h <- h + W lstm(h + bias)  for each block,    logits = W'' relu(W' relu(h))

W_A is a convolution with mask A, all other layers have mask B: features are split into one group per colour. p is a
learnt bias for every place, where asked for. With a condition s, a map over the image that all pixels may see, each
block's gates get the bias V s (1x1, not masked).
Paper: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016), sections 3.3 to 3.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdm_core.layers.causal_convolution import CausalConvolution, ConvolutionCache, PointwiseCache, check_kernel_size
from gdm_core.layers.diagonal_bilstm import DiagonalBiLSTM
from gdm_core.layers.row_lstm import RowLSTM

LSTMS = {"row_lstm": RowLSTM, "diagonal_bilstm": DiagonalBiLSTM}


class ResidualLSTM(nn.Module):
    """h + W lstm(h): from 2 * channels features to `channels` states, and by a 1x1 layer back."""

    def __init__(self, kind: str, channels: int, colours: int, condition_features: int = 0) -> None:
        super().__init__()
        self.lstm = LSTMS[kind](2 * channels, channels, colours)
        self.widen = CausalConvolution(channels, 2 * channels, 1, "B", colours)
        gates = self.lstm.gates_per_channel * channels
        self.condition = nn.Conv2d(condition_features, gates, 1, bias=False) if condition_features else None

    def bias(self, condition: Tensor | None) -> Tensor | None:
        """V s, (N, gates, H, W)."""
        return None if condition is None or self.condition is None else self.condition(condition)

    def forward(self, h: Tensor, condition: Tensor | None = None) -> Tensor:
        return h + self.widen(self.lstm(h, self.bias(condition)))


class RecurrentNetwork(nn.Module):
    """Images (N, C, H, W) and a condition (N, condition_features, H, W) -> logits (N, C, H, W, parameters).

    A diagonal BiLSTM runs over one more column, on the right, as if the image went on: the LSTM from the right begins
    there, at features that have seen the last pixel of the row. Without it that pixel would be hidden from the next
    row's pixels beyond the reach of the first convolution, as it is in the network as published.
    """

    def __init__(
        self,
        kind: Literal["row_lstm", "diagonal_bilstm"],
        data_shape: Sequence[int],
        parameters: int,
        channels: int,
        layers: int,
        kernel_size: int,
        position_bias: bool = False,
        condition_features: int = 0,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        if kind not in LSTMS:
            raise ValueError(f"kind must be one of {', '.join(LSTMS)}, got {kind!r}")
        check_kernel_size(kernel_size)
        colours, height, self.width = data_shape
        self.margin = 1 if kind == "diagonal_bilstm" else 0
        self.first = CausalConvolution(colours, 2 * channels, kernel_size, "A", colours)
        places = (2 * channels, height, self.width + self.margin)
        self.place = nn.Parameter(torch.zeros(places)) if position_bias else None
        self.blocks = nn.ModuleList(ResidualLSTM(kind, channels, colours, condition_features) for _ in range(layers))
        self.head = CausalConvolution(2 * channels, 2 * channels, 1, "B", colours)
        self.output = CausalConvolution(2 * channels, colours * parameters, 1, "B", colours)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.first(self._widened(2 * x - 1))  # (N, 2 channels, H, W + margin)
        if self.place is not None:
            h = h + self.place
        if condition is not None:
            condition = self._widened(condition)
        for block in self.blocks:
            h = block(h, condition)
        h = self.head(h[..., : self.width].relu()).relu()
        return self.output(h).unflatten(1, (x.shape[1], -1)).movedim(2, -1)

    def _widened(self, maps: Tensor) -> Tensor:
        """With the zero columns of the margin, (N, ..., H, W + margin)."""
        return functional.pad(maps, (0, self.margin))

    @torch.no_grad()
    def incremental(self, n: int, condition: Tensor | None = None) -> IncrementalRecurrentNetwork:
        """The network one pixel after another, for n images (and their conditions)."""
        return IncrementalRecurrentNetwork(self, n, None if condition is None else self._widened(condition))


class IncrementalRecurrentNetwork:
    """A `RecurrentNetwork` one pixel at a time for n images: see `IncrementalNetwork`."""

    def __init__(self, network: RecurrentNetwork, n: int, condition: Tensor | None) -> None:
        width = network.width + network.margin
        self.first = ConvolutionCache(network.first, n, width)
        self.blocks = [
            (block.lstm.incremental(n, width, block.bias(condition)), PointwiseCache(block.widen, n))
            for block in network.blocks
        ]
        self.head, self.output = PointwiseCache(network.head, n), PointwiseCache(network.output, n)
        self.colours, self.margin, self.row = network.first.groups, range(network.width, width), -1
        self.place = None
        if network.place is not None:
            self.place = network.place.permute(1, 2, 0)[:, :, None].expand(-1, -1, n, -1)  # (H, W, n, features)

    def begin_row(self) -> None:
        if self.row >= 0:
            self._cross_the_margin()
        self.row += 1
        self.first.begin_row(None if self.place is None else self.place[self.row])
        for lstm, _ in self.blocks:
            lstm.begin_row()

    def _cross_the_margin(self) -> None:
        """The row above as if it went on: the LSTM from the right begins there."""
        for column in self.margin:
            for colour in range(self.colours):
                self._features(column, colour)

    def write(self, values: Tensor, column: int, colour: int) -> None:
        torch.sub(2 * values[:, None], 1, out=self.first.slot(column, colour))

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        torch.clamp_min(self._features(column, colour), 0, out=self.head.slots[colour])
        torch.clamp_min(self.head.step(colour), 0, out=self.output.slots[colour])
        return self.output.step(colour)

    def _features(self, column: int, colour: int) -> Tensor:
        """What the last block gives for a colour, (n, its features)."""
        h = self.first.step(column, colour)
        for lstm, widen in self.blocks:
            lstm.slots[colour][column].copy_(h)
            widen.slots[colour].copy_(lstm.step(column, colour))
            widen.add_to(h, colour)
        return h

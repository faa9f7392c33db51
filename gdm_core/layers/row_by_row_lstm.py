"""An LSTM over the values of an image, row by row: the plain recurrent network that PixelRNNs set out from.

    h_t = e(x_{t-1}) + p_t,    h <- h + W lstm(h)  for each block,    logits_t = W'' relu(W' relu(h_t))

Values are in raster order, colours in order within a pixel: each is a step of its own, so that no layer needs a mask.
p_t says which colour comes, or where asked for which place: a sequence does not know its rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gdm_core.layers.value_sequence import PrecedingValue, in_images


class ResidualSequenceLSTM(nn.Module):
    """h + W lstm(h): from 2 * channels features to `channels` states, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2 * channels, channels, batch_first=True)
        self.widen = nn.Linear(channels, 2 * channels)

    def forward(self, h: Tensor) -> Tensor:
        """(N, D, 2 channels) -> (N, D, 2 channels)."""
        return h + self.widen(self.lstm(h)[0])

    def step(self, h: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One place of n images: h (n, 2 channels), the state before it (n, channels) twice -> both after it."""
        lstm = self.lstm
        state = torch.lstm_cell(h, state, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)
        return h + self.widen(state[0]), state


class RowByRowLSTM(nn.Module):
    """Images (N, C, H, W) -> logits (N, C, H, W, parameters)."""

    def __init__(
        self,
        data_shape: Sequence[int],
        levels: int,
        parameters: int,
        channels: int,
        layers: int,
        position_bias: bool = False,
    ) -> None:
        super().__init__()
        if channels < 1 or layers < 1:
            raise ValueError(f"channels and layers must be at least 1, got {channels} and {layers}")
        self.data_shape, self.dimensions = tuple(data_shape), math.prod(data_shape)
        self.before = PrecedingValue(levels, 2 * channels)
        places = self.dimensions if position_bias else data_shape[0]
        self.place = nn.Parameter(torch.zeros(places, 2 * channels))
        self.blocks = nn.ModuleList(ResidualSequenceLSTM(channels) for _ in range(layers))
        self.head = nn.Linear(2 * channels, 2 * channels)
        self.output = nn.Linear(2 * channels, parameters)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x) + self.places()  # (N, D, 2 channels)
        for block in self.blocks:
            h = block(h)
        return in_images(self.logits_of(h), self.data_shape)

    def places(self) -> Tensor:
        """p, (D, 2 channels)."""
        return self.place.repeat(self.dimensions // len(self.place), 1)

    def logits_of(self, h: Tensor) -> Tensor:
        """(..., 2 channels) -> (..., parameters)."""
        return self.output(self.head(h.relu()).relu())

    @torch.no_grad()
    def incremental(self, n: int) -> IncrementalRowByRowLSTM:
        """The network one value after another, for n images."""
        return IncrementalRowByRowLSTM(self, n)


class IncrementalRowByRowLSTM:
    """A `RowByRowLSTM` one value at a time for n images: see `IncrementalNetwork`."""

    def __init__(self, network: RowByRowLSTM, n: int) -> None:
        self.network, self.places = network, iter(network.places())
        self.h = network.before.start.expand(n, -1)
        self.states = [(zeros, zeros) for zeros in (self.h.new_zeros(n, b.lstm.hidden_size) for b in network.blocks)]

    def begin_row(self) -> None:
        """The network sees a sequence; rows mean nothing to it."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        h = self.h + next(self.places)
        for index, block in enumerate(self.network.blocks):
            h, self.states[index] = block.step(h, self.states[index])
        return self.network.logits_of(h)

    def write(self, values: Tensor, column: int, colour: int) -> None:
        self.h = self.network.before.embed(values)

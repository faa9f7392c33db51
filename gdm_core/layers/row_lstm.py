"""Row LSTM: reads an image row after row; a pixel's state sees three states of the row above, and so a triangle.

    gates = K_is * x_r + K_ss * h_{r-1},    (h_r, c_r) = lstm_step(gates, c_{r-1})        r = 0, ..., H - 1

K_is is a masked 1 x k convolution along the row (mask B), K_ss a 1 x k convolution of the row above, which is all past.
Paper: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016), section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdm_core.layers.causal_convolution import CausalConvolution, ConvolutionCache
from gdm_core.layers.lstm_step import lstm_step, units_per_colour


class RowLSTM(nn.Module):
    """(N, features, H, W) -> (N, channels, H, W).

    `channels` is a multiple of the number of colours, `kernel_size` (k) odd. The rows are one after another, the
    pixels of a row together.
    """

    gates_per_channel = 4

    def __init__(self, features: int, channels: int, colours: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.units, self.channels, self.reach = units_per_colour(channels, colours), channels, kernel_size // 2
        self.input_to_state = CausalConvolution(features, 4 * channels, (1, kernel_size), "B", colours)
        bound = (kernel_size * channels) ** -0.5
        self.state_to_state = nn.Parameter(torch.empty(kernel_size * channels, 4 * channels).uniform_(-bound, bound))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`bias` (N, 4 channels, H, W) is added to the gates."""
        gates = self.input_to_state(x)  # (N, 4 channels, H, W)
        gates = gates if bias is None else gates + bias
        h = cell = gates.new_zeros(len(x), x.shape[3], self.channels)
        states = []
        for row in gates.permute(2, 0, 3, 1):  # (N, W, 4 channels)
            h, cell = lstm_step(row + self.from_above(h) if states else row, cell, self.units)
            states.append(h)
        return torch.stack(states).permute(1, 3, 0, 2)  # from (H, N, W, channels)

    def from_above(self, h: Tensor) -> Tensor:
        """K_ss * h: the row above (n, W, channels) as each pixel's gates see it, (n, W, 4 channels)."""
        padded = functional.pad(h, (0, 0, self.reach, self.reach))
        windows = padded.unfold(1, 2 * self.reach + 1, 1).transpose(2, 3)  # (n, W, k, channels)
        return windows.flatten(2) @ self.state_to_state

    def incremental(self, n: int, width: int, bias: Tensor | None = None) -> IncrementalRowLSTM:
        """The layer one pixel after another."""
        return IncrementalRowLSTM(self, n, width, bias)


class IncrementalRowLSTM:
    """A `RowLSTM` for n images of one width, one pixel and colour after another.

    For each row `begin_row`; then for each column and colour: put the features of that colour into `slots` and take
    its states from `step`.
    """

    def __init__(self, layer: RowLSTM, n: int, width: int, bias: Tensor | None) -> None:
        self.layer, self.row = layer, -1
        self.cache = ConvolutionCache(layer.input_to_state, n, width)
        self.slots = self.cache.slots
        self.bias = None if bias is None else bias.permute(2, 3, 0, 1).contiguous()  # (H, W, n, 4 channels)
        self.h = layer.state_to_state.new_zeros(n, width, layer.channels)  # this row up to the pixel, then that above
        self.cell = torch.zeros_like(self.h)
        own = self.h.split(layer.units, 2), self.cell.split(layer.units, 2)
        self.states = [list(zip(h.unbind(1), cell.unbind(1), strict=True)) for h, cell in zip(*own, strict=True)]

    def begin_row(self) -> None:
        self.row += 1
        extra = self.layer.from_above(self.h).transpose(0, 1)  # (W, n, 4 channels)
        self.cache.begin_row(extra if self.bias is None else extra + self.bias[self.row])

    def step(self, column: int, colour: int) -> Tensor:
        """The states of a colour at a column, (n, channels / colours)."""
        own_h, own_cell = self.states[colour][column]
        h, cell = lstm_step(self.cache.step(column, colour), own_cell, self.layer.units)
        own_cell.copy_(cell)
        return own_h.copy_(h)

"""Diagonal BiLSTM: two LSTMs that cross an image diagonal after diagonal, one from each upper corner.

    gates = K_is * x + K_ss * (state before in the row, state above),    (h, c) = lstm_step(gates, c before in the row)
    y_{r,c} = h^left_{r,c} + h^right_{r-1,c}

A pixel's two states come from the diagonal before its own, so that a diagonal is computed together (the paper skews
the map, by which diagonals become columns and K_ss a 2 x 1 convolution). K_is is 1x1 with mask B. The second LSTM comes
from the right, over pixels still to come: its map is shifted down by one row, so that what it saw is past.
Paper: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdm_core.layers.causal_convolution import CausalConvolution, ConvolutionCache
from gdm_core.layers.lstm_step import lstm_step, units_per_colour


class DiagonalBiLSTM(nn.Module):
    """(N, features, H, W) -> (N, channels, H, W); `channels` is a multiple of the number of colours.

    Its gates are ordered by colour, within that by direction (from the left, from the right), and then as lstm_step's.
    """

    gates_per_channel = 8

    def __init__(self, features: int, channels: int, colours: int) -> None:
        super().__init__()
        self.units, self.channels, self.colours = units_per_colour(channels, colours), channels, colours
        self.input_to_state = CausalConvolution(features, 8 * channels, 1, "B", colours)
        bound = (2 * channels) ** -0.5
        start = torch.empty(2, 2 * channels, 4 * channels).uniform_(-bound, bound)
        self.state_to_state = nn.Parameter(start)  # of each direction: the state before in the row, then the one above

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`bias` (N, 8 channels, H, W) is added to the gates."""
        gates = self.input_to_state(x)  # (N, 8 channels, H, W)
        gates = gates if bias is None else gates + bias
        _, _, height, width = x.shape
        order, sizes = diagonals(height, width, x.device)
        gates = gates.flatten(2).permute(2, 0, 1).unflatten(2, (self.colours, 2, -1))  # (H W, N, colours, 2, 4 units)
        gates = torch.stack([gates[order[0], :, :, 0], gates[order[1], :, :, 1]]).flatten(3)  # (2, H W, N, 4 channels)
        left, right = self._run_through(gates.split(sizes, 1), height, width)
        left, right = left[order[0].argsort()], right[order[1].argsort()]  # (H W, N, channels), in raster order
        right = functional.pad(right[:-width], (0, 0, 0, 0, width, 0))  # one row down
        return (left + right).permute(1, 2, 0).unflatten(2, (height, width))

    def _run_through(self, diagonal_gates: tuple[Tensor, ...], height: int, width: int) -> Tensor:
        """The states of both directions, (2, H W, N, channels), from the gates of each diagonal's pixels, top first."""
        h = cell = diagonal_gates[0].new_zeros(2, 0, diagonal_gates[0].shape[2], self.channels)
        states = []
        for index, gates in enumerate(diagonal_gates):
            # A diagonal begins in the first row, or below the one before once that has left the image on the right.
            ends = (0, 0, 0, 0, int(index < width), int(index < height))
            h, cell = functional.pad(h, ends), functional.pad(cell, ends)
            both = torch.cat([h[:, 1:], h[:, :-1]], -1)  # (2, pixels, N, 2 channels): before in the row, above
            h, cell = lstm_step(gates + self._from_states(both), cell[:, 1:], self.units)
            states.append(h)
        return torch.cat(states, 1)

    def _from_states(self, both: Tensor) -> Tensor:
        """K_ss * states, (2, pixels, N, 4 channels)."""
        return torch.bmm(both.flatten(1, 2), self.state_to_state).unflatten(1, both.shape[1:3])

    def incremental(self, n: int, width: int, bias: Tensor | None = None) -> IncrementalDiagonalBiLSTM:
        """The layer one pixel after another."""
        return IncrementalDiagonalBiLSTM(self, n, width, bias)


def diagonals(height: int, width: int, device: torch.device) -> tuple[Tensor, list[int]]:
    """The pixels (raster index) diagonal after diagonal, (2, H W): from the left and mirrored; and how many on each.

    Within a diagonal they are ordered from the top: row r and column d - r, for the mirrored ones column W - 1 - d + r.
    """
    index = torch.arange(height * width, device=device)
    row, column = index // width, index % width
    left = ((row + column) * height + row).argsort()
    mirrored = left + width - 1 - 2 * (left % width)
    sizes = [min(d, height - 1) - max(0, d - width + 1) + 1 for d in range(height + width - 1)]
    return torch.stack([left, mirrored]), sizes


class IncrementalDiagonalBiLSTM:
    """A `DiagonalBiLSTM` for n images of one width, one pixel and colour after another.

    Used as `IncrementalRowLSTM` is. The direction from the left goes along with the pixels; that from the right crosses
    a row when it is complete, as the next one begins.
    """

    def __init__(self, layer: DiagonalBiLSTM, n: int, width: int, bias: Tensor | None) -> None:
        self.layer, self.width, self.row = layer, width, -1
        self.cache = ConvolutionCache(layer.input_to_state, n, width)
        self.slots = self.cache.slots
        self.bias = None if bias is None else bias.permute(2, 3, 0, 1).contiguous()  # (H, W, n, 8 channels)
        before, above = layer.state_to_state.unflatten(1, (2, -1)).unbind(1)  # each (2, channels, 4 channels)
        self.before, self.above = before.contiguous(), above.contiguous()
        states = layer.state_to_state.new_zeros(width, n, layer.channels)
        self.left, self.right = states, states.clone()  # of this row up to the pixel; of the row above
        self.right_gates = states.new_zeros(width, n, 4 * layer.channels)  # of this row, from its features alone

    def begin_row(self) -> None:
        self.row += 1
        self.cache.begin_row(None if self.bias is None else self.bias[self.row])
        if self.row > 0:
            self._cross_from_the_right()
        self.from_above = self.left @ self.above[0]  # what this row's gates from the left see of the row above
        self.left = torch.empty_like(self.left)
        self.h = self.cell = torch.zeros_like(self.left[0])  # from the left, at the pixel before

    def _cross_from_the_right(self) -> None:
        """The states from the right of the row that is complete now."""
        gates = self.right_gates + self.right @ self.above[1]
        h = cell = torch.zeros_like(self.right[0])
        for column in reversed(range(self.width)):
            h, cell = lstm_step(torch.addmm(gates[column], h, self.before[1]), cell, self.layer.units)
            self.right[column] = h

    def _begin_pixel(self, column: int) -> None:
        """What all colours' gates see of the pixel before, in one product."""
        self.gates = torch.addmm(self.from_above[column], self.h, self.before[0])
        self.h, self.cell_before, self.cell = self.left[column], self.cell, torch.empty_like(self.cell)

    def step(self, column: int, colour: int) -> Tensor:
        """The states of a colour at a column, (n, channels / colours)."""
        if colour == 0:
            self._begin_pixel(column)
        units = self.layer.units
        own = slice(colour * units, (colour + 1) * units)
        its_gates = slice(4 * own.start, 4 * own.stop)
        left, right = self.cache.step(column, colour).chunk(2, 1)  # each (n, 4 units)
        self.right_gates[column, :, its_gates] = right
        h, self.cell[:, own] = lstm_step(left + self.gates[:, its_gates], self.cell_before[:, own], units)
        self.h[:, own] = h
        return h + self.right[column, :, own]

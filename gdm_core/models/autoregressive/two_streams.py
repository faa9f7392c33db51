"""The two streams of PixelCNN++ at several resolutions: what every place knows of the rows above, and of all before it.

`above` at (i, j) sees pixels of the rows before i; `before` sees these, by way of `above`, and those to the left in row
i. Neither has a blind spot. A `Resolution` holds the residual blocks on the way down, the next coarser resolution in
the middle, and the blocks on the way up, into each of which the features of one place on the way down lead directly.
Salimans, Karpathy, Chen, Kingma: PixelCNN++ (2017), figure 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdm_core.layers.shifted_convolution import (
    PlaceCache,
    RowCache,
    ShiftedConvolution,
    ShiftedUpsampling,
    UpsamplingCache,
)

Streams = tuple[Tensor, Tensor]  # above and before, (N, features, H, W) each


def concat_elu(x: Tensor, axis: int = 1, out: Tensor | None = None) -> Tensor:
    """elu(x) and elu(-x), one after the other on the axis of features: as concatenated ReLU (Shang et al., 2016)."""
    return functional.elu(torch.cat([x, -x], axis, out=out), inplace=True)


class GatedResidual(nn.Module):
    """x + y * sigmoid(z), with (y, z) two shifted convolutions away from x; `sides` further inputs join in between."""

    def __init__(self, features: int, kernel_size: tuple[int, int], left: bool, sides: int) -> None:
        super().__init__()
        self.first = ShiftedConvolution(2 * features, features, kernel_size, left)
        self.side = nn.Conv2d(2 * features * sides, features, 1) if sides else None
        self.second = ShiftedConvolution(2 * features, 2 * features, kernel_size, left)
        with torch.no_grad():
            self.second.weight.mul_(0.1)  # so that a deep network begins near the identity

    def forward(self, x: Tensor, *sides: Tensor, dropout: float = 0.0) -> Tensor:
        y = self.first(concat_elu(x))
        if self.side is not None:
            y = y + self.side(torch.cat([concat_elu(side) for side in sides], 1))
        y = functional.dropout(concat_elu(y), dropout)
        return x + functional.glu(self.second(y), 1)


class TwoStreamBlock(nn.Module):
    """A gated residual block for each stream, `above` leading into `before`; with or without a short cut."""

    def __init__(self, features: int, shortcut: bool) -> None:
        super().__init__()
        self.above = GatedResidual(features, (2, 3), left=False, sides=int(shortcut))
        self.before = GatedResidual(features, (2, 2), left=True, sides=1 + shortcut)

    def forward(self, streams: Streams, shortcut: Streams | tuple[()] = (), dropout: float = 0.0) -> Streams:
        above = self.above(streams[0], *shortcut[:1], dropout=dropout)
        return above, self.before(streams[1], above, *shortcut[1:], dropout=dropout)


class Resolution(nn.Module):
    """`blocks` blocks down, half as many rows and columns in the middle where `coarser` > 0, and blocks up again."""

    def __init__(self, features: int, blocks: int, coarser: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(TwoStreamBlock(features, shortcut=False) for _ in range(blocks))
        self.inner = None
        if coarser:
            self.shrink_above = ShiftedConvolution(features, features, (2, 3), stride=2)
            self.shrink_before = ShiftedConvolution(features, features, (2, 2), left=True, stride=2)
            self.inner = Resolution(features, blocks, coarser - 1)
            self.expand_above = ShiftedUpsampling(features, features)
            self.expand_before = ShiftedUpsampling(features, features, left=True)
        self.up = nn.ModuleList(TwoStreamBlock(features, shortcut=True) for _ in range(blocks + bool(coarser)))

    def forward(self, streams: Streams, dropout: float = 0.0) -> Streams:
        """(N, features, H, W) each, and the same again."""
        passed = [streams]
        for block in self.down:
            passed.append(block(passed[-1], dropout=dropout))
        streams = passed.pop() if self.inner is None else self._through_the_middle(*passed[-1], dropout)
        for block in self.up:
            streams = block(streams, passed.pop(), dropout)
        return streams

    def _through_the_middle(self, above: Tensor, before: Tensor, dropout: float) -> Streams:
        size = above.shape[2:]
        above, before = self.inner((self.shrink_above(above), self.shrink_before(before)), dropout)
        return self.expand_above(above, size), self.expand_before(before, size)


class IncrementalBlock:
    """A `TwoStreamBlock` for n images: its rows of `above` one at a time, its places of `before` one at a time.

    What `above` gives to `before` is known when the row begins, and is added up for the whole row.
    """

    def __init__(self, block: TwoStreamBlock, n: int, width: int) -> None:
        above, before = block.above, block.before
        self.above_first, self.above_second = RowCache(above.first, n, width), RowCache(above.second, n, width)
        self.first, self.second = PlaceCache(before.first, n, width), PlaceCache(before.second, n, width)
        self.above_side = None if above.side is None else matrix(above.side)
        weight, self.bias = matrix(before.side)
        features = above.first.weight.shape[1]
        self.from_above, self.from_shortcut = weight[:features], weight[features:]

    def begin_row(self, above: Tensor, *shortcut: Tensor) -> Tensor:
        """The next row of `above`, (columns, n, features), given that of its input and of the short cut."""
        y = self.above_first.step(concat_elu(above, -1))
        for side in shortcut:
            weight, bias = self.above_side
            y = y + concat_elu(side, -1) @ weight + bias
        above = above + functional.glu(self.above_second.step(concat_elu(y, -1)), -1)
        self.first.begin_row(concat_elu(above, -1) @ self.from_above + self.bias)
        self.second.begin_row()
        return above

    def step(self, column: int, before: Tensor, *shortcut: Tensor) -> Tensor:
        """`before` at a column of the row, (n, features), given its input and the short cut there."""
        concat_elu(before, out=self.first.slot(column))
        y = self.first.step(column)
        for side in shortcut:
            y = torch.addmm(y, concat_elu(side), self.from_shortcut)
        concat_elu(y, out=self.second.slot(column))
        return before + functional.glu(self.second.step(column), -1)


class IncrementalResolution:
    """A `Resolution` for n images of one width: `begin_row`, then `step` for each column, row after row.

    The coarser resolution moves on at every second row and column; what it gave there is used again at the places in
    between, of this row and the next, which all come later.
    """

    def __init__(self, resolution: Resolution, n: int, width: int) -> None:
        self.width, self.row, self.inner = width, -1, None
        self.down, self.up = (
            [IncrementalBlock(block, n, width) for block in blocks] for blocks in (resolution.down, resolution.up)
        )
        if resolution.inner is not None:
            self.shrink_above = RowCache(resolution.shrink_above, n, width)
            self.shrink_before = PlaceCache(resolution.shrink_before, n, width)
            self.inner = IncrementalResolution(resolution.inner, n, (width + 1) // 2)
            self.expand_above = UpsamplingCache(resolution.expand_above)
            self.expand_before = UpsamplingCache(resolution.expand_before)
            self.coarse: dict[int, Tensor] = {}  # what `inner` gave for `before`, by its column

    def begin_row(self, above: Tensor) -> Tensor:
        """The next row of `above`, (columns, n, features), given that of its input."""
        self.row += 1
        passed = [above]
        for block in self.down:
            passed.append(block.begin_row(passed[-1]))
        above = passed.pop() if self.inner is None else self._begin_coarser_row(passed[-1])
        for block in self.up:
            above = block.begin_row(above, passed.pop())
        return above

    def _begin_coarser_row(self, above: Tensor) -> Tensor:
        lower = self.row % 2
        self.shrink_before.begin_row(outputs=not lower)
        if lower:
            self.shrink_above.keep(above)
        else:
            self.coarse_above = self.inner.begin_row(self.shrink_above.step(above))
        return self.expand_above.row(self.coarse_above, lower, self.width)

    def step(self, column: int, before: Tensor) -> Tensor:
        """`before` at a column of the row, (n, features), given its input."""
        passed = [before]
        for block in self.down:
            passed.append(block.step(column, passed[-1]))
        before = passed.pop() if self.inner is None else self._coarser_place(column, passed[-1])
        for block in self.up:
            before = block.step(column, before, passed.pop())
        return before

    def _coarser_place(self, column: int, before: Tensor) -> Tensor:
        lower, right, place = self.row % 2, column % 2, column // 2
        self.shrink_before.slot(column).copy_(before)
        if not (lower or right):
            self.coarse[place] = self.inner.step(place, self.shrink_before.step(column))
        return self.expand_before.place(self.coarse[place], lower, right)


def matrix(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """The weight (in, out) and bias of a 1x1 convolution, for the features of places alone."""
    return layer.weight.detach()[:, :, 0, 0].t().contiguous(), layer.bias

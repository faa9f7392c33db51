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

from gdm_core.layers.shifted_convolution import ShiftedConvolution, ShiftedUpsampling

Streams = tuple[Tensor, Tensor]  # above and before, (N, features, H, W) each


def concat_elu(x: Tensor) -> Tensor:
    """elu(x) and elu(-x), one after the other on axis 1 (Shang, Sohn, Almeida, Lee, 2016, with elu for relu)."""
    return functional.elu(torch.cat([x, -x], 1))


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

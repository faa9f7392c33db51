"""An image as one sequence of values: raster order, colours in order within a pixel, for networks that read sequences.

    e(x) = (1 - f) W_k + f W_{k+1},    k + f = x (levels - 1),  0 <= f < 1

At a level x = k / (levels - 1) that is row k of a table, as usual; between levels it is linear, so that a network has
slopes by its image. The table begins on a straight line: near levels begin alike, and learning may take them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def in_sequence(x: Tensor) -> Tensor:
    """Images (N, C, H, W) -> values in order (N, C * H * W)."""
    return x.permute(0, 2, 3, 1).flatten(1)


def in_images(y: Tensor, data_shape: Sequence[int]) -> Tensor:
    """What belongs to each value, in order (N, C * H * W, K) -> (N, C, H, W, K)."""
    channels, height, width = data_shape
    return y.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2, 4)


class PrecedingValue(nn.Module):
    """The input of a causal network at each place: the embedding of the value before, or `start` at the first place.

    Parameters: `weight` (levels, features) and `start` (features).
    """

    def __init__(self, levels: int, features: int) -> None:
        super().__init__()
        self.weight, self.start = nn.Parameter(torch.empty(levels, features)), nn.Parameter(torch.empty(features))
        nn.init.normal_(self.start)
        self._reset_line()

    @torch.no_grad()
    def _reset_line(self) -> None:
        """Level k begins at (2 k / (levels - 1) - 1) w with w standard normal: the last one is w."""
        levels = len(self.weight)
        nn.init.normal_(self.weight[-1])
        for level in range(levels):  # by single numbers, which are free where only shapes are wanted
            self.weight[level].copy_(self.weight[-1]).mul_(2 * level / (levels - 1) - 1)

    def embed(self, values: Tensor) -> Tensor:
        """Values (...) in [0, 1] -> (..., features)."""
        place = values * (len(self.weight) - 1)
        low = place.detach().floor().clamp(0, len(self.weight) - 2)
        level = low.long()
        below, above = functional.embedding(level, self.weight), functional.embedding(level + 1, self.weight)
        return torch.lerp(below, above, (place - low)[..., None])

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> (N, C * H * W, features); the last value is nobody's predecessor."""
        first = self.start.expand(len(x), 1, -1)
        return torch.cat([first, self.embed(in_sequence(x)[:, :-1])], 1)

"""Convolutions that look only up, or up and to the left, and their inverses between two resolutions.

    y_ij = b + sum_{a, c} W_ac x_{s i - a, s j - c},    a = 0..height - 1,
    c = 0..width - 1 (`left`), or c = -(width // 2)..width // 2 (not `left`)

With stride s the image shrinks to ceil(H / s) x ceil(W / s). If x_ij saw only what comes before pixel (i, j) in raster
order (or before its row), y_ij sees only what comes before pixel (s i, s j) (its row): no masks are needed, and none of
the weights is wasted. `ShiftedUpsampling` goes the other way, from place (i, j) to the places (2 i, 2 j),
(2 i, 2 j + 1), ... that come with it or after it.
Salimans, Karpathy, Chen, Kingma: PixelCNN++ (2017), sections 2.3 and 2.4: "down shifted" and "down right shifted".

`RowCache`, `PlaceCache` and `UpsamplingCache` compute the same numbers row by row, and place by place, for sampling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ShiftedConvolution(nn.Module):
    """(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)); the kernel is (height, width)."""

    def __init__(
        self, in_features: int, out_features: int, kernel_size: tuple[int, int], left: bool = False, stride: int = 1
    ) -> None:
        super().__init__()
        self.stride, (height, width) = stride, kernel_size
        if not left and width % 2 == 0:
            raise ValueError(f"a kernel that looks to both sides must have an odd width, got {width}")
        self.rows_above = height - 1
        self.margins = (width - 1, 0) if left else (width // 2, width // 2)
        layer = nn.Conv2d(in_features, out_features, kernel_size)  # for its initial values
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (*self.margins, self.rows_above, 0))
        return functional.conv2d(x, self.weight, self.bias, self.stride)


class ShiftedUpsampling(nn.Module):
    """(N, in, H, W) -> (N, out, 2 H, 2 W), cut to the size that is asked for.

    `left`: each place spreads over the 2 x 2 places that begin at its own; else its two rows see a column more to the
    right and, through the odd columns, both neighbours.
    """

    def __init__(self, in_features: int, out_features: int, left: bool = False) -> None:
        super().__init__()
        self.margin = 0 if left else 1
        layer = nn.ConvTranspose2d(in_features, out_features, (2, 2 + self.margin), 2)  # for its initial values
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        y = functional.conv_transpose2d(x, self.weight, self.bias, 2)
        return y[:, :, : size[0], self.margin : self.margin + size[1]]


class RowCache:
    """The incremental form of a `ShiftedConvolution` whose outputs see whole rows: a row of all columns at a time.

    Rows are (columns, n, features). The weights are copied once, here, as in the other caches.
    """

    def __init__(self, layer: ShiftedConvolution, n: int, width: int) -> None:
        self.layer, self.width, columns = layer, width, width + sum(layer.margins)
        self.weights = layer.weight.detach().permute(2, 3, 1, 0).contiguous()  # (rows, columns of the kernel, in, out)
        self.past = [layer.weight.new_zeros(columns, n, layer.weight.shape[1]) for _ in range(layer.rows_above)]

    def keep(self, row: Tensor) -> list[Tensor]:
        """Take the next row of inputs, where no outputs begin; returns the rows that outputs here would see."""
        rows = [*self.past, functional.pad(row, (0, 0, 0, 0, *self.layer.margins))]
        self.past = rows[1:]
        return rows

    def step(self, row: Tensor) -> Tensor:
        """The outputs (ceil(columns / stride), n, out) at the next row of inputs."""
        rows, outputs = self.keep(row), -(-self.width // self.layer.stride)
        y = self.layer.bias.repeat(outputs * row.shape[1], 1)
        for inputs, weights in zip(rows, self.weights, strict=True):
            for first, weight in enumerate(weights):
                y.addmm_(inputs[first : first + self.width : self.layer.stride].flatten(0, 1), weight)
        return y.unflatten(0, (outputs, -1))


class PlaceCache:
    """The incremental form of a `left` `ShiftedConvolution` of two rows: n images of one width, place after place.

    For each row: `begin_row`; then for each column: put the inputs into `slot`, and take the outputs from `step` where
    any begin, once. What the places of a row see of the row above is added up in one product when the row begins.
    """

    def __init__(self, layer: ShiftedConvolution, n: int, width: int) -> None:
        features, self.layer, reach = layer.weight.shape[1], layer, layer.margins[0]
        above, own = layer.weight.detach().permute(2, 3, 1, 0).flatten(1, 2)  # (columns of the kernel * in, out) each
        self.weight_above, self.weight = above.contiguous(), own.contiguous()
        rows = layer.weight.new_zeros(2, n, (width + reach) * features)  # this row and the one above, by turns
        self.rows = list(rows)
        starts = [column * features for column in range(width)]
        self.windows = [[row[:, at : at + len(own)] for at in starts] for row in rows]
        self.slots = [[row[:, at + reach * features : at + (reach + 1) * features] for at in starts] for row in rows]
        self.now = 0

    def begin_row(self, extra: Tensor | None = None, outputs: bool = True) -> None:
        """Move one row on; `extra` (columns, n, out) is added to its outputs, if any begin in this row."""
        if outputs:
            seen = torch.stack(self.windows[self.now][:: self.layer.stride])  # (columns, n, columns of the kernel * in)
            base = torch.addmm(self.layer.bias, seen.flatten(0, 1), self.weight_above).unflatten(0, seen.shape[:2])
            self.base = (base if extra is None else base + extra).unbind(0)
        self.now = 1 - self.now

    def slot(self, column: int) -> Tensor:
        """Where the inputs at a column belong, a view (n, in) to write into."""
        return self.slots[self.now][column]

    def step(self, column: int) -> Tensor:
        """The outputs (n, out) at a column; they grow in place."""
        return self.base[column // self.layer.stride].addmm_(self.windows[self.now][column], self.weight)


class UpsamplingCache:
    """The incremental form of a `ShiftedUpsampling`: the rows, or the places, that a coarser one spreads over."""

    def __init__(self, layer: ShiftedUpsampling) -> None:
        self.bias, self.weights = layer.bias, layer.weight.detach().permute(2, 3, 0, 1).contiguous()  # (2, 2 or 3, ...)

    def row(self, coarse: Tensor, lower: int, width: int) -> Tensor:
        """A row (columns, n, in) of a layer that looks to both sides -> the upper or lower of two, (width, n, out)."""
        from_right, own, from_left = self.weights[lower]
        following = functional.pad(coarse[1:], (0, 0, 0, 0, 0, 1))
        pairs = torch.stack([coarse @ own, coarse @ from_left + following @ from_right], 1)  # even and odd columns
        return (pairs.flatten(0, 1) + self.bias)[:width]

    def place(self, coarse: Tensor, lower: int, right: int) -> Tensor:
        """A place (n, in) of a `left` layer -> one of its four, (n, out)."""
        return torch.addmm(self.bias, coarse, self.weights[lower, right])

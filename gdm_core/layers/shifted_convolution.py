"""Convolutions that look only up, or up and to the left, and their inverses between two resolutions.

    y_ij = b + sum_{a, c} W_ac x_{s i - a, s j - c},    a = 0..height - 1,
    c = 0..width - 1 (`left`), or c = -(width // 2)..width // 2 (not `left`)

With stride s the image shrinks to ceil(H / s) x ceil(W / s). If x_ij saw only what comes before pixel (i, j) in raster
order (or before its row), y_ij sees only what comes before pixel (s i, s j) (its row): no masks are needed, and none of
the weights is wasted. `ShiftedUpsampling` goes the other way, from place (i, j) to the places (2 i, 2 j),
(2 i, 2 j + 1), ... that come with it or after it.
Salimans, Karpathy, Chen, Kingma: PixelCNN++ (2017), sections 2.3 and 2.4: "down shifted" and "down right shifted".

`RowCache` and `PlaceCache` compute the same numbers row by row, and place by place, for sampling.
"""

from __future__ import annotations

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

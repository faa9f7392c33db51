"""A convolution that sees only what comes earlier in raster order, for whole images and for one pixel at a time.

    y_i = b + sum over the window of (mask * W)_{i-j} x_j,    mask = 0 wherever j does not come before i

Pixels are ordered row by row. Features are split into as many contiguous groups as the image has colours: group g
belongs to colour g. At the pixel itself, mask A lets group g see the groups before g (the image: a colour must not see
itself), mask B also g (features that have passed a mask A already). Earlier pixels are seen in all their groups.
van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016), section 3.4.

`CausalConvolution` computes all positions at once, for learning and likelihoods. `ConvolutionCache` computes the same
numbers one pixel after another, for sampling: it keeps the few rows of inputs that later pixels look at, adds up a
whole row's view of the rows above in one product when the row begins, and multiplies only visible weights.
`PointwiseCache` does so for a 1x1 layer, which remembers nothing: there is one product to a pixel, and nothing else.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def group_bounds(features: int, groups: int) -> list[int]:
    """Where each group of features ends, after a leading 0: group g is features[bounds[g]:bounds[g + 1]]."""
    if features < groups:
        raise ValueError(f"{features} features cannot be split into {groups} colour groups: take at least {groups}")
    return [features * group // groups for group in range(groups + 1)]


def check_kernel_size(size: int, name: str = "kernel_size") -> None:
    """Raise ValueError for a kernel that has no middle pixel, or no other: after mask A nothing would see the image."""
    if size < 3 or size % 2 == 0:
        raise ValueError(f"{name} must be odd and at least 3, got {size}")


def fast_layout(x: Tensor) -> Tensor:
    """x (N, C, H, W) with its features next to each other in memory on a processor, whose convolutions of few features
    are 1.6 times as fast then; as it is elsewhere. Layers hand this layout on, so that few of them copy.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


class CausalConvolution(nn.Module):
    """Masked 2-D convolution that keeps the image size, (N, in, H, W) -> (N, out, H, W).

    Kernel sizes are odd: one number, or (height, width). Rows below the pixel are never stored: the weight has shape
    (out, in, height // 2 + 1, width), its last row being the pixel's own. The mask multiplies it in every forward pass.
    """

    mask: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int],
        mask_type: Literal["A", "B"] = "B",
        groups: int = 1,
    ) -> None:
        super().__init__()
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if height < 1 or width < 1 or height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, got {kernel_size}")
        if mask_type not in ("A", "B"):
            raise ValueError(f"mask_type must be A or B, got {mask_type!r}")
        self.in_bounds, self.out_bounds = group_bounds(in_features, groups), group_bounds(out_features, groups)
        self.groups, self.rows_above, self.reach = groups, height // 2, width // 2
        self.mask_type = mask_type
        self.weight = nn.Parameter(torch.empty(out_features, in_features, self.rows_above + 1, width))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.register_buffer("mask", self._mask(), persistent=False)
        self._reset_parameters()

    def visible(self, group: int) -> int:
        """How many leading input features the outputs of a group see at their own pixel."""
        return self.in_bounds[group + (self.mask_type == "B")]

    def _mask(self) -> Tensor:
        mask = torch.ones_like(self.weight, requires_grad=False)
        mask[:, :, -1, self.reach :] = 0
        for group in range(self.groups):
            mask[self.out_bounds[group] : self.out_bounds[group + 1], : self.visible(group), -1, self.reach] = 1
        return mask

    @torch.no_grad()
    def _reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(number of visible inputs), as torch's convolutions are."""
        bound = max(1.0, self.mask.sum().item() / self.mask.shape[0]) ** -0.5
        self.weight.uniform_(-bound, bound)
        self.bias.uniform_(-bound, bound)

    def masked_weight(self) -> Tensor:
        """mask * W, (out, in, rows_above + 1, width)."""
        return self.mask * self.weight

    def forward(self, x: Tensor) -> Tensor:
        x = fast_layout(x)
        if self.rows_above:
            x = functional.pad(x, (0, 0, self.rows_above, 0))
        return fast_layout(functional.conv2d(x, self.masked_weight(), self.bias, padding=(0, self.reach)))


class ConvolutionCache:
    """The incremental form of a `CausalConvolution`: n images of one width, sampled together in raster order.

    For each row: `begin_row`; then for each column and, in order, each group: put the inputs of that group into `slot`
    (for mask A after `step`: its outputs come first) and take the outputs of that group from `step`, once. The masked
    weights are copied once, here: a cache serves one run of sampling and knows nothing of later changes of the
    parameters.
    """

    def __init__(self, layer: CausalConvolution, n: int, width: int) -> None:
        self.layer, self.n, self.width = layer, n, width
        features = layer.in_bounds[-1]
        self.alone = layer.reach == 0 and layer.rows_above == 0  # a 1x1 layer forgets a pixel when the next one comes
        columns = 1 if self.alone else width + 2 * layer.reach
        self.current = layer.weight.new_zeros(n, columns, features)  # this row up to this pixel; never read beyond it
        self.past = layer.weight.new_zeros(n, max(0, layer.rows_above - 1), columns, features)  # those above the last
        self._copy_weights()
        self._make_views(features)
        self.base, self.one_row = self._by_pixel(layer.bias.expand(width, n, -1).contiguous()), False

    def begin_row(self, extra: Tensor | None = None) -> None:
        """Move one row on, and add up for all its columns what they see of the rows above.

        `extra` (width, n, out), if given, is added to the outputs of this row.
        """
        layer = self.layer
        if layer.rows_above == 0:
            if extra is not None:
                self.base, self.one_row = self._by_pixel(extra + layer.bias), True
            return
        rows, features = torch.cat([self.past, self.current[:, None]], 1), self.current.shape[-1]
        self.past = rows[:, 1:]
        windows = rows.flatten(2).unfold(2, (2 * layer.reach + 1) * features, features)  # (n, rows, width, window * in)
        windows = windows.permute(2, 0, 1, 3).reshape(self.width * self.n, -1)  # each window is copied in one stretch
        base = torch.addmm(layer.bias, windows, self.weight_above).view(self.width, self.n, -1)
        self.base, self.one_row = self._by_pixel(base if extra is None else base + extra), True

    def slot(self, column: int, group: int = 0) -> Tensor:
        """Where the inputs of a group at a column belong, a view (n, features of the group) to write into."""
        return self.slots[group][column]

    def step(self, column: int, group: int = 0) -> Tensor:
        """The outputs of a group at a column, (n, features of the group)."""
        base, window, weight = self.base[group][column], self.windows[group][column], self.weights[group]
        return base.addmm_(window, weight) if self.one_row else torch.addmm(base, window, weight)

    def _copy_weights(self) -> None:
        layer = self.layer
        weight = layer.masked_weight().detach()
        self.weight_above = weight[:, :, :-1].permute(2, 3, 1, 0).flatten(0, 2)  # (rows_above * window * in, out)
        own_row = weight[:, :, -1, : layer.reach + 1].permute(2, 1, 0).flatten(0, 1)  # (window to the pixel * in, out)
        ends = [layer.reach * layer.in_bounds[-1] + layer.visible(group) for group in range(layer.groups)]
        self.weights = [
            own_row[:end, start:stop].contiguous()
            for end, start, stop in zip(ends, layer.out_bounds, layer.out_bounds[1:], strict=False)
        ]

    def _make_views(self, features: int) -> None:
        """Views of the row for every column and group, made once: slicing costs as much as a small product."""
        row, reach, bounds = self.current.flatten(1), self.layer.reach, self.layer.in_bounds
        starts = [0 if self.alone else column * features for column in range(self.width)]
        own = [start + reach * features for start in starts]  # where the pixel itself begins
        self.slots, self.windows = [], []
        for group, weight in enumerate(self.weights):
            self.slots.append([row[:, at + bounds[group] : at + bounds[group + 1]] for at in own])
            self.windows.append([row[:, start : start + weight.shape[0]] for start in starts])

    def _by_pixel(self, values: Tensor) -> list[tuple[Tensor, ...]]:
        """(width, n, out) -> for each group, for each column: (n, features of the group)."""
        bounds = self.layer.out_bounds
        return [values[..., a:b].unbind(0) for a, b in zip(bounds, bounds[1:], strict=False)]


class PointwiseCache:
    """The incremental form of a 1x1 `CausalConvolution` for n images.

    For each pixel and, in order, each group: put the inputs of that group into `slots[group]` and take its outputs
    from `step`, or have them added to something. A constant 1 before the inputs carries the bias.
    """

    @torch.no_grad()
    def __init__(self, layer: CausalConvolution, n: int) -> None:
        weight = torch.cat([layer.bias[:, None], layer.masked_weight().flatten(1)], 1).t()  # (1 + in, out)
        inputs, groups = weight.new_ones(n, len(weight)), range(layer.groups)
        ends, bounds = [1 + layer.visible(group) for group in groups], layer.out_bounds
        self.slots = [inputs[:, 1 + a : 1 + b] for a, b in itertools.pairwise(layer.in_bounds)]
        self.windows = [inputs[:, :end] for end in ends]
        self.weights = [weight[: ends[group], bounds[group] : bounds[group + 1]].contiguous() for group in groups]

    def step(self, group: int = 0) -> Tensor:
        """The outputs of a group, (n, features of the group)."""
        return torch.mm(self.windows[group], self.weights[group])

    def add_to(self, total: Tensor, group: int = 0) -> None:
        """Add the outputs of a group to `total` (n, features of the group), in place."""
        total.addmm_(self.windows[group], self.weights[group])

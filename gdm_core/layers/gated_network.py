"""The network of a gated PixelCNN: a stack for the rows above a pixel, and one for what comes before it in its row.

    rows above    a = W * v + A[y],          v' = tanh(-a_1 / 2) sigmoid(a_2)
    this row      b = U * h + L a + B[y],    z = tanh(-b_1 / 2) sigmoid(b_2),    (h', s') = (h, s) + R z

The vertical stack v sees all rows above in all colours and nothing of its own row, so it needs no mask and leaves no
blind spot. The horizontal stack h sees its row up to the pixel, colour after colour, and through L what v sees. Each
layer adds to h (residual) and to s (skip); the head sees both. Where there are classes, y is an image's, and A and B
hold a bias per class. tanh(-t / 2) = 1 - 2 sigmoid(t) takes a fraction of a tanh's time, and what it does to t is
nothing that the weights before it could not do.
van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: Conditional Image Generation with PixelCNN Decoders
(2016), figure 2.

`GatedNetwork` computes all pixels at once. `IncrementalGatedNetwork` computes the same numbers one pixel after another,
for sampling: the vertical stack, and all that it gives the horizontal one, a whole row at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdm_core.layers.causal_convolution import CausalConvolution, ConvolutionCache, PointwiseCache, check_kernel_size
from gdm_core.layers.shifted_convolution import RowCache, ShiftedConvolution


class GatedLayer(nn.Module):
    """One layer of both stacks, with kernels of `kernel_size` x `kernel_size`, cut where they would see too much.

    The `first` one sees the image: of the row itself nothing in the vertical stack, mask A in the horizontal one.
    """

    def __init__(
        self, in_features: int, channels: int, kernel_size: int, first: bool, colours: int, classes: int
    ) -> None:
        super().__init__()
        self.first, self.channels, self.colours = first, channels, colours
        height = kernel_size // 2 + (not first)
        self.vertical = ShiftedConvolution(in_features, 2 * channels, (height, kernel_size))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.horizontal = CausalConvolution(in_features, 2 * channels, (1, kernel_size), "A" if first else "B", colours)
        self.out = CausalConvolution(channels, 2 * channels, 1, "B", colours)  # for each colour: residual, skip
        self.class_bias = nn.Parameter(torch.zeros(classes, 2, 2 * channels)) if classes else None
        with torch.no_grad():  # with torch's initial weights a gate lets a seventh pass, and deep layers see nothing
            for layer, gain in ((self.vertical, 4), (self.horizontal, 4), (self.link, 2)):
                layer.weight.mul_(gain)

    def biases(self, labels: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """What the classes (N,) of images add in the two stacks, (N, 2 channels) each."""
        return None if self.class_bias is None else self.class_bias[labels].unbind(1)

    def forward(self, v: Tensor, h: Tensor, labels: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
        """v', and what is added to the features of this row, (N, 2 channels, H, W)."""
        above = functional.pad(v, (0, 0, 1, -1)) if self.first else v  # every row moves one down
        a, b, biases = self.vertical(above), self.horizontal(h), self.biases(labels)
        if biases is not None:
            a, b = a + biases[0][..., None, None], b + biases[1][..., None, None]
        z = gate(b + self.link(a), 1, self.colours)
        return gate(a, 1), self.out(functional.dropout(z, dropout))


def gate(a: Tensor, axis: int, colours: int = 1) -> Tensor:
    """tanh(-a_1 / 2) sigmoid(a_2) for the halves a_1, a_2 of each colour's features on an axis: half as many."""
    first, second = a.sigmoid().unflatten(axis, (colours, 2, -1)).unbind(axis + 1)
    return torch.addcmul(second, first, second, value=-2).flatten(axis, axis + 1)


class GatedNetwork(nn.Module):
    """Images x in [0, 1] to the logits of their conditionals, (N, C, H, W, parameters): see the file's docstring.

    `blocks` layers of `channels` features (a multiple of the colours) follow the first one; `classes` may be 0.
    """

    def __init__(
        self,
        colours: int,
        parameters: int,
        channels: int,
        blocks: int,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        classes: int = 0,
    ) -> None:
        super().__init__()
        if channels < 1 or channels % colours:
            raise ValueError(f"channels must be a multiple of the {colours} colours of the images, got {channels}")
        if blocks < 0:
            raise ValueError(f"blocks must be at least 0, got {blocks}")
        check_kernel_size(kernel_size)
        check_kernel_size(first_kernel_size, "first_kernel_size")
        self.colours = colours
        self.layers = nn.ModuleList([
            GatedLayer(colours, channels, first_kernel_size, True, colours, classes),
            *(GatedLayer(channels, channels, kernel_size, False, colours, classes) for _ in range(blocks)),
        ])  # fmt: skip
        self.head = CausalConvolution(2 * channels, channels, 1, "B", colours)
        self.output = CausalConvolution(channels, colours * parameters, 1, "B", colours)

    def forward(self, x: Tensor, labels: Tensor | None = None, dropout: float = 0.0) -> Tensor:
        v = h = 2 * x - 1
        features = 0.0
        for layer in self.layers:
            v, more = layer(v, h, labels, dropout)
            features = features + more  # (N, 2 channels, H, W)
            h = features.unflatten(1, (self.colours, 2, -1))[:, :, 0].flatten(1, 2)
        y = functional.dropout(self.head(features.relu()).relu(), dropout)
        return self.output(y).unflatten(1, (self.colours, -1)).movedim(2, -1)


class IncrementalGatedNetwork:
    """A `GatedNetwork` one pixel at a time for n images of one width (and their classes): see `IncrementalNetwork`."""

    @torch.no_grad()
    def __init__(self, network: GatedNetwork, n: int, width: int, labels: Tensor | None = None) -> None:
        self.first, *self.layers = (_IncrementalLayer(layer, n, width, labels) for layer in network.layers)
        self.head, self.output = PointwiseCache(network.head, n), PointwiseCache(network.output, n)
        self.row = network.head.weight.new_zeros(width, n, network.colours)  # as the network takes it, from -1 to 1

    def begin_row(self) -> None:
        a = self.first.begin_row(self.row)
        for layer in self.layers:
            a = layer.begin_row(gate(a, 2))

    def write(self, values: Tensor, column: int, colour: int) -> None:
        slot = self.first.horizontal.slot(column, colour)
        torch.sub(2 * values[:, None], 1, out=slot)
        self.row[column, :, colour] = slot[:, 0]

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        self.first.gate(column, colour)
        features = self.first.out.step(colour)
        h = features.chunk(2, 1)[0]
        for layer in self.layers:
            layer.horizontal.slot(column, colour).copy_(h)
            layer.gate(column, colour)
            layer.out.add_to(features, colour)
        torch.clamp_min(features, 0, out=self.head.slots[colour])
        torch.clamp_min(self.head.step(colour), 0, out=self.output.slots[colour])
        return self.output.step(colour)


class _IncrementalLayer:
    """A `GatedLayer`: its vertical stack a row at a time, its horizontal one a pixel and colour at a time."""

    def __init__(self, layer: GatedLayer, n: int, width: int, labels: Tensor | None) -> None:
        self.vertical = RowCache(layer.vertical, n, width)
        self.horizontal = ConvolutionCache(layer.horizontal, n, width)
        self.out = PointwiseCache(layer.out, n)
        self.link = layer.link.weight.flatten(1).t()  # (2 channels, 2 channels)
        self.biases = layer.biases(labels)

    def begin_row(self, v: Tensor) -> Tensor:
        """From the row of the vertical stack below (width, n, in), the gates a of this one, (width, n, 2 channels)."""
        a = self.vertical.step(v)
        if self.biases is not None:
            a += self.biases[0]
        above = a @ self.link
        self.horizontal.begin_row(above if self.biases is None else above + self.biases[1])
        return a

    def gate(self, column: int, colour: int) -> None:
        """Open the gates of a colour at a column into the inputs of `out`."""
        first, second = self.horizontal.step(column, colour).sigmoid_().chunk(2, 1)
        torch.addcmul(second, first, second, value=-2, out=self.out.slots[colour])

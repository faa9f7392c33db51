"""One scale of an image: a PixelRNN over some of its pixels, given those of a smaller scale, which lie among them.

    x^k is every f^(S-k)-th pixel of every f^(S-k)-th row of x,    k = 1, ..., S

The smaller image goes through convolutions, which look in all directions, and an upsampling one; what comes out is the
condition of the larger one's network, a bias into the gates of every LSTM.
Paper: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016), sections 2.3 and 3.6, which
leaves their number open. Changed: they are so many, ever more dilated, that every pixel is told of the whole smaller
image (dilations: Yu and Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gdm_core.layers.raster_sampling import Given, IncrementalNetwork
from gdm_core.layers.recurrent_network import RecurrentNetwork


class Upsampling(nn.Module):
    """What a larger image's network is told of the smaller one: (N, C, h, w) -> (N, features, H, W).

    s = relu(K * x),    s <- s + relu(K_d * s) for the dilations d = 2, 4, 8, ...,    relu(upsampled s)

    K and K_d are 3x3: with a dilation of d a place sees 2 d - 1 places in every direction. There are so many of them
    that each place sees every other.
    """

    def __init__(self, colours: int, features: int, factor: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.look_around = nn.Conv2d(colours, features, 3, padding=1)
        reach, furthest = 1, -(-max(size) // factor) - 1  # places that are seen, and that there are, to one side
        self.look_further = nn.ModuleList()
        while reach < furthest:
            dilation = reach + 1
            self.look_further.append(nn.Conv2d(features, features, 3, padding=dilation, dilation=dilation))
            reach += dilation
        self.enlarge = nn.ConvTranspose2d(features, features, factor, stride=factor)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        s = self.look_around(2 * x - 1).relu()
        for convolution in self.look_further:
            s = s + convolution(s).relu()
        return self.enlarge(s)[..., :height, :width].relu()


class ImageScale(nn.Module):
    """One of the images, its network, and unless it is the first the way to it from the smaller one.

    `data_shape` (C, H, W) is the whole image's; this one has every `stride`-th of its pixels, and the smaller one every
    `factor`-th of this one's. Other arguments are the network's.
    """

    def __init__(
        self, data_shape: tuple[int, int, int], stride: int, factor: int | None, channels: int, **arguments: object
    ) -> None:
        super().__init__()
        colours, height, width = data_shape
        self.stride, self.factor = stride, factor
        self.size = -(-height // stride), -(-width // stride)  # (h, w)
        features = 2 * channels if factor else 0
        self.upsample = Upsampling(colours, features, factor, self.size) if factor else None
        shape = (colours, *self.size)
        self.network = RecurrentNetwork(data_shape=shape, channels=channels, condition_features=features, **arguments)

    def of(self, x: Tensor) -> Tensor:
        """The pixels of this scale: (..., H, W) -> (..., h, w), a view."""
        return x[..., :: self.stride, :: self.stride]

    def smaller(self, x: Tensor) -> Tensor:
        """The pixels of the smaller scale: (..., h, w) of this one -> a view, empty where this is the smallest."""
        return x[..., :: self.factor, :: self.factor] if self.factor else x[..., :0, :0]

    def new(self, device: torch.device) -> Tensor:
        """Which pixels are none of the smaller scale, (h, w)."""
        new = torch.ones(self.size, dtype=torch.bool, device=device)
        self.smaller(new).fill_(False)
        return new

    def is_new(self, row: int, column: int) -> bool:
        """Whether a pixel is none of the smaller scale."""
        return self.factor is None or row % self.factor > 0 or column % self.factor > 0

    def condition(self, smaller: Tensor | None) -> Tensor | None:
        """What the network is told, (N, features, h, w)."""
        return None if self.upsample is None else self.upsample(smaller)

    def forward(self, x: Tensor, smaller: Tensor | None) -> Tensor:
        """The logits of the values of this scale's images, (N, C, h, w, parameters)."""
        return self.network(x, self.condition(smaller))

    @torch.no_grad()
    def incremental(self, n: int, smaller: Tensor | None) -> IncrementalNetwork:
        """The network one pixel after another, for n images."""
        return self.network.incremental(n, self.condition(smaller))


class GivenAtScale(Given):
    """What is known of the images of a scale; pixels of the smaller one were drawn there and have no weight here."""

    def __init__(self, x: Tensor, known: Tensor, scale: ImageScale) -> None:
        super().__init__(x, known)
        self.scale = scale

    def take(self, place: tuple[int, int, int], values: Tensor, log_prob: Tensor) -> Tensor:
        row, column, _ = place
        return super().take(place, values, log_prob if self.scale.is_new(row, column) else torch.zeros_like(log_prob))

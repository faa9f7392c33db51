"""WaveNet: dilated causal convolutions over the values in order, so that a few layers see a long past.

    log p(x) = sum_t log p(x_t | x_1, ..., x_{t-1}),    t in raster order, colour by colour within a pixel
    z = tanh(F h_t + F' h_{t-d} + f) * sigmoid(G h_t + G' h_{t-d} + g),    h <- h + R z + r,    skip <- skip + S z + s

with dilations d = 1, 2, 4, ..., 2^(layers - 1), in `stacks` such rows one after the other, and a head relu, 1x1, relu,
1x1 on the sum of the skips: a Bernoulli or a softmax per value. Values t - d before the first one are zeros.

Paper: van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior, Kavukcuoglu: WaveNet: A Generative
Model for Raw Audio (2016). Changed: images are read as one sequence, and as many layers are taken as see all of it; the
first convolution is an embedding of the value before; `position_bias` adds a learnt vector for every place, for images
that are centred; `dropout` acts on every z while learning. Sampling keeps the last d inputs of each layer, so that a
value costs O(layers) and not O(2^layers): Le Paine et al., Fast WaveNet Generation Algorithm (2016).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdm_core.contract import TrainingConfig
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.value_sequence import PrecedingValue, in_images
from gdm_core.registry import register

MOST_LAYERS = 20  # of a stack: dilations double from one to the next


class GatedLayer(nn.Module):
    """One dilated convolution of width 2 with its gate; the last layer of all has no `residual`, for nobody reads it.

    Everything acts on the last axis, so that it serves a whole sequence (N, D, channels) and one place (n, channels).
    """

    def __init__(self, channels: int, skip_channels: int, dilation: int, is_last: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.gate = nn.Linear(2 * channels, 2 * channels)  # of h_{t-d} and h_t, to the insides of tanh and sigmoid
        self.skip = nn.Linear(channels, skip_channels)
        self.residual = None if is_last else nn.Linear(channels, channels)

    def forward(self, past: Tensor, h: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """(h_{t-d}, h_t) -> (the next layer's h_t, what is added to the skips)."""
        a, b = self.gate(torch.cat([past, h], -1)).chunk(2, -1)
        z = functional.dropout(torch.tanh(a) * torch.sigmoid(b), dropout)
        return h if self.residual is None else h + self.residual(z), self.skip(z)


@register("wavenet", family="autoregressive", paper="van den Oord et al., 2016")
class WaveNet(RasterModel):
    """WaveNet of `stacks` times `layers` gated layers; `layers` None takes as few as see the whole sequence.

    The training defaults were chosen on the validation images of digits, which `position_bias` makes 0.3 to 0.5 nats
    likelier. Two thousand sounds want no dropout and a learning rate of 1e-2.
    """

    default_training = TrainingConfig(epochs=40, batch_size=32, learning_rate=4e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        channels: int = 32,
        skip_channels: int = 64,
        stacks: int = 1,
        layers: int | None = None,
        dropout: float = 0.2,
        position_bias: bool = False,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        if min(channels, skip_channels, stacks, 1 if layers is None else layers) < 1:
            given = f"got {channels}, {skip_channels}, {stacks} and {layers}"
            raise ValueError(f"channels, skip_channels, stacks and layers must be at least 1, {given}")
        layers = layers_to_see(self.dimensions - 2, stacks) if layers is None else layers
        if layers > MOST_LAYERS:
            raise ValueError(f"layers must be at most {MOST_LAYERS}, which see {2**MOST_LAYERS} values, got {layers}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.dropout = dropout
        self.distribution = distribution_of(pixels, self.levels)
        self.before = PrecedingValue(self.levels, channels)
        self.place = nn.Parameter(torch.zeros(self.dimensions, channels)) if position_bias else None
        places = itertools.product(range(stacks), range(layers))
        last = (stacks - 1, layers - 1)
        self.layers = nn.ModuleList(GatedLayer(channels, skip_channels, 2 ** at[1], at == last) for at in places)
        self.head = nn.Linear(skip_channels, skip_channels)
        self.output = nn.Linear(skip_channels, self.distribution.parameters)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i | predecessors) for every value: (N, C, H, W, 1), or (..., levels)."""
        return self._network(x)

    def _network(self, x: Tensor, dropout: float = 0.0) -> Tensor:
        h, skips = self.before(x), 0.0  # (N, D, channels)
        if self.place is not None:
            h = h + self.place
        for layer in self.layers:
            past = functional.pad(h, (0, 0, layer.dilation, 0))[:, : h.shape[1]]  # h_{t-d}
            h, skip = layer(past, h, dropout)
            skips = skips + skip  # (N, D, skip_channels)
        return in_images(self.logits_of(skips), self.data_shape)

    def logits_of(self, skips: Tensor) -> Tensor:
        """The head: (..., skip_channels) -> (..., parameters)."""
        return self.output(self.head(skips.relu()).relu())

    def training_logits(self, x: Tensor) -> Tensor:
        """The same with dropout in training mode."""
        return self._network(x, self.dropout if self.training else 0.0)

    def incremental(self, n: int) -> IncrementalWaveNet:
        """The network one value after another, for n images."""
        return IncrementalWaveNet(self, n)


def layers_to_see(values: int, stacks: int) -> int:
    """The fewest layers of each stack with which all stacks together look so many values back, at least 1.

    One stack of L layers looks 1 + 2 + ... + 2^(L-1) = 2^L - 1 values back, beside the value just before.
    """
    layers = 1
    while stacks * (2**layers - 1) < values:
        layers += 1
    return layers


class IncrementalWaveNet:
    """The network one value after another for n images: each layer's last d inputs wait in a ring of d places."""

    @torch.no_grad()
    def __init__(self, model: WaveNet, n: int) -> None:
        self.model, self.time = model, -1
        self.before = model.before.start.expand(n, -1)  # the embedding of the value before, (n, channels)
        self.queues = [self.before.new_zeros(layer.dilation, *self.before.shape) for layer in model.layers]

    def begin_row(self) -> None:
        """WaveNet sees a sequence; rows mean nothing to it."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        self.time += 1
        place = self.model.place
        h, skips = self.before if place is None else self.before + place[self.time], 0.0
        for layer, queue in zip(self.model.layers, self.queues, strict=True):
            past = queue[self.time % layer.dilation]  # h_{t-d}, whose place h_t takes
            deeper, skip = layer(past, h)
            past.copy_(h)
            h, skips = deeper, skips + skip
        return self.model.logits_of(skips)

    def write(self, values: Tensor, column: int, colour: int) -> None:
        self.before = self.model.before.embed(values)

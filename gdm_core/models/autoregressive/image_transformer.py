"""Image transformer: every value attends to all values before it, by what they are and where they stand.

    log p(x) = sum_i log p(x_i | x_1, ..., x_{i-1}),    i in raster order, colour by colour within a pixel
    h_i = e(x_{i-1}) + row + column + colour of i,    then per block    h <- h + A(norm(h)),    h <- h + M(norm(h))

A is causal attention in several heads, softmax(q k' / sqrt(d)) v over j <= i; M two layers with a GELU between them.

Papers: Parmar, Vaswani, Uszkoreit, Kaiser, Shazeer, Ku, Tran: Image Transformer (2018); Chen, Radford, Child, Wu, Jun,
Luan, Sutskever: Generative Pretraining from Pixels (2020). Changed, from the first: full attention instead of local
blocks, learnt positions, and norms before each part, as in the second; from the second: the values themselves instead
of a palette of 512 colours, places as a sum of row, column and colour, and a few small layers. `dropout` acts on the
embedding and on what every part adds, while learning; not on the attention weights, which are never stored.

Memory: no D x D matrix is stored. Learning keeps some twenty numbers per value, feature and block; sampling keeps all
keys and values, 2 * blocks * features * D numbers an image (1.2 MB at 28x28 pixels by default).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from gdm_core.contract import TrainingConfig
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.value_sequence import PrecedingValue, in_images
from gdm_core.registry import register

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values (N, heads, T, d) -> (N, heads, T, d)


class Block(nn.Module):
    """Attention, then two layers of each place alone; each part reads a normed h and adds to h."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(features), nn.LayerNorm(features)
        self.project = nn.Linear(features, 3 * features)  # queries, keys, values
        self.join = nn.Linear(features, features)
        self.widen, self.narrow = nn.Linear(features, 4 * features), nn.Linear(4 * features, features)

    def forward(self, h: Tensor, attention: Attention, dropout: float = 0.0) -> Tensor:
        """(N, T, features) -> the same shape."""
        qkv = self.project(self.before_attention(h)).unflatten(-1, (3, self.heads, -1))  # (N, T, 3, heads, d)
        seen = attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)  # (N, T, features)
        h = h + functional.dropout(self.join(seen), dropout)
        y = self.narrow(functional.gelu(self.widen(self.before_layers(h))))
        return h + functional.dropout(y, dropout)


@register("image_transformer", family="autoregressive", paper="Parmar et al., 2018; Chen et al., 2020")
class ImageTransformer(RasterModel):
    """Image transformer of `blocks` blocks with `heads` heads of features / heads numbers each.

    The training defaults were chosen on the validation images of digits.
    """

    default_training = TrainingConfig(epochs=30, batch_size=32, learning_rate=2e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        features: int = 64,
        blocks: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        if min(features, blocks, heads) < 1 or features % heads:
            given = f"got {features}, {blocks} and {heads}"
            raise ValueError(f"features, blocks and heads must be at least 1 and heads divide features, {given}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.dropout = dropout
        self.distribution = distribution_of(pixels, self.levels)
        self.before = PrecedingValue(self.levels, features)
        channels, height, width = self.data_shape
        self.row = nn.Parameter(nn.init.normal_(torch.empty(height, 1, 1, features)))
        self.column = nn.Parameter(nn.init.normal_(torch.empty(width, 1, features)))
        self.colour = nn.Parameter(nn.init.normal_(torch.empty(channels, features)))
        self.blocks = nn.ModuleList(Block(features, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(features)
        self.output = nn.Linear(features, self.distribution.parameters)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i | predecessors) for every value: (N, C, H, W, 1), or (..., levels)."""
        return self._network(x)

    def _network(self, x: Tensor, dropout: float = 0.0) -> Tensor:
        h = functional.dropout(self.before(x) + self.places(), dropout)  # (N, D, features)
        attention = partial(scaled_dot_product_attention, is_causal=True)
        for block in self.blocks:
            h = block(h, attention, dropout)
        return in_images(self.output(self.norm(h)), self.data_shape)

    def places(self) -> Tensor:
        """A vector for every place, (D, features): the sum of those of its row, column and colour."""
        return (self.row + self.column + self.colour).flatten(0, 2)

    def training_logits(self, x: Tensor) -> Tensor:
        """The same with dropout in training mode."""
        return self._network(x, self.dropout if self.training else 0.0)

    def incremental(self, n: int) -> IncrementalTransformer:
        """The network one value after another, for n images."""
        return IncrementalTransformer(self, n)


class IncrementalTransformer:
    """The network one value after another for n images: each key and value is computed once."""

    @torch.no_grad()
    def __init__(self, model: ImageTransformer, n: int) -> None:
        self.model, self.place, self.places = model, -1, model.places()
        self.caches = [KeysAndValues(self.places, block.heads, n) for block in model.blocks]
        self.before = model.before.start.expand(n, -1)  # the embedding of the value before

    def begin_row(self) -> None:
        """A transformer sees a sequence; its places say where rows begin."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        self.place += 1
        h = (self.before + self.places[self.place])[:, None]  # (n, 1, features)
        for block, cache in zip(self.model.blocks, self.caches, strict=True):
            h = block(h, cache)
        return self.model.output(self.model.norm(h))[:, 0]

    def write(self, values: Tensor, column: int, colour: int) -> None:
        self.before = self.model.before.embed(values)


class KeysAndValues:
    """The keys and values of one block for n images so far, and the attention of one more value to all of them."""

    def __init__(self, places: Tensor, heads: int, n: int) -> None:
        dimensions, features = places.shape
        self.keys, self.values = places.new_empty(2, n, heads, dimensions, features // heads)
        self.count = 0

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(n, heads, 1, d) each -> what the query sees of the values so far and this one, (n, heads, 1, d)."""
        self.keys[:, :, self.count], self.values[:, :, self.count] = key[:, :, 0], value[:, :, 0]
        self.count += 1
        keys, values = self.keys[:, :, : self.count], self.values[:, :, : self.count]
        return scaled_dot_product_attention(query, keys, values)

"""Gated PixelCNN: a PixelCNN without blind spot, whose layers multiply what they found by how much of it to let pass.

    log p(x) = sum_i log p(x_i | x_1, ..., x_{i-1}),    i row by row, and colour by colour within a pixel
    each layer: tanh(W_f * h) sigmoid(W_g * h),         one stack for the rows above, one for the row itself

The two stacks together see every earlier pixel within reach: `layers/gated_network.py` has them.

Paper: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: Conditional Image Generation with PixelCNN
Decoders (2016). Changed: each layer also has a skip connection to the head, as in WaveNet; inputs are scaled to
[-1, 1], so that the zeros around the image differ from both colours of a binary one; `dropout` acts on each layer's
gated features and in the head; sampling is incremental: each activation is computed once, those of the rows above for
a whole row at a time, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from gdm_core.contract import TrainingConfig
from gdm_core.layers.gated_network import GatedNetwork, IncrementalGatedNetwork
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.layers.raster_model import RasterModel
from gdm_core.registry import register


@register("gated_pixel_cnn", family="autoregressive", paper="van den Oord et al., 2016")
class GatedPixelCNN(RasterModel):
    """A first gated layer and `blocks` more of `channels` features, a multiple of the colours of the images.

    The defaults were chosen on the validation images of digits. Large data sets want more channels and blocks, less
    `dropout` and a smaller learning rate.
    """

    default_training = TrainingConfig(epochs=14, batch_size=32, learning_rate=6e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        channels: int = 24,
        blocks: int = 4,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        dropout: float = 0.5,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.dropout, self.distribution = dropout, distribution_of(pixels, self.levels)
        colours, parameters = self.data_shape[0], self.distribution.parameters
        self.network = GatedNetwork(colours, parameters, channels, blocks, kernel_size, first_kernel_size)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i | predecessors) for every value: (N, C, H, W, 1), or (..., levels)."""
        return self.network(x)

    def training_logits(self, x: Tensor) -> Tensor:
        """The same with dropout in training mode."""
        return self.network(x, dropout=self.dropout if self.training else 0.0)

    def incremental(self, n: int) -> IncrementalGatedNetwork:
        """The network one pixel at a time, for n images."""
        return IncrementalGatedNetwork(self.network, n, self.data_shape[2])

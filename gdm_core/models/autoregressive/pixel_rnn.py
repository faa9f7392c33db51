"""PixelRNN: a recurrent network crosses the image, and its state carries what came earlier to every later pixel.

    log p(x) = sum_i log p(x_i | x_1, ..., x_{i-1}),    i row by row, and colour by colour within a pixel
    h = masked 7x7 convolution of x,    h <- h + W lstm(h) for each layer,    logits = W'' relu(W' relu(h))

The LSTM is one of three. `row_by_row` reads the values as one sequence (and has no convolution: the value before goes
in). `row_lstm` computes a whole row at a time from the row above; it sees a triangle of what came earlier.
`diagonal_bilstm` goes along the diagonals from both sides and sees all of it.

Paper: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016): for binary MNIST 7 layers of 16
channels, for CIFAR-10 12 layers of 128. Changed: Adam in place of RMSProp; inputs are scaled to [-1, 1]; the two last
layers are as wide as the others; the diagonal LSTM from the right begins one column further out, without which it
misses the last pixel of the row above; `position_bias` adds a learnt bias for every place after the first layer, for
images that are centred (off unless asked for); sampling is incremental: each pixel's activations are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from gdm_core.contract import TrainingConfig
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.raster_sampling import IncrementalNetwork
from gdm_core.layers.recurrent_network import LSTMS, RecurrentNetwork
from gdm_core.layers.row_by_row_lstm import RowByRowLSTM
from gdm_core.registry import register

KINDS = ("row_by_row", *LSTMS)


@register("pixel_rnn", family="autoregressive", paper="van den Oord et al., 2016")
class PixelRNN(RasterModel):
    """PixelRNN with `layers` LSTMs of `channels` units, between them 2 * `channels` features.

    Features are split into one group per colour: `channels` is a multiple of the number of colours (any number for
    `row_by_row`, which does not need groups, nor `kernel_size`, that of the first convolution).
    The learning rate was chosen on the validation images of digits.
    """

    default_training = TrainingConfig(epochs=14, batch_size=32, learning_rate=3e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        kind: Literal["row_by_row", "row_lstm", "diagonal_bilstm"] = "diagonal_bilstm",
        channels: int = 24,
        layers: int = 2,
        kernel_size: int = 7,
        position_bias: bool = False,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        self.distribution = distribution_of(pixels, self.levels)
        shape, parameters = self.data_shape, self.distribution.parameters
        if kind == "row_by_row":
            self.network = RowByRowLSTM(shape, self.levels, parameters, channels, layers, position_bias)
        else:
            self.network = RecurrentNetwork(kind, shape, parameters, channels, layers, kernel_size, position_bias)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i | predecessors) for every value: (N, C, H, W, 1), or (..., levels)."""
        return self.network(x)

    def incremental(self, n: int) -> IncrementalNetwork:
        """The network one pixel at a time, for n images."""
        return self.network.incremental(n)

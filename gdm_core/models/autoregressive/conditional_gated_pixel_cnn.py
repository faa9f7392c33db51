"""Class-conditional gated PixelCNN: told which class an image has, it draws images of that class.

    p(x) = sum_y p(y) p(x | y),    p(y) = 1 / classes,    log p(x | y) = sum_i log p(x_i | x_1, ..., x_{i-1}, y)
    each layer: tanh(W_f * h + V_f y) sigmoid(W_g * h + V_g y)

One network for all classes, that of `gated_pixel_cnn`, with a bias per class in every gate. It learns from labelled
images. Of an image alone it gives the mixture's density, exactly, and the classes' probabilities by Bayes' rule; both
cost one pass per class.

Paper: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: Conditional Image Generation with PixelCNN
Decoders (2016), section 2.3. Changed: as in `gated_pixel_cnn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from gdm_core.contract import TrainingConfig
from gdm_core.layers.class_mixture import ClassMixture
from gdm_core.layers.gated_network import GatedNetwork, IncrementalGatedNetwork
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.registry import register


@register("conditional_gated_pixel_cnn", family="autoregressive", paper="van den Oord et al., 2016")
class ConditionalGatedPixelCNN(ClassMixture):
    """A gated PixelCNN of `classes` classes, 0 to classes - 1; the other arguments are those of `gated_pixel_cnn`."""

    default_training = TrainingConfig(epochs=14, batch_size=32, learning_rate=6e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        classes: int = 10,
        channels: int = 24,
        blocks: int = 4,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        dropout: float = 0.5,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        if classes < 1:
            raise ValueError(f"classes must be at least 1, got {classes}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        self.classes, self.dropout = classes, dropout
        self.distribution = distribution_of(pixels, self.levels)
        colours, parameters = self.data_shape[0], self.distribution.parameters
        self.network = GatedNetwork(colours, parameters, channels, blocks, kernel_size, first_kernel_size, classes)

    def class_logits(self, x: Tensor, labels: Tensor) -> Tensor:
        """The logits of p(x_i | predecessors, y) for every value: (N, C, H, W, 1), or (..., levels)."""
        return self.network(x, labels)

    def training_class_logits(self, x: Tensor, labels: Tensor) -> Tensor:
        """The same with dropout in training mode."""
        return self.network(x, labels, self.dropout if self.training else 0.0)

    def class_incremental(self, labels: Tensor) -> IncrementalGatedNetwork:
        """The network one pixel at a time, for images of these classes (n,)."""
        return IncrementalGatedNetwork(self.network, len(labels), self.data_shape[2], labels)

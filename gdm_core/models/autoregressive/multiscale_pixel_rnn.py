"""Multi-scale PixelRNN: a small image first, pixel by pixel; then larger ones around it, each given all of the smaller.

    log p(x) = log p(x^1) + sum_{k>1} sum_{i in x^k, not in x^{k-1}} log p(x_i | x^k_{<i}, x^{k-1})

x^k is every f^(S-k)-th pixel of every f^(S-k)-th row of x, for S scales that differ by the factor f; x^S is x. The
first network is a PixelRNN, each further one a PixelRNN with a condition: x^{k-1} goes through convolutions, which look
in all directions, and an upsampling one, and from there as a bias into the gates of every LSTM. There are as many
convolutions as it takes for every new pixel to see all of x^{k-1}: 1 for one of 2x2 pixels, 2 for 4x4, 4 for 14x14.

Paper: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks (2016), sections 2.3 and 3.6. Changed:
the pixels of the smaller image are known when the larger one is drawn. They keep their values and are certain, log 1,
so that all scales together are one density over x; in the paper the larger image is drawn anew, which gives none.
The order is therefore not that of the raster: what comes before a pixel are all pixels of smaller scales, and the
earlier ones of its own. With diagonal BiLSTMs a pixel depends on all of them; with row LSTMs on all of the smaller
image, and among its own on those above it in a triangle, as in `pixel_rnn`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, GenerativeModel, TrainingConfig
from gdm_core.layers.captured_sampling import draw_images
from gdm_core.layers.image_scale import GivenAtScale, ImageScale
from gdm_core.layers.pixel_distribution import distribution_of, log_prob_of_each
from gdm_core.layers.raster_model import PARTICLES, choose
from gdm_core.layers.raster_sampling import last, sample_in_raster_order, without_autocast
from gdm_core.layers.sampling_arguments import (
    check_completion,
    check_conditional,
    draw_uniforms,
    known_pixels_come_first,
)
from gdm_core.registry import register


@register("multiscale_pixel_rnn", family="autoregressive", paper="van den Oord et al., 2016")
class MultiscalePixelRNN(GenerativeModel):
    """`scales` PixelRNNs, each image `factor` times as large as the one before; other arguments are `pixel_rnn`'s.

    Sizes need not be divisible: an image has its first pixel, and then every f-th, at the smaller scale.
    """

    default_training = TrainingConfig(epochs=14, batch_size=32, learning_rate=3e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        kind: Literal["row_lstm", "diagonal_bilstm"] = "row_lstm",
        scales: int = 2,
        factor: int = 2,
        channels: int = 24,
        layers: int = 2,
        kernel_size: int = 7,
        position_bias: bool = False,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        if scales < 2 or factor < 2:
            raise ValueError(f"scales and factor must be at least 2, got {scales} and {factor}")
        self.distribution = distribution_of(pixels, self.levels)
        arguments = {
            "kind": kind, "parameters": self.distribution.parameters, "channels": channels, "layers": layers,
            "kernel_size": kernel_size, "position_bias": position_bias,
        }  # fmt: skip
        strides = [factor**power for power in reversed(range(scales))]
        self.scales = nn.ModuleList(
            ImageScale(self.data_shape, stride, factor if index else None, **arguments)
            for index, stride in enumerate(strides)
        )

    def logits(self, x: Tensor) -> Tensor:
        """The logits of each value given all before it in the order of the scales: (N, C, H, W, 1 or levels)."""
        smaller = logits = None
        for scale in self.scales:
            image = scale.of(x)
            larger = scale(image, smaller)
            if logits is not None:
                scale.smaller(larger.movedim(-1, 0)).copy_(logits.movedim(-1, 0))
            smaller, logits = image, larger
        return logits

    def log_prob_map(self, x: Tensor) -> Tensor:
        """log p(x_i | all before it) in nats, summed over colours, (N, 1, H, W): each pixel's at its smallest scale."""
        return self.distribution.log_prob(self.logits(self.check_images(x)), x).sum(1, keepdim=True)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), exact."""
        return self.log_prob_map(x).flatten(1).sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean negative log-likelihood, nats per image."""
        return {"loss": -self.log_prob(batch.images).mean()}

    def conditional(self, x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
        """log p(x_{c, row, column} = value | all before it) for each colour and value (V,), (N, C, V)."""
        check_conditional(self, row, column, values)
        logits = self.logits(self.check_images(x))[:, :, row, column]  # (N, C, parameters)
        return log_prob_of_each(self.distribution, logits, values)

    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw n images (n, C, H, W); every conditional is tempered alone."""
        uniforms = draw_uniforms(self, n, labels, temperature, generator)
        return draw_images(self, self.steps_from, (uniforms,), temperature)

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the images after every row of every scale; pixels still to come are 0."""
        yield from self.steps_from(temperature, draw_uniforms(self, n, labels, temperature, generator))

    def steps_from(self, temperature: float, uniforms: Tensor) -> Iterator[Tensor]:
        """Yield the images that follow from uniforms (n, C, H, W), after every row of every scale."""
        nothing = torch.zeros_like(uniforms)
        yield from self._draw(uniforms, temperature, nothing, nothing[:, :1].bool())

    @without_autocast
    def _draw(
        self,
        uniforms: Tensor,
        temperature: float,
        x: Tensor,
        known: Tensor,
        log_weights: Tensor | None = None,
        pixel_by_pixel: bool = False,
    ) -> Iterator[Tensor]:
        """Yield images (n, C, H, W) drawn around the pixels of x that are `known` (n, 1, H, W), by rows or pixels.

        `log_weights` (n,) become log p(known values | values before them).
        """
        smaller = None
        for scale in self.scales:
            given_x, given = scale.of(x).clone(), scale.of(known).clone()
            if smaller is not None:
                scale.smaller(given_x).copy_(smaller)
                scale.smaller(given).fill_(True)
            network, at_scale = scale.incremental(len(x), smaller), GivenAtScale(given_x, given, scale)
            noise = scale.of(uniforms)
            steps = sample_in_raster_order(network, self.distribution, noise, temperature, at_scale, pixel_by_pixel)
            places = itertools.product(*map(range, scale.size))
            shown = [scale.is_new(*place) for place in places] if pixel_by_pixel else [True] * scale.size[0]
            for smaller, is_shown in zip(steps, shown, strict=True):
                if is_shown:
                    images = torch.zeros_like(uniforms)
                    scale.of(images).copy_(torch.where(given, given_x, smaller))
                    yield images
            if log_weights is not None:
                log_weights += at_scale.log_weight

    def completion_is_exact(self, known: Tensor) -> bool:
        """Whether `complete` draws from p(unknown | known): where known pixels come first in the scales' order."""
        raster = torch.arange(known[0].numel(), device=known.device).view(known.shape[2:])
        order = torch.cat([scale.of(raster)[scale.new(known.device)] for scale in self.scales])
        return known_pixels_come_first(known.flatten(1)[:, order])

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Fill in the pixels where `known` (1 or N, 1, H, W) is 0, keeping the others; x is not read there.

        In the order of the scales, and otherwise as `RasterModel.complete`.
        """
        return last(self.complete_steps(x, known, temperature, generator))

    def complete_steps(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the completion after every pixel; unknown pixels still to come are 0, and the last one is complete's.

        Of an approximate completion the candidates are drawn first, and then the chosen one once more for its steps.
        """
        x, mask = check_completion(self, x, known)
        if not len(x):
            yield x
            return
        particles = 1 if self.completion_is_exact(known) else PARTICLES
        uniforms = draw_uniforms(self, len(x) * particles, None, temperature, generator)
        if particles > 1:
            choice = draw_uniforms(self, len(x), None, temperature, generator).flatten(1)[:, :1]
            log_weights = uniforms.new_zeros(len(uniforms))
            candidates = x.repeat_interleave(particles, 0), mask.repeat_interleave(particles, 0)
            last(self._draw(uniforms, temperature, *candidates, log_weights))
            chosen = choose(log_weights.view(len(x), particles), choice)
            uniforms = uniforms.unflatten(0, (len(x), particles))[torch.arange(len(x), device=x.device), chosen]
        for images in self._draw(uniforms, temperature, x, mask, pixel_by_pixel=True):
            yield torch.where(mask, x, images)

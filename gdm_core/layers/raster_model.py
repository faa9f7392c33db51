"""What every density over pixels in raster order has, given its network in two forms.

    log p(x) = sum_i log p(x_i | x_{<i}),    i in raster order, colour after colour within a pixel

A model supplies `distribution` (of one value given its logits), `logits(x)` (all values at once) and `incremental(n)`
(one value after another). Likelihood, map, loss, samples and completions follow, the same for all of them: this is the
one class that stands between models and `GenerativeModel`, because a dozen would otherwise repeat it word by word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gdm_core.contract import Batch, GenerativeModel
from gdm_core.layers.captured_sampling import draw_images
from gdm_core.layers.pixel_distribution import PixelDistribution, log_prob_of_each
from gdm_core.layers.raster_sampling import (
    Given,
    IncrementalNetwork,
    as_they_grew,
    last,
    sample_in_raster_order,
    without_autocast,
)
from gdm_core.layers.sampling_arguments import (
    check_completion,
    check_conditional,
    draw_uniforms,
    known_pixels_come_first,
)

Completing = Callable[[Tensor, Tensor, Given, torch.Generator | None], IncrementalNetwork]  # see RasterModel.completing
PARTICLES = 16  # candidates that a completion is chosen from where it cannot be drawn exactly


class RasterModel(GenerativeModel):
    """A `GenerativeModel` with exact conditionals in raster order; its class supplies the three members named first."""

    distribution: PixelDistribution
    logits: Callable[[Tensor], Tensor]  # x -> the logits of p(x_i | x_{<i}) for every value, (N, C, H, W, parameters)
    incremental: Callable[[int], IncrementalNetwork]  # n -> the same network one value after another, for n images

    def training_logits(self, x: Tensor) -> Tensor:
        """The logits while learning; a model with dropout has it here, and only here."""
        return self.logits(x)

    def log_prob_map(self, x: Tensor) -> Tensor:
        """log p(x_i | predecessors) in nats, summed over colours, (N, 1, H, W)."""
        return self.distribution.log_prob(self.logits(self.check_images(x)), x).sum(1, keepdim=True)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), exact."""
        return self.log_prob_map(x).flatten(1).sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean negative log-likelihood, nats per image."""
        x = self.check_images(batch.images)
        return {"loss": -self.distribution.log_prob(self.training_logits(x), x).sum() / len(x)}

    def conditional(self, x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
        """log p(x_{c, row, column} = value | predecessors) for each colour and value (V,), (N, C, V)."""
        check_conditional(self, row, column, values)
        logits = self.logits(self.check_images(x))[:, :, row, column]  # (N, C, parameters)
        return log_prob_of_each(self.distribution, logits, values)

    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw n images (n, C, H, W); every conditional is tempered alone."""
        inputs = self.draw_inputs(n, labels, temperature, generator)
        return draw_images(self, self.steps_from, inputs, temperature)

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the images after every row; pixels still to come are 0."""
        yield from self.steps_from(temperature, *self.draw_inputs(n, labels, temperature, generator))

    def draw_inputs(
        self, n: int, labels: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        """All that differs between one batch of n samples and another: here their uniforms (n, C, H, W)."""
        return (draw_uniforms(self, n, labels, temperature, generator),)

    @without_autocast
    def steps_from(self, temperature: float, uniforms: Tensor) -> Iterator[Tensor]:
        """Yield the images that follow from `draw_inputs`, after every row."""
        network = self.incremental(len(uniforms))
        yield from sample_in_raster_order(network, self.distribution, uniforms, temperature)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Whether `complete` draws from p(unknown | known): where no known pixel comes after an unknown one."""
        return known_pixels_come_first(known)

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Fill in the pixels where `known` (1 or N, 1, H, W) is 0, keeping the others; x is not read there.

        Each unknown pixel is drawn given those before it. Where a known pixel comes after an unknown one such a draw
        does not know of it: then one of several candidates is chosen, with probability proportional to that of the
        known pixels given what was drawn (sampling, importance resampling), which is approximate.
        """
        return last(self.complete_by(self.completing, x, known, temperature, generator, pixel_by_pixel=False))

    def complete_steps(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the completion after every pixel; unknown pixels still to come are 0, and the last one is complete's.

        An approximate completion is only known when all candidates are drawn, so its steps all come at the end.
        """
        yield from self.complete_by(self.completing, x, known, temperature, generator)

    @without_autocast
    def complete_by(
        self, completing: Completing, x: Tensor, known: Tensor, temperature: float, generator: torch.Generator | None,
        pixel_by_pixel: bool = True,
    ) -> Iterator[Tensor]:  # fmt: skip
        """The steps of a completion by the network that `completing` makes for it; else fewer, and the same last."""
        x, mask = check_completion(self, x, known)
        if not len(x):
            yield x
            return
        exact = self.completion_is_exact(known)
        particles = 1 if exact else PARTICLES
        uniforms = draw_uniforms(self, len(x) * particles, None, temperature, generator)
        given = Given(x.repeat_interleave(particles, 0), mask.repeat_interleave(particles, 0))
        network = completing(x, mask, given, generator)
        every = exact and pixel_by_pixel
        steps = sample_in_raster_order(network, self.distribution, uniforms, temperature, given, pixel_by_pixel=every)
        if exact:
            yield from (torch.where(mask, x, images) for images in steps)
            return
        candidates = last(steps).unflatten(0, (len(x), particles))
        choice = draw_uniforms(self, len(x), None, temperature, generator).flatten(1)[:, :1]
        chosen = choose(given.log_weight.view(len(x), particles), choice)
        completed = candidates[torch.arange(len(x), device=x.device), chosen]
        completed = torch.where(mask, x, completed)
        yield from as_they_grew(completed, mask) if pixel_by_pixel else [completed]

    def completing(
        self, x: Tensor, known: Tensor, given: Given, generator: torch.Generator | None
    ) -> IncrementalNetwork:
        """The network that completes x (N, C, H, W) where `known` is false; `given` holds every candidate for it.

        A mixture draws here which of its parts each candidate belongs to.
        """
        return self.incremental(len(given.log_weight))


def choose(log_weights: Tensor, uniforms: Tensor) -> Tensor:
    """The index of one candidate per row, (N,), with probability proportional to exp(log_weights) (N, candidates)."""
    return (uniforms >= log_weights.softmax(1).cumsum(1)[:, :-1]).sum(1)

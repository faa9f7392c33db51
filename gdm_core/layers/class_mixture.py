"""What a density over images in raster order is when its network is told each image's class: a mixture of the classes.

    p(x) = sum_y p(y) p(x | y),   p(y) = 1 / K,   p(x_i | x_{<i}) = sum_y p(y | x_{<i}) p(x_i | x_{<i}, y)

A model supplies `classes` K, `distribution`, `class_logits(x, labels)` and `class_incremental(labels)`: what a
`RasterModel` supplies, given a class for each image. It learns log p(x | y) from labelled images. The density of an
image alone is the mixture's, exactly, and by Bayes it says which class an image has. A sample's class is drawn first;
that of a completion is drawn given the known pixels that come first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.layers.pixel_distribution import log_prob_of_each
from gdm_core.layers.raster_model import RasterModel, choose
from gdm_core.layers.raster_sampling import Given, IncrementalNetwork, last, sample_in_raster_order, without_autocast
from gdm_core.layers.sampling_arguments import check_conditional, check_labels, draw_uniforms


class ClassMixture(RasterModel):
    """A `RasterModel` that mixes classes; its class supplies the members named first."""

    classes: int
    class_logits: Callable[[Tensor, Tensor], Tensor]  # x, labels (N,) -> the logits of p(x_i | x_{<i}, y)
    class_incremental: Callable[[Tensor], IncrementalNetwork]  # labels (n,) -> the same one value after another

    def training_class_logits(self, x: Tensor, labels: Tensor) -> Tensor:
        """The logits while learning; a model with dropout has it here, and only here."""
        return self.class_logits(x, labels)

    def log_prob_given_class(self, x: Tensor) -> Tensor:
        """log p(x | y) in nats for every class, (N, K), exact."""
        return self._value_log_probs(self.check_images(x)).flatten(2).sum(2)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), exact."""
        return self.log_prob_given_class(x).logsumexp(1) - math.log(self.classes)

    def class_log_prob(self, x: Tensor) -> Tensor:
        """log p(y | x) in nats, (N, K)."""
        return self.log_prob_given_class(x).log_softmax(1)

    def log_prob_map(self, x: Tensor) -> Tensor:
        """log p(x_i | predecessors) in nats, summed over colours, (N, 1, H, W)."""
        parts = self._value_log_probs(self.check_images(x))
        mixed = (_log_posterior(parts) + parts).logsumexp(1)
        mixed = torch.minimum(mixed, parts.amax(1))  # no mixture is likelier than its likeliest part: rounding apart
        return mixed.sum(1, keepdim=True)

    def conditional(self, x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
        """log p(x_{c, row, column} = value | predecessors) for each colour and value (V,), (N, C, V)."""
        check_conditional(self, row, column, values)
        self.check_images(x)
        parts, of_values = [], []
        for labels in self._every_label(len(x)):
            logits = self.class_logits(x, labels)
            parts.append(self.distribution.log_prob(logits, x))
            of_values.append(log_prob_of_each(self.distribution, logits[:, :, row, column], values))
        before = _log_posterior(torch.stack(parts, 1))[:, :, :, row, column, None]  # (N, K, C, 1)
        return (before + torch.stack(of_values, 1)).logsumexp(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean negative log-likelihood of the images given their classes, nats per image.

        Raises ValueError for images without labels.
        """
        x = self.check_images(batch.images)
        if batch.labels is None:
            raise ValueError(f"labels are missing: {self.name} learns from images whose classes are known")
        logits = self.training_class_logits(x, self._checked_labels(batch.labels, len(x)))
        return {"loss": -self.distribution.log_prob(logits, x).sum() / len(x)}

    def draw_inputs(
        self, n: int, labels: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> tuple[Tensor, ...]:
        """Uniforms (n, C, H, W) and classes (n,): `labels`, or drawn evenly."""
        uniforms = draw_uniforms(self, n, None, temperature, generator)
        if labels is None:
            return uniforms, self._draw_labels(uniforms.new_zeros(n, self.classes), generator)
        return uniforms, self._checked_labels(labels, n)

    @without_autocast
    def steps_from(self, temperature: float, uniforms: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Yield the images that follow from `draw_inputs`, after every row."""
        network = self.class_incremental(labels)
        yield from sample_in_raster_order(network, self.distribution, uniforms, temperature)

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """As `RasterModel` does it, of images of the classes `labels` (N,) where they are given."""
        completing = partial(self.completing, labels=labels)
        return last(self.complete_by(completing, x, known, temperature, generator, pixel_by_pixel=False))

    def complete_steps(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """As `RasterModel` does it, of images of the classes `labels` (N,) where they are given."""
        yield from self.complete_by(partial(self.completing, labels=labels), x, known, temperature, generator)

    @torch.no_grad()
    def completing(
        self, x: Tensor, known: Tensor, given: Given, generator: torch.Generator | None, labels: Tensor | None = None
    ) -> IncrementalNetwork:
        """Each candidate's class is drawn given the pixels known before any other, which its weight then leaves out.

        Classes that are given (N,) are held, and the weights are whole.
        """
        repeats = len(given.log_weight) // len(x)
        if labels is not None:
            return self.class_incremental(self._checked_labels(labels, len(x)).repeat_interleave(repeats))
        first = known.flatten(1).cumprod(1).bool().view_as(known)[:, None]  # (N, 1, 1, H, W)
        log_prefix = torch.where(first, self._value_log_probs(x), 0).flatten(2).sum(2)  # log p(. | y), (N, K)
        log_prefix = log_prefix.repeat_interleave(repeats, 0)
        labels = self._draw_labels(log_prefix, generator)
        given.log_weight -= log_prefix.gather(1, labels[:, None])[:, 0]
        return self.class_incremental(labels)

    def _value_log_probs(self, x: Tensor) -> Tensor:
        """log p(x_i | x_{<i}, y) in nats, (N, K, C, H, W)."""
        every = (self.class_logits(x, labels) for labels in self._every_label(len(x)))
        return torch.stack([self.distribution.log_prob(logits, x) for logits in every], 1)

    def _every_label(self, n: int) -> Iterator[Tensor]:
        yield from torch.arange(self.classes, device=self.device)[:, None].expand(-1, n)

    def _draw_labels(self, log_weights: Tensor, generator: torch.Generator | None) -> Tensor:
        """A class for each row of log weights (n, K), with probability proportional to their exponentials."""
        return choose(log_weights, draw_uniforms(self, len(log_weights), None, 1.0, generator).flatten(1)[:, :1])

    def _checked_labels(self, labels: Tensor, n: int) -> Tensor:
        return check_labels(labels, n, self.classes).to(self.device)


def _log_posterior(parts: Tensor) -> Tensor:
    """log p(y | x_{<i}) from log p(x_i | x_{<i}, y), both (N, K, C, H, W): evenly distributed at the first value."""
    in_order = parts.movedim(2, -1)  # (N, K, H, W, C)
    before = in_order.flatten(2).cumsum(2) - in_order.flatten(2)
    return before.log_softmax(1).view_as(in_order).movedim(-1, 2)

"""The discretised mixture of logistics over the levels of a pixel, and its colours with one mixture indicator.

    p(x = k / (L - 1)) = sum_m pi_m (sigmoid((v + h - mu_m) / s_m) - sigmoid((v - h - mu_m) / s_m))
    v = 2 x - 1 in [-1, 1],    h = 1 / (L - 1) half a bin,    the lowest bin opens to -inf, the highest to +inf

The masses telescope over the levels, so any real parameters give a normalised distribution. Their logarithm is exact
also where both sigmoids are 0 or 1 to the last digit:

    log(sigmoid(b) - sigmoid(a)) = logsigmoid(b) + logsigmoid(-a) + log(1 - exp(a - b))

The colours of a pixel share the indicator m; the mean of a colour is linear in the earlier ones (`LogisticColours`).
Salimans, Karpathy, Chen, Kingma: PixelCNN++ (2017), sections 2.1 and 2.2. Changed: no clamping of small masses, which
would not sum to one; the logarithms of the scales are kept within +-7 (the paper: above -7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_LOG_SCALE = 7.0  # scales from 0.0009 to 1100 of a range of 2: beyond, nothing changes that any bin could tell


@dataclass(frozen=True)
class MixtureOfLogistics:
    """p(x) of one value given logits (..., 3 * components): log weights (of any sum), means, log scales."""

    levels: int
    components: int

    @property
    def parameters(self) -> int:
        return 3 * self.components

    def log_masses(self, means: Tensor, log_scales: Tensor, x: Tensor) -> Tensor:
        """log p(x | component) in nats: means and log scales (..., components), x (...) -> (..., components)."""
        precision = torch.exp(-_bounded(log_scales))
        bin_width = 2 / (self.levels - 1)
        above = (2 * x[..., None] - 1 + bin_width / 2 - means) * precision
        below = (2 * x[..., None] - 1 - bin_width / 2 - means) * precision
        at_bottom, at_top = _outermost(x[..., None], self.levels)
        between = torch.log(-torch.expm1(-bin_width * precision))
        return (
            torch.where(at_top, 0, functional.logsigmoid(above))
            + torch.where(at_bottom, 0, functional.logsigmoid(-below))
            + torch.where(at_bottom | at_top, 0, between)
        )

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        weights, means, log_scales = logits.chunk(3, -1)
        log_prob = (weights.log_softmax(-1) + self.log_masses(means, log_scales, x)).logsumexp(-1)
        return log_prob.clamp_max(0)  # where it is certain, the last digit of the sum may be on the wrong side

    def sample(self, logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """Values shaped as uniforms: the uniform chooses the component, what is left of it a point of the logistic.

        At a temperature the components have the weights softmax(log weights / temperature) and scales multiplied by
        it: at 1 the draw is exact, towards 0 it is the mean of the likeliest component.
        """
        weights, means, log_scales = logits.chunk(3, -1)
        shares = torch.softmax(weights / temperature, -1)
        ends = shares.cumsum(-1)
        chosen = (uniforms[..., None] >= ends[..., :-1]).sum(-1, keepdim=True)
        share, end, mean, log_scale = (of.gather(-1, chosen)[..., 0] for of in (shares, ends, means, log_scales))
        rest = ((uniforms - (end - share)) / share.clamp_min(torch.finfo(share.dtype).tiny)).clamp(0, 1)
        v = mean + temperature * torch.exp(_bounded(log_scale)) * torch.logit(rest)
        return ((v + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1) / (self.levels - 1)


@dataclass(frozen=True)
class LogisticColours:
    """The colours of a pixel under one mixture indicator, as conditionals of one colour after another.

        p(x_1, ..., x_C) = sum_m pi_m prod_c p_m(x_c | x_{<c}),    mean of x_c: mu_mc + sum_{d<c} tanh(a_mcd) v_d

    Given the earlier colours, a colour is a mixture with the weights p(m | x_{<c}), proportional to
    pi_m prod_{d<c} p_m(x_d | x_{<d}); the product of these conditionals is p(x_1, ..., x_C) again.
    """

    colours: int
    distribution: MixtureOfLogistics

    @property
    def features(self) -> int:
        """How many numbers the network gives for a pixel: for each component pi, mu and s by colour, a by two."""
        return self.distribution.components * sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [1, self.colours, self.colours, self.colours * (self.colours - 1) // 2]

    def conditionals(self, output: Tensor, x: Sequence[Tensor]) -> Iterator[Tensor]:
        """The logits (..., 3 * components) of colour after colour, given the network's output (..., features).

        x holds the values of the colours, (...) each; a colour is looked up only when the next one's logits are asked
        for, so that a sampler may append it to the list in between.
        """
        parts = output.unflatten(-1, (-1, self.distribution.components)).split(self._sizes, -2)
        (weights,), means, log_scales, slopes = (part.unbind(-2) for part in parts)
        for colour in range(self.colours):
            mean, first = means[colour], colour * (colour - 1) // 2  # slopes lie as (1,0), (2,0), (2,1), ...
            for earlier in range(colour):
                mean = mean + torch.tanh(slopes[first + earlier]) * (2 * x[earlier][..., None] - 1)
            yield torch.cat([weights, mean, log_scales[colour]], -1)
            if colour < self.colours - 1:
                weights = weights + self.distribution.log_masses(mean, log_scales[colour], x[colour])


def _bounded(log_scales: Tensor) -> Tensor:
    return log_scales.clamp(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE)


def _outermost(x: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Whether x is the lowest, and whether it is the highest of the levels."""
    return x < 0.5 / (levels - 1), x > 1 - 0.5 / (levels - 1)

"""The distribution of one pixel's colour value given its logits: Bernoulli, or categorical over levels.

Logits carry the parameters of the distribution on their last axis: (..., 1) for a Bernoulli, (..., levels) for a
categorical; values have the shape (...) and lie in [0, 1]. Any real logits give a normalised distribution.
Sampling turns given uniforms into values: the same uniforms give the same sample, whoever else is sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class PixelDistribution(Protocol):
    """What a model needs of a distribution over the values of one pixel in one colour."""

    @property
    def parameters(self) -> int:
        """Logits per value."""
        ...

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """log p(x) in nats: logits (..., parameters), x (...) -> (...)."""
        ...

    def sample(self, logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """Values by the inverse of the distribution function of softmax(logits / temperature), shaped as uniforms."""
        ...


@dataclass(frozen=True)
class Bernoulli:
    """p(x = 1) = sigmoid(logit)."""

    parameters: int = 1

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        return functional.logsigmoid((2 * x - 1) * logits[..., 0])

    def sample(self, logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        return (uniforms < torch.sigmoid(logits[..., 0] / temperature)).to(logits.dtype)


@dataclass(frozen=True)
class Categorical:
    """p(x = k / (levels - 1)) = softmax(logits)_k for k = 0..levels - 1."""

    levels: int

    @property
    def parameters(self) -> int:
        return self.levels

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        level = (x * (self.levels - 1)).round().long()
        return functional.log_softmax(logits, -1).gather(-1, level[..., None])[..., 0]

    def sample(self, logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        below = torch.softmax(logits / temperature, -1).cumsum(-1)[..., :-1]  # P(level <= k); the last is 1, rounded
        return (uniforms[..., None] >= below).sum(-1).to(logits.dtype) / (self.levels - 1)


def log_prob_of_each(distribution: PixelDistribution, logits: Tensor, values: Tensor) -> Tensor:
    """log p of every one of the values (V,) at one pixel: logits (N, C, parameters) -> (N, C, V)."""
    shape = (*logits.shape[:2], len(values))
    return distribution.log_prob(logits[:, :, None].expand(*shape, -1), values.to(logits).expand(shape))


def distribution_of(pixels: str, levels: int) -> Bernoulli | Categorical:
    """The distribution for a model's kind of pixels."""
    if pixels == "binary":
        return Bernoulli()
    if pixels == "levels":
        return Categorical(levels)
    raise ValueError(f"no discrete distribution for pixels={pixels!r}: choose binary or levels")

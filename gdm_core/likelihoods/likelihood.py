"""How likely a model finds images: per-image numbers that carry their kind.

The kind follows from what the model can do: `exact` (log p itself), `lower bound` (the importance-weighted bound: on
average too small), `estimate` (-E(x) minus an estimated log Z: on average too *large*, because the estimate of log Z is
too small), `bound with estimated normaliser` (a lower bound on log p(x) + log Z minus an estimated log Z: on average
neither), `none`. An energy model whose log Z is enumerated is exact, and a bound minus such a log Z is a lower bound;
one with neither `anneal` nor `exact_log_partition` has none.
References: Burda, Grosse, Salakhutdinov: Importance Weighted Autoencoders (2016); Salakhutdinov and Murray: On the
Quantitative Analysis of Deep Belief Networks (2008).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gdm_core.contract import (
    Anneals,
    Energy,
    Enumerates,
    ExactLikelihood,
    GenerativeModel,
    LatentLikelihood,
    UnnormalisedBound,
    has,
)
from gdm_core.likelihoods.log_partition import LogPartition, log_partition
from gdm_core.randomness import seeded_generator

UNIT = "nats per image"
MOST_DRAWS_OF_A_BOUND = 100  # it is a mean, which more draws make no tighter


@dataclass(frozen=True)
class Likelihood:
    """log p(x) of images in nats, (N,) float64, with its kind; empty where the kind is `none`.

    `standard_error` is over the images; the error of log Z is common to all of them and stands apart, in
    `log_partition`, as a 95 % interval. `settings` names what an estimator was told (k, temperatures, chains).
    """

    values: Tensor
    kind: str  # "exact", "lower bound", "estimate", "bound with estimated normaliser", "none"
    pixels: str
    levels: int | None
    dimensions: int
    unit: str = UNIT
    log_partition: LogPartition | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return self.values.mean().item() if len(self.values) else math.nan

    @property
    def standard_error(self) -> float:
        """Standard deviation over images / sqrt(N); NaN for fewer than two."""
        return (self.values.std() / math.sqrt(len(self.values))).item() if len(self.values) > 1 else math.nan

    def bits_per_dimension(self) -> float:
        """(-log p(x) / D + [real pixels] log levels) / log 2: the density of x on [0, 1] counts per level."""
        return bits_per_dimension(self.mean, self.dimensions, self.levels if self.pixels == "real" else None)

    def bits_per_dimension_error(self) -> float:
        return self.standard_error / self.dimensions / math.log(2)


def bits_per_dimension(log_likelihood: float, dimensions: int, dequantised_levels: int | None = None) -> float:
    """Bits per dimension of a log-likelihood in nats per image; of a density on [0, 1] with the set's levels."""
    scale = math.log(dequantised_levels) if dequantised_levels else 0.0
    return (scale - log_likelihood / dimensions) / math.log(2)


@torch.no_grad()
def likelihood(
    model: GenerativeModel,
    images: Tensor,
    *,
    k: int = 1000,
    temperatures: int | str | Sequence[float] | None = None,
    chains: int = 100,
    seed: int = 0,
    batch_size: int = 500,
    log_z: LogPartition | None = None,
) -> Likelihood:
    """log p(x) of images (N, C, H, W) by what the model can do, with its kind.

    k: draws of the latent code in an importance-weighted bound; temperatures and chains: of annealed importance
    sampling (`log_partition`); log_z: where it is known already, from other images of the same model. The seed fixes
    all randomness; the model is evaluated in eval mode.
    """
    training = model.training
    model.eval()
    try:
        return _evaluate(model, images, k, temperatures, chains, seed, batch_size, log_z)
    finally:
        model.train(training)


def _evaluate(
    model: GenerativeModel, images: Tensor, k: int, temperatures: int | str | Sequence[float] | None, chains: int,
    seed: int, batch_size: int, log_z: LogPartition | None,
) -> Likelihood:  # fmt: skip
    def record(kind: str, values: Tensor, **rest: Any) -> Likelihood:
        return Likelihood(values, kind, model.pixels, model.levels, model.dimensions, **rest)

    if has(model, ExactLikelihood):
        return record("exact", _batched(model.log_prob, model, images, batch_size))
    if has(model, LatentLikelihood):
        bound = _importance_weighted_bound(model, k, seed)
        return record("lower bound", _batched(bound, model, images, batch_size), settings={"k": k})
    if _log_z_can_be_known(model) and (has(model, Energy) or has(model, UnnormalisedBound)):
        if log_z is None:
            log_z = log_partition(model, temperatures, chains, seeded_generator(seed, "log partition"))
        settings = {"temperatures": log_z.temperatures, "chains": log_z.chains}
        if has(model, Energy):
            values = -_batched(model.energy, model, images, batch_size)
            return record(log_z.kind, values - log_z.value, log_partition=log_z, settings=settings)
        k = min(k, MOST_DRAWS_OF_A_BOUND)
        values = _batched(_unnormalised_bound(model, k, seed), model, images, batch_size)
        kind = "lower bound" if log_z.kind == "exact" else "bound with estimated normaliser"
        return record(kind, values - log_z.value, log_partition=log_z, settings=settings | {"k": k})
    return record("none", torch.empty(0, dtype=torch.float64))


def _log_z_can_be_known(model: GenerativeModel) -> bool:
    """Without a way to log Z an energy compares images, and does not say how likely one is."""
    return has(model, Anneals) or has(model, Enumerates)


def _importance_weighted_bound(model: LatentLikelihood, k: int, seed: int) -> Callable[[Tensor], Tensor]:
    """log 1/k sum_i w_i with the same noise for every image, so that its value does not depend on the batch."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")

    def bound(x: Tensor) -> Tensor:
        weights = model.log_weights(x, k, seeded_generator(seed, "importance weights"))
        return weights.double().logsumexp(0) - math.log(k)

    return bound


def _unnormalised_bound(model: UnnormalisedBound, k: int, seed: int) -> Callable[[Tensor], Tensor]:
    """The bound with the same noise for every batch, so that an image's value does not depend on the others."""
    return lambda x: model.unnormalised_bound(x, k, seeded_generator(seed, "bound"))


def _batched(score: Callable[[Tensor], Tensor], model: GenerativeModel, images: Tensor, batch_size: int) -> Tensor:
    parts = [score(part.to(model.device)).double().cpu() for part in images.split(batch_size)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

"""Scorers: functions (model, x) -> (N,), higher = stranger, each with the capability it needs.

What each score means, and what it cannot see, is in docs/anomaly_scores.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gdm_core.anomaly.complexity import code_length
from gdm_core.anomaly.maps import map_for, reconstruction_error
from gdm_core.anomaly.one_by_one import one_by_one
from gdm_core.contract import (
    Discriminates,
    Energy,
    ExactLikelihood,
    GenerativeModel,
    LatentLikelihood,
    PixelLikelihood,
    Reconstructs,
    SurpriseMap,
    UnnormalisedBound,
    has,
)
from gdm_core.energies import energy_or_bound, name_energy
from gdm_core.randomness import seeded_generator

BOUND_DRAWS = 64
PEAK_SHARE = 0.05

Measure = Callable[[GenerativeModel, Tensor], Tensor]
MapMeasure = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scorer:
    """A registered score. It applies to a model that has any of the capabilities in `needs`.

    `measure` is asked with (model, x), or where the score is `of_map` with the first of the model's heat maps.
    """

    name: str
    label: str
    description: str
    needs: tuple[type, ...]
    measure: Measure | MapMeasure
    of_map: bool = False

    def __call__(self, model: GenerativeModel, x: Tensor) -> Tensor:
        """Scores (N,) of x (N, C, H, W), higher = stranger."""
        return self.measure(map_for(model)(model, x)) if self.of_map else self.measure(model, x)

    def label_for(self, model: GenerativeModel | type[GenerativeModel]) -> str:
        """The label, as the energy of this model is called."""
        return name_energy(self.label, model)


_scorers: dict[str, Scorer] = {}


def scorer(
    name: str, *needs: type, label: str, of_map: bool = False
) -> Callable[[Measure | MapMeasure], Measure | MapMeasure]:
    """Register a function as a scorer; the first line of its docstring is the description shown to users."""

    def decorate(measure: Measure | MapMeasure) -> Measure | MapMeasure:
        if name in _scorers:
            raise ValueError(f"a scorer named {name!r} is registered already")
        description = (measure.__doc__ or label).strip().splitlines()[0]
        _scorers[name] = Scorer(name, label, description, needs, measure, of_map)
        return measure

    return decorate


def list_scorers() -> list[str]:
    """The names of all scorers, sorted."""
    return sorted(_scorers)


def get_scorer(name: str) -> Scorer:
    """The scorer of a name; an unknown name raises with the known ones."""
    if name not in _scorers:
        raise ValueError(f"unknown scorer {name!r}; known scorers are {', '.join(list_scorers())}")
    return _scorers[name]


def scorers_for(model: GenerativeModel | type[GenerativeModel]) -> list[Scorer]:
    """The scorers that apply to a model, by its capabilities, in the order they are defined here."""
    return [entry for entry in _scorers.values() if any(has(model, capability) for capability in entry.needs)]


def score_images(model: GenerativeModel, scorer: Scorer | str, x: Tensor) -> Tensor:
    """Scores (N,) float64 on the CPU, each image by itself and with the same noise for all.

    A score is bitwise the same alone, in any company, in any order, and on every repetition on the same machine. Raises
    ValueError where the model lacks what the scorer needs or x is not what the model takes.
    """
    entry = get_scorer(scorer) if isinstance(scorer, str) else scorer
    if not any(has(model, capability) for capability in entry.needs):
        needed = " or ".join(capability.__name__ for capability in entry.needs)
        raise ValueError(f"scorer {entry.name!r} needs {needed}, which {type(model).__name__} does not have")
    return one_by_one(model, x, entry)


@scorer("likelihood", ExactLikelihood, label="surprise, -log p(x)")
def negative_log_likelihood(model: ExactLikelihood, x: Tensor) -> Tensor:
    """How unlikely the image is: -log p(x), exact, in nats."""
    return -model.log_prob(x)


@scorer("bound", LatentLikelihood, label="surprise, importance-weighted bound")
def negative_bound(model: GenerativeModel, x: Tensor) -> Tensor:
    """How unlikely the image is at most: the negative importance-weighted bound of 64 draws, in nats.

    -log (1/k) sum_j p(x, z_j) / q(z_j | x), with the same noise for every image (Burda et al., Importance Weighted
    Autoencoders, 2016).
    """
    weights = model.log_weights(x, BOUND_DRAWS, seeded_generator(0, "anomaly", "bound"))  # (k, N)
    return math.log(len(weights)) - weights.logsumexp(0)


@scorer("energy", Energy, UnnormalisedBound, label="energy")
def energy(model: Energy | UnnormalisedBound, x: Tensor) -> Tensor:
    """How unlikely the image is, or at most (of a DBN or DBM): -log p(x) - log Z, up to a constant, in nats.

    Hidden units are summed out where they can be. Elsewhere it is minus the unnormalised bound: where that is a mean
    over guesses of the hidden units, over 64 with the same noise for every image.
    """
    return energy_or_bound(model, x)


@scorer("reconstruction", Reconstructs, label="reconstruction error")
def reconstruction(model: GenerativeModel, x: Tensor) -> Tensor:
    """How badly the model gives the image back: cross-entropy in nats (binary) or squared error (other pixels)."""
    return reconstruction_error(model, x).sum((1, 2))


@scorer("critic", Discriminates, label="critic")
def critic(model: Discriminates, x: Tensor) -> Tensor:
    """How fake the image looks to the critic, which learnt to tell this model's samples from data, not oddities."""
    return -model.critic(x)


@scorer("peak", PixelLikelihood, SurpriseMap, Reconstructs, label="strangest pixels", of_map=True)
def peak(surprise: Tensor) -> Tensor:
    """How strange the strangest pixels are: the mean of the top 5 % of the per-pixel map, for small defects."""
    surprise = surprise.flatten(1)  # (N, H W)
    return surprise.topk(max(1, round(PEAK_SHARE * surprise.shape[1])), dim=1).values.mean(1)


@scorer("complexity", ExactLikelihood, label="surprise beyond complexity")
def surprise_beyond_complexity(model: GenerativeModel, x: Tensor) -> Tensor:
    """How much less likely the image is than its simplicity suggests: -log p(x) minus the nats of a lossless code.

    The correction of the likelihood paradox by Serra et al., Input Complexity and Out-of-distribution Detection with
    Likelihood-based Generative Models (2020). A density of real pixels is first turned into the probability of the
    level, p(k) = p(x) / levels^D.
    """
    levels = model.levels or 256
    to_levels = model.dimensions * math.log(levels) if model.pixels == "real" else 0.0
    return -model.log_prob(x).double() + to_levels - code_length(x, levels)

"""Capabilities: what a model can do, said by the methods of its class.

Each is a protocol of one or two methods. Estimators, scorers and views ask `has(model, Samples)`, never for a name.
Import them from `gdm_core.contract`, where the conventions on images and units stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gdm_core.annealing import Tempered


@runtime_checkable
class Samples(Protocol):
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw n images (n, C, H, W); all randomness comes from `generator`."""
        ...


@runtime_checkable
class SamplesStepwise(Protocol):
    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (n, C, H, W) as they form; the last one is what `sample` returns for the same generator."""
        ...


@runtime_checkable
class ExactLikelihood(Protocol):
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,)."""
        ...


@runtime_checkable
class PixelLikelihood(Protocol):
    def log_prob_map(self, x: Tensor) -> Tensor:
        """log p(x_i | predecessors) in nats, (N, 1, H, W), summed over channels; sums to `log_prob`."""
        ...


@runtime_checkable
class LatentLikelihood(Protocol):
    def log_weights(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """log p(x, z) - log q(z | x) for k draws of z, (k, N). Its mean is the ELBO, logmeanexp the IWAE bound.

        One noise tensor (k, latent) is shared by all images, so that an image's value does not depend on the others.
        """
        ...


@runtime_checkable
class Energy(Protocol):
    def energy(self, x: Tensor) -> Tensor:
        """E(x) with p(x) = exp(-E(x)) / Z, in nats, (N,); the free energy where there are hidden units."""
        ...


@runtime_checkable
class Anneals(Protocol):
    def tempered(self) -> Tempered:
        """The distributions p_beta between one whose log Z is known (beta = 0) and the model (beta = 1)."""
        ...

    def anneal(self, n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """n annealed importance weights along `betas` (0 = ..., ..., 1): log w (n,) with E[w] = Z."""
        ...


@runtime_checkable
class UnnormalisedBound(Protocol):
    def unnormalised_bound(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """A lower bound on log p(x) + log Z in nats, (N,), log Z being what `anneal` estimates.

        Where it is an expectation, the mean over k draws with one noise for all images.
        """
        ...


@runtime_checkable
class RunsChains(Protocol):
    def chain_steps(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (N, C, H, W) after every step of the model's Markov chain from x on, without end."""
        ...


@runtime_checkable
class HiddenLayers(Protocol):
    def hidden_layers(self, x: Tensor) -> list[Tensor]:
        """The mean activation of each hidden unit given x, (N, units) in [0, 1], from the layer next to x upwards."""
        ...


@runtime_checkable
class Enumerates(Protocol):
    def enumerable_units(self) -> int:
        """How many binary units an exact log Z has to sum over (2^units terms)."""
        ...

    def exact_log_partition(self) -> Tensor:
        """log Z by enumeration, a scalar tensor."""
        ...


@runtime_checkable
class Encodes(Protocol):
    def encode(self, x: Tensor) -> Tensor:
        """The latent code of x, (N, latent): the posterior mean where there is a posterior."""
        ...


@runtime_checkable
class Decodes(Protocol):
    def decode(self, z: Tensor) -> Tensor:
        """The image of a latent code, (N, C, H, W) in [0, 1]: the mean where there is a distribution."""
        ...

    def sample_latent(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n codes from the prior, (n, latent)."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    def reconstruct(self, x: Tensor) -> Tensor:
        """x after a deterministic way through the model and back, (N, C, H, W) in [0, 1]."""
        ...


@runtime_checkable
class Completes(Protocol):
    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Fill in the pixels where `known` (1 or N, 1, H, W; 0 or 1) is 0; known pixels come back unchanged.

        A model of labelled images may also take `labels` (N,), to be held like known pixels; None: of any class.
        """
        ...

    def completion_is_exact(self, known: Tensor) -> bool:
        """Whether `complete` draws from p(unknown | known) for these masks, and not only near it."""
        ...


@runtime_checkable
class CompletesStepwise(Protocol):
    def complete_steps(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (N, C, H, W) as they form; the last is what `complete` returns for the same generator.

        Takes `labels` where `complete` does.
        """
        ...


@runtime_checkable
class InAnyOrder(Protocol):
    def log_prob_in_order(self, x: Tensor, order: Tensor) -> Tensor:
        """log p(x), (N,), in nats, of the density that draws the values in this order (D,), colours side by side.

        These densities need not agree with each other, nor with `log_prob`. Completions put the known pixels first:
        they are exact for any mask, but under the density of the order so made.
        """
        ...


@runtime_checkable
class PixelConditional(Protocol):
    def conditional(self, x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
        """log p(x_{c, row, column} = value | predecessors) for each colour and value (V,), (N, C, V).

        In nats; of `real` pixels the log-density.
        """
        ...


@runtime_checkable
class Filters(Protocol):
    def filters(self) -> Tensor:
        """The weights of each hidden unit as an image, (units, C, H, W)."""
        ...


@runtime_checkable
class Discriminates(Protocol):
    def critic(self, x: Tensor) -> Tensor:
        """How real x looks, as a logit or critic value, (N,): higher = more real."""
        ...


@runtime_checkable
class Classifies(Protocol):
    def class_log_prob(self, x: Tensor) -> Tensor:
        """log p(y | x) in nats for every class y, (N, K)."""
        ...


@runtime_checkable
class SurpriseMap(Protocol):
    def surprise_map(self, x: Tensor) -> Tensor:
        """How strange each pixel is, (N, 1, H, W), higher = stranger. For models without `log_prob_map`."""
        ...


CAPABILITIES: dict[str, type] = {
    protocol.__name__: protocol
    for protocol in (
        Samples, SamplesStepwise, ExactLikelihood, PixelLikelihood, LatentLikelihood, UnnormalisedBound, Energy,
        Anneals, Enumerates, RunsChains, HiddenLayers, Encodes, Decodes, Reconstructs, Completes, CompletesStepwise,
        InAnyOrder, PixelConditional, Filters, Discriminates, Classifies, SurpriseMap,
    )
}  # fmt: skip


def capabilities(model: nn.Module | type[nn.Module]) -> list[str]:
    """The names of the capabilities a model (or its class) has, decided by the methods written in its class."""
    kind = model if isinstance(model, type) else type(model)
    return [name for name, protocol in CAPABILITIES.items() if all(hasattr(kind, m) for m in _methods(protocol))]


def has(model: nn.Module | type[nn.Module], capability: type) -> bool:
    """Whether the model has a capability; by its class, so that a submodule's name never counts as a method."""
    return capability.__name__ in capabilities(model)


def _methods(protocol: type) -> list[str]:
    return [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]

"""The contract every model keeps. Read this first.

A model is an `nn.Module` that knows the shape of its images from birth. It says what it can do by *having the
method*: the capabilities below are protocols, and estimators, scorers and views ask `isinstance(model, Samples)`,
never for a name. How it learns is a list of phases, each with an update that knows how to learn from one batch.

Conventions, everywhere: images are float tensors (N, C, H, W) in [0, 1], binary ones exactly 0 or 1;
log-likelihoods are nats per image, shape (N,), summed over pixels; anomaly scores are higher for stranger images.
A density of `real` pixels is a density with respect to x on [0, 1]^D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

PIXEL_KINDS = ("binary", "levels", "real")


@dataclass
class Batch:
    """What an update learns from: images (N, C, H, W) and, where the data has them, integer labels (N,).

    `progress` is the share of the phase that was over before this batch, in [0, 1): schedules are functions of it, so
    that a resumed run finds them again.
    """

    images: Tensor
    labels: Tensor | None = None
    progress: float = 0.0

    def to(self, device: torch.device | str) -> Batch:
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(self.images.to(device, non_blocking=True), labels, self.progress)


class Update(Protocol):
    """One learning step from one batch. It owns its optimisers; its state makes a run resumable."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]: ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


@dataclass
class Phase:
    """A stretch of training: one update applied for a number of epochs."""

    name: str
    update: Update
    epochs: int


@dataclass(frozen=True)
class TrainingConfig:
    """What every model is trained with; a model's own arguments belong to its constructor."""

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"  # or "bfloat16": autocast of the forward pass
    threads: int | None = None  # None leaves torch's own choice


class GenerativeModel(nn.Module):
    """Base of every model: knows its image shape and which pixels it models.

    `pixels` is one of 'binary' (0 or 1), 'levels' (k / (levels - 1) for integers k) and 'real' ([0, 1]);
    `levels` is the number of values a pixel can take (2 for binary; for 'real', that of the data before dequantising,
    or None where it plays no part). `name`, `family` and `arguments` are set by the registry.
    """

    name: str
    family: str
    arguments: dict
    default_training = TrainingConfig()  # what the command line uses where the user says nothing
    pixel_kinds: tuple[str, ...] = ("binary",)  # the kinds it can be built for, the default first

    def __init__(self, data_shape: Sequence[int], pixels: str = "binary", levels: int | None = 2) -> None:
        super().__init__()
        if len(data_shape) != 3 or any(int(size) < 1 for size in data_shape):
            raise ValueError(f"data_shape must be (channels, height, width), all at least 1, got {tuple(data_shape)}")
        if pixels not in PIXEL_KINDS:
            raise ValueError(f"pixels must be one of {', '.join(PIXEL_KINDS)}, got {pixels!r}")
        if pixels == "levels" and not (levels and 2 <= levels <= 256):
            raise ValueError(f"levels must be between 2 and 256, got {levels}")
        self.data_shape = tuple(int(size) for size in data_shape)
        self.pixels = pixels
        self.levels = 2 if pixels == "binary" else levels

    @property
    def dimensions(self) -> int:
        """D = C * H * W."""
        channels, height, width = self.data_shape
        return channels * height * width

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        """Yield the phases of training. The default is one: Adam on `self.loss`.

        A generator, so that a later phase's optimiser is made only after the earlier phase has been trained.
        """
        from gdm_core.updates import GradientUpdate

        yield Phase("train", GradientUpdate(self, config), config.epochs)

    def check_images(self, x: Tensor) -> Tensor:
        """Return x, or raise ValueError naming what is wrong with it (shape, NaN, range, binary, levels)."""
        if x.dim() != 4 or tuple(x.shape[1:]) != self.data_shape:
            expected = ", ".join(map(str, self.data_shape))
            raise ValueError(f"images must have shape (N, {expected}), got {tuple(x.shape)}")
        if not torch.isfinite(x).all():
            raise ValueError("images contain NaN or infinite values")
        if x.numel() and (x.min() < 0 or x.max() > 1):
            raise ValueError(f"images must lie in [0, 1], got [{x.min():.4g}, {x.max():.4g}]")
        if self.pixels == "binary" and not ((x == 0) | (x == 1)).all():
            raise ValueError("this model takes binary images: every pixel must be exactly 0 or 1")
        if self.pixels == "levels" and x.numel():
            steps = x * (self.levels - 1)
            if (steps - steps.round()).abs().max() > 1e-3:
                raise ValueError(f"this model takes {self.levels} levels: every pixel must be k / {self.levels - 1}")
        return x


# --- capabilities: a model has one by having its methods ---------------------------------------------------------


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
    def anneal(self, n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """n annealed importance weights along `betas` (0 = ..., ..., 1): log w (n,) with E[w] = Z."""
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
        """Fill in the pixels where `known` (1 or N, 1, H, W; 0 or 1) is 0; known pixels come back unchanged."""
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
class SurpriseMap(Protocol):
    def surprise_map(self, x: Tensor) -> Tensor:
        """How strange each pixel is, (N, 1, H, W), higher = stranger. For models without `log_prob_map`."""
        ...


CAPABILITIES: dict[str, type] = {
    protocol.__name__: protocol
    for protocol in (
        Samples, SamplesStepwise, ExactLikelihood, PixelLikelihood, LatentLikelihood, Energy, Anneals, Enumerates,
        Encodes, Decodes, Reconstructs, Completes, Filters, Discriminates, SurpriseMap,
    )
}  # fmt: skip


def capabilities(model: GenerativeModel | type[GenerativeModel]) -> list[str]:
    """The names of the capabilities a model (or its class) has, decided by the methods written in its class."""
    kind = model if isinstance(model, type) else type(model)
    return [name for name, protocol in CAPABILITIES.items() if all(hasattr(kind, m) for m in _methods(protocol))]


def has(model: GenerativeModel | type[GenerativeModel], capability: type) -> bool:
    """Whether the model has a capability; by its class, so that a submodule's name never counts as a method."""
    return capability.__name__ in capabilities(model)


def _methods(protocol: type) -> list[str]:
    return [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]

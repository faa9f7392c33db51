"""The contract every model keeps. Read this first.

A model is an `nn.Module` that knows the shape of its images from birth. It says what it can do by *having the
method*: the capabilities of `capabilities.py`, imported from here, are protocols, and estimators, scorers and views
ask `has(model, Samples)`, never for a name. How it learns is a list of phases, each with an update that knows how to
learn from one batch.

Conventions, everywhere: images are float tensors (N, C, H, W) in [0, 1], binary ones exactly 0 or 1;
log-likelihoods are nats per image, shape (N,), summed over pixels; anomaly scores are higher for stranger images.
A density of `real` pixels is a density with respect to x on [0, 1]^D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gdm_core.capabilities import (
    CAPABILITIES,
    Anneals,
    Classifies,
    Completes,
    CompletesStepwise,
    Decodes,
    Discriminates,
    Encodes,
    Energy,
    Enumerates,
    ExactLikelihood,
    Filters,
    HiddenLayers,
    InAnyOrder,
    LatentLikelihood,
    PixelConditional,
    PixelLikelihood,
    Reconstructs,
    RunsChains,
    Samples,
    SamplesStepwise,
    SurpriseMap,
    UnnormalisedBound,
    capabilities,
    has,
)

__all__ = [
    "AUTOCASTS", "CAPABILITIES", "PIXEL_KINDS", "Anneals", "Batch", "Classifies", "Completes", "CompletesStepwise",
    "Decodes", "Discriminates", "DivergenceError", "Encodes", "Energy", "Enumerates", "ExactLikelihood", "Filters",
    "GenerativeModel", "HiddenLayers", "InAnyOrder", "LatentLikelihood", "Phase", "PixelConditional",
    "PixelLikelihood", "Reconstructs", "RunsChains", "Samples", "SamplesStepwise", "SurpriseMap", "TrainingConfig",
    "UnnormalisedBound", "Update", "capabilities", "has",
]  # fmt: skip

PIXEL_KINDS = ("binary", "levels", "real")
AUTOCASTS = {"float32": None, "bfloat16": torch.bfloat16}  # the precisions of training -> what autocast casts to


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
        labels = None if self.labels is None else _sent(self.labels, device)
        return Batch(_sent(self.images, device), labels, self.progress)


def _sent(x: Tensor, device: torch.device | str) -> Tensor:
    """x on the device. To a GPU by way of pinned memory: a copy from any other may wait until the GPU has caught up."""
    to_gpu = x.device.type == "cpu" and torch.device(device).type == "cuda"
    return (x.pin_memory() if to_gpu else x).to(device, non_blocking=True)


class DivergenceError(RuntimeError):
    """Learning has gone wrong: NaN or infinite numbers, or a sign that an update knows. Says what, and what to do."""


class Update(Protocol):
    """One learning step from one batch. It owns its optimisers; its state makes a run resumable.

    It may raise DivergenceError: whoever runs the loop decides whether to go back and try a smaller learning rate.
    """

    def __call__(self, batch: Batch) -> dict[str, Tensor]: ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


@dataclass
class Phase:
    """A stretch of training: one update applied for a number of epochs, and what is done after its last batch."""

    name: str
    update: Update
    epochs: int
    finish: Callable[[], None] | None = None


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

    def __post_init__(self) -> None:
        if self.precision not in AUTOCASTS:
            raise ValueError(f"precision must be one of {', '.join(AUTOCASTS)}, got {self.precision!r}")


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
        if pixels == "real" and levels is not None and not 2 <= levels <= 256:
            raise ValueError(f"levels of real pixels must be None or between 2 and 256, got {levels}")
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
        """Return x, or raise ValueError naming what is wrong with it (shape, type, NaN, range, binary, levels).

        Images and weights have one precision, except under autocast.
        """
        if x.dim() != 4 or tuple(x.shape[1:]) != self.data_shape:
            expected = ", ".join(map(str, self.data_shape))
            raise ValueError(f"images must have shape (N, {expected}), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"images must be floating point, got {x.dtype}")
        weights = next((weight.dtype for weight in self.parameters() if weight.is_floating_point()), x.dtype)
        if x.dtype != weights and not torch.is_autocast_enabled(x.device.type):  # which brings them together
            remedy = f"convert one of them, by images.to({weights}) or model.to({x.dtype})"
            raise ValueError(f"images are {x.dtype} and the model's weights are {weights}: {remedy}")
        if self.pixels == "binary" and not torch.addcmul(x, x, x, value=-1).count_nonzero():  # x - x^2, NaN counts
            return x  # nothing else can be wrong with them
        if not torch.isfinite(x).all():
            raise ValueError("images contain NaN or infinite values")
        if x.numel() and (x.min() < 0 or x.max() > 1):
            raise ValueError(f"images must lie in [0, 1], got [{x.min():.4g}, {x.max():.4g}]")
        if self.pixels == "binary":
            raise ValueError("this model takes binary images: every pixel must be exactly 0 or 1")
        if self.pixels == "levels" and x.numel():
            steps = x * (self.levels - 1)
            if (steps - steps.round()).abs().max() > 1e-3:
                raise ValueError(f"this model takes {self.levels} levels: every pixel must be k / {self.levels - 1}")
        return x

"""What a caller may ask of `sample` and `complete`, checked in one place, and the noise drawn for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel

COLDEST = 1e-6  # the likeliest value is drawn long before; at 1e-40 logits that are divided by it are infinite


def draw_uniforms(
    model: GenerativeModel, n: int, labels: Tensor | None, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """All the randomness of n images of a model without labels, one uniform per value: (n, C, H, W) on its device.

    Drawn up front where the generator lives, so that a seed gives the same images on every device.
    Raises ValueError for n < 1, for labels and for a temperature below COLDEST.
    """
    check_count_and_labels(model, n, labels)
    if not (temperature >= COLDEST and math.isfinite(temperature)):
        raise ValueError(f"temperature must be at least {COLDEST} and finite, got {temperature}")
    dtype = next(model.parameters()).dtype
    home = "cpu" if generator is None else generator.device
    return torch.rand(n, *model.data_shape, generator=generator, dtype=dtype, device=home).to(model.device)


def check_count_and_labels(model: GenerativeModel, n: int, labels: Tensor | None) -> None:
    """Raise ValueError for n < 1, and for labels: this is for models without."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if labels is not None:
        raise ValueError(f"labels: {model.name} does not model labels, leave them out")


def check_labels(labels: Tensor, n: int, classes: int) -> Tensor:
    """The labels (n,) as long integers, or ValueError for another shape, other types and values outside the classes."""
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be a tensor of integers ({n},), got a {type(labels).__name__}")
    if tuple(labels.shape) != (n,):
        raise ValueError(f"labels must have shape ({n},), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if n and not 0 <= labels.min() <= labels.max() < classes:
        found = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"labels must lie in 0 to {classes - 1}, as classes={classes}; got {found}")
    return labels.long()


def check_completion(model: GenerativeModel, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """(x with unknown pixels 0, known as booleans (N, 1, H, W)); what x holds where it is not known plays no part.

    Raises ValueError naming `known` for a wrong shape or values that are not 0 or 1, and for bad images.
    """
    _, height, width = model.data_shape
    if known.dim() != 4 or tuple(known.shape[1:]) != (1, height, width) or known.shape[0] not in (1, x.shape[0]):
        shape = f"(1 or {x.shape[0]}, 1, {height}, {width})"
        raise ValueError(f"known must have shape {shape}, got {tuple(known.shape)}")
    if not ((known == 0) | (known == 1)).all():
        raise ValueError("known must hold only 0 (fill in) and 1 (keep)")
    if tuple(x.shape[1:]) != model.data_shape:
        model.check_images(x)  # raises, saying which shape it takes
    mask = known.bool().expand(x.shape[0], -1, -1, -1)
    return model.check_images(torch.where(mask, x, torch.zeros_like(x))), mask


def known_pixels_come_first(known: Tensor) -> bool:
    """Whether in every mask (N, 1, H, W) the known pixels are a prefix of the raster order."""
    flat = known.flatten(1).bool()
    return bool((flat[:, :-1] | ~flat[:, 1:]).all())


def check_conditional(model: GenerativeModel, row: int, column: int, values: Tensor) -> None:
    """Raise ValueError for a pixel outside the image, and for values (V,) that no pixel of the model has."""
    _, height, width = model.data_shape
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"row and column must lie in {height} x {width} pixels, got {row} and {column}")
    if values.dim() != 1:
        raise ValueError(f"values must have shape (V,), got {tuple(values.shape)}")
    if not ((values >= 0) & (values <= 1)).all():  # NaN is neither
        raise ValueError(f"values must lie in [0, 1], got {values.tolist()}")
    if model.pixels == "real":
        return
    steps = values * (model.levels - 1)
    if ((steps - steps.round()).abs() > 1e-3).any():
        raise ValueError(f"values must be k / {model.levels - 1} for {model.levels} levels, got {values.tolist()}")

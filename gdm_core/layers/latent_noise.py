"""Normal noise for models with a normal prior over their codes, and what a caller may ask of their `sample`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel
from gdm_core.layers.sampling_arguments import check_count_and_labels


def draw_normals(model: GenerativeModel, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Standard normal noise with the model's type, on its device.

    Drawn where the generator lives (the processor where there is none), so that a seed gives the same codes on every
    device.
    """
    home = "cpu" if generator is None else generator.device
    dtype = next(model.parameters()).dtype
    return torch.randn(tuple(shape), generator=generator, dtype=dtype, device=home).to(model.device)


def check_latent_sampling(model: GenerativeModel, n: int, labels: Tensor | None, temperature: float) -> None:
    """Raise ValueError for n < 1, for labels and for a negative temperature; 0 is the image of the prior's mean."""
    check_count_and_labels(model, n, labels)
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be at least 0 and finite, got {temperature}")

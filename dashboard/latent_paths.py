"""Ways through models' latent spaces: their ends, and the images along them. No web in here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dashboard.loading import LoadedModel
from gdm_core.interpolation import linear, positions, spherical, walk
from gdm_core.randomness import seeded_generator

WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"spherical": spherical, "linear": linear}
WALK_CODES = 6  # three waves: a walk with some variety, still smooth


def between_images(loaded: LoadedModel, ends: Sequence[Tensor], way: str, steps: int) -> Tensor:
    """Images (steps, C, H, W) between two stored images (C, H, W), through their codes."""
    with loaded.lock, torch.inference_mode():
        codes = loaded.model.encode(loaded.stored.treatment(torch.stack(list(ends))))
        return _decode(loaded, WAYS[way](codes[0], codes[1], positions(steps)))


def between_points(loaded: LoadedModel, seed: int, way: str, steps: int) -> Tensor:
    """Images (steps, C, H, W) between two draws from the prior; a seed gives the same ones every time."""
    with loaded.lock, torch.inference_mode():
        codes = loaded.model.sample_latent(2, seeded_generator(seed, "ends"))
        return _decode(loaded, WAYS[way](codes[0], codes[1], positions(steps)))


def random_walk(loaded: LoadedModel, seed: int, frames: int) -> Tensor:
    """Images (frames, C, H, W) of a smooth closed walk through the prior."""
    with loaded.lock, torch.inference_mode():
        codes = loaded.model.sample_latent(WALK_CODES, seeded_generator(seed, "walk"))
        return _decode(loaded, walk(codes, frames))


def seen(loaded: LoadedModel, stored: Tensor) -> Tensor:
    """A stored image (C, H, W) as the model sees it."""
    return loaded.stored.treatment(stored.unsqueeze(0))[0]


def _decode(loaded: LoadedModel, codes: Tensor) -> Tensor:
    return loaded.model.decode(codes).float().cpu()

"""How strange is each pixel: the raw map of an image, by what the model can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gdm_core.anomaly.gradient import gain_of_inverting
from gdm_core.anomaly.one_by_one import one_by_one
from gdm_core.contract import (
    Energy,
    GenerativeModel,
    PixelLikelihood,
    Reconstructs,
    SurpriseMap,
    UnnormalisedBound,
    has,
)
from gdm_core.energies import name_energy


@dataclass(frozen=True)
class MapMethod:
    """A way to a per-pixel surprise: called with (model, x) it gives (N, H, W), higher = stranger.

    It applies to a model that has any of the capabilities in `needs`; `word` is short for `label`.
    """

    name: str
    word: str
    label: str
    description: str
    needs: tuple[type, ...]
    measure: Callable[[GenerativeModel, Tensor], Tensor]

    def __call__(self, model: GenerativeModel, x: Tensor) -> Tensor:
        return self.measure(model, x)

    def label_for(self, model: GenerativeModel | type[GenerativeModel]) -> str:
        """The label, as the energy of this model is called."""
        return name_energy(self.label, model)

    def description_for(self, model: GenerativeModel | type[GenerativeModel]) -> str:
        """The description, as the energy of this model is called."""
        return name_energy(self.description, model)


def pixel_surprise(model: PixelLikelihood, x: Tensor) -> Tensor:
    """-log p(x_i | predecessors) in nats, (N, H, W); sums to -log p(x)."""
    return -model.log_prob_map(x)[:, 0]


def model_surprise(model: SurpriseMap, x: Tensor) -> Tensor:
    """The model's own map, (N, H, W)."""
    return model.surprise_map(x)[:, 0]


def reconstruction_error(model: Reconstructs, x: Tensor) -> Tensor:
    """What the way through the model loses at each pixel, summed over channels, (N, H, W).

    Binary pixels: the cross-entropy -x log r - (1 - x) log(1 - r) in nats, with the reconstruction r kept in
    [1e-6, 1 - 1e-6] (a saturated sigmoid is 0 or 1 exactly); other pixels: (x - r)^2.
    """
    r = model.reconstruct(x)
    if model.pixels == "binary":
        r = r.clamp(1e-6, 1 - 1e-6)
        return -torch.where(x > 0.5, r, 1 - r).log().sum(1)
    return (x - r).square().sum(1)


SURPRISES = (  # of these a model has the first that it can make
    MapMethod(
        "pixel_surprise", "surprise", "surprise of each pixel",
        "-log p(pixel | the pixels before it), in nats; a pixel can only be surprising given what came before it.",
        (PixelLikelihood,), pixel_surprise,
    ),
    MapMethod(
        "model_surprise", "surprise", "surprise of each pixel",
        "The model's own surprise of each pixel, given all the others.", (SurpriseMap,), model_surprise,
    ),
    MapMethod(
        "reconstruction_error", "reconstruction error", "reconstruction error of each pixel",
        "How badly each pixel is given back: cross-entropy in nats for binary pixels, squared error for others.",
        (Reconstructs,), reconstruction_error,
    ),
)  # fmt: skip
GRADIENT = MapMethod(
    "gradient", "gradient", "gradient of the energy",
    "How far the energy would fall if this pixel alone were inverted, judged by its slope at the image, in nats.",
    (Energy, UnnormalisedBound), gain_of_inverting,
)  # fmt: skip


def maps_for(model: GenerativeModel | type[GenerativeModel]) -> list[MapMethod]:
    """The heat maps a model has: the first of SURPRISES that it can make, and the gradient of its energy."""
    able = [method for method in (*SURPRISES, GRADIENT) if any(has(model, one) for one in method.needs)]
    return [method for place, method in enumerate(able) if place == 0 or method is GRADIENT]


def map_for(model: GenerativeModel | type[GenerativeModel]) -> MapMethod | None:
    """The map a model shows unasked, None where it has none."""
    return next(iter(maps_for(model)), None)


def map_images(model: GenerativeModel, x: Tensor, method: MapMethod | None = None) -> Tensor:
    """Raw maps (N, H, W) float64 on the CPU, each image by itself, by the first of `maps_for` where no method is
    given. ValueError where the model has none.
    """
    method = map_for(model) if method is None else method
    if method is None:
        needed = ", ".join(capability.__name__ for one in (*SURPRISES, GRADIENT) for capability in one.needs)
        raise ValueError(f"{type(model).__name__} has no per-pixel map: it needs one of {needed}")
    if not len(x):
        return torch.empty(0, *model.data_shape[1:], dtype=torch.float64)
    return one_by_one(model, x, method)

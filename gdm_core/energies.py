"""The energy of a model, or the bound on it that stands for it where hidden units cannot be summed out.

    F(x) = -log p(x) - log Z <= -E_q[log p*(x, h) - log q(h | x)],      in nats, log Z being the same for all images

What is bounded is the free energy. Where the bound is a mean over guesses of the hidden units, these are made with one
noise for all images at all times, so that an image's number never changes and two images differ by what they are.
"""

from __future__ import annotations

from torch import Tensor

from gdm_core.contract import Energy, GenerativeModel, HiddenLayers, UnnormalisedBound, has
from gdm_core.randomness import seeded_generator

GUESSES = 64  # of the hidden units where the bound is a mean over them
FEW_GUESSES = 8  # for means over many images, to which the images add more noise than the guesses


def has_energy(model: GenerativeModel | type[GenerativeModel]) -> bool:
    """Whether there is an energy or a bound on it."""
    return has(model, Energy) or has(model, UnnormalisedBound)


def energy_or_bound(model: Energy | UnnormalisedBound, x: Tensor, guesses: int | None = None) -> Tensor:
    """The energy of images x (N, C, H, W) where the model has one, else minus its unnormalised bound, (N,) in nats.

    Where the bound is a mean over guesses, it is over GUESSES of them unless told.
    """
    if has(model, Energy):
        return model.energy(x)
    noise = seeded_generator(0, "anomaly", "gradient")  # what the heat maps of registered models are calibrated with
    return -model.unnormalised_bound(x, GUESSES if guesses is None else guesses, noise)


def what_is_low(model: GenerativeModel | type[GenerativeModel]) -> str:
    """What `energy_or_bound` gives, in a word or a few."""
    return "energy" if has(model, Energy) else name_energy("energy", model)


def name_energy(label: str, model: GenerativeModel | type[GenerativeModel]) -> str:
    """A label that speaks of an energy, as it is called of this model: free where hidden units are summed out."""
    if not has(model, Energy):
        return label.replace("energy", "bound on the free energy")
    return label.replace("energy", "free energy") if has(model, HiddenLayers) else label

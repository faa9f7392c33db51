"""What each capability means to a reader, and the page that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ability:
    """One capability in plain words; `page` is the name of the page that shows it, if one does."""

    words: str
    page: str | None = None


ABILITIES = {
    "Samples": Ability("draws new images", "samples"),
    "SamplesStepwise": Ability("shows images as they form", "samples"),
    "ExactLikelihood": Ability("gives the exact log-likelihood of an image", "compare"),
    "LatentLikelihood": Ability("gives a lower bound of the log-likelihood", "compare"),
    "UnnormalisedBound": Ability("gives a lower bound of the log-likelihood, up to an estimated normaliser", "compare"),
    "Energy": Ability("gives an image an energy: low for images like its own", "anomalies"),
    "Anneals": Ability("has its normaliser log Z estimated by annealing", "compare"),
    "Enumerates": Ability("has an exact normaliser log Z where it is small", "compare"),
    "RunsChains": Ability("wanders from image to image by a Markov chain", "chains"),
    "HiddenLayers": Ability("says which of its hidden units an image switches on"),
    "PixelLikelihood": Ability("says how likely each single pixel is: the sharpest heat map", "anomalies"),
    "SurpriseMap": Ability("says which pixels are strange: a heat map", "anomalies"),
    "Decodes": Ability("makes an image of a point in its latent space", "interpolate"),
    "Encodes": Ability("finds the point in its latent space of an image"),
    "Reconstructs": Ability("rebuilds an image from what it understood of it", "anomalies"),
    "Discriminates": Ability("judges whether an image looks real", "anomalies"),
    "Classifies": Ability("says which class an image belongs to", "classes"),
    "Completes": Ability("fills in missing pixels", "completion"),
    "CompletesStepwise": Ability("shows them being filled in", "completion"),
    "InAnyOrder": Ability("takes the pixels in any order, and so fills in any mask in one of them", "completion"),
    "PixelConditional": Ability("says what it expects of a pixel, given those before it", "surprise"),
    "Filters": Ability("has hidden units that can be looked at as images", "filters"),
}


def abilities_of(capabilities: Sequence[str]) -> list[Ability]:
    """What a model with these capabilities can do, in the order of ABILITIES; an unknown one under its own name."""
    known = [ability for name, ability in ABILITIES.items() if name in capabilities]
    return known + [Ability(name) for name in capabilities if name not in ABILITIES]

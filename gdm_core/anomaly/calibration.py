"""What a model's scores and maps are on held-out normal images: the yardstick of p-values and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gdm_core.anomaly.map_scale import MapScale, fit_map_scale
from gdm_core.anomaly.maps import map_for, map_images
from gdm_core.anomaly.scorers import Scorer, score_images, scorers_for
from gdm_core.contract import GenerativeModel

SCORE_PREFIX = "score."


@dataclass(frozen=True)
class Calibration:
    """Scores {scorer name: (n,) float64}, the scale of the maps where the model has maps, the mean image (C, H, W)."""

    mean_image: Tensor
    scores: dict[str, Tensor] = field(default_factory=dict)
    map_scale: MapScale | None = None

    @property
    def count(self) -> int:
        """n, the number of calibration images; 0 where no scorer applies."""
        return min((len(values) for values in self.scores.values()), default=0)

    def scores_of(self, scorer: str) -> Tensor:
        """The calibration scores of one scorer, or ValueError naming the calibrated ones."""
        if scorer not in self.scores:
            known = ", ".join(sorted(self.scores)) or "none"
            raise ValueError(f"not calibrated for scorer {scorer!r}; calibrated are {known}")
        return self.scores[scorer]

    def to_tensors(self) -> dict[str, Tensor]:
        """A flat dictionary, to be stored with the model."""
        tensors = {"mean_image": self.mean_image}
        tensors |= {SCORE_PREFIX + name: values for name, values in self.scores.items()}
        if self.map_scale is not None:
            tensors |= {"map.begin": self.map_scale.begin, "map.threshold": self.map_scale.threshold}
        return tensors

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Calibration:
        """The opposite of `to_tensors`; ValueError where something is missing or unknown."""
        scores = {name.removeprefix(SCORE_PREFIX): t for name, t in tensors.items() if name.startswith(SCORE_PREFIX)}
        maps = {name for name in tensors if name.startswith("map.")}
        others = set(tensors) - maps - {SCORE_PREFIX + name for name in scores}
        if others != {"mean_image"} or maps not in (set(), {"map.begin", "map.threshold"}):
            raise ValueError(f"these are not the tensors of a calibration: {', '.join(sorted(tensors)) or 'none'}")
        scale = MapScale(tensors["map.begin"], tensors["map.threshold"]) if maps else None
        return Calibration(tensors["mean_image"], scores, scale)


def calibrate(model: GenerativeModel, x: Tensor, scorers: Sequence[Scorer] | None = None) -> Calibration:
    """Score and map the calibration images x (n, C, H, W), which no other decision may have used.

    `scorers` are those that apply, where not given. Raises ValueError where there are no images or a normal image's
    score is NaN or infinite.
    """
    if not len(x):
        raise ValueError("there are no calibration images")
    scorers = scorers_for(model) if scorers is None else scorers
    scores = {entry.name: score_images(model, entry, x) for entry in scorers}
    bad = [name for name, values in scores.items() if not torch.isfinite(values).all()]
    if bad:
        raise ValueError(f"scores of normal images are NaN or infinite: {', '.join(bad)}; train the model again")
    scale = fit_map_scale(map_images(model, x)) if map_for(model) else None
    return Calibration(x.mean(0).detach().cpu(), scores, scale)

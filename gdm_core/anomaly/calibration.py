"""What a model's scores and maps are on held-out normal images: the yardstick of p-values and heat maps.

Each heat map has a scale of its own. Stored, the first one's tensors are named map.begin and map.threshold, those of a
further one map.NAME.begin and map.NAME.threshold, which calibrations of before there were several lack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gdm_core.anomaly.map_scale import MapScale, fit_map_scale
from gdm_core.anomaly.maps import MapMethod, map_images, maps_for
from gdm_core.anomaly.one_by_one import one_by_one
from gdm_core.anomaly.scorers import Scorer, score_images, scorers_for
from gdm_core.contract import GenerativeModel

SCORE_PREFIX, MAP_PREFIX = "score.", "map."
MAP_PARTS = ("begin", "threshold")


@dataclass(frozen=True)
class Calibration:
    """Scores {scorer name: (n,) float64}, the scale of the model's first map where it has one, the mean image
    (C, H, W), and the scales of its further maps {map name: scale}."""

    mean_image: Tensor
    scores: dict[str, Tensor] = field(default_factory=dict)
    map_scale: MapScale | None = None
    further_scales: dict[str, MapScale] = field(default_factory=dict)

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

    def scaled_maps(self, model: GenerativeModel | type[GenerativeModel]) -> dict[MapMethod, MapScale]:
        """The maps of the model that were calibrated with it, the first one first, each with its scale."""
        first, *further = maps_for(model) or [None]
        scales = {first: self.map_scale} if first and self.map_scale is not None else {}
        return scales | {m: self.further_scales[m.name] for m in further if m.name in self.further_scales}

    def to_tensors(self) -> dict[str, Tensor]:
        """A flat dictionary, to be stored with the model."""
        tensors = {"mean_image": self.mean_image}
        tensors |= {SCORE_PREFIX + name: values for name, values in self.scores.items()}
        scales = {} if self.map_scale is None else {MAP_PREFIX: self.map_scale}
        scales |= {f"{MAP_PREFIX}{name}.": scale for name, scale in self.further_scales.items()}
        tensors |= {prefix + part: getattr(scale, part) for prefix, scale in scales.items() for part in MAP_PARTS}
        return tensors

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Calibration:
        """The opposite of `to_tensors`; ValueError where something is missing or unknown."""
        scores = {name.removeprefix(SCORE_PREFIX): t for name, t in tensors.items() if name.startswith(SCORE_PREFIX)}
        maps = {name for name in tensors if name.startswith(MAP_PREFIX)}
        prefixes = {name[: name.rindex(".") + 1] for name in maps}
        others = set(tensors) - maps - {SCORE_PREFIX + name for name in scores}
        whole = maps == {prefix + part for prefix in prefixes for part in MAP_PARTS}
        if others != {"mean_image"} or not whole or (prefixes and MAP_PREFIX not in prefixes):
            raise ValueError(f"these are not the tensors of a calibration: {', '.join(sorted(tensors)) or 'none'}")
        further = {
            prefix[len(MAP_PREFIX) : -1]: MapScale(*(tensors[prefix + part] for part in MAP_PARTS))
            for prefix in sorted(prefixes)
        }
        return Calibration(tensors["mean_image"], scores, further.pop("", None), further)


def calibrate(model: GenerativeModel, x: Tensor, scorers: Sequence[Scorer] | None = None) -> Calibration:
    """Score and map the calibration images x (n, C, H, W), which no other decision may have used.

    `scorers` are those that apply, where not given. Raises ValueError where there are no images or a normal image's
    score is NaN or infinite.
    """
    if not len(x):
        raise ValueError("there are no calibration images")
    scorers = scorers_for(model) if scorers is None else scorers
    methods = maps_for(model)
    maps, of_map = _map_once(model, x, methods[0], scorers) if methods else (None, {})
    scores = {one.name: of_map[one.name] if one.name in of_map else score_images(model, one, x) for one in scorers}
    bad = [name for name, values in scores.items() if not torch.isfinite(values).all()]
    if bad:
        raise ValueError(f"scores of normal images are NaN or infinite: {', '.join(bad)}; train the model again")
    scale = None if maps is None else fit_map_scale(maps)
    further = {method.name: fit_map_scale(map_images(model, x, method)) for method in methods[1:]}
    return Calibration(x.mean(0).detach().cpu(), scores, scale, further)


def _map_once(
    model: GenerativeModel, x: Tensor, method: MapMethod, scorers: Sequence[Scorer]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The raw maps (n, H, W) and the scores that are made of them, bit for bit those of `score_images`."""
    applying = [entry for entry in scorers_for(model) if entry.of_map and entry in scorers]

    def measure(model: GenerativeModel, x: Tensor) -> Tensor:
        surprise = method(model, x)
        return torch.cat([surprise.flatten(1), *(entry.measure(surprise)[:, None] for entry in applying)], 1)

    _, height, width = model.data_shape
    maps, *scores = one_by_one(model, x, measure).split([height * width, *(1 for _ in applying)], 1)
    return maps.view(-1, height, width), {e.name: s[:, 0].contiguous() for e, s in zip(applying, scores, strict=True)}

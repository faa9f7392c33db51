"""From uploaded files to scores, p-values, verdicts and heat maps, for several models at once. No web in here.

Files -> `Picture` (as stored by each image format that the chosen models need) -> what a model sees -> scores. Nothing
depends on what else was uploaded, but the Benjamini-Hochberg verdict, which is about all uploads together.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from dashboard import images
from gdm_core.anomaly import (
    Calibration,
    MapMethod,
    MapScale,
    Scorer,
    benjamini_hochberg,
    light,
    map_images,
    normalise_map,
    p_values,
    score_images,
    scorers_for,
    smallest_p,
    verdicts,
)
from gdm_core.data.intake import polarity_looks_inverted, read_uploads, to_stored
from gdm_core.data.pictures import to_picture
from gdm_core.storage import StoredModel

USUAL_RATE = 0.01
AS_GIVEN, IF_SUSPECT, ALL = "as they are", "invert those that look inverted", "invert all"
POLARITIES = (AS_GIVEN, IF_SUSPECT, ALL)
FORMER_SCORES = {"free energy": "energy"}  # what a score was called of every model, in links of that time
CHUNK = 4  # images between two reports of progress

Format = tuple[tuple[int, int, int], int]  # image shape (C, H, W) and stored levels


@dataclass(frozen=True)
class Picture:
    """An image of the user's: a small one to look at, and its stored levels in each format asked for."""

    name: str
    thumbnail: Image.Image
    stored: dict[Format, Tensor]  # uint8 (C, H, W)
    size: tuple[int, int]  # of the original


@dataclass(frozen=True, eq=False)
class Subject:
    """A registered model as the page uses it. `calibration` is None where the model was stored without one."""

    label: str
    uri: str
    stored: StoredModel
    calibration: Calibration | None
    lock: contextlib.AbstractContextManager

    @property
    def format(self) -> Format:
        return tuple(self.stored.card.data_shape), self.stored.treatment.stored_levels

    @property
    def scorers(self) -> list[Scorer]:
        """The scorers that apply and were calibrated; the first one is the model's main score."""
        known = self.calibration.scores if self.calibration else {}
        return [entry for entry in scorers_for(self.stored.model) if entry.name in known]

    @property
    def maps(self) -> dict[MapMethod, MapScale]:
        """The heat maps that apply and were calibrated, each with its scale; the first one is shown unasked."""
        return self.calibration.scaled_maps(self.stored.model) if self.calibration else {}

    def heat_map(self, word: str | None = None) -> MapMethod | None:
        """The heat map of this word, else the one shown unasked; None where it has none."""
        return next((method for method in self.maps if method.word == word), next(iter(self.maps), None))

    def chosen_scorers(self, names: Sequence[str]) -> list[Scorer]:
        """Those of these names that it has, else its main score."""
        return [entry for entry in self.scorers if entry.name in names] or self.scorers[:1]


@dataclass(frozen=True, eq=False)
class Sight:
    """What a model sees of N pictures: images (N, C, H, W) in [0, 1], which look inverted, which were inverted."""

    x: Tensor
    suspect: tuple[bool, ...]
    inverted: tuple[bool, ...]
    digests: tuple[str, ...]

    def take(self, rows: Sequence[int]) -> Sight:
        """The sight of some of the pictures."""
        parts = (tuple(values[row] for row in rows) for values in (self.suspect, self.inverted, self.digests))
        return Sight(self.x[list(rows)], *parts)


def subject(label: str, uri: str, stored: StoredModel, lock: contextlib.AbstractContextManager) -> Subject:
    """A model with its calibration read from its tensors. Raises ValueError where they are no calibration."""
    calibration = Calibration.from_tensors(stored.calibration) if stored.calibration else None
    return Subject(label, uri, stored, calibration, lock)


def read_pictures(files: Sequence[tuple[str, bytes]], formats: Sequence[Format]) -> tuple[list[Picture], list[str]]:
    """Uploaded files (name, bytes), zips unpacked, as pictures; what cannot be used is one sentence each."""

    def keep(picture: Image.Image) -> tuple[Image.Image, dict[Format, Tensor], tuple[int, int]]:
        return images.thumbnail(picture), {form: to_stored(picture, *form) for form in formats}, picture.size

    kept, problems = read_uploads(files, keep)
    return [Picture(name, *parts) for name, parts in kept], problems


def example_pictures(stored: Tensor, levels: int, name: str, formats: Sequence[Format]) -> list[Picture]:
    """Stored images (N, C, H, W) of a data set as if somebody had uploaded them, without a loss in their own format."""
    pictures = [to_picture(image.double() / (levels - 1)) for image in stored]
    return [
        Picture(f"{name} {i}", images.thumbnail(p), {form: to_stored(p, *form) for form in formats}, p.size)
        for i, p in enumerate(pictures, 1)
    ]


def sight(model: Subject, pictures: Sequence[Picture], polarity: str = AS_GIVEN) -> Sight:
    """What the model sees of the pictures: brought to its size when they were read, inverted where asked, treated."""
    shape, levels = model.format
    stored = [picture.stored[model.format] for picture in pictures]
    suspect = [looks_inverted(model, image) for image in stored]
    inverted = [polarity == ALL or (polarity == IF_SUSPECT and odd) for odd in suspect]
    turned = [levels - 1 - image if flip else image for image, flip in zip(stored, inverted, strict=True)]
    batch = torch.stack(turned) if turned else torch.zeros(0, *shape, dtype=torch.uint8)
    digests = tuple(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in batch)
    return Sight(model.stored.treatment(batch), tuple(suspect), tuple(inverted), digests)


def looks_inverted(model: Subject, stored: Tensor) -> bool:
    """Whether dark and bright look exchanged, against the mean of the model's calibration images."""
    if model.calibration is None:
        return False
    return polarity_looks_inverted(stored, model.calibration.mean_image, model.format[1])


class ScoreBook:
    """Scores and brightness maps that were computed already, by model, measure and image; one browser session's own."""

    def __init__(self, limit: int = 20_000) -> None:
        self._limit = limit
        self._known: OrderedDict[tuple[str, str, str], Tensor] = OrderedDict()
        self._writing = threading.Lock()  # a job that was replaced may still be finishing its last image

    def scores(
        self, model: Subject, scorer: Scorer, seen: Sight, report: Callable[[int], None] = lambda count: None
    ) -> Tensor:
        """Scores (N,) float64; only images not met before are run through the model. `report` gets their number."""
        return self._look_up(model, scorer.name, seen, lambda x: score_images(model.stored.model, scorer, x), report)

    def brightness(self, model: Subject, seen: Sight, word: str | None = None) -> Tensor | None:
        """Heat maps (N, H, W) in [0, 1], 0 where not lit, of `model.heat_map(word)`; None where it has none."""
        method = model.heat_map(word)
        if method is None or not len(seen.x):
            return None

        def measure(x: Tensor) -> Tensor:
            return light(normalise_map(map_images(model.stored.model, x, method), model.maps[method]))

        return self._look_up(model, f"map {method.name}", seen, measure, lambda count: None)

    def _look_up(
        self, model: Subject, what: str, seen: Sight, measure: Callable[[Tensor], Tensor], report: Callable[[int], None]
    ) -> Tensor:
        keys = [(model.uri, what, digest) for digest in seen.digests]
        with self._writing:
            found = {key: self._known[key] for key in keys if key in self._known}
        missing = [i for i, key in enumerate(keys) if key not in found]
        report(len(keys) - len(missing))
        for start in range(0, len(missing), CHUNK):
            rows = missing[start : start + CHUNK]
            with model.lock:
                values = measure(seen.x[rows])
            found |= {keys[row]: value for row, value in zip(rows, values, strict=True)}
            report(len(rows))
        self._remember(found)
        return torch.stack([found[key] for key in keys]) if keys else torch.zeros(0, dtype=torch.float64)

    def _remember(self, found: dict[tuple[str, str, str], Tensor]) -> None:
        with self._writing:
            self._known |= found
            while len(self._known) > self._limit:
                self._known.popitem(last=False)


@dataclass(frozen=True, eq=False)
class Judged:
    """N pictures judged by one model and one scorer at one rate."""

    model: Subject
    scorer: Scorer
    scores: Tensor
    p: Tensor
    flagged: Tensor  # bool
    calibration_scores: Tensor

    @property
    def score(self) -> str:
        """What the score is called, of this model."""
        return self.scorer.label_for(self.model.stored.model)

    @property
    def label(self) -> str:
        return f"{self.model.label} · {self.score}"

    @property
    def column(self) -> str:
        """The same, short enough for the head of a column."""
        return f"{self.model.label} · {self.scorer.name}"


def judge(model: Subject, scorer: Scorer, scores: Tensor, rate: float, false_discovery: bool = False) -> Judged:
    """p-values and verdicts: flagged if p <= rate, or by Benjamini and Hochberg's procedure over all the scores."""
    reference = model.calibration.scores_of(scorer.name)
    p = p_values(scores, reference)
    flagged = (benjamini_hochberg if false_discovery else verdicts)(p, rate)
    return Judged(model, scorer, scores, p, flagged, reference)


def usual_rate(models: Sequence[Subject]) -> float:
    """1 %, or the smallest rate at which every model can flag anything."""
    counts = [model.calibration.count for model in models if model.calibration and model.calibration.count]
    return max([USUAL_RATE, *(smallest_p(count) for count in counts)])


def cut(calibration_scores: Tensor, rate: float) -> float | None:
    """The score above which an image is flagged: the k-th largest of n, k = floor(rate (n + 1)); None for k = 0."""
    count = len(calibration_scores)
    k = int(rate * (count + 1) + 1e-9)
    return None if k < 1 else float(calibration_scores.double().sort(descending=True).values[min(k, count) - 1])

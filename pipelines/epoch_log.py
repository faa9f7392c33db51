"""What a run logs at the end of each epoch: losses, validation likelihood, speed, and a sample grid now and then."""

from __future__ import annotations

import time
from typing import Any

import torch

from gdm_core.contract import ExactLikelihood, GenerativeModel, LatentLikelihood, Samples, TrainingConfig, has
from gdm_core.data import ImageDataset, Treatment, evaluation_images, grid
from gdm_core.data.pictures import is_signal
from gdm_core.likelihoods import Likelihood, likelihood
from gdm_core.randomness import seeded_generator
from gdm_core.training import Progress
from pipelines.selection import Selection
from pipelines.tracker import Tracker

GRIDS = 12  # sample grids a run, about
GRID_IMAGES = 32
VALIDATION_IMAGES = 1000  # in the likelihood of an epoch
QUICK = {"k": 50, "temperatures": 300, "chains": 50}  # estimators' settings within training


class EpochLog:
    """Called at the end of every epoch. Keeps the seconds of training apart from those of evaluating."""

    def __init__(
        self, model: GenerativeModel, dataset: ImageDataset, treatment: Treatment, config: TrainingConfig,
        tracker: Tracker, selection: Selection, state: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.tracker, self.selection, self.seed = model, tracker, selection, config.seed
        self.validation = evaluation_images(dataset.splits["validation"], treatment)[:VALIDATION_IMAGES]
        self.count = state["count"] if state else 0  # epochs over all phases
        self.training_seconds = state["seconds"] if state else 0.0
        self.picture_scale = max(1, 56 // max(dataset.data_shape[1:]))
        self._resumed = time.perf_counter()

    def epoch(self, progress: Progress) -> None:
        """Log an epoch that has just ended."""
        seconds = self._lap()
        self.count += 1
        showing = self._is_showing(progress)
        metrics = {f"train/{name}": value for name, value in progress.metrics.items()}
        metrics["images_per_second"] = progress.images / max(seconds, 1e-9)
        if showing or has(self.model, ExactLikelihood) or has(self.model, LatentLikelihood):
            metrics |= self._validate()
        self.tracker.log_metrics(metrics, self.count)
        if showing and has(self.model, Samples):
            self.tracker.log_image("samples", self._grid(), self.count)
        self._resumed = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        now = time.perf_counter()
        return {"count": self.count, "seconds": self.training_seconds + now - self._resumed}

    def _lap(self) -> float:
        seconds = time.perf_counter() - self._resumed
        self.training_seconds += seconds
        return seconds

    def _is_showing(self, progress: Progress) -> bool:
        """The first epoch, the last, and some between."""
        every = max(1, progress.epochs // GRIDS)
        return self.count == 1 or progress.epoch + 1 == progress.epochs or (progress.epoch + 1) % every == 0

    def _validate(self) -> dict[str, float]:
        record: Likelihood = likelihood(self.model, self.validation, **QUICK)
        self.selection.offer(self.model, record)
        return {} if record.kind == "none" else {"validation/log_likelihood": record.mean}

    @torch.no_grad()
    def _grid(self) -> Any:
        """Samples from the same noise at every epoch, so that epochs can be compared."""
        self.model.eval()
        images = self.model.sample(GRID_IMAGES, generator=seeded_generator(self.seed, "sample grid"))
        return grid(images, columns=2 if is_signal(images) else 8, scale=self.picture_scale)

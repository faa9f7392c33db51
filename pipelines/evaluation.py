"""Final evaluation: the numbers of a trained model, each with kind, unit, split, treatment, count and error."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gdm_core.anomaly import Calibration, calibrate
from gdm_core.contract import GenerativeModel, Samples, has
from gdm_core.data import ImageDataset, Treatment, evaluation_images
from gdm_core.health import IMAGES, Finding, training_health, worst
from gdm_core.likelihoods import Likelihood, LogPartition, likelihood
from gdm_core.likelihoods.log_partition import is_soon_enumerated
from gdm_core.quality.frechet import frechet_distance
from gdm_core.quality.record import Quality
from gdm_core.randomness import seeded_generator
from gdm_core.tensor_files import write_tensors
from pipelines.feature_network import feature_network

SAMPLING_COUNT = 64  # images in the sampling time
QUALITY_COUNT = 300  # samples in the Fréchet distance
CALIBRATION_COUNT = 1000  # images at most: the smallest p-value is 1 / 1001
IMPORTANCE_SAMPLES, TEMPERATURES = 1000, 2000
TRACE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the chains' log weights, kept along an annealing


@dataclass(frozen=True)
class Evaluation:
    """What is known of a trained model: likelihoods by split, calibration, sampling time, sample quality, health."""

    likelihoods: dict[str, Likelihood]
    calibration: Calibration
    sampling_seconds: float | None
    frechet: Quality | None
    health: list[Finding]
    dataset: ImageDataset = field(repr=False)
    treatment: Treatment = field(repr=False)

    @property
    def kind(self) -> str:
        return self.likelihoods["test"].kind


def evaluate(
    model: GenerativeModel, dataset: ImageDataset, treatment: Treatment, announce: Callable[[str], None] = print,
    of_the_run: Sequence[Finding] = (),
) -> Evaluation:  # fmt: skip
    """Every final number of a model, in eval mode. The one place that touches the test split.

    `of_the_run`: what its training showed of its health, which the model alone does not.
    """
    model.eval()
    announce(f"calibrating on {min(CALIBRATION_COUNT, len(dataset.splits['calibration'])):,} images")
    calibration = calibrate_on(model, dataset, treatment)
    likelihoods, log_z = {}, None
    for split in ("validation", "test"):
        announce(f"evaluating on {len(dataset.splits[split]):,} {split} images")
        likelihoods[split] = split_likelihood(model, dataset, treatment, split, log_z=log_z)
        log_z = likelihoods[split].log_partition  # of the model, whatever the images
    samples, seconds = _timed_samples(model) if has(model, Samples) else (None, None)
    distance = None if samples is None else _frechet(model, dataset, treatment)
    health = training_health(model, *(_first_images(dataset, treatment, split) for split in ("train", "validation")))
    health = [*of_the_run, *health]
    return Evaluation(likelihoods, calibration, seconds, distance, health, dataset, treatment)


def _first_images(dataset: ImageDataset, treatment: Treatment, split: str) -> torch.Tensor:
    return treatment(dataset.splits[split].images[:IMAGES], seeded_generator(0, "health", split))


def split_likelihood(
    model: GenerativeModel, dataset: ImageDataset, treatment: Treatment, split: str, **settings: Any
) -> Likelihood:
    """The likelihood of one split's images, in the fixed draw of random treatments, by the standard settings.

    A log Z that is soon enumerated is exact, unless temperatures are asked for.
    """
    images = evaluation_images(dataset.splits[split], treatment)
    temperatures = None if is_soon_enumerated(model) else TEMPERATURES
    return likelihood(model, images, **{"k": IMPORTANCE_SAMPLES, "temperatures": temperatures, **settings})


def calibrate_on(model: GenerativeModel, dataset: ImageDataset, treatment: Treatment) -> Calibration:
    """Scores and maps of the calibration split, which serves this and nothing else."""
    return calibrate(model, treatment(dataset.splits["calibration"].images[:CALIBRATION_COUNT]))


def write_per_image(evaluation: Evaluation, path: Path) -> None:
    """Per-image values of both splits, for paired comparisons."""
    write_tensors(path, {split: record.values for split, record in evaluation.likelihoods.items()})


def final_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The numbers a table of models shows, under the names of a run's metrics."""
    test = evaluation.likelihoods["test"]
    metrics: dict[str, float | None] = {
        "sampling_seconds": evaluation.sampling_seconds,
        "frechet_distance": evaluation.frechet.value if evaluation.frechet else None,
    }
    if test.kind != "none":
        metrics |= {
            "test/log_likelihood": test.mean,
            "test/standard_error": test.standard_error,
            "test/count": float(len(test.values)),
            "validation/final_log_likelihood": evaluation.likelihoods["validation"].mean,
            "test/bits_per_dimension": test.bits_per_dimension() if test.pixels != "binary" else None,
        }
    if test.log_partition is not None:
        metrics |= {f"log_partition/{part}": getattr(test.log_partition, part) for part in ("value", "low", "high")}
    metrics |= {f"health/{finding.name}": finding.value for finding in evaluation.health}
    return {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}


def evaluation_record(evaluation: Evaluation, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, JSON-able: no number without its kind, unit, split, treatment and count."""
    return {
        **facts,
        "dataset": {"name": evaluation.dataset.name, "digest": evaluation.dataset.digest},
        "treatment": evaluation.treatment.label,
        "likelihood": {split: _likelihood_record(split, entry) for split, entry in evaluation.likelihoods.items()},
        "sampling": {"seconds": evaluation.sampling_seconds, "images": SAMPLING_COUNT},
        "frechet_distance": evaluation.frechet.to_dict() if evaluation.frechet else None,
        "health": {"verdict": worst(evaluation.health), "findings": [one.to_dict() for one in evaluation.health]},
        "calibration": {
            "split": "calibration",
            "count": evaluation.calibration.count,
            "scores": {
                name: {"mean": values.mean().item(), "median": values.median().item(), "max": values.max().item()}
                for name, values in evaluation.calibration.scores.items()
            },
        },
    }


def _likelihood_record(split: str, record: Likelihood) -> dict[str, Any]:
    if record.kind == "none":
        return {"kind": "none", "split": split}
    entry: dict[str, Any] = {
        "mean": record.mean, "standard_error": record.standard_error, "count": len(record.values), "split": split,
        "kind": record.kind, "unit": record.unit, "pixels": record.pixels, "settings": record.settings,
    }  # fmt: skip
    if record.pixels != "binary":
        entry["bits_per_dimension"] = record.bits_per_dimension()
    if (log_z := record.log_partition) is not None:
        entry["log_partition"] = _log_partition_record(log_z)
    return entry


def _log_partition_record(log_z: LogPartition) -> dict[str, Any]:
    entry = {"value": log_z.value, "low": log_z.low, "high": log_z.high, "kind": log_z.kind}
    if log_z.kind == "exact":
        return entry
    quantiles = torch.tensor(TRACE_QUANTILES, dtype=torch.float64)
    return entry | {
        "temperatures": log_z.temperatures, "chains": log_z.chains, "doubt": log_z.doubt,
        "effective_sample_size": log_z.effective_sample_size, "log_weights": log_z.log_weights.tolist(),
        "trace": {
            "betas": log_z.trace_betas.tolist(), "quantiles": list(TRACE_QUANTILES),
            "log_weights": log_z.trace.quantile(quantiles, dim=1).tolist(),
        },
    }  # fmt: skip


def _timed_samples(model: Samples) -> tuple[torch.Tensor, float]:
    begin = time.perf_counter()
    samples = model.sample(SAMPLING_COUNT, generator=seeded_generator(0, "sampling time"))
    return samples, time.perf_counter() - begin


def _frechet(model: Samples, dataset: ImageDataset, treatment: Treatment) -> Quality | None:
    """Samples against validation images, both as this treatment shows them; None where no classifier can be trained.

    Binary and real pixels have a network each, so distances compare within one treatment only.
    """
    network = feature_network(dataset, treatment)
    if network is None:
        return None
    samples = model.sample(QUALITY_COUNT, generator=seeded_generator(0, "quality"))
    return frechet_distance(evaluation_images(dataset.splits["validation"], treatment), samples.cpu(), network)

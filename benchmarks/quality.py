"""How well the starter set models digits it has never seen, and whether each model clears its bar.

    python benchmarks/quality.py                 the latest registered version of each starter model

Prints benchmarks/results/quality.md and writes it, with the same numbers as quality.json beside it. Likelihoods are
computed anew, on the test split, for every model on the same images; nothing here was used to choose anything.
The exit status is 1 where a bar is missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import record
import torch
import typer
from subjects import BASELINE, SAMPLING_COUNT, Subject, baseline_subject, registered_subjects, sampling_seconds, sources
from torch import Tensor

from gdm_core.contract import GenerativeModel
from gdm_core.data import ImageDataset, Treatment, evaluation_images, load_dataset, treatment_for
from gdm_core.likelihoods import Likelihood
from gdm_core.quality import FeatureNetwork, class_counts, frechet_distance, train_feature_network
from gdm_core.randomness import seeded_generator
from pipelines.evaluation import split_likelihood
from pipelines.promotion import paired_difference
from pipelines.starter import DATASET

GAINS = {"nade": 25.0, "pixel_cnn": 25.0}  # per cent over the baseline
ERRORS = 3.0  # paired standard errors that the other likelihoods have to be better by
SAMPLES = 300
DRAWS = 5  # sets of samples, from seeds 0, 1, ...
COMMAND = "python benchmarks/quality.py"


def measure_likelihood(subject: Subject, found: Likelihood, baseline: Likelihood) -> dict[str, Any]:
    """One row: the mean and its error, the paired difference to the baseline, and the verdict."""
    difference, error = paired_difference(found.values, baseline.values)
    log_z = found.log_partition
    row = {
        "model": subject.name, "source": subject.source, "training": subject.training, "kind": found.kind,
        "unit": found.unit, "mean": found.mean, "standard_error": found.standard_error,
        "count": len(found.values), "settings": found.settings, "difference": difference,
        "difference_standard_error": error, "gain_percent": 100 * difference / abs(baseline.mean),
        "log_z": None if log_z is None else {"value": log_z.value, "low": log_z.low, "high": log_z.high},
        "parameters": sum(p.numel() for p in subject.model.parameters()),
        "training_seconds": subject.training_seconds, "sampling_seconds": sampling_seconds(subject.model),
    }  # fmt: skip
    return {**row, **verdict(row)}


def verdict(row: dict[str, Any]) -> dict[str, Any]:
    """Whether a row clears its bar; an estimated log Z is taken at the end of its interval that is worse for the model.

    log p(x) = -E(x) - log Z: the upper end of log Z takes (high - value) off every image at once.
    """
    if row["model"] == BASELINE:
        return {"bar": "", "passed": None}
    if (needed := GAINS.get(row["model"])) is not None:
        return {"bar": f"at least {needed:.0f} %", "passed": row["gain_percent"] >= needed}
    log_z = row["log_z"]
    off = 0.0 if log_z is None else log_z["high"] - log_z["value"]
    passed = row["difference"] - off > ERRORS * row["difference_standard_error"]
    bar = f"more than {ERRORS:.0f} paired errors" + (", at the upper log Z" if log_z else "")
    return {"bar": bar, "passed": passed}


def measure_samples(subject: Subject, baseline: Subject, dataset: ImageDataset) -> dict[str, Any]:
    """Frechet distances to the test images on one network, of the model, of the baselines and of held-out images."""
    treatment = treatment_for(None, dataset.levels, "real")
    training, validation = dataset.splits["train"], dataset.splits["validation"]
    seen = evaluation_images(training, treatment)
    network = train_feature_network(seen, training.labels, len(dataset.class_names))
    reference = evaluation_images(dataset.splits["test"], treatment)
    held_out = evaluation_images(dataset.splits["calibration"], treatment)
    rows = [
        _distance_row(subject.name, "real", reference, network, _draws(subject.model)),
        _distance_row(BASELINE, "binary", reference, network, _draws(baseline.model)),
        _distance_row("training pixels, each shuffled over the images", "real", reference, network, _shuffled(seen)),
        _distance_row("held-out images (calibration)", "real", reference, network, lambda _: held_out, draws=1),
    ]
    beaten = all(rows[0]["distance"] < row["distance"] for row in rows[1:3])
    return {
        "reference": "test", "reference_count": len(reference), "treatment": treatment.label, "rows": rows,
        "network_accuracy": network.accuracy(evaluation_images(validation, treatment), validation.labels),
        "validation_count": len(validation), "classes": network.classes, "source": subject.source,
        "training": subject.training, "training_seconds": subject.training_seconds,
        "sampling_seconds": sampling_seconds(subject.model),
        "parameters": sum(p.numel() for p in subject.model.parameters()),
        "distance_passed": beaten, "classes_passed": rows[0]["classes_hit"] == network.classes,
    }  # fmt: skip


def _draws(model: GenerativeModel) -> Callable[[int], Tensor]:
    return lambda seed: model.sample(SAMPLES, generator=seeded_generator(seed, "quality"))


def _shuffled(images: Tensor) -> Callable[[int], Tensor]:
    """Images whose every pixel is that of another training image: right in every pixel alone, and in nothing else."""

    def draw(seed: int) -> Tensor:
        order = torch.rand(images.shape, generator=seeded_generator(seed, "shuffled")).argsort(0)
        return images.gather(0, order)[:SAMPLES]

    return draw


def _distance_row(
    name: str, pixels: str, reference: Tensor, network: FeatureNetwork, draw: Callable[[int], Tensor],
    draws: int = DRAWS,
) -> dict[str, Any]:  # fmt: skip
    """Means over the draws; classes hit in the worst of them, with the class counts of all draws together."""
    sets = [draw(seed) for seed in range(draws)]
    distances = torch.tensor([frechet_distance(reference, x, network).value for x in sets], dtype=torch.float64)
    counts = torch.stack([class_counts(x, network) for x in sets])
    return {
        "name": name, "pixels": pixels, "count": len(sets[0]), "draws": draws, "distance": distances.mean().item(),
        "standard_deviation": distances.std().item() if draws > 1 else None,
        "classes_hit": int((counts > 0).sum(1).min()), "class_counts": counts.sum(0).tolist(),
    }  # fmt: skip


def likelihood_section(rows: list[dict[str, Any]], treatment: Treatment) -> list[str]:
    columns = ["model", "test nats per image", "kind", f"minus {BASELINE}", "gain", "bar", "passed", "log Z (95 %)",
               "parameters", "training s", f"{SAMPLING_COUNT} samples, ms"]  # fmt: skip
    note = (
        f"Mean log-likelihood of the {rows[0]['count']} test images ({treatment.label}) with its standard error over "
        "images; differences are paired, image by image. An importance-weighted bound is on average too low; an "
        "estimate by annealing is on average too high, because its log Z is too low: the bar takes the upper end. "
        "Training seconds were logged by the run; the time of sampling is the median of three, measured here."
    )
    return record.section("Likelihood", note, columns, [_likelihood_cells(row) for row in rows])


def _likelihood_cells(row: dict[str, Any]) -> list[str]:
    kind = row["kind"] + "".join(f", {key} {value}" for key, value in row["settings"].items())
    compared = ["", ""]
    if row["model"] != BASELINE:
        compared = [
            f"{row['difference']:+.2f} ± {row['difference_standard_error']:.2f}", f"{row['gain_percent']:.1f} %"
        ]  # fmt: skip
    return [
        row["model"], f"{row['mean']:.2f} ± {row['standard_error']:.2f}", kind, *compared, row["bar"],
        _passed(row["passed"]), _interval(row["log_z"]), f"{row['parameters']:,}", _seconds(row["training_seconds"]),
        f"{1000 * row['sampling_seconds']:.1f}",
    ]  # fmt: skip


def _interval(log_z: dict[str, float] | None) -> str:
    return "" if log_z is None else f"{log_z['value']:.2f} [{log_z['low']:.2f}, {log_z['high']:.2f}]"


def sample_section(found: dict[str, Any]) -> list[str]:
    model, total = found["rows"][0]["name"], found["classes"]
    note = (
        f"Squared Frechet distance to the {found['reference_count']} {found['reference']} images "
        f"({found['treatment']}) on the features of one small classifier, trained on the training split under the same "
        f"treatment (seed 0; {found['network_accuracy']:.1%} of {found['validation_count']} validation images right); "
        f"mean and standard deviation over {DRAWS} draws (seeds 0 to {DRAWS - 1}). Classes: how many the classifier "
        "sees in the worst draw. The held-out images show what is reachable with as many images."
    )
    columns = ["images", "pixels", "count", "draws", "Frechet distance", "classes", "images by class, all draws"]
    verdicts = [
        f"- {model} is nearer than every set of independent pixels: {_passed(found['distance_passed'])}",
        f"- {model}'s {SAMPLES} samples hit all {total} classes: {_passed(found['classes_passed'])}",
        f"- {model}: {found['parameters']:,} parameters, {_seconds(found['training_seconds'])} s of training, "
        f"{1000 * found['sampling_seconds']:.1f} ms for {SAMPLING_COUNT} samples",
    ]
    rows = [_sample_cells(row, total) for row in found["rows"]]
    return [*record.section("Samples", note, columns, rows), "", *verdicts]


def _sample_cells(row: dict[str, Any], total: int) -> list[str]:
    spread = "" if row["standard_deviation"] is None else f" ± {row['standard_deviation']:.1f}"
    return [row["name"], row["pixels"], str(row["count"]), str(row["draws"]), f"{row['distance']:.1f}{spread}",
            f"{row['classes_hit']} of {total}", " ".join(map(str, row["class_counts"]))]  # fmt: skip


def _passed(passed: bool | None) -> str:
    return {True: "yes", False: "**no**", None: ""}[passed]


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None or math.isnan(seconds) else f"{seconds:.1f}"


def main() -> None:
    """Measure the starter set on the test split and hold it against its bars."""
    where = record.circumstances(packages=("torch", "scikit-learn"))
    dataset = load_dataset(DATASET)
    treatment = treatment_for(None, dataset.levels, "binary")
    baseline, subjects = baseline_subject(dataset, treatment), registered_subjects(dataset)
    binary = [baseline, *(subject for subject in subjects if subject.model.pixels == "binary")]
    found = {s.name: split_likelihood(s.model, dataset, treatment, "test") for s in binary}
    rows = [measure_likelihood(s, found[s.name], found[BASELINE]) for s in binary]
    rows.sort(key=lambda row: row["mean"], reverse=True)
    samples = measure_samples(next(s for s in subjects if s.name == "dcgan"), baseline, dataset)
    lines = record.heading("Quality of the starter set", COMMAND, where) + sources([baseline, *subjects], dataset)
    data = {"name": dataset.name, "digest": dataset.digest, "counts": dataset.counts}
    values = {**where, "dataset": data, "treatment": treatment.label, "likelihood": rows, "samples": samples}
    record.keep("quality", lines + likelihood_section(rows, treatment) + sample_section(samples), values)
    missed = [row["model"] for row in rows if row["passed"] is False]
    missed += ["dcgan"] * (not (samples["distance_passed"] and samples["classes_passed"]))
    if missed:
        print(f"missed: {', '.join(missed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

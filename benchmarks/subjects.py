"""The models that the quality benchmark measures: the starter set as registered, and the baseline, counted here."""

from __future__ import annotations

import time
from dataclasses import dataclass

import typer

from gdm_core.contract import GenerativeModel
from gdm_core.data import ImageDataset, TreatedSplit, Treatment, treatment_for
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from gdm_core.training import train
from pipelines import tracking
from pipelines.starter import DATASET, STARTER_SET

BASELINE = "independent_bernoulli"
SAMPLING_COUNT, SAMPLING_ROUNDS = 64, 3


@dataclass(frozen=True)
class Subject:
    """A model to be measured, and what its training took."""

    name: str
    source: str  # its address in the registry, or how it was made
    model: GenerativeModel
    training_seconds: float | None
    training: str


def registered_subjects(dataset: ImageDataset) -> list[Subject]:
    """The latest version of every starter model; says how to train those that are missing."""
    latest = {v.name: v for v in tracking.list_versions() if "latest" in v.aliases}
    missing = [recipe.registered_name for recipe in STARTER_SET if recipe.registered_name not in latest]
    if missing:
        raise typer.BadParameter(
            f"not registered: {', '.join(missing)}; train the starter set with `python -m pipelines starter`"
        )
    return [_subject(latest[recipe.registered_name], dataset) for recipe in STARTER_SET]


def _subject(version: tracking.ModelVersion, dataset: ImageDataset) -> Subject:
    stored = tracking.load_registered(version.uri)
    if stored.card.dataset["digest"] != dataset.digest:
        raise typer.BadParameter(f"{version.uri} was trained on other data than load_dataset({DATASET!r}) gives here")
    natural = treatment_for(None, dataset.levels, stored.model.pixels)
    if stored.treatment != natural:
        raise typer.BadParameter(f"{version.uri} was trained on {stored.treatment.label} pixels, not {natural.label}")
    parameters = tracking.get_run(version.run_id).params
    shown = ("epochs", "batch_size", "learning_rate", "seed", "threads")
    training = ", ".join(f"{name} {parameters[name]}" for name in shown if name in parameters)
    return Subject(version.architecture, version.uri, stored.model, version.training_seconds, training)


def baseline_subject(dataset: ImageDataset, treatment: Treatment) -> Subject:
    """The independent Bernoulli with add-one-smoothed frequencies, counted on the training split here."""
    model, begin = build_model(BASELINE, dataset.data_shape), time.perf_counter()
    for _ in train(model, TreatedSplit(dataset.splits["train"], treatment), model.default_training):
        pass
    return Subject(BASELINE, "counted here", model.eval(), time.perf_counter() - begin, "closed form")


def sampling_seconds(model: GenerativeModel) -> float:
    """Seconds for 64 images, the median of three."""
    seconds = []
    for _ in range(SAMPLING_ROUNDS):
        begin = time.perf_counter()
        model.sample(SAMPLING_COUNT, generator=seeded_generator(0, "sampling time"))
        seconds.append(time.perf_counter() - begin)
    return sorted(seconds)[SAMPLING_ROUNDS // 2]


def sources(subjects: list[Subject], dataset: ImageDataset) -> list[str]:
    counts = ", ".join(f"{count} {name}" for name, count in dataset.counts.items())
    lines = [f"- data: {dataset.name} ({dataset.digest}), stratified split by seed 0: {counts}"]
    return lines + [f"- {subject.name}: {subject.source}; {subject.training}" for subject in subjects]

"""How long every registered model trains on digits with its own defaults, and what comes of it.

    python benchmarks/digits.py [--threads 2]                every model and variant, half an hour
    python benchmarks/digits.py --models nade,dbn            some: the rows of the others stay as they were
    python benchmarks/digits.py --models wavenet --variants  their variants alone: other networks, pixels and data

Each is a whole run as `python -m pipelines train NAME` makes it, in a store that is thrown away: trained, evaluated,
calibrated and registered. Prints benchmarks/results/digits.md and writes it, with the same numbers as digits.json.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import record
import typer

import gdm_core
from gdm_core.health import worst

GOAL = 60  # seconds of training on two cores


@dataclass(frozen=True)
class Case:
    """A model to train: all that is not said is its default."""

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    dataset: str = "digits"
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """What tells it from the model by itself; nothing for that."""
        said = {**({} if self.dataset == "digits" else {"data": self.dataset}), **self.arguments, **self.training}
        return ", ".join(f"{name} {value}" for name, value in said.items())


LEVELS = {"pixels": "levels"}
VARIANTS = [
    Case("made", {"hidden_units": (200, 200), "orderings": 4, "masks": 2, "direct_connections": True}),
    Case("made", LEVELS),
    Case("eonade", {"hidden_layers": 2}),
    Case("markov_chain", {"order": 2, **LEVELS}),
    Case("pixel_rnn", {"kind": "row_by_row"}),
    Case("pixel_rnn", {"kind": "row_lstm"}),
    Case("pixel_rnn", LEVELS),
    Case("multiscale_pixel_rnn", {"kind": "diagonal_bilstm"}),
    Case("multiscale_pixel_rnn", {"scales": 3}),
    Case("pixel_cnn", {"position_bias": True}),
    Case("pixel_cnn", LEVELS),
    Case("gated_pixel_cnn", LEVELS),
    Case("conditional_gated_pixel_cnn", LEVELS),
    Case("pixel_cnn_plus_plus", {"pixels": "binary"}),
    Case("wavenet", {"stacks": 2}),
    Case("wavenet", LEVELS),
    Case("wavenet", {"dropout": 0.0}, "harmonics", {"epochs": 12, "learning_rate": 0.01}),
    Case("image_transformer", LEVELS),
]
COLUMNS = ["model", "family", "training s", "whole run s", "within", "test", "training health", "made"]


def run(case: Case, threads: int | None) -> dict[str, Any]:
    """One model's run, from the first step to its place in the registry: a row without where and when it was made."""
    from pipelines.configuration import resolve
    from pipelines.training_run import start_run

    configuration, data = resolve(
        case.model, case.dataset, arguments=case.arguments, threads=threads, **case.training
    )
    begin = time.perf_counter()
    result = start_run(configuration, data, announce=lambda text: None)
    seconds = time.perf_counter() - begin
    found = result.evaluation
    test, frechet = found.likelihoods.get("test"), found.frechet
    return {
        "model": case.model, "variant": case.variant, "family": gdm_core.describe_model(case.model).family,
        "dataset": case.dataset, "epochs": configuration.training["epochs"],
        "training_seconds": result.training_seconds, "seconds": seconds, "health": worst(found.health),
        "test": None if test is None else {
            "mean": test.mean, "standard_error": test.standard_error, "kind": test.kind, "unit": test.unit,
            "count": len(test.values),
            "bits_per_dimension": None if test.pixels == "binary" else test.bits_per_dimension(),
        },
        "frechet": None if frechet is None else frechet.value,
    }  # fmt: skip


def report(rows: list[dict[str, Any]]) -> list[str]:
    note = (
        "Made by `python benchmarks/digits.py`, row by row; each says when and where. scikit-learn's 8x8 digits, 1,797 "
        "images; every model with its own defaults and its natural pixels, seed 0. Training: the steps alone. Whole "
        "run: with evaluation, calibration and registration. Test: the mean over the test images with its standard "
        f"error, higher is better; numbers of different kinds or units have no rank among each other. Goal: {GOAL} s "
        "of training on two cores."
    )
    plain, variants = ([row for row in rows if bool(row["variant"]) == varied] for varied in (False, True))
    lines = ["# Every model on digits", "", note, "", *record.table(COLUMNS, [_cells(row) for row in plain])]
    cells = [_cells(row) for row in variants]
    return lines + (record.section("Variants", VARIANTS_NOTE, COLUMNS, cells) if cells else [])


VARIANTS_NOTE = (
    "The same with other arguments, and with other data where that is said: harmonics are 2,000 sounds of 256 samples "
    "in 256 levels, 7.3 bits a sample for independent samples, 5.5 for a first-order Markov chain of counts, and 2.2 "
    "for one who is told every sound and only has to say the noise. Other arguments may want other training than the "
    "defaults, which they have here unless it is said."
)


def _cells(row: dict[str, Any]) -> list[str]:
    where = row["where"]
    return [
        ", ".join(filter(None, (row["model"], row["variant"]))), row["family"],
        f"{row['training_seconds']:.1f}", f"{row['seconds']:.1f}",
        _within(row), _found(row), row["health"],
        f"{where['date']}, {where['commit']}, {where['device']}, {where['threads']} threads, load {where['load']}",
    ]  # fmt: skip


def _within(row: dict[str, Any]) -> str:
    """The goal is one for digits."""
    reached = "yes" if row["training_seconds"] <= GOAL else "**no**"
    return reached if row["dataset"] == "digits" else ""


def _found(row: dict[str, Any]) -> str:
    """The test likelihood, or the distance of samples where there is none."""
    test = row["test"]
    if test is None or not test["count"]:
        return "" if row["frechet"] is None else f"Frechet distance {row['frechet']:.1f}"
    mean, bits = f"{test['mean']:.2f} ± {test['standard_error']:.2f} {test['unit']}", test["bits_per_dimension"]
    text = f"{mean}, {test['kind']}, {test['count']} images"
    return text if bits is None else f"{text}, {bits:.3f} bits per dimension"


def _identity(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["family"], row["model"], row["variant"]


def main(
    models: Annotated[str | None, typer.Option(help="names with commas between them; all if none is named")] = None,
    threads: Annotated[int | None, typer.Option(help="torch's threads; its own choice if not named")] = None,
    variants: Annotated[bool, typer.Option("--variants", help="variants of them alone")] = False,
    folder: Annotated[Path, typer.Option(help="where digits.md and digits.json go")] = record.RESULTS,
) -> None:
    """Train models on digits by their defaults."""
    known = gdm_core.list_models()
    chosen = models.split(",") if models else known
    if unknown := set(chosen) - set(known):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows = record.read("digits", folder).get("rows", [])
    with tempfile.TemporaryDirectory() as store:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}/mlflow.db"
        cases = [] if variants else [Case(model) for model in chosen]
        families = {model: gdm_core.describe_model(model).family for model in known}
        there_are = {(families[case.model], case.model, case.variant) for case in [*map(Case, known), *VARIANTS]}
        for case in [*cases, *(one for one in VARIANTS if one.model in chosen)]:
            where = record.circumstances()
            row = {**run(case, threads), "where": where | ({"threads": threads} if threads else {})}
            rows = record.with_row(rows, row, ("model", "variant"))
            rows = sorted((row for row in rows if _identity(row) in there_are), key=_identity)
            record.write("digits", report(rows), {"rows": rows}, folder)
            typer.echo(" | ".join(_cells(row)))


if __name__ == "__main__":
    typer.run(main)

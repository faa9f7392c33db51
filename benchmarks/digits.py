"""How long every registered model trains on digits with its own defaults, and what comes of it.

    python benchmarks/digits.py [--threads 2]                every model, a quarter of an hour
    python benchmarks/digits.py --models nade,dbn            some: the rows of the others stay as they were

Each is a whole run as `python -m pipelines train NAME` makes it, in a store that is thrown away: trained, evaluated,
calibrated and registered. Prints benchmarks/results/digits.md and writes it, with the same numbers as digits.json.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import record
import typer

import gdm_core
from gdm_core.health import worst

GOAL = 60  # seconds of training on two cores
COLUMNS = ["model", "family", "training s", "whole run s", "within", "test", "training health", "made"]


def run(model: str, threads: int | None) -> dict[str, Any]:
    """One model's run, from the first step to its place in the registry: a row without where and when it was made."""
    from pipelines.configuration import resolve
    from pipelines.training_run import start_run

    configuration, data = resolve(model, "digits", threads=threads)
    begin = time.perf_counter()
    result = start_run(configuration, data, announce=lambda text: None)
    seconds = time.perf_counter() - begin
    found = result.evaluation
    test, frechet = found.likelihoods.get("test"), found.frechet
    return {
        "model": model, "family": gdm_core.describe_model(model).family, "epochs": configuration.training["epochs"],
        "training_seconds": result.training_seconds, "seconds": seconds, "health": worst(found.health),
        "test": None if test is None else {
            "mean": test.mean, "standard_error": test.standard_error, "kind": test.kind, "unit": test.unit,
            "count": len(test.values),
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
    return ["# Every model on digits", "", note, "", *record.table(COLUMNS, [_cells(row) for row in rows])]


def _cells(row: dict[str, Any]) -> list[str]:
    where = row["where"]
    return [
        row["model"], row["family"], f"{row['training_seconds']:.1f}", f"{row['seconds']:.1f}",
        "yes" if row["training_seconds"] <= GOAL else "**no**", _found(row), row["health"],
        f"{where['date']}, {where['commit']}, {where['device']}, {where['threads']} threads, load {where['load']}",
    ]  # fmt: skip


def _found(row: dict[str, Any]) -> str:
    """The test likelihood, or the distance of samples where there is none."""
    test = row["test"]
    if test is None or not test["count"]:
        return "" if row["frechet"] is None else f"Frechet distance {row['frechet']:.1f}"
    mean = f"{test['mean']:.2f} ± {test['standard_error']:.2f} {test['unit']}"
    return f"{mean}, {test['kind']}, {test['count']} images"


def main(
    models: Annotated[str | None, typer.Option(help="names with commas between them; all if none is named")] = None,
    threads: Annotated[int | None, typer.Option(help="torch's threads; its own choice if not named")] = None,
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
        for model in chosen:
            where = record.circumstances()
            row = {**run(model, threads), "where": where | ({"threads": threads} if threads else {})}
            rows = record.with_row(rows, row, ("model",))
            rows = sorted((row for row in rows if row["model"] in known), key=lambda row: (row["family"], row["model"]))
            record.write("digits", report(rows), {"rows": rows}, folder)
            typer.echo(" | ".join(_cells(row)))


if __name__ == "__main__":
    typer.run(main)

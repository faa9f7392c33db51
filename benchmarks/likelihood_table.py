"""The report of the likelihood benchmark, made from its rows: a table for each binarisation, never one for both."""

from __future__ import annotations

from typing import Any

import record
from likelihood_recipes import PUBLISHED

COMMAND = "python benchmarks/likelihood.py"
LEAK_GATE = -77.0  # nats per image of 28x28 binary MNIST: nobody is better, so a number above it is a bug until proven
MNIST_DIMENSIONS = 784
COLUMNS = [
    "model", "size", "test nats per image", "kind", "published, same binarisation", "parameters", "passes",
    "training s", "made",
]  # fmt: skip
NOTES = {
    "fixed": (
        "Binarised MNIST of Larochelle and Murray: the pixels were drawn once and for all, 50,000 training and 10,000 "
        "test images as given; half of the 10,000 validation images choose the round."
    ),
    "dynamic": (
        "MNIST whose training pixels are drawn anew in every round, on with their intensity as probability; those of "
        "validation and test images are drawn once, by seed 0. Numbers of the two binarisations differ by about two "
        "nats for the same model and are not compared."
    ),
}


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The Markdown report, a line each."""
    lines = [
        "# Likelihood of binarised MNIST", "",
        f"Made by `{COMMAND}`, row by row. Mean log-likelihood of the test images with its standard error over "
        "images, higher is better; each was computed once, with the weights that validation images chose. An annealed "
        "estimate is on average too high, and moves by the interval of log Z: it has no rank among exact numbers. "
        "Published: evidence in brackets (P seen in the paper, S quoted by another source, C a repository's own claim, "
        "R measured on another draw of the pixels). Passes: over the training images, as many as fit into the time "
        "(ten minutes for small sizes) at the speed measured first: a machine that gets busier later takes longer.",
    ]  # fmt: skip
    for binarisation, note in NOTES.items():
        of_it = [row for row in rows if row["binarisation"] == binarisation]
        if of_it:
            of_it.sort(key=lambda row: row["test"]["mean"], reverse=True)
            digests = ", ".join(sorted({f"{row['dataset']} ({row['digest']}), {row['treatment']}" for row in of_it}))
            title = f"{binarisation.capitalize()} binarisation"
            lines += record.section(title, f"{note} Data: {digests}.", COLUMNS, [cells(row) for row in of_it])
    return lines


def cells(row: dict[str, Any]) -> list[str]:
    test, where = row["test"], row["where"]
    published = PUBLISHED.get(row["label"], {}).get(row["binarisation"])
    nats = f"{test['mean']:.2f} ± {test['standard_error']:.2f}"
    seed = row["config"]["seed"]
    made = f"{where['date']}, {where['commit']}, {where['device']}, {where['threads']} threads, seed {seed}"
    return [
        row["label"], row["size"], nats + (" **suspected leak**" if is_suspected_leak(row) else ""), _kind(test),
        "" if published is None else published.text, f"{row['parameters']:,}", f"{row['passes']:.3g}",
        f"{row['training_seconds']:.0f}", made + _precision(row),
    ]  # fmt: skip


def is_suspected_leak(row: dict[str, Any]) -> bool:
    """Whether a number is better than binary MNIST allows; an estimate may be, by its error of log Z."""
    test, certain = row["test"], ("exact", "lower bound")
    return row["dimensions"] == MNIST_DIMENSIONS and test["kind"] in certain and test["mean"] > LEAK_GATE


def _kind(test: dict[str, Any]) -> str:
    text = test["kind"] + "".join(f", {key} {value}" for key, value in test["settings"].items())
    if (log_z := test["log_z"]) is not None:
        text += f"; log Z {log_z['value']:.2f} [{log_z['low']:.2f}, {log_z['high']:.2f}]"
    return text


def _precision(row: dict[str, Any]) -> str:
    changed = [row["config"]["precision"]] if row["config"]["precision"] != "float32" else []
    changed += ["compiled"] if row["compiled"] else []
    return f", {', '.join(changed)} in training" if changed else ""

"""Tables of registered models and runs as data frames, how their columns are shown, and their CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard.axes import axis_of, dataset_names
from dashboard.choices import version_name

if TYPE_CHECKING:
    import pandas

    from pipelines.tracking import ModelVersion, RunRecord

NUMBER = st.column_config.NumberColumn
UNITS = {
    "log-likelihood": "log-likelihood (nats per image)", "± s.e.": "standard error (nats per image)",
    "training": "training (s)", "sampling": "sampling 64 images (s)",
}  # fmt: skip
LONGEST_KIND, KIND_WIDTH = "bound with estimated normaliser", 220  # dots
HELP = {
    "log-likelihood": "Mean log p(x) of the test images in nats. Compare where data set and pixels are equal.",
    "± s.e.": "Standard error of that mean over the test images.",
    "kind": "exact: log p(x) itself. lower bound: the true value is at least this. estimate: log Z was estimated. "
    "bound with estimated normaliser: a lower bound less an estimated log Z, so no bound any more.",
    "pixels": "How images become the numbers the model sees. Values of different treatments cannot be compared.",
    "bits/dim": "Minus the log-likelihood in bits per pixel value; for models of levels or real pixels.",
    "Fréchet": "Fréchet distance of samples to validation images, on features of a classifier trained here: lower is "
    "better. Compare where data set and pixels are equal: each such pair has a classifier of its own.",
    "training": "Seconds of training.",
    "sampling": "Seconds for 64 images.",
    "health": "The gravest verdict on the training; the model's page says what it rests on.",
}  # fmt: skip


def model_table(versions: Sequence[ModelVersion]) -> pandas.DataFrame:
    """One row per version, best log-likelihood first within each data set and pixel treatment."""
    import pandas

    datasets = dataset_names(map(axis_of, versions))
    ordered = sorted(versions, key=_order)
    return _typed(pandas.DataFrame([_model_row(version, datasets[axis_of(version)]) for version in ordered]))


def model_columns(table: pandas.DataFrame) -> dict[str, Any]:
    """How the columns of a `model_table` are shown."""
    formats = {
        "log-likelihood": "%.2f", "± s.e.": "%.2f", "bits/dim": "%.3f", "Fréchet": "%.2f", "parameters": "localized",
        "training": "%.1f s", "sampling": "%.2f s", "epochs": "%d",
    }  # fmt: skip
    columns: dict[str, Any] = {name: NUMBER(format=text, help=HELP.get(name)) for name, text in formats.items()}
    columns["test images"] = None  # for the CSV, and for whoever unhides it
    columns["pixels"] = st.column_config.TextColumn(help=HELP["pixels"])
    columns["kind"] = _kind_column(table)
    columns["model"] = st.column_config.TextColumn(pinned=True)
    columns["registered"] = st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm")
    columns["aliases"] = st.column_config.ListColumn()
    columns["MLflow"] = _link_column(table)
    return columns


def run_columns(table: pandas.DataFrame) -> dict[str, Any]:
    """How the columns of a `run_table` are shown."""
    return {
        "run": st.column_config.TextColumn(pinned=True),
        "started": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm"),
        "seconds": NUMBER(format="%.0f s"),
        "log-likelihood": NUMBER(format="%.2f", help=HELP["log-likelihood"]),
        "± s.e.": NUMBER(format="%.2f", help=HELP["± s.e."]),
        "bits/dim": NUMBER(format="%.3f", help=HELP["bits/dim"]),
        "test images": None,  # as in the table of models
        "kind": _kind_column(table),
        "pixels": st.column_config.TextColumn(help=HELP["pixels"]),
        "health": st.column_config.TextColumn(help=HELP["health"]),
        "MLflow": _link_column(table),
    }


def _kind_column(table: pandas.DataFrame) -> Any:
    """As wide as it must be: the longest kind of likelihood would be cut at the usual width."""
    long = table["kind"].eq(LONGEST_KIND).any()
    return st.column_config.TextColumn(help=HELP["kind"], width=KIND_WIDTH if long else None)


def _link_column(table: pandas.DataFrame) -> Any:
    """None, which hides the column, where MLflow's own pages are not known."""
    return st.column_config.LinkColumn(display_text="open") if table["MLflow"].notna().any() else None


def csv_of(table: pandas.DataFrame) -> bytes:
    """A table as CSV, units in its header; text that a spreadsheet takes for a formula gets an apostrophe in front."""
    safe = table.rename(columns=UNITS).map(lambda cell: ", ".join(cell) if isinstance(cell, (list, tuple)) else cell)
    safe = safe.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell else cell)
    return safe.to_csv(index=False).encode()


def run_table(records: Sequence[RunRecord]) -> pandas.DataFrame:
    """One row per run, in the order given."""
    import pandas

    return _typed(pandas.DataFrame([_run_row(record) for record in records]))


def _typed(table: pandas.DataFrame) -> pandas.DataFrame:
    """A table with its counts whole, and without those numbers that only some models have, where no row has one."""
    unused = [name for name in ("bits/dim", "Fréchet") if name in table and table[name].isna().all()]
    return table.drop(columns=unused).astype({"test images": "Int64"})


def _order(version: ModelVersion) -> tuple[Any, ...]:
    """By axis, on which the best comes first and what has no number last."""
    mean = version.test_mean
    return axis_of(version), mean is None, -(mean or 0.0), version.name


def _model_row(version: ModelVersion, dataset: str) -> dict[str, Any]:
    from pipelines.tracking import ui_link

    return {
        "model": version_name(version),
        "family": version.family,
        "data set": dataset,
        "log-likelihood": version.test_mean,
        "± s.e.": version.test_standard_error,
        "test images": version.test_count,
        "kind": version.likelihood_kind,
        "pixels": version.treatment,
        "bits/dim": version.bits_per_dimension,
        "Fréchet": version.frechet_distance,
        "parameters": version.parameters,
        "training": version.training_seconds,
        "sampling": version.sampling_seconds,
        "epochs": version.epochs,
        "aliases": list(version.aliases),
        "registered": version.created,
        "MLflow": ui_link(version),
    }


def _whole(number: float) -> int | None:
    """A count; None for what is none: runs may come from anywhere."""
    return int(number) if math.isfinite(number) else None


def _run_row(record: RunRecord) -> dict[str, Any]:
    from pipelines.tracking import ui_link

    return {
        "run": run_name(record),
        "status": record.status,
        "model": record.tags.get("gdm.model", ""),
        "data set": record.tags.get("gdm.dataset", record.experiment),
        "started": record.start,
        "seconds": record.seconds,
        "log-likelihood": record.metrics.get("test/log_likelihood"),
        "± s.e.": record.metrics.get("test/standard_error"),
        "test images": _whole(record.metrics.get("test/count", math.nan)),
        "kind": record.tags.get("gdm.likelihood_kind", ""),
        "pixels": record.tags.get("gdm.treatment", ""),
        "bits/dim": record.metrics.get("test/bits_per_dimension"),
        "health": record.tags.get("gdm.health"),
        "MLflow": ui_link(record),
    }


def run_name(record: RunRecord) -> str:
    """How a run is called in pickers and addresses: its name and the first characters of its id."""
    return f"{record.name} {record.run_id[:8]}"

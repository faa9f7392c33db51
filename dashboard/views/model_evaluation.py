"""What a model's evaluation says of its numbers: their errors and counts, training health, how log Z was annealed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard import loading
from dashboard.figures.annealing import trace_figure, weights_figure
from dashboard.page import plain
from pipelines.tracker import StoreError

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion

MARKS = {"good": ":green[:material/check_circle:]", "watch": ":orange[:material/visibility:]",
         "bad": ":red[:material/error:]"}  # fmt: skip
MEANING = {
    "good": "Nothing speaks against this training.",
    "watch": "Something here wants to be watched.",
    "bad": "Something went wrong in this training.",
}


def evaluation_of(version: ModelVersion) -> dict[str, Any]:
    """The evaluation its run logged; empty where the run or the file is gone."""
    try:
        return json.loads(loading.file(version.run_id, "evaluation.json")) if version.run_status else {}
    except (StoreError, json.JSONDecodeError):
        return {}


def validation_likelihood(version: ModelVersion) -> str | None:
    """The mean over the validation images, with its error and their number where the evaluation is still there."""
    if version.validation_mean is None:
        return None
    record = evaluation_of(version).get("likelihood", {}).get("validation", {})
    error, count = record.get("standard_error"), record.get("count")
    return (
        f"{version.validation_mean:.2f}" + (f" ± {error:.2f}" if error is not None else "") + " nats per image"
        + (f", {count:,} images" if count is not None else "")
    )  # fmt: skip


def frechet_distance(version: ModelVersion) -> str | None:
    """The distance, with how many images stood on either side where the evaluation is still there: both lower it."""
    if version.frechet_distance is None:
        return None
    value, record = f"{version.frechet_distance:.2f}", evaluation_of(version).get("frechet_distance")
    if not record:
        return value
    return f"{value}, {record['sample_count']:,} samples to {record['reference_count']:,} validation images"


def show_health(version: ModelVersion) -> None:
    """The verdicts on the training, each with its number; nothing where none were made."""
    health = evaluation_of(version).get("health", {})
    if not health.get("findings"):
        return
    st.subheader("Training health", anchor=False)
    st.markdown(f"{MARKS[health['verdict']]} **{MEANING[health['verdict']]}**")
    lines = [f"- {MARKS[one['verdict']]} {plain(one['sentence'])}" for one in health["findings"]]
    st.markdown("\n".join(lines))


def show_annealing(version: ModelVersion) -> None:
    """The log weights behind an estimated log Z; nothing where it is exact or there is none."""
    test = evaluation_of(version).get("likelihood", {}).get("test", {})
    log_z = test.get("log_partition", {})
    if "log_weights" not in log_z:
        return
    if log_z["doubt"]:
        st.warning(plain(log_z["doubt"]), icon=":material/warning:")
    st.markdown(
        f"Its evaluation: annealed importance sampling with {log_z['chains']} chains through "
        f"{log_z['temperatures']:,} temperatures: log Z = **{log_z['value']:.2f}**, 95 % interval {log_z['low']:.2f} "
        f"to {log_z['high']:.2f}. Of the chains about **{log_z['effective_sample_size']:.0f}** count. The error of "
        f"log Z is the same for all images; the spread over test images, ± {test['standard_error']:.2f}, is apart "
        "from it."
    )
    left, right = st.columns(2, gap="medium")
    left.plotly_chart(weights_figure(log_z["log_weights"], log_z["value"], log_z["low"], log_z["high"]),
                      config={"displayModeBar": False}, alt="Histogram of the log weights")  # fmt: skip
    left.caption("Where the chains ended; red: log Z, grey: its interval. A mean far to the right of most chains rests "
                 "on a few.")  # fmt: skip
    trace = log_z["trace"]
    right.plotly_chart(trace_figure(trace["betas"], trace["quantiles"], trace["log_weights"]),
                       config={"displayModeBar": False}, alt="Spread of the log weights while annealing")  # fmt: skip
    right.caption("How far the chains have come apart on the way from the base (0) to the model (1).")

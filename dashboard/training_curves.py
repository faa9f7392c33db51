"""Training curves of several runs: on axes they may share, and with what one must know to read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import loading
from dashboard.axes import groups
from dashboard.figures.curves import curve_figure, in_words
from dashboard.figures.style import colours_of
from dashboard.page import plain

if TYPE_CHECKING:
    from pipelines.tracking import RunRecord

OF_EPOCHS = "validation/log_likelihood"
EPOCH_IMAGES = 1000  # validation images in the likelihood of an epoch, at most
UNKNOWN = "kind known when it is evaluated"
ANNEALED = {"exact": "estimate", "lower bound": "bound with estimated normaliser"}


def show_curves(records: Mapping[str, RunRecord], metric: str) -> None:
    """A chart for each data set and pixel treatment, or one for all where the metric is of neither."""
    colours, shown = colours_of(records), set()
    for title, names in groups(records, metric).items():
        curves = {name: loading.curve(records[name], metric) for name in names}
        curves = {name: points for name, points in curves.items() if points}
        kinds = {name: kind_of(records[name], metric) for name in curves} if "log_likelihood" in metric else {}
        shown |= set(kinds.values())
        if not curves:
            continue
        if title:
            st.markdown(f"**{plain(title)}**")
        st.plotly_chart(
            curve_figure(curves, metric, colours, kinds), key=f"curves {title}", config={"displayModeBar": False},
            alt=", ".join(filter(None, (f"{in_words(metric)} of {len(curves)} runs while training", title))),
        )  # fmt: skip
    if remarks := remarks_on(metric, shown):
        st.caption(" ".join(remarks))


def kind_of(record: RunRecord, metric: str) -> str:
    """The kind of a run's likelihoods: that of its evaluation, but an epoch anneals where an evaluation enumerates."""
    kind = record.tags.get("gdm.likelihood_kind", UNKNOWN)
    return ANNEALED.get(kind, kind) if metric == OF_EPOCHS and "log_partition/value" in record.metrics else kind


def remarks_on(metric: str, kinds: Collection[str]) -> list[str]:
    """How a metric is to be read, in sentences."""
    remarks = []
    if metric == OF_EPOCHS:
        remarks.append(f"After an epoch: on at most {EPOCH_IMAGES:,} validation images, and by quick settings where it "
                       "is a bound or an estimate. The evaluation at the end, which tables show, is the careful "
                       "one.")  # fmt: skip
    if len(kinds) > 1:
        remarks.append("Lines of different kinds are not ranked by their height: a lower bound lies below the true "
                       "value, and an estimate tends to lie above it.")  # fmt: skip
    if metric.startswith("train/"):
        remarks.append("Each family learns from a loss of its own: compare the course of these curves, not their "
                       "height.")  # fmt: skip
    return remarks

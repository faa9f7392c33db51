"""Compare: registered models in one table, on axes they may share, in pairs, and by their training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import loading, pairs, tables
from dashboard.axes import by_axis, titles, why_no_likelihood
from dashboard.choices import (
    NOT_REGISTERED,
    SHOWN,
    best_of_each,
    pick_model,
    pick_models,
    pick_one,
    say_if_gone,
    say_if_not_offered,
    select,
    version_name,
)
from dashboard.figures.differences import PairedDifference, difference_figure, paired_difference
from dashboard.figures.likelihoods import INTERVAL, MARKS, likelihood_figure
from dashboard.live import say_how_to_begin, show_running
from dashboard.page import boundary, guarded, link, plain
from dashboard.training_curves import OF_EPOCHS, show_curves

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion, RunRecord


def render() -> None:
    """The page: what trains now, the table, and what it shows in pictures."""
    versions = loading.versions()  # first: a store that is down is said once
    show_running()
    if not versions:
        say_how_to_begin("registered model")
        return
    chosen = _filtered(versions)
    if not chosen:
        st.info("No registered model fits these filters: take one of them away.", icon=":material/filter_alt_off:")
        return
    _show_table(chosen)
    _show_likelihoods(chosen)
    with boundary():
        _show_pair(versions)
    with boundary():
        _show_curves(versions)


def _filtered(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    left, middle, right = st.columns([2, 2, 3], vertical_alignment="bottom")
    datasets = left.multiselect(
        "Data set", sorted({v.dataset for v in versions}), key="dataset", placeholder="all", bind="query-params"
    )
    families = middle.multiselect(
        "Family", sorted({v.family for v in versions}), key="family", placeholder="all", bind="query-params"
    )
    explained = "; ".join(f"{name}: {meaning}" for name, meaning in SHOWN.items())
    shown = right.segmented_control(
        "Versions", list(SHOWN), default="Best of each", required=True, key="versions", help=explained,
        bind="query-params",
    )  # fmt: skip
    fitting = [v for v in versions if v.dataset in (datasets or [v.dataset]) and v.family in (families or [v.family])]
    return select(fitting, shown or "Best of each")


def _show_table(versions: Sequence[ModelVersion]) -> None:
    table = tables.model_table(versions)
    st.dataframe(
        table, hide_index=True, column_config=tables.model_columns(table), placeholder="–",
        alt="Registered models with their numbers",
    )  # fmt: skip
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.caption(
        "Best test log-likelihood first, within each data set and pixel treatment; rows of different data set, "
        "image shape or pixels are not ranked against each other."
    )
    right.download_button(
        "CSV", tables.csv_of(table), "models.csv", "text/csv", icon=":material/download:", on_click="ignore",
        width="stretch",
    )  # fmt: skip


def _show_likelihoods(versions: Sequence[ModelVersion]) -> None:
    st.subheader("Test log-likelihood", anchor=False)
    axes = by_axis(versions)
    names = titles(axes)
    kinds = {version.likelihood_kind for shown in axes.values() for version in shown}
    for axis, shown in axes.items():
        st.markdown(f"**{plain(names[axis])}**")
        st.plotly_chart(
            likelihood_figure(shown, [version_name(v) for v in shown]), key=f"likelihood {axis}",
            config={"displayModeBar": False}, alt=f"Test log-likelihood on {names[axis]}",
        )  # fmt: skip
    meanings = [f"**{MARKS[kind].legend}**: {MARKS[kind].meaning}" for kind in MARKS if kind in kinds]
    if any(version.log_partition for version in versions):
        meanings.append(f"**{INTERVAL}**: it shifts all images of a model together, so it is drawn apart")
    bars = ["Bars: 95 % interval of the mean over test images."] if axes else []
    st.caption(" ".join([*bars, *[f"{meaning}." for meaning in meanings], *_without_likelihood(versions)]))


def _without_likelihood(versions: Sequence[ModelVersion]) -> list[str]:
    """A sentence for each reason why versions have no place on an axis."""
    missing: dict[str, list[str]] = {}
    for version in versions:
        if reason := why_no_likelihood(version):
            missing.setdefault(reason, []).append(version_name(version))
    return [f"Without a number: {plain(', '.join(sorted(names)))} ({why})." for why, names in missing.items()]


def _show_pair(versions: Sequence[ModelVersion]) -> None:
    st.subheader("Two models on the same images", anchor=False)
    candidates = [v for shown in by_axis(best_of_each(versions)).values() for v in shown]
    candidates += [v for v in versions if v not in candidates and v.test_mean is not None]
    if len(candidates) < 2:
        st.info("A paired difference needs two registered models with a test log-likelihood.", icon=":material/info:")
        return
    reasons = {version_name(v): why_no_likelihood(v) for v in versions}
    for key in ("first", "second"):
        say_if_not_offered([version_name(v) for v in candidates], key, lambda name: reasons.get(name) or NOT_REGISTERED)
    left, right = st.columns(2)
    with left:
        first = pick_model(candidates, "First", "first")
    with right:
        second = pick_model(candidates, "Second", "second", index=1)
    if first is None or second is None:
        return
    if reason := pairs.why_not(first, second):
        st.info(plain(reason), icon=":material/info:")
        return
    values = [loading.per_image(version.run_id).get("test") for version in (first, second)]
    if values[0] is None or values[1] is None:
        lacking = first if values[0] is None else second
        st.info(f"The run of {plain(version_name(lacking))} kept no per-image values. Train it again: "
                f"`python -m pipelines rerun {lacking.run_id}`", icon=":material/info:")  # fmt: skip
        return
    _show_difference(paired_difference(*values), first, second)


def _show_difference(difference: PairedDifference, first: ModelVersion, second: ModelVersion) -> None:
    names = version_name(first), version_name(second)
    left, right = st.columns([1, 2])
    left.metric(
        f"{plain(names[0])} minus {plain(names[1])}", f"{difference.mean:+.3f} ± {difference.standard_error:.3f}",
        help="Mean and standard error of the per-image differences in nats.",
    )  # fmt: skip
    left.caption(f"nats per image, {len(difference.values)} paired test images, {plain(first.treatment)}")
    left.markdown(plain(pairs.in_words(difference, first, second)))
    right.plotly_chart(
        difference_figure(difference), key="difference", config={"displayModeBar": False},
        alt=f"Per-image differences between {names[0]} and {names[1]}",
    )  # fmt: skip


@st.fragment
@guarded
def _show_curves(versions: Sequence[ModelVersion]) -> None:
    st.subheader("Training curves", anchor=False)
    say_if_gone(versions)
    left, right = st.columns([3, 2])
    with left:
        chosen = pick_models(versions, default=best_of_each)
    records = _runs_of(chosen)
    keys = epoch_metrics(records.values())
    if not keys:
        st.info("Choose models whose runs logged a metric per epoch.", icon=":material/info:")
        return
    index = keys.index(OF_EPOCHS) if OF_EPOCHS in keys else 0
    with right:
        metric = pick_one("Metric", keys, keys[index], "metric") or keys[index]
    with st.container():  # replaced as a whole: metrics differ in how many charts they need
        show_curves({version_name(v): records[v.run_id] for v in chosen if v.run_id in records}, metric)
    _show_links(chosen)


def epoch_metrics(records: Sequence[RunRecord]) -> list[str]:
    """The metrics that runs log once per epoch."""
    keys = {key for record in records for key in record.metrics}
    return sorted(key for key in keys if key.startswith("train/") or key in (OF_EPOCHS, "images_per_second"))


def _runs_of(versions: Sequence[ModelVersion]) -> dict[str, RunRecord]:
    wanted = [version.run_id for version in versions if version.run_status is not None]
    return {record.run_id: record for record in loading.runs_by_id(wanted)}


def _show_links(versions: Sequence[ModelVersion]) -> None:
    with st.container(horizontal=True):
        for version in versions:
            link("model", version_name(version), model=version_name(version))

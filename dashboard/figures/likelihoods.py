"""Test log-likelihoods: one axis per data set and pixel treatment, and a mark for each kind of number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from dashboard.axes import axis_of
from dashboard.figures.style import COLOURS, QUIET, finish

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion


@dataclass(frozen=True)
class Mark:
    """How a kind of likelihood is drawn, and what it is."""

    symbol: str
    dash: str  # of a line
    colour: str
    legend: str
    meaning: str


MARKS = {
    "exact": Mark("circle", "solid", COLOURS[0], "exact", "log p(x) itself"),
    "lower bound": Mark(
        "triangle-right", "dash", COLOURS[1], "lower bound",
        "the true value is at least this, so the mark points to it",
    ),
    "estimate": Mark(
        "diamond-open", "dot", COLOURS[3], "estimate",
        "log Z is estimated by annealed importance sampling; it tends to come out too small, and the log-likelihood "
        "then too good",
    ),
    "bound with estimated normaliser": Mark(
        "triangle-right-open", "dashdot", COLOURS[4], "bound with estimated normaliser",
        "a lower bound on log p(x) + log Z, less an estimated log Z, which comes out too small: no bound any more",
    ),
}  # fmt: skip
OTHER = Mark("x", "longdash", QUIET, "other", "of another kind: look at the model's evaluation")
INTERVAL = "95 % interval of log Z"


def likelihood_figure(versions: Sequence[ModelVersion], names: Sequence[str]) -> go.Figure:
    """Mean test log-likelihood in nats per image of versions that share an axis, with 95 % error bars over images.

    Raises ValueError for versions whose numbers must not share an axis.
    """
    if len({axis_of(version) for version in versions}) > 1:
        raise ValueError("log-likelihoods of different data sets or pixel treatments cannot share an axis")
    figure = go.Figure()
    _add_intervals(figure, versions, names)
    for kind in dict.fromkeys(version.likelihood_kind for version in versions):
        rows = [(name, v) for name, v in zip(names, versions, strict=True) if v.likelihood_kind == kind]
        figure.add_trace(_points(kind, rows))
    figure.update_xaxes(title="nats per image, test (right is better)")
    figure.update_yaxes(categoryorder="array", categoryarray=list(names)[::-1], showgrid=False)
    return finish(figure, 110 + 34 * len(versions))


def _points(kind: str, rows: Sequence[tuple[str, ModelVersion]]) -> go.Scatter:
    mark = MARKS.get(kind, OTHER)
    return go.Scatter(
        x=[version.test_mean for _, version in rows], y=[name for name, _ in rows], mode="markers", name=mark.legend,
        marker={"symbol": mark.symbol, "size": 12, "color": mark.colour, "line": {"width": 2, "color": mark.colour}},
        error_x={"array": [1.96 * (version.test_standard_error or 0.0) for _, version in rows], "width": 5},
        customdata=[[v.test_standard_error, v.test_count, kind] for _, v in rows],
        hovertemplate="%{y}<br>%{x:.3f} ± %{customdata[0]:.3f} nats per image<br>"
        "%{customdata[2]}, %{customdata[1]} test images<extra></extra>",
    )  # fmt: skip


def _add_intervals(figure: go.Figure, versions: Sequence[ModelVersion], names: Sequence[str]) -> None:
    """log p(x) = -F(x) - log Z: the interval of log Z moves all images together, so it is drawn apart, as a band."""
    shown = False
    for name, version in zip(names, versions, strict=True):
        if version.log_partition is None or version.test_mean is None:
            continue
        log_z = version.log_partition
        ends = [version.test_mean - (log_z.high - log_z.value), version.test_mean - (log_z.low - log_z.value)]
        figure.add_trace(
            go.Scatter(
                x=ends, y=[name, name], mode="lines", name=INTERVAL, legendgroup=INTERVAL, showlegend=not shown,
                line={"width": 16, "color": QUIET}, opacity=0.35,
                hovertemplate=f"log Z {log_z.value:.2f} [{log_z.low:.2f}, {log_z.high:.2f}]<extra></extra>",
            )  # fmt: skip
        )
        shown = True

"""Training curves: one metric of several runs over their epochs, its axis in words, each line with its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dashboard.figures.likelihoods import MARKS, OTHER
from dashboard.figures.style import colours_of, finish

Curve = Sequence[tuple[int, float]]
PARTS = {"train": "training", "system": "machine:"}  # what a metric is of, where its key is not a word for it


def curve_figure(
    curves: Mapping[str, Curve], metric: str, colours: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> go.Figure:  # fmt: skip
    """One line per run; a run with a single step is a point. `kinds`, those of likelihoods, set dashes and marks."""
    colours, kinds = colours or colours_of(curves), kinds or {}
    step_name = "measurement" if metric.startswith("system/") else "epoch"
    figure = go.Figure()
    for name, points in curves.items():
        steps, values = zip(*points, strict=True) if points else ((), ())
        mark = MARKS.get(kinds[name], OTHER) if name in kinds else MARKS["exact"]
        figure.add_trace(
            go.Scatter(
                x=steps, y=values, mode="lines+markers" if len(points) < 30 else "lines",
                name=f"{name}, {kinds[name]}" if name in kinds else name,
                line={"color": colours[name], "width": 2, "dash": mark.dash}, marker={"size": 6, "symbol": mark.symbol},
                hovertemplate=f"{step_name} %{{x}}: %{{y:.4g}}<extra>%{{fullData.name}}</extra>",
            )  # fmt: skip
        )
    last = max((step for points in curves.values() for step, _ in points), default=1)
    figure.update_xaxes(title=step_name, dtick=_tick_distance(last))
    figure.update_yaxes(title="<br>".join(filter(None, (in_words(metric), unit_of(metric)))))
    return finish(figure, 340)


def in_words(metric: str) -> str:
    """A metric's key as one reads it: "validation/log_likelihood" is the validation log-likelihood."""
    part, _, name = metric.rpartition("/")
    name = name.replace("log_likelihood", "log-likelihood").replace("_", " ")
    return f"{PARTS.get(part, part)} {name}".strip()


def unit_of(metric: str) -> str:
    """The unit of a metric whose name does not say it."""
    if "log_likelihood" in metric:
        return "nats per image"
    return "in the model's own unit" if metric.startswith("train/") else ""


def _tick_distance(last: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that marks at most twelve epochs."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * 12 >= last:
                return factor * power
        power *= 10

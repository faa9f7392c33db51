"""Training curves: one metric of several runs over their epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dashboard.figures.style import colours_of, finish

Curve = Sequence[tuple[int, float]]


def curve_figure(curves: Mapping[str, Curve], metric: str, colours: Mapping[str, str] | None = None) -> go.Figure:
    """One line per run; a run with a single step is a point."""
    colours = colours or colours_of(curves)
    figure = go.Figure()
    for name, points in curves.items():
        steps, values = zip(*points, strict=True) if points else ((), ())
        figure.add_trace(
            go.Scatter(
                x=steps, y=values, mode="lines+markers" if len(points) < 30 else "lines", name=name,
                line={"color": colours[name], "width": 2}, marker={"size": 5},
                hovertemplate="epoch %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
            )  # fmt: skip
        )
    last = max((step for points in curves.values() for step, _ in points), default=1)
    figure.update_xaxes(title="epoch", dtick=_tick_distance(last))
    figure.update_yaxes(title=metric)
    return finish(figure, 340)


def _tick_distance(last: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that marks at most twelve epochs."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * 12 >= last:
                return factor * power
        power *= 10

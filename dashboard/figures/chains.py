"""Markov chains: a number along them, beside what it is on data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import plotly.graph_objects as go

from dashboard.figures.style import COLOURS, finish

LINES, POINTS = 12, 400  # chains drawn one by one; steps drawn


def chain_figure(values: numpy.ndarray, what: str, data: Sequence[float], moment: int) -> go.Figure:
    """Values (T + 1, n) over the steps: each chain, their mean, the middle 90 % of data, and one moment."""
    steps = numpy.unique(numpy.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(int))
    figure = go.Figure()
    if len(data):
        low, middle, high = numpy.quantile(data, [0.05, 0.5, 0.95])
        figure.add_hrect(low, high, fillcolor=COLOURS[2], opacity=0.15, line_width=0)
        figure.add_hline(middle, line={"color": COLOURS[2], "width": 2, "dash": "dot"})
    for chain in range(min(values.shape[1], LINES)):
        figure.add_trace(go.Scatter(
            x=steps, y=values[steps, chain], mode="lines", line={"color": COLOURS[0], "width": 1}, opacity=0.35,
            hovertemplate=f"chain {chain + 1}, step %{{x}}: %{{y:.2f}}<extra></extra>", showlegend=False,
        ))  # fmt: skip
    figure.add_trace(go.Scatter(
        x=steps, y=values[steps].mean(1), mode="lines", line={"color": COLOURS[1], "width": 3}, name="mean",
        hovertemplate="mean, step %{x}: %{y:.2f}<extra></extra>", showlegend=False,
    ))  # fmt: skip
    figure.add_vline(moment, line={"color": COLOURS[3], "width": 1, "dash": "dash"})
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="mean brightness" if what == "brightness" else f"{what}, nats")
    return finish(figure, 320, legend=False)

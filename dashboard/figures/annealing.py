"""Annealed importance sampling looked at: where the log weights ended, and how they came there."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard.figures.style import COLOURS, QUIET, finish


def weights_figure(log_weights: Sequence[float], value: float, low: float, high: float) -> go.Figure:
    """The log weights of the chains as a histogram, with log Z and its 95 % interval."""
    figure = go.Figure(go.Histogram(x=list(log_weights), nbinsx=30, marker={"color": COLOURS[0]}, opacity=0.8,
                                    hovertemplate="%{x}: %{y} chains<extra></extra>"))  # fmt: skip
    figure.add_vrect(low, high, fillcolor=QUIET, opacity=0.35, line_width=0)
    figure.add_vline(value, line={"color": COLOURS[4], "width": 2})
    figure.update_xaxes(title="log weight, nats")
    figure.update_yaxes(title="chains")
    return finish(figure, 260, legend=False)


def trace_figure(betas: Sequence[float], quantiles: Sequence[float], values: Sequence[Sequence[float]]) -> go.Figure:
    """How far the log weights (quantiles, moments) have spread at each inverse temperature, from their median."""
    middle = values[list(quantiles).index(0.5)]
    apart = [[v - m for v, m in zip(row, middle, strict=True)] for row in values]
    figure = go.Figure()
    for inner, (lower, upper) in enumerate(zip(apart[: len(apart) // 2], apart[: len(apart) // 2 : -1], strict=True)):
        share = quantiles[-1 - inner] - quantiles[inner]
        figure.add_trace(go.Scatter(x=[*betas, *betas[::-1]], y=[*upper, *lower[::-1]], fill="toself", mode="none",
                                    fillcolor=COLOURS[0], opacity=0.25 + 0.25 * inner, hoverinfo="skip",
                                    name=f"middle {share:.0%} of the chains"))  # fmt: skip
    figure.update_xaxes(title="inverse temperature")
    figure.update_yaxes(title="log weight less its median")
    return finish(figure, 260)

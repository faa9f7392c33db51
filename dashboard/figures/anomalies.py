"""The histogram of normal scores with the uploaded images marked. Plotly, no Streamlit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import plotly.graph_objects as go
from torch import Tensor

from dashboard.figures.style import COLOURS, QUIET, finish

FLAGGED, NOT_FLAGGED = COLOURS[4], COLOURS[0]
BINS, MAXIMUM_MARKS = 40, 2000
HEADROOM = 1.45  # of the bars' axis, so that the marks above them are clear of the bars


def score_histogram(
    calibration_scores: Tensor,
    scores: Tensor,
    flagged: Tensor,
    names: Sequence[str],
    axis: str,
    cut: float | None = None,
    chosen: int | None = None,
) -> go.Figure:
    """Scores of held-out normal images as bars, the uploads as marks above them, and where flagging begins."""
    bars = _bars(calibration_scores)
    figure = go.Figure(bars)
    for is_flagged in (False, True):
        rows = [i for i in range(min(len(scores), MAXIMUM_MARKS)) if bool(flagged[i]) == is_flagged]
        if rows:
            figure.add_trace(_marks([float(scores[i]) for i in rows], [names[i] for i in rows], is_flagged))
    if cut is not None:
        _line(figure, cut, FLAGGED, "flagged above", "dash")
    if chosen is not None and chosen < len(scores):
        _line(figure, float(scores[chosen]), FLAGGED if bool(flagged[chosen]) else NOT_FLAGGED, "", "solid")
    figure.update_layout(
        bargap=0.04, hovermode="closest", xaxis_title=axis, 
        yaxis={"title": "normal images", "range": [0, HEADROOM * max(bars.y)]},
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )  # fmt: skip
    return finish(figure, 340)


def _bars(scores: Tensor) -> go.Bar:
    counts, edges = numpy.histogram(scores.double().numpy(), bins=BINS)
    return go.Bar(
        x=(edges[:-1] + edges[1:]) / 2, y=counts, width=numpy.diff(edges), marker_color=QUIET,
        name=f"{len(scores)} normal images (calibration)", customdata=numpy.stack([edges[:-1], edges[1:]], 1),
        hovertemplate="%{customdata[0]:.4g} to %{customdata[1]:.4g}: %{y} normal images<extra></extra>",
    )  # fmt: skip


def _marks(x: list[float], names: list[str], is_flagged: bool) -> go.Scatter:
    legend, colour, symbol, height = (
        ("flagged", FLAGGED, "triangle-down", 0.87) if is_flagged else ("not flagged", NOT_FLAGGED, "line-ns-open", 0.8)
    )
    return go.Scatter(
        x=x, y=[height] * len(x), yaxis="y2", mode="markers", name=legend, text=[_short(name) for name in names],
        hovertemplate="%{text}: %{x:.4g}<extra>" + legend + "</extra>",
        marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2, "color": colour}},
    )  # fmt: skip


def _line(figure: go.Figure, x: float, colour: str, text: str, dash: str) -> None:
    figure.add_vline(x=x, line={"color": colour, "width": 1.5, "dash": dash}, annotation_text=text,
                     annotation_position="top right", annotation_font_color=colour, annotation_xshift=4)  # fmt: skip


def _short(name: str) -> str:
    """A foreign name as plain text: Plotly reads a little HTML."""
    name = name if len(name) <= 40 else f"{name[:37]}..."
    return name.replace("&", "&amp;").replace("<", "&lt;")

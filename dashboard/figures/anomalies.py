"""The histogram of normal scores with the uploaded images marked. Plotly, no Streamlit."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from torch import Tensor

NORMAL, FLAGGED, NOT_FLAGGED = "#8a97a0", "#d1495b", "#3b7dd8"
MAXIMUM_MARKS = 2000


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
    figure = go.Figure()
    count = len(calibration_scores)
    figure.add_histogram(
        x=calibration_scores.tolist(), nbinsx=40, marker_color=NORMAL, name=f"{count} normal images (calibration)",
        hovertemplate="%{x}: %{y} normal images<extra></extra>",
    )  # fmt: skip
    for is_flagged, name, colour, symbol in (
        (False, "not flagged", NOT_FLAGGED, "line-ns-open"),
        (True, "flagged", FLAGGED, "triangle-down"),
    ):
        rows = [i for i in range(min(len(scores), MAXIMUM_MARKS)) if bool(flagged[i]) == is_flagged]
        if rows:
            figure.add_trace(_marks([float(scores[i]) for i in rows], [names[i] for i in rows], name, colour, symbol))
    if cut is not None:
        figure.add_vline(x=cut, line={"color": FLAGGED, "width": 1.5, "dash": "dash"}, annotation_text="flagged above",
                         annotation_position="top right", annotation_font_color=FLAGGED)  # fmt: skip
    if chosen is not None and chosen < len(scores):
        figure.add_vline(x=float(scores[chosen]), line={"color": NOT_FLAGGED, "width": 1.5},
                         annotation_text=_short(names[chosen]), annotation_position="bottom right")  # fmt: skip
    return figure.update_layout(
        height=320, bargap=0.03, margin={"l": 8, "r": 8, "t": 28, "b": 8}, hovermode="closest",
        legend={"orientation": "h", "y": -0.28, "x": 0}, xaxis_title=axis, yaxis_title="normal images",
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    )  # fmt: skip


def _marks(x: list[float], names: list[str], legend: str, colour: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=x, y=[0.93 if legend == "flagged" else 0.86] * len(x), yaxis="y2", mode="markers", name=legend,
        text=[_short(name) for name in names], hovertemplate="%{text}: %{x:.4g}<extra>" + legend + "</extra>",
        marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2, "color": colour}},
    )  # fmt: skip


def _short(name: str) -> str:
    """A foreign name as plain text: Plotly reads a little HTML."""
    name = name if len(name) <= 40 else f"{name[:37]}..."
    return name.replace("&", "&amp;").replace("<", "&lt;")

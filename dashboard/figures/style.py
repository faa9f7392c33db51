"""What all figures share: colours for models, marks for kinds of likelihood, margins."""

from __future__ import annotations

from collections.abc import Iterable

import plotly.graph_objects as go

COLOURS = ("#3b7dd8", "#d9822b", "#2a9d78", "#b65fc2", "#d1495b", "#8a8f2a", "#3aa6b9", "#9c6b4f")
QUIET = "#8a9694"  # for what stands beside the numbers: zero lines, intervals
GRID = "rgba(138, 150, 148, 0.25)"


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in their order, the same wherever the same names are shown together."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(dict.fromkeys(names))}


def finish(figure: go.Figure, height: int, legend: bool = True) -> go.Figure:
    """Margins, legend above the plot, a quiet grid, and a transparent background."""
    figure.update_layout(
        height=height, margin={"l": 8, "r": 16, "t": 34 if legend else 12, "b": 8}, showlegend=legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0.0},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hoverlabel={"namelength": -1},
    )  # fmt: skip
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    return figure

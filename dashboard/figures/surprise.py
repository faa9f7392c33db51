"""A map of surprise over the pixels of an image, to be clicked, and what a model expected of one pixel. Plotly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import plotly.graph_objects as go
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from dashboard.figures.style import QUIET, finish
from dashboard.images import FRAME_COLOUR, INFERNO

# As rgb(): Streamlit takes #000001 to #000040 for places of its theme, and Plotly's own Inferno begins at #000004.
SCALE = [f"rgb({', '.join(str(round(255 * part)) for part in colour)})" for colour in INFERNO.tolist()]
COLOUR_NAMES, COLOUR_TONES = ("red", "green", "blue"), ("#d1495b", "#2a9d78", "#3b7dd8")
MOST_BARS = 64  # more levels than that are drawn as a line
HOVER = "row %{y}, column %{x}: %{text} nats<extra></extra>"


def surprise_figure(
    surprise: numpy.ndarray, chosen: tuple[int, int], limits: tuple[float, float] | None = None
) -> Figure:
    """-log p of each pixel (H, W) in nats as colours between `limits`, the chosen (row, column) framed.

    Plotly selects points and not cells of a heat map, so an unseen point lies on each pixel; they are numbered row by
    row, and `customdata` holds the pixel chosen so far, so that two clicks on one pixel are never the same event.
    """
    height, width = surprise.shape
    low, high = limits or (float(surprise.min()), float(surprise.max()))
    rows, columns = numpy.mgrid[:height, :width].reshape(2, -1)
    place = chosen[0] * width + chosen[1]
    figure = Figure([
        go.Heatmap(
            z=surprise, zmin=low, zmax=max(high, low + 1e-6), colorscale=SCALE, hoverinfo="skip",
            colorbar={"title": {"text": "nats", "side": "top"}, "orientation": "h", "thickness": 10, "outlinewidth": 0,
                      "y": 1.02, "yanchor": "bottom", "ypad": 0},
        ),
        go.Scatter(
            x=columns, y=rows, mode="markers", text=[f"{value:.3g}" for value in surprise.flatten()],
            customdata=[place] * surprise.size, hovertemplate=HOVER, showlegend=False, selectedpoints=[place],
            marker={"size": 12, "opacity": 0, "symbol": "square"}, selected={"marker": {"opacity": 0}},
            unselected={"marker": {"opacity": 0}},
        ),
    ])  # fmt: skip
    _frame(figure, chosen)
    finish(figure, 400, legend=False)
    ticks = {"showgrid": False, "zeroline": False, "fixedrange": True, "constrain": "domain", "nticks": 8}
    figure.update_xaxes(range=[-0.5, width - 0.5], **ticks)
    figure.update_yaxes(range=[height - 0.5, -0.5], scaleanchor="x", constraintoward="top", **ticks)
    figure.update_layout(hovermode="closest", hoverdistance=-1, dragmode=False)
    return figure


def _frame(figure: Figure, chosen: tuple[int, int]) -> None:
    """A frame that is seen on dark and on bright pixels: a bright line on a dark one."""
    row, column = chosen
    for colour, width in (("black", 5), (FRAME_COLOUR, 3)):
        figure.add_shape(
            type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5,
            line={"color": colour, "width": width},
        )  # fmt: skip


def levels_figure(probabilities: numpy.ndarray, true: Sequence[int]) -> Figure:
    """p(level) of one pixel (C, L), with the level that it has marked in each colour; one panel per colour."""
    colours, levels = probabilities.shape
    figure = _panels(colours)
    for index, (chances, value) in enumerate(zip(probabilities, true, strict=True)):
        hover = "%{x}: p = %{y:.4g}<extra></extra>"
        if levels <= MOST_BARS:
            tones = [FRAME_COLOUR if level == value else _tone(index, colours) for level in range(levels)]
            bars = go.Bar(x=list(range(levels)), y=chances, marker_color=tones, hovertemplate=hover, name="")
        else:
            bars = go.Scatter(x=list(range(levels)), y=chances, mode="lines", fill="tozeroy", name="",
                              line={"color": _tone(index, colours), "shape": "hvh", "width": 1.5}, hovertemplate=hover)
        figure.add_trace(bars, row=index + 1, col=1)
        _mark(figure, value, index, colours, f"this pixel: {value}")
    figure.update_xaxes(title="value", row=colours, col=1)
    figure.update_xaxes(range=[-0.6, levels - 0.4], tickvals=[0, 1] if levels == 2 else None)
    figure.update_yaxes(rangemode="tozero", range=[0, 1.1] if levels == 2 else None)
    return _finished(figure, colours, "probability")


def density_figure(values: numpy.ndarray, densities: numpy.ndarray, true: Sequence[float]) -> Figure:
    """p(value) of one real pixel over values (V,) in [0, 1], densities (C, V), with the value that it has marked."""
    colours = len(densities)
    figure = _panels(colours)
    for index, (heights, value) in enumerate(zip(densities, true, strict=True)):
        curve = go.Scatter(
            x=values, y=heights, mode="lines", fill="tozeroy", name="",
            line={"color": _tone(index, colours), "width": 1.5},
            hovertemplate="%{x:.3f}: density %{y:.4g}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(curve, row=index + 1, col=1)
        _mark(figure, value, index, colours, f"this pixel: {value:.3f}")
    figure.update_xaxes(range=[0, 1])
    figure.update_xaxes(title="value", row=colours, col=1)
    figure.update_yaxes(rangemode="tozero")
    return _finished(figure, colours, "density")


def _panels(colours: int) -> Figure:
    return make_subplots(rows=colours, cols=1, shared_xaxes=True, vertical_spacing=0.12)


def _tone(index: int, colours: int) -> str:
    return COLOUR_TONES[index] if colours == 3 else QUIET


def _mark(figure: Figure, value: float, index: int, colours: int, words: str) -> None:
    """A line at the value that the pixel has."""
    figure.add_vline(
        x=value, line={"color": FRAME_COLOUR, "width": 2, "dash": "dot"},
        annotation_text=words, annotation_position="top", row=index + 1, col=1,
    )  # fmt: skip


def _finished(figure: Figure, colours: int, what: str) -> Figure:
    for index in range(colours):
        figure.update_yaxes(title=f"{what}, {COLOUR_NAMES[index]}" if colours == 3 else what, row=index + 1, col=1)
    figure.update_layout(bargap=0.15, hovermode="closest")
    finish(figure, 260 if colours == 1 else 110 + 130 * colours, legend=False)
    return figure.update_layout(margin_t=30)  # for the words above the panels

"""The paired difference of two models on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import plotly.graph_objects as go

from dashboard.figures.style import COLOURS, QUIET, finish


@dataclass(frozen=True)
class PairedDifference:
    """log p_first(x) - log p_second(x) over the same images, in nats per image."""

    values: numpy.ndarray

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Standard deviation / sqrt N; much smaller than the errors of the two means, which share the images."""
        return float(self.values.std(ddof=1) / numpy.sqrt(len(self.values)))


def paired_difference(first: numpy.ndarray, second: numpy.ndarray) -> PairedDifference:
    """Raises ValueError where the two are not values of the same images."""
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"a paired difference needs two values of each of the same images, got {len(first)} and {len(second)}"
        )
    return PairedDifference(first - second)


def difference_figure(difference: PairedDifference) -> go.Figure:
    """A histogram of the per-image differences with the mean and the zero line."""
    figure = go.Figure(
        go.Histogram(
            x=difference.values, nbinsx=40, marker={"color": COLOURS[2]}, opacity=0.85,
            hovertemplate="%{x} nats: %{y} images<extra></extra>",
        )  # fmt: skip
    )
    figure.add_vline(x=0, line={"color": QUIET, "dash": "dot"})
    figure.add_vline(x=difference.mean, line={"color": COLOURS[4], "width": 3})
    figure.update_xaxes(title="difference in nats, one value per test image")
    figure.update_yaxes(title="images")
    return finish(figure, 260, legend=False)

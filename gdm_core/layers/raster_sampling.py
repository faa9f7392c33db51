"""Sampling in raster order: pixel after pixel, colour after colour, each value drawn given all before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from gdm_core.layers.pixel_distribution import PixelDistribution


class IncrementalNetwork(Protocol):
    """A causal network in its incremental form: remembers what it was told, computes each activation once."""

    def begin_row(self) -> None:
        """Move to the start of the next row."""
        ...

    def logits(self, column: int, colour: int) -> Tensor:
        """The logits of the value at a column in a colour, (n, parameters), given all values written so far."""
        ...

    def write(self, values: Tensor, column: int, colour: int) -> None:
        """Tell it the values (n,) at a column in a colour."""
        ...


def sample_in_raster_order(
    network: IncrementalNetwork,
    distribution: PixelDistribution,
    uniforms: Tensor,
    temperature: float = 1.0,
    x: Tensor | None = None,
    known: Tensor | None = None,
) -> Iterator[Tensor]:
    """Draw images from uniforms (n, C, H, W), yielding them after every row (pixels still to come are 0).

    Where `known` (n, 1, H, W) is true the value of x is taken instead of a draw.
    """
    given = None if x is None or known is None else (_pixel_first(x), _pixel_first(known.expand_as(x)))
    noise, images = _pixel_first(uniforms), torch.zeros_like(_pixel_first(uniforms))  # (H, W, C, n)
    for row in range(images.shape[0]):
        row_given = None if given is None else (given[0][row], given[1][row])
        _sample_row(network, distribution, noise[row], images[row], temperature, row_given)
        yield images.permute(3, 2, 0, 1).contiguous()


@torch.inference_mode()
def _sample_row(
    network: IncrementalNetwork,
    distribution: PixelDistribution,
    noise: Tensor,
    row: Tensor,
    temperature: float,
    given: tuple[Tensor, Tensor] | None,
) -> None:
    network.begin_row()
    for column in range(row.shape[0]):
        for colour in range(row.shape[1]):
            values = distribution.sample(network.logits(column, colour), noise[column, colour], temperature)
            if given is not None:
                values = torch.where(given[1][column, colour], given[0][column, colour], values)
            row[column, colour] = values
            network.write(values, column, colour)


def _pixel_first(x: Tensor) -> Tensor:
    """(n, C, H, W) -> (H, W, C, n), contiguous: a value of all images at once is one stretch of memory."""
    return x.permute(2, 3, 1, 0).contiguous()

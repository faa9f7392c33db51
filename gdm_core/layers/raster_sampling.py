"""Sampling in raster order: pixel after pixel, colour after colour, each value drawn given all before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Protocol

import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel
from gdm_core.layers.pixel_distribution import PixelDistribution

Steps = Callable[..., Iterator[Tensor]]  # a model's method that yields images as they form


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


class Given:
    """Images of which some pixels are known: x (n, C, H, W) where `known` (n, 1, H, W) is true.

    `log_weight` (n,) adds up log p(known value | values before it), at temperature 1, as the images are drawn.
    """

    def __init__(self, x: Tensor, known: Tensor) -> None:
        self.x, self.known = _pixel_first(x), _pixel_first(known.expand_as(x))  # (H, W, C, n)
        self.log_weight = x.new_zeros(len(x))

    def take(self, place: tuple[int, int, int], values: Tensor, log_prob: Tensor) -> Tensor:
        """The drawn values (n,), with the known ones in their place."""
        known = self.known[place]
        self.log_weight += torch.where(known, log_prob, 0)
        return torch.where(known, self.x[place], values)


def sample_in_raster_order(
    network: IncrementalNetwork,
    distribution: PixelDistribution,
    uniforms: Tensor,
    temperature: float = 1.0,
    given: Given | None = None,
    pixel_by_pixel: bool = False,
) -> Iterator[Tensor]:
    """Draw images from uniforms (n, C, H, W), yielding them after every row or pixel; pixels still to come are 0.

    What is `given` is taken instead of a draw.
    """
    noise, images = _pixel_first(uniforms), torch.zeros_like(_pixel_first(uniforms))  # (H, W, C, n)
    height, width, _, _ = images.shape
    for row in range(height):
        with torch.inference_mode():
            network.begin_row()
        for column in range(width):
            _sample_pixel(network, distribution, noise, images, temperature, (row, column), given)
            if pixel_by_pixel or column == width - 1:  # a copy also of one image, whose layout needs none
                yield images.permute(3, 2, 0, 1).clone(memory_format=torch.contiguous_format)


@torch.inference_mode()
def _sample_pixel(
    network: IncrementalNetwork,
    distribution: PixelDistribution,
    noise: Tensor,
    images: Tensor,
    temperature: float,
    pixel: tuple[int, int],
    given: Given | None,
) -> None:
    """Draw the colours of one pixel of all images and tell the network."""
    row, column = pixel
    for colour in range(images.shape[2]):
        place = (row, column, colour)
        logits = network.logits(column, colour)
        values = distribution.sample(logits, noise[place], temperature)
        if given is not None:
            values = given.take(place, values, distribution.log_prob(logits, given.x[place]))
        images[place] = values
        network.write(values, column, colour)


def without_autocast(steps: Steps) -> Steps:
    """The same method, whose work is never done under autocast: caches keep one precision, and noise gives one image.

    Between two steps autocast is what it was: it belongs to the thread, and so to whoever asks for them.
    """

    @wraps(steps)
    def taken_without(model: GenerativeModel, *args: object, **kwargs: object) -> Iterator[Tensor]:
        ahead = steps(model, *args, **kwargs)
        while True:
            with torch.autocast(model.device.type, enabled=False):
                images = next(ahead, None)
            if images is None:
                return
            yield images

    return taken_without


def _pixel_first(x: Tensor) -> Tensor:
    """(n, C, H, W) -> (H, W, C, n), contiguous: a value of all images at once is one stretch of memory."""
    return x.permute(2, 3, 1, 0).contiguous()


def last(steps: Iterator[Tensor]) -> Tensor:
    """The last of the images as they form, without keeping the others."""
    return deque(steps, maxlen=1)[0]


def as_they_grew(images: Tensor, known: Tensor) -> Iterator[Tensor]:
    """Finished images (N, C, H, W) as if drawn pixel by pixel; those to come are 0 unless `known` (N, 1, H, W)."""
    to_come = (~known).contiguous()  # ~ keeps the strides of a transposed or expanded mask, which no view can flatten
    in_sequence = to_come.view(len(known), -1)
    for pixel in range(in_sequence.shape[1]):
        in_sequence[:, pixel] = False
        yield images.masked_fill(to_come, 0)

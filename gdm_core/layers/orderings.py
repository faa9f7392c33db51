"""Orders of the values other than raster order: an image read in a permutation, and drawn in it.

    x in the order o is y with y_d = x_{o_d},    o a permutation of 0..D - 1

o_d is the place in raster order (colour after colour within a pixel) of the value that comes d-th. Images in an order
keep their shape (N, C, H, W): there every order is raster order, so that drawing in an order is drawing in raster order
and putting the values back in their places.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gdm_core.layers.pixel_distribution import PixelDistribution
from gdm_core.layers.raster_sampling import Given, IncrementalNetwork, sample_in_raster_order
from gdm_core.layers.value_sequence import in_images, in_sequence


def check_order(order: Tensor, dimensions: int) -> Tensor:
    """An order (D,) as long integers, or ValueError where it is no permutation of 0..D - 1.

    Others would not do: torch takes an index of bytes for a mask.
    """
    if order.shape != (dimensions,) or order.is_floating_point() or order.is_complex() or order.dtype == torch.bool:
        raise ValueError(f"order must be whole numbers ({dimensions},), got {order.dtype} {tuple(order.shape)}")
    order = order.long()
    if (order.sort().values != torch.arange(dimensions, device=order.device)).any():
        raise ValueError(f"order must be a permutation of 0..{dimensions - 1}, got {order.tolist()}")
    return order


def random_orders(count: int, dimensions: int, generator: torch.Generator | None = None) -> Tensor:
    """Orders drawn uniformly, (count, D)."""
    return torch.rand(count, dimensions, generator=generator, dtype=torch.float64).argsort(dim=1, stable=True)


def in_order(x: Tensor, orders: Tensor) -> Tensor:
    """Images (N, C, H, W) in the orders (1 or N, D): their d-th value is that at place o_d."""
    values = in_sequence(x)
    return in_images(values.gather(1, orders.expand(values.shape))[..., None], x.shape[1:])[..., 0].contiguous()


def known_values_come_first(known: Tensor, orders: Tensor) -> bool:
    """Whether the known values (N, D) are, in every one of the orders (M, D), before all the others."""
    return all(bool((flags[:, :-1] | ~flags[:, 1:]).all()) for flags in (known[:, order] for order in orders))


def with_known_first(orders: Tensor, known: Tensor) -> Tensor:
    """The orders (N, D), each with its known values (N, D) moved to the front; otherwise their sequence stays."""
    later = ~known.gather(1, orders)
    return orders.gather(1, later.long().argsort(dim=1, stable=True))


def sample_in_orders(
    network: IncrementalNetwork,
    distribution: PixelDistribution,
    uniforms: Tensor,
    orders: Tensor,
    temperature: float = 1.0,
    given: Given | None = None,
    pixel_by_pixel: bool = False,
) -> Iterator[Tensor]:
    """Draw images from uniforms (n, C, H, W), each in its own of the orders (n, D), yielding them as they form.

    The network counts its steps itself: the d-th asks for the value at place o_d. A step of the images comes after as
    many values as a row, or a pixel, has; values still to come are 0. What is `given` is so in the orders, which are
    not checked again: that would wait for a GPU.
    """
    places = orders.argsort(1)
    noise = in_order(uniforms, orders)
    for images in sample_in_raster_order(network, distribution, noise, temperature, given, pixel_by_pixel):
        yield in_order(images, places)

"""Orders of values and the masks that follow from them: permutations, their inverse, drawing in them, degrees."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gdm_core.layers.masked_linear import MaskedLinear, _Masked, spread_degrees
from gdm_core.layers.orderings import (
    check_order,
    in_order,
    known_values_come_first,
    random_orders,
    sample_in_orders,
    with_known_first,
)  # fmt: skip
from gdm_core.layers.pixel_distribution import Bernoulli
from gdm_core.layers.raster_sampling import Given
from gdm_core.layers.value_sequence import in_sequence
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from tests.autoregressive_cases import chi_square_bound


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 2, 2], r"a permutation of 0\.\.2, got \[0, 2, 2\]"),
        ([1, 2, 3], r"a permutation of 0\.\.2, got \[1, 2, 3\]"),
        ([-1, 0, 1], "a permutation"),
        ([0, 1], r"whole numbers \(3,\), got .* \(2,\)"),
        ([[0, 1, 2]], r"whole numbers \(3,\)"),
        ([0.0, 1.0, 2.0], "whole numbers .* got torch.float32"),
    ],
)
def test_what_is_no_order_is_named(order: list, message: str) -> None:
    with pytest.raises(ValueError, match="order must be " + message):
        check_order(torch.tensor(order), 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_whole_numbers_of_every_size_are_an_order(dtype: torch.dtype) -> None:
    """Torch takes an index of bytes for a mask."""
    model = build_model("eonade", (2, 2, 2), hidden_units=5).eval()
    x, order = torch.rand(3, 2, 2, 2).round(), torch.arange(8).flip(0)
    assert torch.equal(check_order(order.to(dtype), 8), order) and check_order(order.to(dtype), 8).dtype == torch.long
    assert torch.equal(model.log_prob_in_order(x, order.to(dtype)), model.log_prob_in_order(x, order))


def test_flags_are_no_order() -> None:
    with pytest.raises(ValueError, match=r"order must be whole numbers \(2,\), got torch.bool"):
        check_order(torch.tensor([False, True]), 2)


def test_random_orders_are_every_permutation_equally_often() -> None:
    orders = random_orders(60_000, 4, seeded_generator(0))
    for order in orders[:100]:
        check_order(order, 4)
    codes = (orders * 4 ** torch.arange(4)).sum(1)
    counts = codes.unique(return_counts=True)[1].double()
    assert len(counts) == 24
    assert ((counts - 2500) ** 2 / 2500).sum() < chi_square_bound(24)
    assert torch.equal(orders, random_orders(60_000, 4, seeded_generator(0)))
    assert not torch.equal(orders, random_orders(60_000, 4, seeded_generator(1)))


def test_an_image_in_an_order() -> None:
    """Of the order (2, 0, 1, ...) the first value is that at place 2: the first colour of the second pixel."""
    x, orders = torch.rand(5, 2, 3, 4), random_orders(5, 24, seeded_generator(0))
    y = in_order(x, orders)
    assert y.shape == x.shape and y.is_contiguous()
    for image, order, flat in zip(x, orders, in_sequence(y), strict=True):
        for d in range(24):
            pixel, colour = divmod(int(order[d]), 2)
            assert flat[d] == image[colour, pixel // 4, pixel % 4]
    assert torch.equal(in_order(y, orders.argsort(1)), x)
    assert torch.equal(in_order(x, torch.arange(24)[None]), x)
    assert torch.equal(in_order(x, orders[:1]), in_order(x, orders[:1].expand(5, -1)))


def test_known_values_first() -> None:
    orders = torch.tensor(list(itertools.permutations(range(4))))
    for flags in itertools.product([False, True], repeat=4):
        known = torch.tensor([flags])
        first = with_known_first(orders, known.expand(24, -1))
        for order, moved in zip(orders.tolist(), first.tolist(), strict=True):
            assert moved == sorted(order, key=lambda place: not flags[place])  # sorted() keeps the sequence of equals
            inside = sorted(order, key=lambda place: not flags[place]) == order
            assert known_values_come_first(known, torch.tensor([order])) == inside
        assert known_values_come_first(known, first)


def test_every_mask_and_every_order_has_a_say() -> None:
    known, orders = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool(), torch.tensor([[0, 1, 2], [0, 2, 1]])
    assert known_values_come_first(known, orders[:1])
    assert known_values_come_first(known[1:], orders)
    assert not known_values_come_first(known, orders)


class Recording:
    """A network that is sure of 1 for its first value and of 0 and 1 in turn after it, and notes what it is told."""

    def __init__(self, n: int) -> None:
        self.told: list[Tensor] = []
        self.rows, self.n = 0, n

    def begin_row(self) -> None:
        self.rows += 1

    def logits(self, column: int, colour: int) -> Tensor:
        return torch.full((self.n, 1), 50.0 if len(self.told) % 2 == 0 else -50.0)

    def write(self, values: Tensor, column: int, colour: int) -> None:
        self.told.append(values.clone())


@pytest.mark.parametrize("pixel_by_pixel", [False, True])
def test_drawing_in_orders_puts_values_in_their_places(pixel_by_pixel: bool) -> None:
    network, orders = Recording(3), random_orders(3, 24, seeded_generator(0))
    steps = list(
        sample_in_orders(network, Bernoulli(), torch.rand(3, 2, 3, 4), orders, pixel_by_pixel=pixel_by_pixel)
    )
    assert len(steps) == (12 if pixel_by_pixel else 3) and network.rows == 3
    places = orders.argsort(1)  # when each value came
    for count, images in enumerate(steps, 1):
        drawn = count * 24 // len(steps)
        assert torch.equal(in_sequence(images), ((places % 2 == 0) & (places < drawn)).float())
    assert torch.equal(torch.stack(network.told, 1), in_sequence(steps[-1]).gather(1, orders))


def test_what_is_given_is_taken_in_its_order() -> None:
    x, known = torch.rand(3, 1, 2, 3).round(), torch.rand(3, 1, 2, 3) < 0.5
    orders, network = random_orders(3, 6, seeded_generator(0)), Recording(3)
    given = Given(in_order(x, orders), in_order(known, orders))
    *_, images = sample_in_orders(network, Bernoulli(), torch.rand(3, 1, 2, 3), orders, given=given)
    alone = in_order((torch.arange(6) % 2 == 0).float().view(1, 1, 2, 3).expand(3, -1, -1, -1), orders.argsort(1))
    assert torch.equal(images, torch.where(known, x, alone))


# --- masks -------------------------------------------------------------------------------------------------------


def test_a_mask_acts_in_the_call_and_leaves_the_weights() -> None:
    layer, mask = MaskedLinear(5, 4), (torch.rand(4, 5) < 0.5).float()
    before = layer.weight.detach().clone()
    x = torch.randn(7, 5)
    y = layer(x, mask)
    expected = torch.stack([sum(layer.weight[k, j] * x[:, j] for j in range(5) if mask[k, j]) + layer.bias[k]
                            for k in range(4)], 1)  # fmt: skip
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    assert torch.equal(layer.weight, before) and before.all()
    assert torch.equal(layer.weight.grad != 0, mask.bool())


@pytest.mark.parametrize("n", [1, 7])
def test_a_masked_layer_has_the_gradients_of_the_product_of_its_weights_and_masks(n: int) -> None:
    """Also where it is called twice, with other masks, and where the loss looks at the weights themselves."""
    layer, masks = MaskedLinear(5, 5).double(), (torch.rand(2, 5, 5) < 0.5).double()
    x = torch.randn(n, 5, dtype=torch.float64, requires_grad=True)

    def loss(linear: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return linear(linear(x, masks[0]), masks[1]).square().sum() + layer.weight.square().sum()

    inputs = [x, layer.weight, layer.bias]
    plain = loss(lambda h, mask: functional.linear(h, layer.weight * mask, layer.bias))
    expected = torch.autograd.grad(plain, inputs)
    for create_graph in (False, True):
        found = torch.autograd.grad(loss(layer), inputs, create_graph=create_graph)
        for ours, autograds in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, autograds)
    assert torch.autograd.gradgradcheck(lambda x, weight: _Masked.apply(weight, masks[0]) @ x.T, inputs[:2])


@pytest.mark.parametrize(("units", "dimensions"), [(24, 9), (8, 9), (3, 9), (5, 2), (4, 1), (1000, 784)])
def test_degrees_are_spread_over_all_but_the_last_input(units: int, dimensions: int) -> None:
    degrees = spread_degrees(6, units, dimensions, seeded_generator(0))
    assert degrees.shape == (6, units)
    assert degrees.min() == 1 and degrees.max() <= max(dimensions - 1, 1)
    assert (degrees.sort(1).values == degrees[0].sort().values).all()
    counts = degrees[0].bincount(minlength=dimensions)[1:]
    if units >= dimensions - 1 > 0:
        assert counts.min() >= 1 and counts.max() - counts.min() <= 1
    if units > 3 and dimensions > 2:
        assert len(degrees.unique(dim=0)) > 1

"""Images as sequences: the order of values, and their embedding at levels and between them."""

from __future__ import annotations

import itertools

import pytest
import torch

from gdm_core.layers.value_sequence import PrecedingValue, in_images, in_sequence


def test_values_go_row_by_row_and_colour_by_colour_within_a_pixel() -> None:
    x = torch.rand(2, 3, 4, 5)
    sequence = in_sequence(x)
    for i, (row, column, colour) in enumerate(itertools.product(range(4), range(5), range(3))):
        assert torch.equal(sequence[:, i], x[:, colour, row, column])
    assert torch.equal(in_images(sequence[..., None], (3, 4, 5))[..., 0], x)


@pytest.mark.parametrize("levels", [2, 5, 17, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_level_has_its_row_of_the_table(levels: int, dtype: torch.dtype) -> None:
    before = PrecedingValue(levels, 3).to(dtype)
    torch.nn.init.normal_(before.weight)
    found = before.embed(torch.arange(levels, dtype=dtype) / (levels - 1))
    torch.testing.assert_close(found, before.weight, rtol=0, atol=1e-3 if dtype is torch.float32 else 1e-12)


def test_between_two_levels_it_is_their_mean_by_distance() -> None:
    before = PrecedingValue(5, 3).double()
    torch.nn.init.normal_(before.weight)
    between = before.embed(torch.tensor([2.25 / 4]).double())[0]
    torch.testing.assert_close(between, 0.75 * before.weight[2] + 0.25 * before.weight[3])
    assert torch.autograd.gradcheck(before.embed, torch.tensor([0.1, 0.6, 0.9]).double().requires_grad_())


def test_each_place_gets_the_value_before_it() -> None:
    before, x = PrecedingValue(2, 3), torch.randint(2, (4, 2, 3, 2)).float()
    found = before(x)
    assert torch.equal(found[:, 0], before.start.expand(4, -1))
    assert torch.equal(found[:, 1:], before.embed(in_sequence(x)[:, :-1]))


def test_the_table_begins_on_a_line() -> None:
    weight = PrecedingValue(9, 4).weight.detach()
    torch.testing.assert_close(weight.diff(dim=0), weight.diff(dim=0)[:1].expand(8, -1))

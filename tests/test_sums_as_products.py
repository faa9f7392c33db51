"""The quick sum over all states against the plain one, also where factors come near the end of float64's range."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gdm_core.models.energy.partition import enumeration
from gdm_core.models.energy.partition.enumeration import log_partition_of_layers
from gdm_core.models.energy.partition.sums_as_products import RANGE, fits, largest_exponents, log_sum


def machine(units: int, others: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(scale * torch.randn(*size, dtype=torch.float64) for size in ((units, others), (units,), (others,)))


def plain(weight: Tensor, inner: Tensor, outer: Tensor) -> float:
    """Every state of both layers, one by one."""
    states = [torch.tensor(bits).double() for bits in itertools.product((0.0, 1.0), repeat=len(inner))]
    terms = [s @ inner + torch.nn.functional.softplus(outer + s @ weight, threshold=40).sum() for s in states]
    return torch.stack(terms).logsumexp(0).item()


@pytest.mark.parametrize(("units", "others"), [(1, 1), (1, 7), (3, 5), (6, 33), (9, 64), (2, 100)])
@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0, 40.0])
def test_it_is_the_plain_sum(units: int, others: int, scale: float) -> None:
    weight, inner, outer = machine(units, others, scale)
    assert fits(weight, outer)
    expected = plain(weight, inner, outer)
    assert log_sum(weight, inner, outer).item() == pytest.approx(expected, rel=1e-12, abs=1e-10)
    assert log_partition_of_layers(weight, inner, outer).item() == pytest.approx(expected, rel=1e-12, abs=1e-10)


def test_tables_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inner, outer = machine(7, 10, 1.0)
    whole = log_sum(weight, inner, outer).item()
    monkeypatch.setattr("gdm_core.models.energy.partition.sums_as_products.TABLE", 40)  # two low units
    assert log_sum(weight, inner, outer).item() == pytest.approx(whole, abs=1e-11)


def test_the_largest_exponent_is_reached_and_never_passed() -> None:
    weight, _, outer = machine(5, 8, 2.0)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=5)), dtype=torch.float64)
    largest = (outer + states @ weight).max(0).values.clamp_min(0)
    torch.testing.assert_close(largest_exponents(weight, outer), largest)


def test_what_does_not_fit_is_summed_the_slow_way() -> None:
    weight, inner, outer = machine(4, 6, 1000.0)
    assert not fits(weight, outer) and largest_exponents(weight, outer).max() > RANGE
    expected = plain(weight, inner, outer)
    assert log_partition_of_layers(weight, inner, outer).item() == pytest.approx(expected, rel=1e-12)


def test_too_many_units_are_refused_before_anything_is_made() -> None:
    with pytest.raises(ValueError, match="enumerating 2\\^31 states"):
        log_partition_of_layers(*machine(31, 40, 1.0))
    assert enumeration.MOST_ENUMERABLE_UNITS == 30

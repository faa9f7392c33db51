"""The autocorrelation time against a process whose own is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gdm_core.chain_statistics import autocorrelation, autocorrelation_time


def autoregressive(slope: float, steps: int, chains: int) -> Tensor:
    """y_t = slope y_{t-1} + noise, begun where it is at rest: rho_t = slope^t, tau = (1 + slope) / (1 - slope)."""
    y = [torch.randn(chains, dtype=torch.float64) / math.sqrt(1 - slope**2)]
    for _ in range(steps - 1):
        y.append(slope * y[-1] + torch.randn(chains, dtype=torch.float64))
    return torch.stack(y)


@pytest.mark.parametrize("slope", [0.0, 0.5, 0.9])
def test_it_finds_that_of_an_autoregressive_process(slope: float) -> None:
    series = autoregressive(slope, 4_000, 30)
    expected = (1 + slope) / (1 - slope)
    assert autocorrelation_time(series) == pytest.approx(expected, rel=0.06)
    lags = torch.arange(5)
    torch.testing.assert_close(autocorrelation(series)[:5], slope ** lags.double(), atol=0.02, rtol=0)


def test_scale_and_offset_play_no_part() -> None:
    series = autoregressive(0.7, 500, 4)
    assert autocorrelation_time(100 - 3 * series) == pytest.approx(autocorrelation_time(series))


def test_chains_that_never_meet_are_slow_though_each_is_quick() -> None:
    series = torch.randn(400, 8, dtype=torch.float64)
    apart = series + 10 * torch.arange(8)
    assert autocorrelation_time(series) < 2 and autocorrelation_time(apart) > 100


def test_what_never_changes_never_forgets() -> None:
    assert autocorrelation_time(torch.ones(50, 3)) == math.inf
    with pytest.raises(ValueError, match="series must have shape"):
        autocorrelation_time(torch.ones(50))

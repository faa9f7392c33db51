"""P-values keep their promise: uniform if exchangeable, Benjamini-Hochberg as scipy's, rates in their interval."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import betabinom, false_discovery_control

from gdm_core.anomaly import (
    auroc,
    benjamini_hochberg,
    false_alarm_interval,
    false_alarms,
    p_values,
    pixel_auroc,
    rate_warning,
    smallest_p,
    verdicts,
)
from gdm_core.anomaly.metrics import flags_allowed


def test_p_value_is_its_formula() -> None:
    calibration = torch.tensor([3.0, 1.0, 2.0, 2.0])
    scores = torch.tensor([0.0, 1.0, 2.0, 2.5, 3.0, 4.0, -math.inf, math.inf])
    by_hand = [(1 + sum(c >= s for c in calibration.tolist())) / 5 for s in scores.tolist()]
    assert p_values(scores, calibration).tolist() == by_hand


def test_a_nan_score_is_the_strangest_and_a_nan_calibration_is_refused() -> None:
    assert p_values(torch.tensor([math.nan]), torch.arange(9.0)).item() == pytest.approx(0.1)
    with pytest.raises(ValueError, match="NaN"):
        p_values(torch.zeros(1), torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match="no calibration scores"):
        p_values(torch.zeros(1), torch.zeros(0))


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.29])
def test_flagged_normals_are_beta_binomial(rate: float) -> None:
    """Over many draws of calibration and test set the number of flagged follows the stated law, not only its mean."""
    n, m, draws = 99, 50, 4000
    scores = torch.randn(draws, n + m, dtype=torch.float64).exp()
    flagged = torch.tensor([int(verdicts(p_values(row[n:], row[:n]), rate).sum()) for row in scores])
    k = flags_allowed(n, rate)
    law = betabinom(m, k, n + 1 - k)
    assert flagged.double().mean().item() == pytest.approx(law.mean(), abs=5 * law.std() / draws**0.5)
    assert flagged.double().std().item() == pytest.approx(law.std(), rel=0.1)
    low, high = false_alarm_interval(n, m, rate)
    inside = ((flagged >= low) & (flagged <= high)).double().mean().item()
    exactly = law.cdf(high) - law.cdf(low - 1)
    assert exactly >= 0.99
    assert inside == pytest.approx(exactly, abs=0.01)


@pytest.mark.parametrize(("n", "m", "rate"), [(19, 200, 0.5), (39, 400, 0.2), (250, 300, 0.01)])
def test_interval_is_the_central_one_of_the_counted_law(n: int, m: int, rate: float) -> None:
    """All orders of n + m exchangeable scores are equally likely: j of the m lie above the k-th largest of the n in
    C(j + k - 1, j) C(m - j + n - k, m - j) of C(n + m, m) arrangements."""
    k = int(rate * (n + 1) + 1e-9)
    ways = [math.comb(j + k - 1, j) * math.comb(m - j + n - k, m - j) for j in range(m + 1)]
    total = math.comb(n + m, m)
    assert sum(ways) == total
    below = [sum(ways[: j + 1]) / total for j in range(m + 1)]
    low = next(j for j in range(m + 1) if below[j] >= 0.005)
    high = next(j for j in range(m + 1) if below[j] >= 0.995)
    assert false_alarm_interval(n, m, rate) == (low, high)


def test_p_values_are_super_uniform_with_ties() -> None:
    """Scores that take four values only: never more false alarms than asked."""
    scores = torch.randint(0, 4, (4000, 100)).double()
    p = torch.stack([p_values(row[99:], row[:99]) for row in scores])
    for rate in (0.05, 0.3, 0.6):
        assert (p <= rate).double().mean() <= rate + 4 * (rate * (1 - rate) / 4000) ** 0.5


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.07, 0.1, 0.29, 0.57, 0.99])
def test_flags_allowed_agrees_with_the_verdict(rate: float) -> None:
    for n in (10, 99, 180, 360):
        possible = torch.arange(1, n + 2).double() / (n + 1)
        assert int(verdicts(possible, rate).sum()) == flags_allowed(n, rate)


def test_benjamini_hochberg_is_the_step_up_rule() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        p = (torch.rand(20, generator=generator, dtype=torch.float64) ** 3).clamp(min=1e-9)
        rate = 0.1
        order = p.sort().values
        passing = [i for i in range(20) if order[i] <= rate * (i + 1) / 20]
        by_hand = p <= (order[passing[-1]] if passing else -1)
        assert torch.equal(benjamini_hochberg(p, rate), by_hand)
        assert benjamini_hochberg(p, rate).tolist() == (false_discovery_control(p.numpy()) <= rate).tolist()
    assert benjamini_hochberg(torch.zeros(0), 0.1).shape == (0,)


def test_benjamini_hochberg_flags_p_values_exactly_on_the_line() -> None:
    for count in range(1, 40):
        p = torch.arange(1, count + 1).double() / (count * 20)  # p_(i) = 0.05 i / N
        assert benjamini_hochberg(p, 0.05).all()


def test_benjamini_hochberg_controls_the_false_discovery_rate() -> None:
    shares = []
    for _ in range(600):
        calibration, uploads = torch.randn(199).double(), torch.randn(20).double()
        uploads[:5] += 4
        flagged = benjamini_hochberg(p_values(uploads, calibration), 0.2)
        shares.append(float(flagged[5:].sum()) / max(1, int(flagged.sum())))
    assert sum(shares) / len(shares) <= 0.2 * 15 / 20 + 0.03


def test_a_rate_below_the_smallest_p_is_said() -> None:
    assert smallest_p(99) == 0.01
    assert rate_warning(0.01, 99) is None
    assert "at least 199 images" in rate_warning(0.005, 99)
    assert false_alarm_interval(99, 50, 0.005) == (0, 0)
    assert rate_warning(0.005, 199) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        verdicts(torch.ones(1), 1.5)


def test_false_alarms_counts_and_judges() -> None:
    record = false_alarms(torch.tensor([0.01, 0.05, 0.5, 1.0]), 0.05, 99)
    assert (record.flagged, record.count, record.realised) == (2, 4, 0.5)
    assert record.as_promised == (record.low <= 2 <= record.high)
    assert not false_alarms(torch.zeros(50), 0.05, 99).as_promised


def test_auroc_by_hand() -> None:
    normal, strange = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, math.inf])
    wins = sum((s > n) + 0.5 * (s == n) for n in normal.tolist() for s in strange.tolist())
    assert auroc(normal, strange) == pytest.approx(wins / 9)
    with pytest.raises(ValueError, match="NaN"):
        auroc(normal, torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="at least one"):
        auroc(normal, torch.zeros(0))


def test_pixel_auroc_pools_the_pixels() -> None:
    maps = torch.tensor([[[0.0, 5.0], [1.0, 2.0]]])
    defects = torch.tensor([[[False, True], [False, True]]])
    assert pixel_auroc(maps, defects) == 1.0
    assert pixel_auroc(maps, ~defects) == 0.0
    with pytest.raises(ValueError, match="one shape"):
        pixel_auroc(maps, defects[0])

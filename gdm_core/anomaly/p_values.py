"""From scores to verdicts: conformal p-values against calibration scores of held-out normal images.

Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005). What is promised, and what for, is said in
docs/anomaly_scores.md.
"""

from __future__ import annotations

import math

import numpy
import torch
from scipy.stats import false_discovery_control
from torch import Tensor


def p_values(scores: Tensor, calibration_scores: Tensor) -> Tensor:
    """p = (1 + #{calibration scores >= s}) / (1 + n) for each score s, (N,) float64.

    For an image exchangeable with the n calibration images P(p <= rate) <= rate, for every rate and any distribution of
    scores. A score that is NaN says that the model could make nothing of the image: it counts as infinite.
    Raises ValueError where there are no calibration scores or one of them is NaN.
    """
    calibration = _check_calibration(calibration_scores)
    strangeness = torch.as_tensor(scores, dtype=torch.float64)
    strangeness = torch.where(torch.isnan(strangeness), math.inf, strangeness)
    below = torch.searchsorted(calibration, strangeness)  # number of calibration scores < s
    return (1 + len(calibration) - below).double() / (1 + len(calibration))


def _check_calibration(scores: Tensor) -> Tensor:
    calibration = torch.as_tensor(scores, dtype=torch.float64)
    if not len(calibration):
        raise ValueError("there are no calibration scores: calibrate the model on held-out normal images first")
    if torch.isnan(calibration).any():
        raise ValueError("calibration scores contain NaN: the model cannot score its own normal images, train it again")
    return calibration.sort().values


def verdicts(p: Tensor, rate: float) -> Tensor:
    """Which images are flagged at a false-alarm rate: p <= rate, (N,) bool."""
    return p <= check_rate(rate)


def benjamini_hochberg(p: Tensor, rate: float) -> Tensor:
    """Which images are flagged so that at most a share `rate` of the flagged is normal, on average: (N,) bool.

    Benjamini and Hochberg, Controlling the False Discovery Rate (1995): with the p-values in order, flag up to the last
    i with p_(i) <= rate i / N. It holds for p-values that share one calibration set (Bates et al., Testing for Outliers
    with Conformal P-values, 2023).
    """
    check_rate(rate)
    if not len(p):
        return torch.zeros(0, dtype=torch.bool)
    on_the_line = rate * (1 + 1e-12)  # conformal p-values often equal rate i / N exactly, until N p / i is rounded
    return torch.from_numpy(numpy.asarray(false_discovery_control(p.numpy()) <= on_the_line))


def smallest_p(calibration_count: int) -> float:
    """The smallest p-value that n calibration images allow, 1 / (1 + n)."""
    return 1 / (1 + calibration_count)


def rate_warning(rate: float, calibration_count: int) -> str | None:
    """A sentence where nothing can be flagged at this rate because there are too few calibration images."""
    if check_rate(rate) >= smallest_p(calibration_count):
        return None
    needed = math.ceil(1 / rate) - 1
    return (
        f"At a false-alarm rate of {rate:.3g} nothing can be flagged: with {calibration_count} calibration images the "
        f"smallest possible p-value is {smallest_p(calibration_count):.3g}. Choose a rate of at least that, or "
        f"calibrate on at least {needed} images."
    )


def check_rate(rate: float) -> float:
    """The rate, or ValueError where it is not between 0 and 1."""
    if not 0 < rate < 1:
        raise ValueError(f"a false-alarm rate lies between 0 and 1, got {rate}")
    return rate

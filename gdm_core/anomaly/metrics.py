"""How good scores, verdicts and maps are: AUROC, and the realised false-alarm rate with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
import torch
from scipy.stats import betabinom, rankdata
from sklearn.metrics import roc_auc_score
from torch import Tensor

from gdm_core.anomaly.p_values import check_rate


def auroc(normal_scores: Tensor, strange_scores: Tensor) -> float:
    """P(a strange image scores higher than a normal one), ties counting half.

    Raises ValueError where a side is empty or a score is NaN; infinite scores are ranked like others.
    """
    if not normal_scores.numel() or not strange_scores.numel():
        raise ValueError("AUROC needs at least one normal and one strange score")
    scores = torch.cat([normal_scores.flatten().double(), strange_scores.flatten().double()]).numpy()
    if numpy.isnan(scores).any():
        raise ValueError("AUROC is not defined: some scores are NaN")
    truth = numpy.arange(len(scores)) >= normal_scores.numel()
    return float(roc_auc_score(truth, rankdata(scores)))  # ranks, because scikit-learn refuses infinite scores


def pixel_auroc(maps: Tensor, defects: Tensor) -> float:
    """AUROC of the pixels of all images together: maps (N, H, W), defects (N, H, W) true where a pixel is defect."""
    if maps.shape != defects.shape:
        raise ValueError(f"maps and defects must have one shape, got {tuple(maps.shape)} and {tuple(defects.shape)}")
    defects = defects.bool()
    return auroc(maps[~defects], maps[defects])


@dataclass(frozen=True)
class FalseAlarms:
    """Normal images flagged at an asked rate, with the interval their number should lie in."""

    rate: float
    flagged: int
    count: int
    low: int
    high: int

    @property
    def realised(self) -> float:
        return self.flagged / self.count

    @property
    def as_promised(self) -> bool:
        return self.low <= self.flagged <= self.high


def false_alarms(p: Tensor, rate: float, calibration_count: int, level: float = 0.99) -> FalseAlarms:
    """Count the normal images with p <= rate, beside the interval of `false_alarm_interval`."""
    low, high = false_alarm_interval(calibration_count, len(p), rate, level)
    return FalseAlarms(rate, int((p <= rate).sum()), len(p), low, high)


def false_alarm_interval(calibration_count: int, count: int, rate: float, level: float = 0.99) -> tuple[int, int]:
    """The central interval of the number of flagged among `count` normal images, both ends included.

    p <= rate means that at most k - 1 of the n calibration scores are >= s, with k = floor(rate (n + 1)): s exceeds the
    k-th largest of them. If calibration and test images are exchangeable and scores have no ties, the probability U of
    exceeding it is the k-th smallest of n uniform numbers, U ~ Beta(k, n + 1 - k), and given U the m test images exceed
    it independently: their number is beta-binomial(m, k, n + 1 - k), with mean m k / (n + 1) <= m rate. With ties fewer
    are flagged.
    """
    allowed = flags_allowed(calibration_count, rate)
    if allowed == 0:
        return 0, 0
    distribution = betabinom(count, allowed, calibration_count + 1 - allowed)
    return int(distribution.ppf((1 - level) / 2)), int(distribution.ppf((1 + level) / 2))


def flags_allowed(calibration_count: int, rate: float) -> int:
    """k = the largest whole number with k / (n + 1) <= rate, decided by the same comparison as a verdict."""
    nearest = math.floor(check_rate(rate) * (calibration_count + 1))
    return max(k for k in range(max(nearest - 1, 0), nearest + 2) if k / (calibration_count + 1) <= rate)

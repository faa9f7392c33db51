"""One scale for all heat maps of a model: dark on normal images, by a threshold per pixel position from calibration.

A raw map v (H, W) is smoothed to s by the 1-2-1 kernel both ways, because defects are regions while a raster-order
model's surprise falls on their first pixels and on what comes after them. Then

    z_i = (s_i - b) / (t_i - b),   t_i = max(q_i, Q)

where q_i is the conformal quantile of position i, the k-th largest of its n calibration values with
k = floor(0.01 (n + 1)); Q is the same quantile of all positions together, so that a border pixel that never changes
does not light up for a trifle; b = min(0, smallest calibration value) is where the scale begins. A pixel is lit if
z_i > 1: for an exchangeable normal image P(s_i > q_i) <= k / (n + 1) <= 1 % at every position, ties or not. Brightness
grows from 0 at z = 1 to 1 at z = 2, the same for all images of the data set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LIT_SHARE = 0.01
FULL_BRIGHTNESS = 2.0
SMALLEST_SPAN = 1e-6  # of t - b, so that a map that is constant on all calibration images still has a scale


@dataclass(frozen=True)
class MapScale:
    """Where the scale begins (a scalar) and the threshold of each pixel position (H, W), both float64."""

    begin: Tensor
    threshold: Tensor

    def __post_init__(self) -> None:
        if self.threshold.dim() != 2 or self.begin.dim() != 0:
            raise ValueError("a map scale is a scalar and a threshold per pixel position (height, width)")
        if not (self.threshold > self.begin).all():
            raise ValueError("every threshold of a map scale must lie above its beginning")


def fit_map_scale(maps: Tensor) -> MapScale:
    """The scale from raw maps (n, H, W) of calibration images.

    With fewer than 99 images no threshold of a single position promises 1 %: then every position gets the largest value
    of all. Raises ValueError where there are no maps or they hold NaN or infinite values.
    """
    if maps.dim() != 3 or not len(maps):
        raise ValueError(f"a map scale needs maps of calibration images, (n, height, width), got {tuple(maps.shape)}")
    if not torch.isfinite(maps).all():
        raise ValueError("the maps of the calibration images contain NaN or infinite values")
    smooth = smoothed(maps)
    begin = smooth.min().clamp(max=0)
    threshold = _conformal_quantile(smooth.flatten(1), smooth.flatten()).view(smooth.shape[1:])
    return MapScale(begin, threshold.clamp(min=float(begin) + SMALLEST_SPAN))


def _conformal_quantile(values: Tensor, pooled: Tensor) -> Tensor:
    """max(q_i, Q) for values (n, positions)."""
    allowed = math.floor(LIT_SHARE * (len(values) + 1))
    if allowed == 0:
        return pooled.max().expand(values.shape[1])
    allowed_pooled = max(1, math.floor(LIT_SHARE * (len(pooled) + 1)))
    return torch.maximum(values.topk(allowed, dim=0).values[-1], pooled.topk(allowed_pooled).values[-1])


def normalise_map(maps: Tensor, scale: MapScale) -> Tensor:
    """z (N, H, W) float64 of raw maps (N, H, W): 1 is the threshold. This is what pixel AUROC is taken of."""
    if maps.shape[1:] != scale.threshold.shape:
        raise ValueError(f"the scale is for maps of {tuple(scale.threshold.shape)}, got {tuple(maps.shape[1:])}")
    return (smoothed(maps) - scale.begin) / (scale.threshold - scale.begin)


def light(normalised: Tensor) -> Tensor:
    """Brightness in [0, 1] of normalised maps: 0 up to the threshold, 1 from twice the threshold; NaN is 1."""
    brightness = (normalised - 1) / (FULL_BRIGHTNESS - 1)
    return torch.where(torch.isnan(brightness), 1.0, brightness).clamp(0, 1)


def lit_share(normalised: Tensor) -> float:
    """The share of pixels above their threshold, over all images."""
    return float((light(normalised) > 0).double().mean())


def smoothed(maps: Tensor) -> Tensor:
    """Maps (N, H, W) averaged with weights 1-2-1 down and across, edges repeated; float64."""
    padded = functional.pad(maps.double().unsqueeze(1), (1, 1, 1, 1), mode="replicate")[:, 0]
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]) / 16

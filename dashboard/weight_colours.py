"""Weights as pictures, on one diverging scale for all of them: blue below zero, red above, clear at zero. No web.

What is clear lets the page shine through, so that zero is white on a bright page and dark on a dark one.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from dashboard.images import png
from gdm_core.data.pictures import is_signal

BELOW, ABOVE = (0.16, 0.47, 0.95), (0.93, 0.25, 0.30)
WITHIN = 0.995  # the share of all weights that lie within the scale; single large ones would make all others pale
SIGNAL_ROWS = 4  # a signal's weights have one row, which is drawn 1 / 4 as high as it is long


def limit_of(weights: Tensor) -> float:
    """The weight at either end of the scale: the magnitude that a share of WITHIN of the weights do not pass."""
    sizes = weights.double().abs().flatten()
    limit = float(sizes.kthvalue(max(1, round(WITHIN * len(sizes)))).values)
    return limit or float(sizes.max()) or 1.0


def share_beyond(weights: Tensor, limit: float) -> float:
    """The share of the weights that have the last colour because they lie beyond the scale."""
    return float((weights.double().abs() > limit).double().mean())


def laid_out(weights: Tensor) -> Tensor:
    """Weights (U, C, H, W) as they are shown, (U, H', W'): colours side by side, a signal's one row made higher."""
    weights = weights.double()
    if is_signal(weights):
        return weights[:, 0].expand(-1, max(1, weights.shape[-1] // SIGNAL_ROWS), -1)
    gap = weights.new_zeros(*weights.shape[:3], 1)
    return torch.cat([torch.cat([weights, gap], 3)[:, c] for c in range(weights.shape[1])], 2)[..., :-1]


def opacities(values: Tensor, limit: float) -> Tensor:
    """How opaque the colour of each value is: 0 at zero, 1 at the limit and beyond."""
    return (values.abs() / limit).clamp(0, 1)


def colours(values: Tensor) -> Tensor:
    """The colour of each value (...), fully opaque, (..., 3) in [0, 1]."""
    return torch.where((values < 0).unsqueeze(-1), values.new_tensor(BELOW), values.new_tensor(ABOVE))


def clear_png(values: Tensor, limit: float) -> bytes:
    """One unit's weights as laid out, (H, W), as a PNG of as many dots, clear at zero."""
    dots = torch.cat([colours(values), opacities(values, limit).unsqueeze(-1)], -1)
    return png(Image.fromarray(dots.mul(255).round().to(torch.uint8).numpy()))


def on_white(values: Tensor, limit: float) -> Tensor:
    """Units' weights as laid out, (U, H, W), as colour images on white, (U, 3, H, W)."""
    opacity = opacities(values, limit).unsqueeze(-1)
    return (1 - opacity * (1 - colours(values))).permute(0, 3, 1, 2)


def gradient() -> str:
    """The scale as a CSS gradient."""
    low, high = (", ".join(str(round(255 * part)) for part in colour) for colour in (BELOW, ABOVE))
    return f"linear-gradient(to right, rgb({low}), rgba({low}, 0) 50%, rgba({high}, 0) 50%, rgb({high}))"

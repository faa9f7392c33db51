"""Images as pictures to look at: upscaled by nearest neighbour, alone or in a grid; signals as curves."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

GAP_GREY = 0.5
CURVE_HEIGHT = 64  # dots of a signal's curve


def to_picture(images: Tensor, scale: int = 1) -> Image.Image:
    """An image (C, H, W) in [0, 1], 1 or 3 channels, as a picture with `scale` x `scale` dots a pixel.

    A batch (N, C, H, W) becomes a grid, as square as it goes. Values outside [0, 1] are clipped; NaN raises ValueError.
    """
    if images.dim() == 4:
        return grid(images, max(1, math.ceil(math.sqrt(len(images)))), scale)
    if images.dim() != 3 or images.shape[0] not in (1, 3) or scale < 1:
        raise ValueError(f"a picture needs an image (1 or 3, H, W) and scale >= 1, got {tuple(images.shape)}, {scale}")
    if torch.isnan(images).any():
        raise ValueError("an image with NaN cannot be shown")
    pixels = (images.detach().cpu().double().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def grid(images: Tensor, columns: int = 8, scale: int = 1, gap: int = 1) -> Image.Image:
    """Images (N, C, H, W) in [0, 1] row by row in one picture, `gap` grey pixels (times `scale`) between them.

    Signals are drawn as curves.
    """
    if images.dim() != 4 or not len(images) or columns < 1 or gap < 0:
        raise ValueError(f"a grid needs images (N, C, H, W), columns >= 1 and gap >= 0, got {tuple(images.shape)}")
    images = curves(images) if is_signal(images) else images
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    canvas = torch.full(size, GAP_GREY, dtype=torch.float64)
    for index, image in enumerate(images.detach().cpu()):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return to_picture(canvas, scale)


def square_columns(images: Tensor) -> int:
    """How many columns make a grid of images (N, C, H, W) about as wide as it is high."""
    count, _, height, width = images.shape
    return max(1, math.ceil(math.sqrt(count * (CURVE_HEIGHT if is_signal(images) else height) / width)))


def is_signal(images: Tensor) -> bool:
    """Whether images (N, C, H, W) are signals: of one colour and one row, where brightness is nothing to look at."""
    return images.shape[1:3] == (1, 1)


def curves(signals: Tensor, height: int = CURVE_HEIGHT) -> Tensor:
    """Signals (N, 1, 1, T) in [0, 1] as images of their curves, bright on dark, 0 at the bottom: (N, 1, height, T)."""
    if torch.isnan(signals).any():
        raise ValueError("a signal with NaN cannot be shown")
    values = signals[:, 0].clamp(0, 1) * (height - 1)  # (N, 1, T)
    before = torch.cat([values[..., :1], values[..., :-1]], -1)
    low, high = torch.minimum(before, values).round(), torch.maximum(before, values).round()
    dots = torch.arange(height - 1, -1, -1, device=signals.device)[:, None]
    return ((low <= dots) & (dots <= high)).to(signals)[:, None]

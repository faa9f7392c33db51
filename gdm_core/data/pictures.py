"""Images as pictures to look at: upscaled by nearest neighbour, alone or in a grid."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

GAP_GREY = 0.5


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
    """Images (N, C, H, W) in [0, 1] row by row in one picture, `gap` grey pixels (times `scale`) between them."""
    if images.dim() != 4 or not len(images) or columns < 1 or gap < 0:
        raise ValueError(f"a grid needs images (N, C, H, W), columns >= 1 and gap >= 0, got {tuple(images.shape)}")
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    canvas = torch.full(size, GAP_GREY, dtype=torch.float64)
    for index, image in enumerate(images.detach().cpu()):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    return to_picture(canvas, scale)

"""Masks: which pixels of an image are unknown. Ready-made ones, a mask as text for an address, and how it is shown.

A mask is a bool tensor (H, W), True where a pixel is unknown. No web in here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gdm_core.randomness import seeded_generator

UNKNOWN_COLOUR = "#3b7dd8"  # of unknown pixels: unlike every grey, on light and on dark ground
BOTTOM, TOP, LEFT, RIGHT = "bottom half", "top half", "left half", "right half"
MIDDLE, EVERY_OTHER, RANDOM, EVERYTHING = "square in the middle", "every other pixel", "random share", "everything"
PRESETS = (BOTTOM, TOP, LEFT, RIGHT, MIDDLE, EVERY_OTHER, RANDOM, EVERYTHING)


def preset(name: str, height: int, width: int, share: float = 0.5) -> Tensor:
    """One of PRESETS for images of this size; `share` of the pixels, rounded, for the random one.

    The random pixels come in one fixed order, so that a larger share hides more of them and none comes back.
    """
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    if name == RANDOM:
        order = torch.rand(height * width, generator=seeded_generator(0, "mask")).argsort()
        return (order.argsort() < round(share * height * width)).view(height, width)
    top, left = max(1, height // 2), max(1, width // 2)
    unknown = {
        BOTTOM: rows >= height - top,
        TOP: rows < top,
        LEFT: columns < left,
        RIGHT: columns >= width - left,
        MIDDLE: _in_the_middle(rows, height) & _in_the_middle(columns, width),
        EVERY_OTHER: (rows + columns) % 2 == 1,
        EVERYTHING: rows >= 0,
    }  # fmt: skip
    return unknown[name].expand(height, width).clone()


def _in_the_middle(places: Tensor, size: int) -> Tensor:
    """Half of the places, as near to the middle as it goes."""
    first = (size - max(1, size // 2)) // 2
    return (places >= first) & (places < first + max(1, size // 2))


def to_text(unknown: Tensor) -> str:
    """The mask row by row as hexadecimal digits, four pixels each, the first one in the highest bit."""
    bits = unknown.flatten().int().tolist()
    bits += [0] * (-len(bits) % 4)
    return "".join(f"{int(''.join(map(str, bits[i : i + 4])), 2):x}" for i in range(0, len(bits), 4))


def from_text(text: str, height: int, width: int) -> Tensor | None:
    """The mask that `to_text` wrote, None where the text is not one of this size."""
    pixels = height * width
    if len(text) != -(-pixels // 4) or not set(text) <= set("0123456789abcdef"):
        return None
    bits = torch.tensor([int(bit) for digit in text for bit in f"{int(digit, 16):04b}"], dtype=torch.bool)
    return None if bits[pixels:].any() else bits[:pixels].view(height, width)


def known_of(unknown: Tensor) -> Tensor:
    """What `Completes` takes: 1 where a pixel is known, (1, 1, H, W)."""
    return (~unknown).float()[None, None]


def covered(image: Tensor, unknown: Tensor) -> Tensor:
    """The image (1 or 3, H, W) in colour (3, H, W), its unknown pixels in UNKNOWN_COLOUR."""
    return tinted(image, unknown, 1.0)


def tinted(images: Tensor, unknown: Tensor, share: float = 0.35) -> Tensor:
    """Images (..., 1 or 3, H, W) in colour (..., 3, H, W), with a share of UNKNOWN_COLOUR where a pixel was unknown."""
    colour = torch.tensor(list(bytes.fromhex(UNKNOWN_COLOUR[1:])), dtype=images.dtype)[:, None, None] / 255
    images = images.expand(*images.shape[:-3], 3, -1, -1)
    return torch.where(unknown, (1 - share) * images + share * colour, images)

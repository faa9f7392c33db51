"""Ways to make normal images strange. All take and give stored levels, uint8 (N, C, H, W), and change nothing in place.

The first three are the odd images anomaly scores are measured on; `pasted_block` is the defect heat maps must find.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def inverted(stored: Tensor, levels: int) -> Tensor:
    """Bright and dark exchanged: levels - 1 - k."""
    return (levels - 1 - stored.int()).to(torch.uint8)


def shuffled(stored: Tensor, generator: Generator) -> Tensor:
    """The pixels of each image in a random order of its own: its histogram stays, its shapes go. Channels stay put."""
    orders = torch.stack([torch.randperm(stored[0, 0].numel(), generator=generator) for _ in stored])  # (N, H*W)
    flat = stored.flatten(2)
    return flat.gather(2, orders.unsqueeze(1).expand_as(flat)).view_as(stored)


def turned(stored: Tensor) -> Tensor:
    """Turned by 90 degrees, anticlockwise. Raises ValueError for images that are not square."""
    if stored.shape[-1] != stored.shape[-2]:
        raise ValueError(f"only square images can be turned by 90 degrees, got {stored.shape[-2]} x {stored.shape[-1]}")
    return torch.rot90(stored, 1, dims=(2, 3)).contiguous()


def pasted_block(
    stored: Tensor, levels: int, generator: Generator, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """A square of one value pasted at a random place of each image: (images, masks bool (N, 1, H, W)).

    The value is the extreme that lies further from what it covers: full brightness over the darker half of values, 0
    over the brighter one. `size` is a quarter of the shorter side, at least 2: 2x2 on 8x8, 7x7 on 28x28; of an image
    of one row it is a quarter of the row.
    """
    count, _, height, width = stored.shape
    tall, wide = _block_of(height, width) if size is None else (size, size)
    if not (1 <= tall <= height and 1 <= wide <= width):
        raise ValueError(f"a block in {height} x {width} images has size 1 to {min(height, width)}, got {size}")
    tops = torch.randint(height - tall + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(width - wide + 1, (count,), generator=generator).tolist()
    images, masks = stored.clone(), torch.zeros(count, 1, height, width, dtype=torch.bool)
    for index, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        place = (index, slice(None), slice(top, top + tall), slice(left, left + wide))
        is_dark = stored[place].float().mean() < (levels - 1) / 2
        images[place], masks[place] = (levels - 1 if is_dark else 0), True
    return images, masks


def _block_of(height: int, width: int) -> tuple[int, int]:
    size = max(2, min((side for side in (height, width) if side > 1), default=1) // 4)
    return min(size, height), min(size, width)


def spliced(stored: Tensor) -> Tensor:
    """The left half of each image joined to the right half of the next one (of the first, for the last)."""
    middle = stored.shape[-1] // 2
    return torch.cat([stored[..., :middle], stored.roll(-1, dims=0)[..., middle:]], dim=-1)


def noise(stored: Tensor, levels: int, generator: Generator) -> Tensor:
    """Images of the same shape whose pixels are uniform and independent."""
    return torch.randint(levels, stored.shape, generator=generator, dtype=torch.uint8)


def constant(stored: Tensor, levels: int) -> Tensor:
    """Images of the same shape, each of one value: grey levels spread evenly from black to white."""
    values = torch.linspace(0, levels - 1, len(stored)).round().to(torch.uint8)
    return values.view(-1, 1, 1, 1).expand_as(stored).clone()

"""How strange each pixel is to an energy, given all the others: its grey value against any other one.

    s_i = -log p(x_i) / (p(x_i) + mean over greys v of p(v)) = softplus(E(x) + log mean over v of exp(-E(x, x_i = v)))

where p(.) is the density of pixel i given all others, in which log Z cancels. At least 0, about 0 where no grey would
fit better, and log 2 where all fit as well; the same form as a binary pixel's -log p(x_i | the others), whose only
other value is the flipped one. Four greys order pixels as well as eight. Images of more than 256 values are asked about
squares of pixels, painted in one grey and one colour at a time, so that an image costs 4 * 256 energies at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

GREYS = 4
MOST_PLACES = 256
IMAGES_AT_ONCE = 1024


@torch.no_grad()
def grey_surprise(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """s of every value of x (N, C, H, W), in nats, of its shape; `energy` takes images of any number."""
    places, n = squares(x), len(x)
    every = torch.arange(int(places.max()) + 1, device=x.device)
    greys = (torch.arange(GREYS, dtype=x.dtype, device=x.device) + 0.5) / GREYS
    here, surprise = energy(x), []
    for some in every.split(max(1, IMAGES_AT_ONCE // max(1, n * GREYS))):
        painted = (places == some.view(-1, 1, 1, 1))[:, None]  # (places, 1, C, H, W)
        changed = torch.where(painted, greys.view(-1, 1, 1, 1), x[:, None, None])  # (N, places, greys, C, H, W)
        there = energy(changed.flatten(0, 2)).view(n, len(some), GREYS)
        surprise.append(F.softplus(here[:, None] + (-there).logsumexp(2) - math.log(GREYS)))
    return torch.cat(surprise, 1)[:, places]


def squares(x: Tensor) -> Tensor:
    """Which place each value of an image belongs to, counted from 0, (C, H, W): the smallest squares that are few."""
    _, colours, height, width = x.shape
    sides = range(1, height + width)
    side = next(s for s in sides if colours * _up(height, s) * _up(width, s) <= MOST_PLACES)
    rows, columns = (torch.arange(size, device=x.device) // side for size in (height, width))
    square = rows[:, None] * _up(width, side) + columns  # (H, W)
    return torch.arange(colours, device=x.device).view(-1, 1, 1) * (square.max() + 1) + square


def _up(size: int, side: int) -> int:
    return -(-size // side)

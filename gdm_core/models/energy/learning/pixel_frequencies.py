"""How often each pixel is on in the images seen so far: where the chains and the annealing of a machine start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PixelFrequencies:
    """Counts pixels while a machine learns and keeps its `base_visible_bias` at their log-odds (add-one smoothing).

    A machine that has never been trained also gets its `visible_bias` from the first batch's log-odds, so that the
    weights need not learn the mean image.
    """

    def __init__(self, base_visible_bias: Tensor, visible_bias: Tensor) -> None:
        self.base_visible_bias, self.visible_bias = base_visible_bias, visible_bias
        self.totals = torch.zeros_like(base_visible_bias, dtype=torch.float64)
        self.images_seen = 0

    @torch.no_grad()
    def count(self, v: Tensor) -> None:
        """Take in binary images as vectors (N, D)."""
        untrained = None if self.images_seen else ~self.base_visible_bias.any()  # asked where the numbers are
        self.totals += v.sum(0)
        self.images_seen += len(v)
        log_odds = ((self.totals + 1) / (self.images_seen - self.totals + 1)).log()
        self.base_visible_bias.copy_(log_odds)
        if untrained is not None:
            self.visible_bias.copy_(torch.where(untrained, log_odds.to(self.visible_bias), self.visible_bias))

    def state_dict(self) -> dict[str, Any]:
        return {"totals": self.totals, "images_seen": self.images_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals = state["totals"].to(self.totals.device, copy=True)
        self.images_seen = state["images_seen"]

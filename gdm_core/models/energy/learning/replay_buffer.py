"""The replay buffer: where the chains of earlier learning steps stopped, so that later ones go on from there.

A chain of a few steps would not get from noise to an image; one that is taken up again and again does. A share of the
chains drawn begins anew at noise, so that the energy also learns what lies between noise and images.

Paper: "Implicit Generation and Modeling with Energy-Based Models", Du and Mordatch, 2019. Ours: a fixed number of
chains, drawn without repetition and put back at their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ReplayBuffer:
    """`chains` images (chains, C, H, W), at first even noise on [0, 1]; of those drawn, `restarts` begin anew."""

    def __init__(self, chains: int, data_shape: Sequence[int], restarts: float, device: torch.device | str) -> None:
        self.images, self.restarts = torch.rand(chains, *data_shape, device=device), restarts

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """(n or all rows where there are fewer, the images there, some of them noise); by torch's global state."""
        rows = torch.randperm(len(self.images), device=self.images.device)[:n]
        images = self.images[rows]
        anew = torch.rand(len(rows), 1, 1, 1, device=rows.device) < self.restarts
        return rows, torch.where(anew, torch.rand_like(images), images)

    def put(self, rows: Tensor, images: Tensor) -> None:
        """Keep where the chains of these rows stand now."""
        self.images[rows] = images.to(self.images.dtype)

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images = state["images"].to(self.images.device, copy=True)

"""Gibbs chains of a machine of two layers with some of their visible units held fixed."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class TwoLayers(Protocol):
    """Vectors v (N, D) and the logits of the hidden units (N, hidden)."""

    sampling_steps: int

    def hidden_logits(self, v: Tensor) -> Tensor: ...

    def visible_after(
        self, hidden_logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor: ...


@torch.no_grad()
def clamped_chain(
    machine: TwoLayers, start: Tensor, fixed: Tensor, held: Tensor, temperature: float,
    generator: torch.Generator | None,
) -> Tensor:  # fmt: skip
    """The end of chains from `start` (N, D) whose units are those of `fixed` where `held` is true."""
    v = torch.where(held, fixed, start)
    for _ in range(machine.sampling_steps):
        v = torch.where(held, fixed, machine.visible_after(machine.hidden_logits(v), temperature, generator))
    return v

"""Gibbs chains of a machine of two layers, free and with some of their visible units held fixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

FRAMES = 50  # moments of a long chain that are looked at


class TwoLayers(Protocol):
    """Vectors v (N, D) and the logits of the hidden units (N, hidden)."""

    sampling_steps: int

    def hidden_logits(self, v: Tensor) -> Tensor: ...

    def visible_after(
        self, hidden_logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor: ...


@torch.no_grad()
def chain_frames(
    machine: TwoLayers, v: Tensor, temperature: float, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Yield v (N, D), then where chains of `sampling_steps` steps from it stand at up to 50 moments and at last."""
    yield v
    every = -(-machine.sampling_steps // FRAMES)
    for step in range(1, machine.sampling_steps + 1):
        v = machine.visible_after(machine.hidden_logits(v), temperature, generator)
        if step % every == 0 or step == machine.sampling_steps:
            yield v


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

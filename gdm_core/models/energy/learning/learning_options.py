"""How a machine of two layers learns by contrastive divergence: what its constructor is told, checked in one place."""

from __future__ import annotations

from dataclasses import dataclass

from gdm_core.models.energy.learning.centred_gradient import Offsets
from gdm_core.models.energy.learning.contrastive_divergence import ContrastiveDivergence, Machine
from gdm_core.models.energy.learning.fast_weights import FastWeights
from gdm_core.models.energy.learning.sparsity_target import SparsityTarget


@dataclass(frozen=True)
class LearningOptions:
    """ValueError, naming the argument, for values that mean nothing."""

    steps: int = 1
    persistent: bool = True
    chains: int = 100
    momentum: float = 0.0
    weight_decay: float = 0.0
    centred: bool = False
    sparsity_target: float | None = None
    sparsity_cost: float = 0.1
    fast_learning_rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "chains"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        for name in ("weight_decay", "sparsity_cost"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.sparsity_target is not None and not 0 < self.sparsity_target < 1:
            raise ValueError(f"sparsity_target must lie between 0 and 1, got {self.sparsity_target}")
        if self.fast_learning_rate is not None and not (self.fast_learning_rate > 0 and self.persistent):
            raise ValueError(
                f"fast_learning_rate must be positive, and its chains persistent, got {self.fast_learning_rate} "
                f"and persistent={self.persistent}"
            )

    def update(self, model: Machine, learning_rate: float) -> ContrastiveDivergence:
        """A new update of this machine."""
        return ContrastiveDivergence(
            model, learning_rate, self.steps, self.chains if self.persistent else None, self.momentum,
            self.weight_decay,
            offsets=Offsets() if self.centred else None,
            sparsity=None if self.sparsity_target is None else SparsityTarget(self.sparsity_target, self.sparsity_cost),
            fast=None if self.fast_learning_rate is None else FastWeights(model, self.fast_learning_rate),
        )  # fmt: skip

"""Fast weights: persistent chains are driven by parameters that soon forget, and so leave the modes they have been in.

    theta_fast <- 19/20 theta_fast + fast_learning_rate Delta theta;    chains run on theta + theta_fast

Where the chains stay too long their energy rises at the fast rate, until they move on; theta itself may learn slowly.
The averages that theta learns from are those of theta's own hidden units at the places the chains have come to.

Reference: "Using Fast Weights to Improve Persistent Contrastive Divergence" (Tieleman and Hinton, 2009).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

DECAY = 19 / 20


class FastWeights:
    """theta_fast of a machine, and a twin of the machine that has theta + theta_fast, for the chains to run on."""

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        self.model, self.learning_rate = model, learning_rate
        self.twin = copy.deepcopy(model)
        self.values = {name: torch.zeros_like(value) for name, value in model.named_parameters()}

    def machine(self) -> nn.Module:
        """The twin, with the model's present parameters plus the fast ones."""
        slow = dict(self.model.named_parameters())
        for name, parameter in self.twin.named_parameters():
            parameter.copy_(slow[name]).add_(self.values[name])
        return self.twin

    def move(self, ascent: Mapping[str, Tensor]) -> None:
        """Forget a twentieth and follow the gradient."""
        for name, value in self.values.items():
            value.mul_(DECAY).add_(ascent[name], alpha=self.learning_rate)

    def state_dict(self) -> dict[str, Tensor]:
        return self.values

    def load_state_dict(self, state: Mapping[str, Tensor], like: Tensor) -> None:
        """Take over a state, on the device of `like`."""
        self.values = {name: value.to(like.device, copy=True) for name, value in state.items()}

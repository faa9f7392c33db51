"""Updates: how a model learns from one batch. Each owns its optimisers; the loop knows none of them.

Adam is fused: all arithmetic in one pass over a parameter, ten times as fast on a processor as one after another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, TrainingConfig, Update


class GradientUpdate:
    """Adam on `model.loss(batch)["loss"]`.

    The learning rate is held for the first half of the phase and then falls linearly towards 0, which on small data
    is worth more than any other setting of the optimiser.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self.model, self.learning_rate = model, config.learning_rate
        self.optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * min(1.0, 2 * (1 - batch.progress))
        metrics = self.model.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        metrics["loss"].backward()
        self.optimiser.step()
        return {name: value.detach() for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])


@dataclass(frozen=True)
class Follower:
    """A network that learns beside two players and does not move them: its name, its loss and its learning rate."""

    name: str
    network: nn.Module
    loss: Callable[[Batch], Tensor]
    learning_rate: float


class AdversarialUpdate:
    """Alternating steps of two players: `critic_steps` updates of the critic on each batch, then one of the generator.

    The model supplies `critic_loss(batch)` and `generator_loss(batch)`; each optimiser holds one network's parameters,
    and only that network's gradients are computed, so that neither player is ever moved by the other's loss. A follower
    takes its step after them.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        critic_loss: Callable[[Batch], Tensor],
        generator_loss: Callable[[Batch], Tensor],
        learning_rate: float,
        betas: tuple[float, float] = (0.5, 0.999),
        critic_steps: int = 1,
        follower: Follower | None = None,
    ) -> None:
        self.losses = {"critic": critic_loss, "generator": generator_loss}
        self.critic_steps = critic_steps
        self.optimisers = {
            "critic": torch.optim.Adam(critic.parameters(), lr=learning_rate, betas=betas, fused=True),
            "generator": torch.optim.Adam(generator.parameters(), lr=learning_rate, betas=betas, fused=True),
        }
        self.follower = follower
        if follower is not None:
            self.losses[follower.name] = follower.loss
            parameters = follower.network.parameters()
            self.optimisers[follower.name] = torch.optim.Adam(parameters, lr=follower.learning_rate, fused=True)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        players = ["critic"] * self.critic_steps + ["generator"]
        players += [self.follower.name] if self.follower else []
        losses = {player: self._step(player, batch) for player in players}
        return {"loss": losses["critic"] + losses["generator"], **{f"{p}_loss": loss for p, loss in losses.items()}}

    def _step(self, player: str, batch: Batch) -> Tensor:
        loss = self.losses[player](batch)
        optimiser = self.optimisers[player]
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimiser.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        return {player: optimiser.state_dict() for player, optimiser in self.optimisers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The learning rates are the update's own: a run that goes back after diverging goes on with smaller ones."""
        for player, optimiser in self.optimisers.items():
            rates = [group["lr"] for group in optimiser.param_groups]
            optimiser.load_state_dict(state[player])
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate


class OnFeatures:
    """Another update, taught `features(images)` in place of the images: greedy learning, layer upon layer.

    `afterwards` is called after each step, with what was learnt in place: for parameters that follow it.
    """

    def __init__(
        self, update: Update, features: Callable[[Tensor], Tensor], afterwards: Callable[[], None] | None = None
    ) -> None:
        self.update, self.features, self.afterwards = update, features, afterwards

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        metrics = self.update(Batch(self.features(batch.images), batch.labels, batch.progress))
        if self.afterwards is not None:
            self.afterwards()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return self.update.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.update.load_state_dict(state)


def split_epochs(epochs: int, shares: Sequence[float]) -> list[int]:
    """Whole epochs for each of several phases, near their shares; together all of them.

    Phase i ends at round(epochs times the sum of the first i shares): with few epochs a phase may get none.
    """
    whole = sum(shares)
    ends = [0, *(round(epochs * part / whole) for part in itertools.accumulate(shares))]
    return [after - before for before, after in itertools.pairwise(ends)]

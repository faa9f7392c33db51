"""Maximum likelihood with Langevin chains: lower the energy of data, raise it where the model's own chains are.

    grad -log p(x) = grad E(x) - <grad E>_model
    loss = mean E(x) - mean E(chains) + a (mean E(x)^2 + mean E(chains)^2)

The second average is taken over chains from a replay buffer after some Langevin steps, held fixed. The penalty a keeps
energies near 0, which the first two terms leave free to drift.

Paper: "Implicit Generation and Modeling with Energy-Based Models", Du and Mordatch, 2019.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gdm_core.contract import Batch, DivergenceError, TrainingConfig
from gdm_core.models.energy.learning.replay_buffer import ReplayBuffer

if TYPE_CHECKING:
    from gdm_core.models.energy.deep_energy import DeepEnergy

# Signs of divergence. Runs that go well stay ten times below the first; see the tests for runs that do not.
LARGEST_GAP = 50.0  # nats per dimension between the mean energies of data and chains
LARGEST_EXCESS = 0.5  # how much larger a share of the chains' pixels than of the data's may lie at the border
BORDER = 0.01  # pixels nearer than this to 0 or 1 lie at the border


class LangevinLikelihood:
    """One step of Adam per batch, on the loss above; the momentum is 0, as in the paper, for chains that follow.

    The learning rate is held for the first half of the phase and falls linearly to 0 in the second. Raises
    DivergenceError where the energies of data and chains part beyond all reason, or the chains run to black and white.
    """

    def __init__(self, model: DeepEnergy, config: TrainingConfig) -> None:
        self.model, self.learning_rate = model, config.learning_rate
        self.optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=(0.0, 0.999), fused=True)
        self.buffer = ReplayBuffer(model.chains, model.data_shape, model.restarts, model.device)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch. Returns, of the model before this step, in nats per image where not said otherwise:

        loss: what is minimised; energy_gap: mean E(data) - mean E(chains), about 0 where the chains match the data;
        chain_energy; chain_border and data_border: the shares of pixels within 0.01 of 0 or 1.
        """
        with torch.autocast(batch.images.device.type, enabled=False):  # rounded slopes would bias the chains
            rows, x = self.buffer.draw(len(batch.images))
            x = self.model.run_chains(x, self.model.steps)
            self.buffer.put(rows, x)
            metrics = likelihood_loss(self.model, batch.images, x)
            self._check(metrics)
            self._move(metrics["loss"], batch.progress)
        return {name: value.detach() for name, value in metrics.items()}

    def _move(self, loss: Tensor, progress: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * min(1.0, 2 * (1 - progress))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def _check(self, metrics: dict[str, Tensor]) -> None:
        gap = metrics["energy_gap"].item()
        bound = LARGEST_GAP * self.model.dimensions
        if not (math.isfinite(gap) and abs(gap) <= bound):
            raise DivergenceError(
                f"the mean energies of data and chains are {gap:.4g} nats apart (allowed are {bound:.4g}): "
                "try a smaller learning rate or step_size"
            )
        excess = (metrics["chain_border"] - metrics["data_border"]).item()
        if excess > LARGEST_EXCESS:
            raise DivergenceError(
                f"{excess:.0%} more of the chains' pixels than of the data's lie at 0 or 1: "
                "try a smaller learning rate or step_size"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict(), "buffer": self.buffer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        self.buffer.load_state_dict(state["buffer"])


def likelihood_loss(model: DeepEnergy, data: Tensor, chains: Tensor) -> dict[str, Tensor]:
    """The loss and what there is to know of it, from images (N, C, H, W) and the ends of chains."""
    data_energy, chain_energy = model.tempered_energy(torch.cat([data, chains])).split([len(data), len(chains)])
    gap = data_energy.mean() - chain_energy.mean()
    penalty = data_energy.square().mean() + chain_energy.square().mean()
    return {
        "loss": gap + model.energy_penalty * penalty,
        "energy_gap": gap,
        "chain_energy": chain_energy.mean(),
        "chain_border": border_share(chains),
        "data_border": border_share(data),
    }


def border_share(x: Tensor) -> Tensor:
    """The share of pixels at the border of [0, 1]."""
    return ((x < BORDER) | (x > 1 - BORDER)).float().mean()

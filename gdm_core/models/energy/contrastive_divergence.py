"""Contrastive divergence: learning a restricted Boltzmann machine by short Gibbs chains, without autograd.

The gradient of the mean log-likelihood with respect to W is <h v'>_data - <h v'>_model. The second average is taken
over visibles v_k that have gone through k Gibbs steps, started at the batch itself (CD-k) or where the chains of the
step before stopped (persistent CD):

    Delta W = learning_rate (<p(h = 1 | v_0) v_0'> - <p(h = 1 | v_k) v_k'>),   v_k sampled, not a probability.

References: "Training Products of Experts by Minimizing Contrastive Divergence" (Hinton, 2002); "Training Restricted
Boltzmann Machines using Approximations to the Likelihood Gradient" (Tieleman, 2008).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gdm_core.contract import Batch

if TYPE_CHECKING:
    from gdm_core.models.energy.rbm import RestrictedBoltzmannMachine


class ContrastiveDivergence:
    """One step of CD-k per batch; `chains` persistent ones, or None to start each chain at its training image.

    The persistent chains start at zero: while the weights are still small, one Gibbs step forgets where it began.
    Besides the parameters it keeps the model's `base_visible_bias`, the log-odds of the pixel means seen so far
    (add-one smoothing), which is where annealing and sampling start. A model that has never been trained also gets
    its `visible_bias` from the first batch's log-odds, so that the weights need not learn the mean image.

    The learning rate falls linearly to 0: persistent chains follow the model only if it moves slowly in the end (on the
    8x8 digits a constant rate costs 6 nats).
    """

    def __init__(
        self,
        model: RestrictedBoltzmannMachine,
        learning_rate: float,
        steps: int = 1,
        chains: int | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.model, self.learning_rate, self.steps = model, learning_rate, steps
        self.momentum, self.weight_decay = momentum, weight_decay
        self.velocity = {name: torch.zeros_like(parameter) for name, parameter in _parameters(model).items()}
        self.chains = None if chains is None else model.visible_bias.new_zeros(chains, model.dimensions)
        self.pixel_totals = torch.zeros_like(model.base_visible_bias, dtype=torch.float64)
        self.images_seen = 0

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch. Returns, in nats per image and of the model before this step:

        loss: the cross-entropy of the images under their mean-field reconstruction p(v | p(h | v)); it shows progress
            but is not what is minimised (nothing computable is);
        free_energy_gap: F(data) - F(chains), whose gradient this step follows; about 0 when the chains match the data.
        """
        with torch.autocast(batch.images.device.type, enabled=False):  # rounded probabilities would bias the chains
            v_data = self.model.as_vectors(batch.images)
            self._count_pixels(v_data)
            v_model = self._run_chains(v_data)
            data_logits, model_logits = self.model.hidden_logits(v_data), self.model.hidden_logits(v_model)
            metrics = self._metrics(v_data, data_logits, v_model, model_logits)
            ascent = statistics(v_data, data_logits.sigmoid(), v_model, model_logits.sigmoid())
            self._move(ascent, self.learning_rate * (1 - batch.progress))
        return metrics

    def _run_chains(self, v_data: Tensor) -> Tensor:
        v = v_data if self.chains is None else self.chains
        for _ in range(self.steps):
            v = self.model.gibbs_step(v)
        if self.chains is not None:
            self.chains = v
        return v

    def _move(self, ascent: dict[str, Tensor], learning_rate: float) -> None:
        for name, parameter in _parameters(self.model).items():
            if name == "weight" and self.weight_decay:
                ascent[name].sub_(parameter, alpha=self.weight_decay)
            self.velocity[name].mul_(self.momentum).add_(ascent[name], alpha=learning_rate)
            parameter.add_(self.velocity[name])

    def _metrics(self, v_data: Tensor, data_logits: Tensor, v_model: Tensor, model_logits: Tensor) -> dict[str, Tensor]:
        logits = self.model.visible_logits(data_logits.sigmoid())
        loss = F.binary_cross_entropy_with_logits(logits, v_data, reduction="sum") / len(v_data)
        data_energy = self.model.free_energy(v_data, data_logits).mean()
        return {"loss": loss, "free_energy_gap": data_energy - self.model.free_energy(v_model, model_logits).mean()}

    def _count_pixels(self, v_data: Tensor) -> None:
        untrained = self.images_seen == 0 and not self.model.base_visible_bias.any()
        self.pixel_totals += v_data.sum(0)
        self.images_seen += len(v_data)
        log_odds = ((self.pixel_totals + 1) / (self.images_seen - self.pixel_totals + 1)).log()
        self.model.base_visible_bias.copy_(log_odds)
        if untrained:
            self.model.visible_bias.copy_(log_odds)

    def state_dict(self) -> dict[str, Any]:
        return {
            "velocity": self.velocity,
            "chains": self.chains,
            "pixel_totals": self.pixel_totals,
            "images_seen": self.images_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.pixel_totals.device
        self.velocity = {name: value.to(device, copy=True) for name, value in state["velocity"].items()}
        self.chains = None if state["chains"] is None else state["chains"].to(device, copy=True)
        self.pixel_totals = state["pixel_totals"].to(device, copy=True)
        self.images_seen = state["images_seen"]


def statistics(v_data: Tensor, h_data: Tensor, v_model: Tensor, h_model: Tensor) -> dict[str, Tensor]:
    """<.>_data - <.>_model for each parameter, from visibles v (N, D) and hidden probabilities h (N, hidden)."""
    positive = torch.mm(h_data.T, v_data).div_(len(v_data))  # (hidden, D)
    return {
        "weight": positive.addmm_(h_model.T, v_model, alpha=-1 / len(v_model)),
        "visible_bias": v_data.mean(0) - v_model.mean(0),
        "hidden_bias": h_data.mean(0) - h_model.mean(0),
    }


def _parameters(model: RestrictedBoltzmannMachine) -> dict[str, Tensor]:
    return {"weight": model.weight, "visible_bias": model.visible_bias, "hidden_bias": model.hidden_bias}

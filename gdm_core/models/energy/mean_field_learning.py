"""How a deep Boltzmann machine learns: each layer alone at first, then all together by mean field and Gibbs chains.

Alone, a layer is a restricted machine of which copies with tied weights stand for the neighbours that are missing: two
copies of the visible layer unless it is the last one, two of the hidden layer unless it is the first. So its units get
twice from one side what they will later get from both. With V the sum of the visible copies and H that of the hidden
ones, p(h = 1 | V) = sigmoid(W V + c) and p(v = 1 | H) = sigmoid(W'H + b), learnt by contrastive divergence.

Together, log p(v) has the gradient <h_l h_{l-1}'>_data - <h_l h_{l-1}'>_model. The first average is taken under the
mean-field posterior of each image, the second one over persistent chains, their odd layers as probabilities given the
even ones, of which they are the exact means.

Reference: "Deep Boltzmann Machines" (Salakhutdinov and Hinton, 2009). Changed: copies are drawn each on its own; the
layer between two machines keeps one bias; the learning rate falls linearly to 0 within every phase.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.models.energy.folding import unfold
from gdm_core.models.energy.tempered_rbm import bernoulli

if TYPE_CHECKING:
    from gdm_core.models.energy.dbm import DeepBoltzmannMachine

FORGETTING_STEPS = 100  # from independent units to where persistent chains begin


class Frequencies:
    """How often the units of even layers are on: keeps the model's `base_bias` at the log-odds (add-one smoothing)."""

    def __init__(self, model: DeepBoltzmannMachine) -> None:
        self.model = model
        self.totals = torch.zeros_like(model.base_bias, dtype=torch.float64)
        self.images = 0

    def count(self, even: Tensor) -> None:
        """Take in means (N, units), pixels first. A model never trained also starts to learn from the pixels' odds."""
        self.totals += even.sum(0)
        self.images += len(even)
        log_odds = ((self.totals + 1) / (self.images - self.totals + 1)).log()
        if not self.model.base_bias.any():
            self.model.biases[0].copy_(log_odds[: self.model.dimensions])
        self.model.base_bias.copy_(log_odds)

    def state_dict(self) -> dict[str, Any]:
        return {"totals": self.totals, "images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.totals = state["totals"].to(self.totals.device, copy=True)
        self.images = state["images"]


class DoubledLayer:
    """One step of CD-k per batch of states of the layer below weights `layer`, started at the batch."""

    def __init__(self, model: DeepBoltzmannMachine, layer: int, learning_rate: float, steps: int) -> None:
        self.weight, self.visible_bias = model.weights[layer], model.biases[layer]
        self.hidden_bias, self.learning_rate, self.steps = model.biases[layer + 1], learning_rate, steps
        self.visible_copies = 1 if layer + 1 == len(model.weights) else 2
        self.hidden_copies = 1 if layer == 0 else 2
        self.frequencies = Frequencies(model) if layer == 0 else None
        self.hidden_even = sum(model.sizes[2::2])  # of which nothing is known yet

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from states (N, units). Returns `loss`, their cross-entropy in nats after a mean way up and down."""
        v, rate = batch.images, self.learning_rate * (1 - batch.progress)
        with torch.autocast(v.device.type, enabled=False):
            if self.frequencies is not None:
                self.frequencies.count(F.pad(v, (0, self.hidden_even), value=0.5))
            copies = self.visible_copies * v
            h_data = self.hidden_probability(copies)
            logits = self.visible_logits(self.hidden_copies * h_data)
            loss = F.binary_cross_entropy_with_logits(logits, v, reduction="sum") / len(v)
            for _ in range(self.steps):
                copies = self.gibbs_step(copies)
            h_model, v_model = self.hidden_probability(copies), copies / self.visible_copies
            self.weight.add_((h_data.T @ v - h_model.T @ v_model) / len(v), alpha=rate)
            self.visible_bias.add_(v.mean(0) - v_model.mean(0), alpha=rate)
            self.hidden_bias.add_(h_data.mean(0) - h_model.mean(0), alpha=rate)
        return {"loss": loss}

    def hidden_probability(self, copies: Tensor) -> Tensor:
        """p(h = 1 | V) of each hidden copy."""
        return torch.sigmoid(F.linear(copies, self.weight, self.hidden_bias))

    def visible_logits(self, copies: Tensor) -> Tensor:
        """The logits of p(v = 1 | H) of each visible copy."""
        return torch.addmm(self.visible_bias, copies, self.weight)

    def gibbs_step(self, copies: Tensor) -> Tensor:
        """From V to H to V, the sums of copies drawn independently, (N, units)."""
        h = self.hidden_probability(copies)
        h = sum(torch.bernoulli(h) for _ in range(self.hidden_copies))
        v = torch.sigmoid(self.visible_logits(h))
        return sum(torch.bernoulli(v) for _ in range(self.visible_copies))

    def state_dict(self) -> dict[str, Any]:
        return {} if self.frequencies is None else self.frequencies.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.frequencies is not None:
            self.frequencies.load_state_dict(state)


class MeanFieldLearning:
    """One step per batch for all layers. The persistent chains are states of the even layers, (chains, units)."""

    @torch.no_grad()
    def __init__(self, model: DeepBoltzmannMachine, learning_rate: float, steps: int, chains: int) -> None:
        self.model, self.learning_rate, self.steps = model, learning_rate, steps
        self.frequencies = Frequencies(model)
        machine = model.folded()
        base = machine.base_visible_bias
        self.chains = bernoulli(base, torch.rand(chains, len(base), dtype=base.dtype, device=base.device))
        for _ in range(FORGETTING_STEPS):
            self.chains = machine.gibbs_step(self.chains)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch. Returns `loss`, the cross-entropy of the images in nats given their mean-field h_1."""
        model, rate = self.model, self.learning_rate * (1 - batch.progress)
        with torch.autocast(batch.images.device.type, enabled=False):
            v = model.as_vectors(batch.images)
            data, machine = model.mean_field(v), model.folded()
            self.frequencies.count(torch.cat(data[::2], 1))
            loss = F.binary_cross_entropy_with_logits(model.input_of(0, data), v, reduction="sum") / len(v)
            for _ in range(self.steps):
                self.chains = machine.gibbs_step(self.chains)
            odd = machine.hidden_probability(self.chains)
            ascend(model, data, unfold(self.chains, odd, model.sizes), rate)
        return {"loss": loss}

    def state_dict(self) -> dict[str, Any]:
        return {"chains": self.chains, "frequencies": self.frequencies.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chains = state["chains"].to(self.chains.device, copy=True)
        self.frequencies.load_state_dict(state["frequencies"])


def ascend(model: DeepBoltzmannMachine, data: list[Tensor], chains: list[Tensor], rate: float) -> None:
    """Move all parameters by `rate` times <.>_data - <.>_model, from [v, h_1, ..., h_L] of either."""
    for weight, (below, above), (below_model, above_model) in zip(
        model.weights, itertools.pairwise(data), itertools.pairwise(chains), strict=True
    ):
        weight.addmm_(above.T, below, alpha=rate / len(below))
        weight.addmm_(above_model.T, below_model, alpha=-rate / len(below_model))
    for bias, states, states_model in zip(model.biases, data, chains, strict=True):
        bias.add_(states.mean(0) - states_model.mean(0), alpha=rate)

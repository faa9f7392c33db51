"""How a deep Boltzmann machine learns: each layer alone at first, then all together by mean field and Gibbs chains.

Alone, a layer is a restricted machine of which copies with tied weights stand for the neighbours that are missing: two
copies of the visible layer unless it is the last one, two of the hidden layer unless it is the first. So its units get
twice from one side what they will later get from both. With V the sum of the visible copies and H that of the hidden
ones, p(h = 1 | V) = sigmoid(W V + c) and p(v = 1 | H) = sigmoid(W'H + b), learnt by contrastive divergence.

Together, log p(v) has the gradient <h_l h_{l-1}'>_data - <h_l h_{l-1}'>_model. The first average is taken under the
mean-field posterior of each image, the second one over persistent chains, their odd layers as probabilities given the
even ones, of which they are the exact means. Centred gradients keep the upper layers from falling silent for good.

References: "Deep Boltzmann Machines" (Salakhutdinov and Hinton, 2009); "Deep Boltzmann Machines and the Centering
Trick" (Montavon and Mueller, 2012). Changed: copies are drawn each on its own; a layer between two machines gets the
mean of their biases, as its input is the mean of theirs; the learning rate falls linearly to 0 within every phase.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.models.energy.folding import unfold
from gdm_core.models.energy.learning.centred_gradient import RATE
from gdm_core.models.energy.partition.tempered_rbm import bernoulli

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
    """One step of CD-k per batch of states of the layer below weights `layer`, started at the batch.

    Above the first layer `visible_bias` is its own, because below it the layer's bias went with another machine.
    """

    def __init__(
        self, model: DeepBoltzmannMachine, layer: int, learning_rate: float, steps: int, centred: bool = False
    ) -> None:
        self.weight, self.centred = model.weights[layer], centred
        self.layer_bias = model.biases[layer]
        self.visible_bias = self.layer_bias if layer == 0 else torch.zeros_like(self.layer_bias)
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
            elif not self.visible_bias.any():
                self.visible_bias.copy_(((v.sum(0) + 1) / (len(v) - v.sum(0) + 1)).log())
            copies = self.visible_copies * v
            h_data = self.hidden_probability(copies)
            logits = self.visible_logits(self.hidden_copies * h_data)
            loss = F.binary_cross_entropy_with_logits(logits, v, reduction="sum") / len(v)
            for _ in range(self.steps):
                copies = self.gibbs_step(copies)
            h_model, v_model = self.hidden_probability(copies), copies / self.visible_copies
            offsets = [v.mean(0), h_data.mean(0)] if self.centred else None
            (weight,), (visible_bias, hidden_bias) = ascent([v, h_data], [v_model, h_model], offsets)
            if offsets is not None:  # each further copy sends its mean, too
                visible_bias = visible_bias - (self.hidden_copies - 1) * (offsets[1] @ weight)
                hidden_bias = hidden_bias - (self.visible_copies - 1) * (weight @ offsets[0])
            self.weight.add_(weight, alpha=rate)
            self.visible_bias.add_(visible_bias, alpha=rate)
            self.hidden_bias.add_(hidden_bias, alpha=rate)
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

    @torch.no_grad()
    def finish(self) -> None:
        """Give the layer below the mean of the biases that it has in this machine and in the one before."""
        self.layer_bias.lerp_(self.visible_bias, 0.5)

    def state_dict(self) -> dict[str, Any]:
        counted = {} if self.frequencies is None else self.frequencies.state_dict()
        return {"visible_bias": self.visible_bias, "frequencies": counted}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.visible_bias.copy_(state["visible_bias"])
        if self.frequencies is not None:
            self.frequencies.load_state_dict(state["frequencies"])


class MeanFieldLearning:
    """One step per batch for all layers. The persistent chains are states of the even layers, (chains, units)."""

    @torch.no_grad()
    def __init__(
        self, model: DeepBoltzmannMachine, learning_rate: float, steps: int, chains: int, centred: bool = False
    ) -> None:
        self.model, self.learning_rate, self.steps, self.centred = model, learning_rate, steps, centred
        self.offsets: list[Tensor] | None = None
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
            self._follow(data)
            weights, biases = ascent(data, unfold(self.chains, odd, model.sizes), self.offsets)
            for parameter, step in zip([*model.weights, *model.biases], [*weights, *biases], strict=True):
                parameter.add_(step, alpha=rate)
        return {"loss": loss}

    def _follow(self, data: list[Tensor]) -> None:
        """Move the offsets, averages of each layer over the images, towards those of a batch."""
        means = [states.mean(0) for states in data]
        if self.centred:
            before = self.offsets or means
            self.offsets = [old.lerp(new, RATE) for old, new in zip(before, means, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        return {"chains": self.chains, "offsets": self.offsets, "frequencies": self.frequencies.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.chains.device
        self.chains = state["chains"].to(device, copy=True)
        self.offsets = state["offsets"] and [offset.to(device, copy=True) for offset in state["offsets"]]
        self.frequencies.load_state_dict(state["frequencies"])


def ascent(
    data: Sequence[Tensor], chains: Sequence[Tensor], offsets: Sequence[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """<.>_data - <.>_model of each h_l h_{l-1}' and h_l from [v, h_1, ..., h_L] of either, centred by offsets o_l:

    Delta W_l = <(h_l - o_l) (h_{l-1} - o_{l-1})'>,    Delta b_l = <h_l> - Delta W_l o_{l-1} - Delta W_{l+1}'o_{l+1}.
    """
    biases = [states.mean(0) - states_model.mean(0) for states, states_model in zip(data, chains, strict=True)]
    weights = []
    for (below, above), (below_model, above_model) in zip(*map(itertools.pairwise, (data, chains)), strict=True):
        weight = above.T @ below / len(below)
        weights.append(weight.addmm_(above_model.T, below_model, alpha=-1 / len(below_model)))
    if offsets is None:
        return weights, biases
    for i, weight in enumerate(weights):
        weight.addr_(offsets[i + 1], biases[i], alpha=-1).addr_(biases[i + 1], offsets[i], alpha=-1)
    for i, weight in enumerate(weights):
        biases[i + 1] = biases[i + 1] - weight @ offsets[i]
        biases[i] = biases[i] - offsets[i + 1] @ weight
    return weights, biases

"""Contrastive divergence: learning a restricted Boltzmann machine by short Gibbs chains, without autograd.

The gradient of the mean log-likelihood with respect to W is <h v'>_data - <h v'>_model. The second average is taken
over visibles v_k that have gone through k Gibbs steps, started at the batch itself (CD-k) or where the chains of the
step before stopped (persistent CD):

    Delta W = learning_rate (<p(h = 1 | v_0) v_0'> - <p(h = 1 | v_k) v_k'>),   v_k sampled, not a probability.

References: "Training Products of Experts by Minimizing Contrastive Divergence" (Hinton, 2002); "Training Restricted
Boltzmann Machines using Approximations to the Likelihood Gradient" (Tieleman, 2008).
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.models.energy.learning.centred_gradient import Offsets
from gdm_core.models.energy.learning.fast_weights import FastWeights
from gdm_core.models.energy.learning.sparsity_target import SparsityTarget
from gdm_core.models.energy.partition.tempered_rbm import Chains

MEASURED_EVERY, PIXELS_MEASURED = 4, 1 << 14  # batches; numbers that are only looked at may not cost a tenth of a step


class Machine(Protocol):
    """What learns by contrastive divergence: an `nn.Module` with `weight`, `visible_bias` and `hidden_bias`.

    Vectors v are (N, D), hidden logits and probabilities (N, hidden).
    """

    dimensions: int
    weight: Tensor
    visible_bias: Tensor

    def as_vectors(self, x: Tensor) -> Tensor: ...

    def hidden_logits(self, v: Tensor) -> Tensor: ...

    def visible_after(self, hidden_logits: Tensor) -> Tensor:
        """h ~ p(h | v) given its logits, then v ~ p(v | h)."""
        ...

    def free_energy(self, v: Tensor, hidden_logits: Tensor) -> Tensor: ...

    def reconstruction_nats(self, v: Tensor, h: Tensor) -> Tensor:
        """-log p(v | h), the mean over images, at probabilities h."""
        ...

    def ascent(self, data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor], offsets: Offsets | None) -> dict:
        """The estimated gradient for each parameter, from pairs (v, probabilities of h)."""
        ...

    def base(self) -> Base:
        """What keeps the start of annealing and sampling at the moments of the training images."""
        ...


@runtime_checkable
class Climbs(Protocol):
    """A machine that can add `learning_rate` times its ordinary gradient to its parameters without ever storing it."""

    def climb(self, data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor], learning_rate: float) -> None: ...


class Base(Protocol):
    """Counts images, vectors (N, D), and moves what it keeps of the machine."""

    def count(self, v: Tensor) -> None: ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


class ContrastiveDivergence:
    """One step of CD-k per batch; `chains` persistent ones, or None to start each chain at its training image.

    The persistent chains start at zero: while the weights are still small, one Gibbs step forgets where it began. The
    hidden units of their first step are drawn from the logits that the step before computed for its own average, under
    the parameters as they were then: one matrix product less, and chains that follow the model anyway.
    Besides the parameters it moves what annealing and sampling start from (`Machine.base`).

    The learning rate falls linearly to 0: persistent chains follow the model only if it moves slowly in the end (on the
    8x8 digits a constant rate costs 6 nats). The rate of `fast` weights does not fall.
    """

    def __init__(
        self,
        model: Machine,
        learning_rate: float,
        steps: int = 1,
        chains: int | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        offsets: Offsets | None = None,
        sparsity: SparsityTarget | None = None,
        fast: FastWeights | None = None,
    ) -> None:
        self.model, self.learning_rate, self.steps = model, learning_rate, steps
        self.momentum, self.weight_decay = momentum, weight_decay
        moving = model.named_parameters() if momentum else ()
        self.velocity = {name: torch.zeros_like(parameter) for name, parameter in moving}
        self.chains = None if chains is None else self._begin(chains)
        self.base = model.base()
        self.batches, self.measured = 0, dict[str, Tensor]()
        self.options = {"offsets": offsets, "sparsity": sparsity, "fast": fast}
        self.offsets, self.sparsity, self.fast = offsets, sparsity, fast
        plain = not (momentum or weight_decay or any(self.options.values()))
        self.climbs = plain and isinstance(model, Climbs)  # the gradient itself is not needed

    @torch.no_grad()
    def _begin(self, chains: int) -> Chains:
        v = self.model.visible_bias.new_zeros(chains, self.model.dimensions)
        return Chains(v, self.model.hidden_logits(v))

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch. Returns, in nats per image and of the model before this step:

        loss: -log p(v | p(h | v)), the images under their mean-field reconstruction; it shows progress but is not what
            is minimised (nothing computable is);
        free_energy_gap: F(data) - F(chains), whose gradient this step follows; about 0 when the chains match the data.

        Both are taken from every fourth batch, and returned again for the three that follow. Of large images they are
        of the batch's first few, which were drawn at random, and of as many chains: those that have 16,384 pixels
        together (20 of 28x28). What is logged is the mean over an epoch, hence of many where it has many batches.
        """
        with torch.autocast(batch.images.device.type, enabled=False):  # rounded probabilities would bias the chains
            v_data = self.model.as_vectors(batch.images)
            self.base.count(v_data)
            data_logits = self.model.hidden_logits(v_data)
            v_model = self._run_chains(v_data, data_logits)
            model_logits = self.model.hidden_logits(v_model)
            h_data = data_logits.sigmoid()
            if self.batches % MEASURED_EVERY == 0:
                self.measured = self._metrics(v_data, data_logits, h_data, Chains(v_model, model_logits))
            self.batches += 1
            self._learn(v_data, h_data, v_model, model_logits.sigmoid(), self.learning_rate * (1 - batch.progress))
        if self.chains is not None:
            self.chains = Chains(v_model, model_logits)
        return self.measured

    def _run_chains(self, v_data: Tensor, data_logits: Tensor) -> Tensor:
        """v_k, (chains or N, D)."""
        machine = self.model if self.fast is None else self.fast.machine()
        v, logits = (v_data, data_logits) if self.chains is None else self.chains
        if self.fast is not None:
            logits = machine.hidden_logits(v)
        for step in range(1, self.steps + 1):
            v = machine.visible_after(logits)
            if step < self.steps:
                logits = machine.hidden_logits(v)
        return v

    def _learn(self, v_data: Tensor, h_data: Tensor, v_model: Tensor, h_model: Tensor, learning_rate: float) -> None:
        data, model = (v_data, h_data), (v_model, h_model)
        if self.climbs:
            self.model.climb(data, model, learning_rate)
            return
        if self.offsets is not None:
            self.offsets.follow(v_data, h_data)
        ascent = self.model.ascent(data, model, self.offsets)
        if self.sparsity is not None:
            self.sparsity.add_to(ascent, h_data)
        if self.weight_decay:
            ascent["weight"].sub_(self.model.weight, alpha=self.weight_decay)
        if self.fast is not None:
            self.fast.move(ascent)
        self._move(ascent, learning_rate)

    def _move(self, ascent: dict[str, Tensor], learning_rate: float) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self.velocity:
                parameter.add_(self.velocity[name].mul_(self.momentum).add_(ascent[name], alpha=learning_rate))
            else:
                parameter.add_(ascent[name], alpha=learning_rate)

    def _metrics(self, v_data: Tensor, data_logits: Tensor, h_data: Tensor, model: Chains) -> dict[str, Tensor]:
        few = slice(max(1, PIXELS_MEASURED // self.model.dimensions))
        energy = self.model.free_energy(v_data[few], data_logits[few]).mean()
        gap = energy - self.model.free_energy(model.v[few], model.logits[few]).mean()
        return {"loss": self.model.reconstruction_nats(v_data[few], h_data[few]), "free_energy_gap": gap}

    def state_dict(self) -> dict[str, Any]:
        return {
            "velocity": self.velocity,
            "chains": None if self.chains is None else self.chains._asdict(),
            "base": self.base.state_dict(),
            "batches": self.batches,
            "measured": self.measured,
            **{name: part.state_dict() for name, part in self.options.items() if part is not None},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.model.weight.device

        def own(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.to(device, copy=True) for name, value in values.items()}

        self.velocity = own(state["velocity"])
        self.chains = None if state["chains"] is None else Chains(**own(state["chains"]))
        self.base.load_state_dict(state["base"])
        self.batches, self.measured = state["batches"], own(state["measured"])
        for name, part in self.options.items():
            if part is not None:
                part.load_state_dict(state[name], like=self.model.weight)


def statistics(data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """<.>_data - <.>_model of h v', v and h, from pairs of (N, D) and probabilities (N, hidden)."""
    (v_data, h_data), (v_model, h_model) = data, model
    weight = v_data.new_empty(h_data.shape[1], v_data.shape[1])  # (hidden, D); with beta = 0 it is not read
    weight.addmm_(h_data.T, v_data, beta=0, alpha=1 / len(v_data))
    return {"weight": weight.addmm_(h_model.T, v_model, alpha=-1 / len(v_model)), **bias_statistics(data, model)}


def bias_statistics(data: tuple[Tensor, Tensor], model: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """<.>_data - <.>_model of v and h, from pairs of (N, D) and probabilities (N, hidden)."""
    (v_data, h_data), (v_model, h_model) = data, model
    return {"visible_bias": v_data.mean(0) - v_model.mean(0), "hidden_bias": h_data.mean(0) - h_model.mean(0)}

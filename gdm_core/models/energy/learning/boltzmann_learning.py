"""How a Boltzmann machine learns: what fires together in the images, less what fires together in its own chains.

    Delta C_ij = learning_rate (<s_i s_j>_data - <s_i s_j>_chains)

Data: pixels are those of the images, hidden units their mean-field means or a short Gibbs chain given them. Chains:
persistent ones of all units. Where a unit was drawn, one of each pair counts by its probability given all others, which
has the same mean and less noise: <s_i p_j>, p_j = p(s_j = 1 | all others).

References: "A Learning Algorithm for Boltzmann Machines" (Ackley, Hinton and Sejnowski, 1985), which anneals to thermal
equilibrium for every statistic; persistent chains and mean field as in "Deep Boltzmann Machines" (Salakhutdinov and
Hinton, 2009).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.models.energy.learning.pixel_frequencies import PixelFrequencies
from gdm_core.models.energy.partition.tempered_rbm import bernoulli
from gdm_core.models.energy.sampling.gibbs_scan import gibbs_scan
from gdm_core.models.energy.unit_pairs import mean_products

if TYPE_CHECKING:
    from gdm_core.models.energy.boltzmann_machine import BoltzmannMachine

POSITIVE_SCANS = 5  # of the hidden units of an image


class Activity(NamedTuple):
    """Hidden units and pixels, (N, hidden) and (N, D): what they are, and how probable it is that each is on."""

    h: Tensor
    p_h: Tensor
    v: Tensor
    p_v: Tensor


class PersistentLearning:
    """One learning step per batch, from `chains` chains that go on for `steps` scans; they start at zero.

    The learning rate falls linearly to 0: persistent chains follow the machine only if it moves slowly in the end.
    """

    def __init__(self, model: BoltzmannMachine, learning_rate: float, steps: int, chains: int) -> None:
        self.model, self.learning_rate, self.steps = model, learning_rate, steps
        self.chains = model.weight.new_zeros(chains, sum(model.weight.shape))
        self.frequencies = PixelFrequencies(model.base_visible_bias, model.visible_bias)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch. Returns, in nats per image and of the machine before this step:

        loss: the cross-entropy of each pixel given its neighbours in the image and the hidden units' means; it shows
            progress but is not what is minimised;
        energy_gap: the mean energy of the images with their hidden units less that of the chains.
        """
        with torch.autocast(batch.images.device.type, enabled=False):  # rounded probabilities would bias the chains
            v = self.model.as_vectors(batch.images)
            self.frequencies.count(v)
            data, dreams = activity_of_images(self.model, v), self._run_chains()
            metrics = self._metrics(data, dreams)
            positive, negative = pair_statistics(data), pair_statistics(dreams)
            rate = self.learning_rate * (1 - batch.progress)
            for name, parameter in self.model.named_parameters():
                parameter.add_(positive[name] - negative[name], alpha=rate)
        return metrics

    def _run_chains(self) -> Activity:
        units, hidden = self.model.units(), len(self.model.hidden_bias)
        for _ in range(self.steps):
            self.chains = gibbs_scan(units, self.chains, self.model.uniforms(len(self.chains), None))
        probability = torch.sigmoid(units.inputs(self.chains))
        return Activity(
            self.chains[:, :hidden], probability[:, :hidden], self.chains[:, hidden:], probability[:, hidden:]
        )

    def _metrics(self, data: Activity, dreams: Activity) -> dict[str, Tensor]:
        units = self.model.units()
        logits = self.model.visible_logits(data.v, data.p_h)
        awake, asleep = (units.negative_energy(torch.cat([side.h, side.v], 1)).mean() for side in (data, dreams))
        loss = F.binary_cross_entropy_with_logits(logits, data.v, reduction="sum") / len(data.v)
        return {"loss": loss, "energy_gap": asleep - awake}

    def state_dict(self) -> dict[str, Any]:
        return {"chains": self.chains, "frequencies": self.frequencies.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chains = state["chains"].to(self.chains.device, copy=True)
        self.frequencies.load_state_dict(state["frequencies"])


@torch.no_grad()
def activity_of_images(model: BoltzmannMachine, v: Tensor) -> Activity:
    """The hidden units of images (N, D): mean-field means, or where Gibbs chains stand after five scans."""
    if model.positive_phase == "mean_field" or model.hidden_pairs is None:
        means = model.hidden_means(v)
        return Activity(means, means, v, v)
    units, hidden = model.units_given(v), len(model.hidden_bias)
    h = bernoulli(units.bias, model.uniforms(len(v), None)[:, :hidden])
    for _ in range(POSITIVE_SCANS):
        h = gibbs_scan(units, h, model.uniforms(len(v), None)[:, :hidden])
    return Activity(h, torch.sigmoid(units.inputs(h)), v, v)


def pair_statistics(activity: Activity) -> dict[str, Tensor]:
    """The mean of -dE / d theta for each parameter of a machine: of pairs i < j, units i, and weights (hidden, D)."""
    h, p_h, v, p_v = activity
    return {
        "weight": p_h.T @ v / len(v),
        "visible_bias": v.mean(0),
        "hidden_bias": p_h.mean(0),
        "visible_pairs": mean_products(v, p_v),
        "hidden_pairs": mean_products(h, p_h),
    }

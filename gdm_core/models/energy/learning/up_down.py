"""The up-down algorithm: all layers of a deep belief network learn together, after each has learnt alone.

Up: h_1, ..., h_{L-1} ~ q(h | x) of an image; each generative layer ascends log p(h_{l-1} | h_l). Top: the restricted
machine takes a step of contrastive divergence on h_{L-1}. Down: from h_{L-1} after `steps` of Gibbs sampling in it,
h_{L-2}, ..., x ~ p; each recognition layer ascends log q(h_l | h_{l-1}). All by the delta rule, without autograd:

    Delta W_l = learning_rate <h_l (h_{l-1} - p(h_{l-1} = 1 | h_l))'>_up,
    Delta R_l = learning_rate <(h_l - q(h_l = 1 | h_{l-1})) h_{l-1}'>_down

Reference: "A Fast Learning Algorithm for Deep Belief Nets" (Hinton, Osindero and Teh, 2006), appendix B. Changed: the
learning rate falls linearly to 0 over the phase.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.models.energy.learning.contrastive_divergence import ContrastiveDivergence

if TYPE_CHECKING:
    from gdm_core.models.energy.dbn import DeepBeliefNetwork


class UpDown:
    """One up-down step per batch; `top` is the update of the restricted machine."""

    def __init__(self, model: DeepBeliefNetwork, learning_rate: float, top: ContrastiveDivergence, steps: int) -> None:
        self.model, self.learning_rate, self.top, self.steps = model, learning_rate, top, steps

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch. Returns, in nats per image and of the model before this step:

        loss: -log p(x | h_1) at h_1 ~ q(h_1 | x);  wake: -log p(x, ..., h_{L-2} | h_{L-1}) of the way up;
        sleep: -log q(h_1, ..., h_{L-1} | x) of the way down;  free_energy_gap: as the restricted
        machine's update returns it.
        """
        model, rate = self.model, self.learning_rate * (1 - batch.progress)
        with torch.autocast(batch.images.device.type, enabled=False):  # as in contrastive divergence
            awake = model.recognise(model.as_vectors(batch.images))
            h = awake[-1]
            for _ in range(self.steps):
                h = model.top.gibbs_step(h)
            asleep = model.generate(h)
            generative, recognition = generative_ascent(model, awake), recognition_ascent(model, asleep)
            wake = [-part.mean() for part in model.generative_log_probs(awake)]
            sleep = -sum(model.recognition_log_probs(asleep)).mean()
            top = self.top(Batch(h_as_images(awake[-1]), progress=batch.progress))
            for parameter, ascent in [*generative, *recognition]:
                parameter.add_(ascent, alpha=rate)
        return {"loss": wake[0], "wake": sum(wake), "sleep": sleep, "free_energy_gap": top["free_energy_gap"]}

    def state_dict(self) -> dict[str, Any]:
        return self.top.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.top.load_state_dict(state)


def h_as_images(h: Tensor) -> Tensor:
    """Hidden vectors (N, units) in the shape of the images of a machine above them, (N, units, 1, 1)."""
    return h[:, :, None, None]


def generative_ascent(model: DeepBeliefNetwork, layers: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each generative parameter below the top with the gradient of the mean log p(h_{l-1} | h_l), l = 1, ..., L - 1."""
    pairs = []
    for machine, (below, above) in zip(model.machines, itertools.pairwise(layers), strict=False):
        error = below - torch.sigmoid(machine.visible_logits(above))  # (N, units below)
        pairs += [(machine.weight, above.T @ error / len(error)), (machine.visible_bias, error.mean(0))]
    return pairs


def recognition_ascent(model: DeepBeliefNetwork, layers: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each recognition parameter with the gradient of the mean log q(h_l | h_{l-1}), l = 1, ..., L - 1."""
    pairs = []
    for i, (below, above) in enumerate(itertools.pairwise(layers)):
        error = above - torch.sigmoid(model.recognition_logits(i, below))  # (N, units above)
        pairs += [(model.recognition_weights[i], error.T @ below / len(error))]
        pairs += [(model.machines[i].hidden_bias, error.mean(0))]
    return pairs

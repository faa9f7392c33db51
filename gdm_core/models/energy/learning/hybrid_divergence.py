"""How a label RBM learns: contrastive divergence on images with their labels, and the slope of log p(y | x).

    Delta theta = learning_rate (<.>_data - <.>_chains + discriminative_weight d log p(y | x) / d theta)

Generatively the label is one more visible unit, of K values, and its statistics are those of any other. The
discriminative slope is exact: with s_yj = sigmoid(c_j + U_jy + W_j x) and e_y = 1[y is the label] - p(y | x),

    d / d d_y = e_y,   d / d U_jy = e_y s_yj,   d / d c_j = sum_y e_y s_yj,   d / d W_j = sum_y e_y s_yj x'

At the end the label biases are set once more, by annealing (class_balance.py).

Reference: "Classification using discriminative restricted Boltzmann machines" (Larochelle and Bengio, 2008), which
weighs the two the other way round, log p(y | x) + alpha log p(x, y).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.layers.sampling_arguments import check_labels
from gdm_core.models.energy.learning.class_balance import balance_classes
from gdm_core.models.energy.learning.pixel_frequencies import PixelFrequencies

if TYPE_CHECKING:
    from gdm_core.models.energy.label_rbm import LabelRBM

Pairs = tuple[Tensor, Tensor]  # visible vectors (N, D) and labels (N,)


class HybridDivergence:
    """One learning step per batch; `chains` persistent ones, or None to start each chain at its training image.

    The learning rate falls linearly to 0. Persistent chains start at zero and at the first class: while the weights
    are still small, one Gibbs step forgets where it began.
    """

    def __init__(
        self,
        model: LabelRBM,
        learning_rate: float,
        steps: int = 1,
        chains: int | None = None,
        discriminative_weight: float = 0.0,
    ) -> None:
        self.model, self.learning_rate, self.steps = model, learning_rate, steps
        self.discriminative_weight = discriminative_weight
        self.chains: Pairs | None = None
        if chains is not None:
            v = model.visible_bias.new_zeros(chains, model.dimensions)
            self.chains = (v, torch.zeros(chains, dtype=torch.long, device=v.device))
        self.frequencies = PixelFrequencies(model.base_visible_bias, model.visible_bias)
        self.class_counts = torch.zeros(model.classes, dtype=torch.float64, device=model.device)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch. Returns, in nats per image and of the model before this step:

        loss: the cross-entropy of the images under their mean-field reconstruction p(v | p(h | v, y)); it shows
            progress but is not what is minimised;
        class_loss: -log p(y | x);
        free_energy_gap: F(x, y) of the data less that of the chains, whose slope the generative part follows.

        Raises ValueError for images without labels.
        """
        if batch.labels is None:
            raise ValueError(f"labels are missing: {self.model.name} learns from images whose classes are known")
        labels = check_labels(batch.labels, len(batch.images), self.model.classes).to(self.model.device)
        with torch.autocast(batch.images.device.type, enabled=False):  # rounded probabilities would bias the chains
            data = (self.model.as_vectors(batch.images), labels)
            self.frequencies.count(data[0])
            self.class_counts += F.one_hot(labels, self.model.classes).sum(0)
            chains = self._run_chains(data)
            metrics = self._metrics(data, chains)
            positive, negative = (generative_statistics(self.model, *pairs) for pairs in (data, chains))
            slope = discriminative_gradient(self.model, *data)
            for name, parameter in self.model.named_parameters():
                ascent = positive[name] - negative[name] + self.discriminative_weight * slope[name]
                parameter.add_(ascent, alpha=self.learning_rate * (1 - batch.progress))
        return metrics

    def finish(self) -> None:
        """After the last batch: the classes' shares in the model are brought to those in the images seen."""
        balance_classes(self.model, self.class_counts)

    def _run_chains(self, data: Pairs) -> Pairs:
        pairs = data if self.chains is None else self.chains
        for _ in range(self.steps):
            pairs = self.model.gibbs_step(*pairs)
        if self.chains is not None:
            self.chains = pairs
        return pairs

    def _metrics(self, data: Pairs, chains: Pairs) -> dict[str, Tensor]:
        (v, labels), model = data, self.model
        logits = model.visible_logits(model.hidden_logits(v, labels).sigmoid())
        energies = model.class_free_energies(v)
        own = energies.gather(1, labels[:, None])
        dreamt = model.class_free_energies(chains[0]).gather(1, chains[1][:, None])
        return {
            "loss": F.binary_cross_entropy_with_logits(logits, v, reduction="sum") / len(v),
            "class_loss": F.cross_entropy(-energies, labels),
            "free_energy_gap": own.mean() - dreamt.mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        chains = None if self.chains is None else list(self.chains)
        return {"chains": chains, "frequencies": self.frequencies.state_dict(), "class_counts": self.class_counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["chains"] is not None:
            v, labels = state["chains"]
            self.chains = (v.to(self.model.device, copy=True), labels.to(self.model.device, copy=True))
        self.frequencies.load_state_dict(state["frequencies"])
        self.class_counts = state["class_counts"].to(self.model.device, copy=True)


def generative_statistics(model: LabelRBM, v: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The mean of -dF(x, y) / d theta for each parameter, over images (N, D) and their labels (N,)."""
    h = torch.sigmoid(model.hidden_logits(v, labels)) / len(v)  # (N, hidden)
    own = F.one_hot(labels, model.classes).to(v.dtype)  # (N, K)
    return {
        "weight": h.T @ v,
        "label_weight": h.T @ own,
        "visible_bias": v.mean(0),
        "label_bias": own.mean(0),
        "hidden_bias": h.sum(0),
    }


def discriminative_gradient(model: LabelRBM, v: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The slope of the mean of log p(y | x) for each parameter, over images (N, D) and their labels (N,)."""
    logits = model.class_hidden_logits(v)  # (N, K, hidden)
    error = F.one_hot(labels, model.classes) - model.class_terms(logits).softmax(1)
    error = error.to(v.dtype) / len(v)  # (N, K)
    hidden = torch.sigmoid(logits) * error[:, :, None]  # (N, K, hidden)
    to_hidden = hidden.sum(1)  # (N, hidden)
    return {
        "weight": to_hidden.T @ v,
        "label_weight": hidden.sum(0).T,
        "visible_bias": torch.zeros_like(model.visible_bias),
        "label_bias": error.sum(0),
        "hidden_bias": to_hidden.sum(0),
    }

"""Which epoch's weights are kept: the best on validation, where there is a likelihood to choose by."""

from __future__ import annotations

from typing import Any

import torch

from gdm_core.contract import GenerativeModel
from gdm_core.likelihoods import Likelihood

CHOOSING_KINDS = ("exact", "lower bound")  # an annealed estimate is too noisy, and errs to the good side


class Selection:
    """Keeps a copy of the weights of the best epoch so far; without a likelihood the last epoch's stand."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.best: float | None = state["best"] if state else None
        self.weights: dict[str, torch.Tensor] | None = state["weights"] if state else None

    def offer(self, model: GenerativeModel, record: Likelihood) -> None:
        """Consider the present weights by their validation likelihood."""
        if record.kind not in CHOOSING_KINDS or (self.best is not None and record.mean <= self.best):
            return
        self.best = record.mean
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def restore(self, model: GenerativeModel) -> None:
        """Put the chosen weights into the model."""
        if self.weights is not None:
            model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "weights": self.weights}

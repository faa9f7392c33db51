"""What MLflow runs when a registered model is loaded as a python function. It travels with the model, as gdm_core does.

`predict(images)` takes images (N, C, H, W), float32 in [0, 1], as they are; they are quantised and treated as the
training data was. `params` choose what comes back:
  method "score": anomaly scores (N,), higher = stranger, by `scorer` (empty: the model's first);
  method "p_value": calibrated p-values (N,) of those scores against held-out normal images;
  method "log_likelihood": log p(x) or its bound or estimate (N,), in nats;
  method "sample": `n` new images (n, C, H, W) from `seed` at `temperature`; the images given do not matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy
import torch

from gdm_core.anomaly.calibration import Calibration
from gdm_core.anomaly.p_values import p_values
from gdm_core.anomaly.scorers import score_images, scorers_for
from gdm_core.likelihoods import likelihood
from gdm_core.randomness import seeded_generator
from gdm_core.storage import load_model


class RegisteredModel(mlflow.pyfunc.PythonModel):
    """A stored model behind MLflow's `predict`."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        self.stored = load_model(Path(context.artifacts["model.json"]).parent)
        self.methods = {
            "score": self.score,
            "p_value": self.p_value,
            "log_likelihood": self.log_likelihood,
            "sample": self.sample,
        }

    def predict(self, context: Any, model_input: numpy.ndarray, params: dict[str, Any] | None = None) -> numpy.ndarray:
        """What `params["method"]` names, as this file's first lines describe."""
        params = params or {}
        method = params.get("method", "score")
        if method not in self.methods:
            raise ValueError(f"unknown method {method!r}; known methods are {', '.join(self.methods)}")
        return self.methods[method](model_input, params).cpu().numpy()

    def score(self, images: Any, params: dict[str, Any]) -> torch.Tensor:
        return score_images(self.stored.model, self._scorer(params), self._treated(images))

    def p_value(self, images: Any, params: dict[str, Any]) -> torch.Tensor:
        scorer = self._scorer(params)
        if not self.stored.calibration:
            raise ValueError("this model has no calibration scores: train it with a calibration split")
        calibration = Calibration.from_tensors(self.stored.calibration)
        return p_values(self.score(images, {"scorer": scorer}), calibration.scores_of(scorer))

    def log_likelihood(self, images: Any, params: dict[str, Any]) -> torch.Tensor:
        result = likelihood(self.stored.model, self._treated(images))
        if result.kind == "none":
            raise ValueError(f"a {self.stored.card.architecture} has no likelihood")
        return result.values

    def sample(self, images: Any, params: dict[str, Any]) -> torch.Tensor:
        generator = seeded_generator(params.get("seed", 0), "sample")
        with torch.no_grad():
            return self.stored.model.sample(
                params.get("n", 16), temperature=params.get("temperature", 1.0), generator=generator
            )

    def _scorer(self, params: dict[str, Any]) -> str:
        known = [scorer.name for scorer in scorers_for(self.stored.model)]
        chosen = params.get("scorer") or known[0]
        if chosen not in known:
            raise ValueError(f"unknown scorer {chosen!r}; this model has {', '.join(known)}")
        return chosen

    def _treated(self, images: Any) -> torch.Tensor:
        x = torch.as_tensor(numpy.asarray(images), dtype=torch.float32)
        if x.dim() != 4 or tuple(x.shape[1:]) != self.stored.model.data_shape:
            raise ValueError(f"images must have shape (N, {', '.join(map(str, self.stored.model.data_shape))})")
        if not torch.isfinite(x).all() or (x.numel() and (x.min() < 0 or x.max() > 1)):
            raise ValueError("images must be finite and lie in [0, 1]")
        treatment = self.stored.treatment
        return treatment((x * (treatment.stored_levels - 1)).round().to(torch.uint8))


mlflow.models.set_model(RegisteredModel())

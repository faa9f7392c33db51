"""Independent Bernoulli: every pixel has a probability of its own and knows of no other.

    log p(x) = sum_i x_i log p_i + (1 - x_i) log(1 - p_i),    p_i = (ones_i + 1) / (images + 2)

The floor: a model that learns anything about how pixels depend on each other beats it. Fitted by counting, with
add-one smoothing (Laplace: Essai philosophique sur les probabilites, 1814).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, GenerativeModel, Phase, TrainingConfig
from gdm_core.layers.pixel_distribution import Bernoulli
from gdm_core.layers.sampling_arguments import check_completion, check_place, draw_uniforms
from gdm_core.registry import register


@register("independent_bernoulli", family="autoregressive", paper="Laplace, 1814 (add-one smoothing)")
class IndependentBernoulli(GenerativeModel):
    """One logit per pixel and colour, `logit` (C, H, W), unconstrained."""

    default_training = TrainingConfig(epochs=1, batch_size=256)

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__(data_shape)
        self.logit = nn.Parameter(torch.zeros(self.data_shape))

    def log_prob_map(self, x: Tensor) -> Tensor:
        """log p(x_i) in nats, summed over colours, (N, 1, H, W)."""
        return Bernoulli().log_prob(self.logit[..., None], self.check_images(x)).sum(1, keepdim=True)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), exact."""
        return self.log_prob_map(x).flatten(1).sum(1)

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        """One pass over the images, whatever number of epochs is asked for: counting twice would tell nothing new."""
        yield Phase("count", CountingUpdate(self), 1)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw n images (n, C, H, W), each pixel on with probability sigmoid(logit / temperature)."""
        return Bernoulli().sample(
            self.logit[..., None], draw_uniforms(self, n, labels, temperature, generator), temperature
        )

    @torch.no_grad()
    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Fill in the pixels where `known` (1 or N, 1, H, W) is 0: exact for any mask, pixels being independent."""
        x, mask = check_completion(self, x, known)
        return torch.where(mask, x, self.sample(len(x), None, temperature, generator)) if len(x) else x

    def completion_is_exact(self, known: Tensor) -> bool:
        """Always."""
        return True

    @torch.no_grad()
    def conditional(self, x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
        """log p(x_{c, row, column} = value), (N, C, V): the same whatever the predecessors."""
        check_place(self, row, column)
        logits = self.logit[:, row, column, None, None]  # (C, 1, 1)
        return Bernoulli().log_prob(logits, values.to(logits)).expand(len(self.check_images(x)), -1, -1)


class CountingUpdate:
    """Adds a batch to the counts and sets the logits to log((ones + 1) / (zeros + 1))."""

    def __init__(self, model: IndependentBernoulli) -> None:
        self.model = model
        self.ones = torch.zeros(model.data_shape, dtype=torch.float64)  # exact counts, whatever the model's precision
        self.images = 0

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        x = self.model.check_images(batch.images)
        self.ones = self.ones + x.sum(0).to(self.ones)  # a new tensor: a saved state stays as it was
        self.images += len(x)
        self.model.logit.copy_(torch.log((self.ones + 1) / (self.images - self.ones + 1)))
        return {"loss": -self.model.log_prob(x).mean()}

    def state_dict(self) -> dict:
        return {"ones": self.ones, "images": self.images}

    def load_state_dict(self, state: dict) -> None:
        self.ones, self.images = state["ones"].clone(), int(state["images"])

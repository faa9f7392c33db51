"""Independent Bernoulli: every pixel has a probability of its own and knows of no other.

    log p(x) = sum_i x_i log p_i + (1 - x_i) log(1 - p_i),    p_i = (ones_i + 1) / (images + 2)

The floor: a model that learns anything about how pixels depend on each other beats it. Fitted by counting, with
add-one smoothing (Laplace: Essai philosophique sur les probabilites, 1814).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, Phase, TrainingConfig
from gdm_core.layers.pixel_distribution import Bernoulli
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.registry import register


@register("independent_bernoulli", family="autoregressive", paper="Laplace, 1814 (add-one smoothing)")
class IndependentBernoulli(RasterModel):
    """One logit per pixel and colour, `logit` (C, H, W), unconstrained."""

    default_training = TrainingConfig(epochs=1, batch_size=256)

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__(data_shape)
        self.distribution = Bernoulli()
        self.logit = nn.Parameter(torch.zeros(self.data_shape))

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i), (N, C, H, W, 1): the same for every image."""
        return self.logit[..., None].expand(len(x), *self.data_shape, 1)

    def incremental(self, n: int) -> OnePixelAfterAnother:
        """The pixels' logits, one after another, for n images."""
        return OnePixelAfterAnother(self, n)

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        """One pass over the images, whatever number of epochs is asked for: counting twice would tell nothing new."""
        yield Phase("count", CountingUpdate(self), 1)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw n images (n, C, H, W), all pixels at once: the last of `sample_steps`."""
        uniforms = draw_uniforms(self, n, labels, temperature, generator)
        return self.distribution.sample(self.logit[..., None], uniforms, temperature)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Always: no pixel knows of any other."""
        return True


class OnePixelAfterAnother:
    """The logits in raster order, for n images whose values change nothing."""

    def __init__(self, model: IndependentBernoulli, n: int) -> None:
        self.logit, self.n, self.row = model.logit, n, -1

    def begin_row(self) -> None:
        self.row += 1

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, 1)."""
        return self.logit[colour, self.row, column].expand(self.n, 1)

    def write(self, values: Tensor, column: int, colour: int) -> None:
        """Nothing follows from them."""


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

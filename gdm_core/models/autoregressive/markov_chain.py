"""A Markov chain along the raster: every value is predicted from the few values before it, by counting what followed.

    log p(x) = sum_i log p(x_i | x_{i-k}, ..., x_{i-1}),    i in raster order, colour after colour within a pixel
    p(value | context) = (count(context, value) + s) / (count(context) + s S)

with k the order, S the number of levels and s the smoothing; values before the first are taken as 0. Every context has
a row of its own and learns nothing from its neighbours: a network that reads the same values has to beat it.

Papers: Markov: An example of statistical investigation of the text Eugene Onegin concerning the connection of samples
in chains (1913); Laplace: Essai philosophique sur les probabilites (1814), for s = 1. Ours: a table of contexts for
every place of the image, because images are centred, or one table that all places share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, Phase, TrainingConfig
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.value_sequence import in_images, in_sequence
from gdm_core.registry import register

LARGEST_TABLE = 2**24  # logits, 64 MB


@register("markov_chain", family="autoregressive", paper="Markov, 1913")
class MarkovChain(RasterModel):
    """One logit, or one per level, for every context: `logit` (places, C, levels^order, parameters), unconstrained.

    A context is numbered with its last value as the lowest digit in base `levels`; places are the H W pixels, or 1
    where they share one table. Order and tables per place were chosen on the validation images of digits, 8 pixels
    wide: 9 values back lie the pixel above and its left neighbour, and order 4 is 3.4 nats worse; binarised MNIST
    agrees. Pixels of more levels allow lower orders only.
    """

    default_training = TrainingConfig(epochs=1, batch_size=256)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        order: int = 9,
        per_position: bool = True,
        smoothing: float = 1.0,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        colours, height, width = self.data_shape
        self.distribution = distribution_of(pixels, self.levels)
        self.order, self.smoothing = order, smoothing
        if smoothing <= 0:
            raise ValueError(f"smoothing must be positive, got {smoothing}")
        places = height * width if per_position else 1
        _check_order(order, self.levels, places * colours * self.distribution.parameters)
        size = (places, colours, self.levels**order, self.distribution.parameters)
        self.logit = nn.Parameter(torch.zeros(size))

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i | the `order` values before), (N, C, H, W, parameters)."""
        return in_images(self.logit[self.rows(x)], self.data_shape)

    def values(self, x: Tensor) -> Tensor:
        """The levels 0..S-1 of images in raster order, (N, D)."""
        return (in_sequence(x) * (self.levels - 1)).round().long()

    def rows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the table is read for every value: place and colour (D,), context (N, D)."""
        values = self.values(x)
        contexts = torch.zeros_like(values)
        for lag in range(1, min(self.order, self.dimensions - 1) + 1):
            contexts[:, lag:] += values[:, :-lag] * self.levels ** (lag - 1)
        dimension, colours = torch.arange(self.dimensions, device=x.device), self.data_shape[0]
        return (dimension // colours).clamp(max=len(self.logit) - 1), dimension % colours, contexts

    def incremental(self, n: int) -> IncrementalMarkovChain:
        """The chain one value at a time, for n images."""
        return IncrementalMarkovChain(self, n)

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        """One pass over the images, whatever number of epochs is asked for: counting twice would tell nothing new."""
        yield Phase("count", ContextCounts(self), 1)


class IncrementalMarkovChain:
    """The chain one value at a time for n images: carries the number of the context along."""

    @torch.no_grad()
    def __init__(self, model: MarkovChain, n: int) -> None:
        self.model, self.dimension = model, -1
        self.context = torch.zeros(n, dtype=torch.long, device=model.device)

    def begin_row(self) -> None:
        """The chain runs on from the end of a row to the start of the next."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        self.dimension += 1
        place = min(self.dimension // self.model.data_shape[0], len(self.model.logit) - 1)
        return self.model.logit[place, colour][self.context]

    def write(self, values: Tensor, column: int, colour: int) -> None:
        level = (values * (self.model.levels - 1)).round().long()
        self.context = (self.context * self.model.levels + level) % self.model.logit.shape[2]


class ContextCounts:
    """Adds a batch to the counts (places, C, contexts, levels) and sets the logits to those of the smoothed shares."""

    def __init__(self, model: MarkovChain) -> None:
        self.model = model
        self.counts = torch.zeros(*model.logit.shape[:3], model.levels, dtype=torch.long)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        x = self.model.check_images(batch.images)
        index = torch.broadcast_tensors(*self.model.rows(x), self.model.values(x))  # of the counts, each (N, D)
        counts = self.counts.clone()  # a new tensor: a saved state stays as it was
        self.counts = counts.index_put_([part.cpu() for part in index], torch.tensor(1), accumulate=True)
        smoothed = torch.log(self.counts.double() + self.model.smoothing)
        logits = smoothed.diff() if self.model.pixels == "binary" else smoothed.log_softmax(-1)
        self.model.logit.copy_(logits)
        return {"loss": -self.model.log_prob(x).mean()}

    def state_dict(self) -> dict:
        return {"counts": self.counts}

    def load_state_dict(self, state: dict) -> None:
        self.counts = state["counts"].clone()


def _check_order(order: int, levels: int, logits_per_context: int) -> None:
    """Raise ValueError, naming the largest order that fits, where the tables would be larger than LARGEST_TABLE."""
    largest = 0
    while logits_per_context * levels ** (largest + 1) <= LARGEST_TABLE:
        largest += 1
    if not 0 <= order <= largest:
        raise ValueError(f"order must lie in 0..{largest} for {levels} levels in images of this size, got {order}")

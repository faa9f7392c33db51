"""MADE: an autoencoder with connections masked out until each output sees only the inputs before it in an order.

    log p(x) = sum_d log p(x_{o(d)} | x_{o(<d)}),    one pass computes all conditionals,
    W_kj = 0 unless m(k) >= m(j) between inputs and hidden units,    V_dk = 0 unless m(d) > m(k) into outputs

The degree m of an input or output is its place in the order, from 1; a hidden unit of degree m sees the first m inputs.
Other orders and other degrees are other masks over the same weights: an ensemble is trained by one of them per batch
and averages the probabilities of whole images, p(x) = 1/M sum_m p_m(x).
Paper: Germain, Gregor, Murray, Larochelle: MADE: Masked Autoencoder for Distribution Estimation (2015). Changed: the
degrees of a layer are spread evenly and dealt out at random instead of drawn with replacement, so that every output has
hidden units where there are enough; the first order of an ensemble is raster order; Adam instead of Adadelta.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.layers.masked_linear import MaskedLinear, spread_degrees
from gdm_core.layers.ordering_ensemble import OrderingEnsemble
from gdm_core.layers.orderings import random_orders
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.layers.raster_sampling import IncrementalNetwork
from gdm_core.layers.value_sequence import in_images, in_sequence
from gdm_core.randomness import seeded_generator
from gdm_core.registry import register


@register("made", family="autoregressive", paper="Germain et al., 2015")
class MADE(OrderingEnsemble):
    """MADE with rectified linear `hidden_units`, one number per layer, in `orderings` x `masks` members.

    `orderings`: 1 is raster order alone, more adds random ones; `masks`: ways to deal the degrees out. Each ordering
    goes with each mask, and both follow from `ensemble_seed`. `direct_connections` join inputs and outputs, masked too.
    The training defaults were chosen on the validation images of digits. 8 orderings learn longer before they overfit:
    with a learning rate of 1e-2, for 60 epochs, they were 0.7 nats better.
    """

    default_training = TrainingConfig(epochs=40, batch_size=32, learning_rate=3e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: tuple[int, ...] = (500,),
        orderings: int = 1,
        masks: int = 1,
        direct_connections: bool = False,
        ensemble_seed: int = 0,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        if not hidden_units or min(hidden_units) < 1:
            raise ValueError(f"hidden_units must name at least one layer of at least 1 unit, got {hidden_units}")
        if orderings < 1 or masks < 1:
            raise ValueError(f"orderings and masks must be at least 1, got {orderings} and {masks}")
        self.distribution, self.masks = distribution_of(pixels, self.levels), masks
        inputs, outputs = self.dimensions, self.dimensions * self.distribution.parameters
        sizes = (inputs, *hidden_units)
        self.hidden = nn.ModuleList(MaskedLinear(*pair) for pair in zip(sizes, hidden_units, strict=False))
        self.output = MaskedLinear(sizes[-1], outputs)
        self.direct = MaskedLinear(inputs, outputs, bias=False) if direct_connections else None
        orders = random_orders(orderings, inputs, seeded_generator(ensemble_seed, "orderings"))
        orders[0] = torch.arange(inputs)
        self.register_buffer("orders", orders.repeat_interleave(masks, 0), persistent=False)
        for layer, units in enumerate(hidden_units):
            degrees = spread_degrees(masks, units, inputs, seeded_generator(ensemble_seed, "degrees", layer))
            self.register_buffer(f"degrees_{layer}", degrees, persistent=False)
        self._kept: tuple[tuple[int, torch.dtype, torch.device], list[Tensor]] | None = None

    def degrees(self, member: int) -> list[Tensor]:
        """The degrees of the inputs (D,) and of every hidden layer (units,) in a member."""
        hidden = [self.get_buffer(f"degrees_{layer}")[member % self.masks] for layer in range(len(self.hidden))]
        return [self.orders[member].argsort() + 1, *hidden]

    @cached_property
    def orders_on_host(self) -> list[list[int]]:
        """The orders as numbers, read once in a model's life: reading them for every batch would wait for a GPU."""
        return self.orders.tolist()

    @cached_property
    def units_of_degree(self) -> list[list[int]]:
        """How many units of each hidden layer have degree 0..D: the same in every mask."""
        layers = range(len(self.hidden))
        return [self.degrees(0)[1 + layer].bincount(minlength=self.dimensions + 1).tolist() for layer in layers]

    def logits(self, x: Tensor, member: int = 0) -> Tensor:
        """The logits of p_m(x_d | predecessors in its order), (N, C, H, W, 1) or (..., levels)."""
        v, connections = in_sequence(x), self.connections(member)
        h = v  # (N, D)
        for layer, mask in zip(self.hidden, connections, strict=False):
            h = layer(h, mask).relu()  # (N, units)
        y = self.output(h, connections[len(self.hidden)])
        if self.direct is not None:
            y = y + self.direct(v, connections[-1])
        return in_images(y.unflatten(1, (-1, self.distribution.parameters)), self.data_shape)

    def connections(self, member: int) -> list[Tensor]:
        """The mask (out, in) of each hidden layer, of the output and of the direct connections, in a member.

        Those of the member asked for last are kept: a model of one member makes its masks once, not for every batch.
        """
        weight = self.output.weight
        key = (member, weight.dtype, weight.device)
        kept = self._kept  # read once: another thread may ask for another member at any time
        if kept is None or kept[0] != key:
            with torch.inference_mode(False):  # kept ones are also learnt through
                kept = self._kept = key, [mask.to(weight.dtype) for mask in self._masks(member)]
        return kept[1]

    def _masks(self, member: int) -> list[Tensor]:
        degrees = self.degrees(member)
        place = degrees[0].repeat_interleave(self.distribution.parameters)[:, None]  # of every output
        hidden = [own[:, None] >= before for before, own in zip(degrees, degrees[1:], strict=False)]
        direct = [] if self.direct is None else [place > degrees[0]]
        return [*hidden, place > degrees[-1], *direct]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mean of -log p_m, nats per image, of a member drawn for the batch: on average an upper bound."""
        x = self.check_images(batch.images)
        member = int(torch.randint(self.number_of_members, ())) if self.number_of_members > 1 else 0
        return {"loss": -self.distribution.log_prob(self.logits(x, member), x).sum() / len(x)}

    @property
    def reads_members(self) -> bool:
        """Where there are several: each goes through its own images."""
        return self.number_of_members > 1

    def incremental(self, n: int, members: Tensor | None = None) -> IncrementalNetwork:
        """The network one value after another for n images, each in its member (n,); the first where not given."""
        if members is None or self.number_of_members == 1:
            return IncrementalMADE(self, n, 0)
        return SideBySide(self, members)


class IncrementalMADE:
    """The network of one member, one value after another for n images, in the cost of one pass over all of them.

    A hidden unit is final when the inputs that its degree allows are set: it is computed then, once, by its whole row
    of weights, because all that it must not see is still 0. Activations lie unit by unit, (units, n).
    """

    @torch.no_grad()
    def __init__(self, model: MADE, n: int, member: int) -> None:
        self.model, self.order, self.done = model, model.orders_on_host[member], 0
        self.x = model.output.weight.new_zeros(model.dimensions, n)
        self.h = [layer.weight.new_zeros(layer.out_features, n) for layer in model.hidden]
        degrees = model.degrees(member)[1:]
        self.final = [own.argsort().split(counts) for own, counts in zip(degrees, model.units_of_degree, strict=True)]

    def begin_row(self) -> None:
        """MADE sees a sequence; rows mean nothing to it."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        model, parameters = self.model, self.model.distribution.parameters
        first = self.order[self.done] * parameters
        rows = slice(first, first + parameters)
        y = torch.addmm(model.output.bias[rows, None], model.output.weight[rows], self.h[-1])
        if model.direct is not None:
            y += model.direct.weight[rows] @ self.x
        return y.T

    def write(self, values: Tensor, column: int, colour: int) -> None:
        self.x[self.order[self.done]] = values
        self.done += 1
        below = self.x
        for layer, h, final in zip(self.model.hidden, self.h, self.final, strict=True):
            units = final[self.done]
            if len(units):
                h[units] = torch.addmm(layer.bias[units, None], layer.weight[units], below).relu()
            below = h


class SideBySide:
    """Images of several members, the network of each member going through its own images."""

    def __init__(self, model: MADE, members: Tensor) -> None:
        self.rows = [(members == member).nonzero()[:, 0] for member in members.unique()]
        self.networks = [IncrementalMADE(model, len(rows), int(members[rows[0]])) for rows in self.rows]
        self.back = torch.cat(self.rows).argsort()

    def begin_row(self) -> None:
        """Rows mean nothing to them."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        return torch.cat([network.logits(column, colour) for network in self.networks])[self.back]

    def write(self, values: Tensor, column: int, colour: int) -> None:
        for network, rows in zip(self.networks, self.rows, strict=True):
            network.write(values[rows], column, colour)

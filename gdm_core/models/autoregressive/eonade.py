"""EoNADE: a NADE trained for every order of the pixels at once, told which of them it knows.

    p(x_i | known x) from h_1 = relu(c + sum_{j known} (W_j x_j + A_j)),  h_l = relu(c_l + U_l h_{l-1}),  V_i h_L + b_i
    log p(x) = log 1/M sum_m p_m(x),    p_m the product of the conditionals in the m-th of M fixed random orders

Training draws an order o and the number d of values known before for each image, and weighs what is still unknown:

    E[ -D / (D - d) sum_{k > d} log p(x_{o(k)} | x_{o(1)}, ..., x_{o(d)}) ] = the mean of -log p(x) over all orders.

Paper: Uria, Murray, Larochelle: A Deep and Tractable Density Estimator (2014). Changed: the d of a batch are spread
evenly (each is still uniform), which steadies the loss; the colours of a pixel are values of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.layers.ordering_ensemble import OrderingEnsemble, complete_in_orders
from gdm_core.layers.orderings import check_order, random_orders, with_known_first
from gdm_core.layers.pixel_distribution import distribution_of
from gdm_core.layers.raster_sampling import without_autocast
from gdm_core.layers.sampling_arguments import check_completion, draw_uniforms
from gdm_core.layers.value_sequence import in_images, in_sequence
from gdm_core.randomness import seeded_generator
from gdm_core.registry import register

ROWS = 2048  # rows of hidden units that are in memory at once: places of the order x images


@register("eonade", family="autoregressive", paper="Uria, Murray and Larochelle, 2014")
class EoNADE(OrderingEnsemble):
    """EoNADE with `hidden_layers` layers of `hidden_units`, evaluated in `orderings` orders that `ensemble_seed` fixes.

    Parameters: `weight` and `mask_weight` (D, H), `hidden_bias` (H), `deeper` layers (H, H), `output_weight`
    (D, parameters, H), `visible_bias` (D, parameters).
    A training step costs one pass. An image's likelihood costs D passes through the deeper layers for each order,
    O(orderings D H (1 + (hidden_layers - 1) H)): with two layers, hundreds of times a training step.
    The training defaults were chosen on the validation images of digits.
    """

    default_training = TrainingConfig(epochs=150, batch_size=32, learning_rate=3e-3)
    pixel_kinds = ("binary", "levels")

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: int = 500,
        hidden_layers: int = 1,
        orderings: int = 4,
        ensemble_seed: int = 0,
        pixels: Literal["binary", "levels"] = "binary",
        levels: int = 2,
    ) -> None:
        super().__init__(data_shape, pixels, levels)
        counts = {"hidden_units": hidden_units, "hidden_layers": hidden_layers, "orderings": orderings}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.distribution = distribution_of(pixels, self.levels)
        dimensions, parameters = self.dimensions, self.distribution.parameters
        self.weight = nn.Parameter(torch.randn(dimensions, hidden_units) / math.sqrt(dimensions))
        self.mask_weight = nn.Parameter(torch.randn(dimensions, hidden_units) / math.sqrt(dimensions))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden_units))
        self.deeper = nn.ModuleList(nn.Linear(hidden_units, hidden_units) for _ in range(hidden_layers - 1))
        self.output_weight = nn.Parameter(torch.randn(dimensions, parameters, hidden_units) / math.sqrt(hidden_units))
        self.visible_bias = nn.Parameter(torch.zeros(dimensions, parameters))
        orders = random_orders(orderings, dimensions, seeded_generator(ensemble_seed, "orderings"))
        self.register_buffer("orders", orders, persistent=False)

    def last_hidden(self, a: Tensor) -> Tensor:
        """The last layer's units (..., H) from the first layer's sums a (..., H)."""
        h = a.relu()
        for layer in self.deeper:
            h = layer(h).relu()
        return h

    def logits_given(self, v: Tensor, known: Tensor) -> Tensor:
        """The logits of every value given the known (N, D) of the values v (N, D), (N, D, parameters)."""
        known = known.to(v)
        h = self.last_hidden((v * known) @ self.weight + known @ self.mask_weight + self.hidden_bias)
        return (h @ self.output_weight.flatten(0, 1).T).unflatten(1, (self.dimensions, -1)) + self.visible_bias

    def logits(self, x: Tensor, member: int = 0) -> Tensor:
        """The logits of p_m(x_d | predecessors in its order), (N, C, H, W, parameters)."""
        return self.logits_in_order(x, self.orders[member])

    def logits_in_order(self, x: Tensor, order: Tensor) -> Tensor:
        """The same in any order (D,): the first layer's sums grow along it, the others are computed for every place.

        Done for some places at a time, so that memory is bounded.
        """
        order = check_order(order, self.dimensions)
        v = in_sequence(x)
        a, parts = self.hidden_bias.expand(1, len(v), -1), []
        for block in order.split(max(1, ROWS // max(1, len(v)))):
            terms = v.T[block, :, None] * self.weight[block, None] + self.mask_weight[block, None]  # (block, N, H)
            sums = torch.cat([a, terms]).cumsum(0)
            h, a = self.last_hidden(sums[:-1]), sums[-1:]
            parts.append(h @ self.output_weight[block].mT + self.visible_bias[block, None])  # (block, N, parameters)
        return in_images(torch.cat(parts)[order.argsort()].transpose(0, 1), self.data_shape)

    def log_prob_in_order(self, x: Tensor, order: Tensor) -> Tensor:
        """log p(x) in nats, (N,), of the density in one order (D,) of the values, which may be any."""
        return self.distribution.log_prob(self.logits_in_order(self.check_images(x), order), x).flatten(1).sum(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """An unbiased estimate of -log p, nats per image, averaged over the images and over all orders."""
        x = self.check_images(batch.images)
        orders = torch.rand(len(x), self.dimensions, device=x.device).argsort(1)
        shares = torch.arange(len(x), device=x.device) / len(x) + torch.rand((), device=x.device)
        counts = (shares.frac() * self.dimensions).long()  # each uniform over 0..D - 1, together spread evenly
        return {"loss": self.order_agnostic_loss(x, orders, counts).mean()}

    def order_agnostic_loss(self, x: Tensor, orders: Tensor, counts: Tensor) -> Tensor:
        """D / (D - d) sum_{k > d} -log p(x_{o(k)} | x_{o(1)}, ..., x_{o(d)}) for the counts d (N,) < D, (N,)."""
        known, v = orders.argsort(1) < counts[:, None], in_sequence(x)
        log_prob = self.distribution.log_prob(self.logits_given(v, known), v)
        unknown = torch.where(known, 0, log_prob).sum(1)
        return -unknown * self.dimensions / (self.dimensions - counts)

    def incremental(self, n: int, members: Tensor | None = None) -> IncrementalEoNADE:
        """The network one value after another for n images, each in the order of its member (n,), else the first."""
        members = self.orders.new_zeros(n) if members is None else members
        return IncrementalEoNADE(self, self.orders[members])

    def completion_is_exact(self, known: Tensor) -> bool:
        """Always, of p(unknown | known) in the order that `complete` takes: see there."""
        return True

    @without_autocast
    def complete_steps(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the completion after as many values as a pixel has, the known ones first.

        Each image draws one of the ensemble's orders and moves its known pixels to the front: what is drawn follows,
        exactly, the conditional p(unknown | known) of the density in that order, averaged over the M orders so made.
        That is not the conditional of `log_prob`'s mixture of M fixed orders: the densities of different orders
        need not agree, although training asks them to.
        """
        x, mask = check_completion(self, x, known)
        if not len(x):
            yield x
            return
        uniforms = draw_uniforms(self, len(x), None, temperature, generator)
        members = self.draw_members(uniforms.new_zeros(len(x), self.number_of_members), generator)
        orders = with_known_first(self.orders[members], in_sequence(mask.expand_as(x)))
        network = IncrementalEoNADE(self, orders)
        yield from complete_in_orders(network, self.distribution, uniforms, orders, temperature, x, mask)


class IncrementalEoNADE:
    """The network one value after another for n images, each in its own order (n, D).

    The first layer's sums are carried along and grow by one term; deeper layers are computed anew for every value.
    """

    @torch.no_grad()
    def __init__(self, model: EoNADE, orders: Tensor) -> None:
        self.model, self.orders, self.done = model, orders.T.contiguous(), 0
        self.a = model.hidden_bias.repeat(len(orders), 1)

    def begin_row(self) -> None:
        """EoNADE sees a set of known values; rows mean nothing to it."""

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, parameters)."""
        d, h = self.orders[self.done], self.model.last_hidden(self.a)
        return torch.einsum("nh,nph->np", h, self.model.output_weight[d]) + self.model.visible_bias[d]

    def write(self, values: Tensor, column: int, colour: int) -> None:
        d = self.orders[self.done]
        self.a += values[:, None] * self.model.weight[d] + self.model.mask_weight[d]
        self.done += 1

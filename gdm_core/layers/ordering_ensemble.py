"""What an ensemble of orderings has: one network that is a density in each of several orders, and their average.

    p(x) = 1/M sum_m p_m(x),    log p_m(x) = sum_d log p_m(x_{o(d)} | x_{o(1)}, ..., x_{o(d-1)}),  o the order of m

The average is one of probabilities of whole images: averaging logits, or conditionals of different orders, gives no
normalised density. It is never worse than the mean of the members' log-likelihoods. A model supplies `distribution` (of
one value given its logits), `orders`, `logits(x, member)` and `incremental(n, members)`; likelihood, map, conditionals,
samples and completions follow, and with one member in raster order they are those of `RasterModel`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel
from gdm_core.layers.captured_sampling import draw_images
from gdm_core.layers.orderings import in_order, known_values_come_first, sample_in_orders
from gdm_core.layers.pixel_distribution import PixelDistribution, log_prob_of_each
from gdm_core.layers.raster_model import PARTICLES, choose
from gdm_core.layers.raster_sampling import Given, IncrementalNetwork, last, without_autocast
from gdm_core.layers.sampling_arguments import check_completion, check_conditional, draw_uniforms
from gdm_core.layers.value_sequence import in_sequence


class OrderingEnsemble(GenerativeModel):
    """A `GenerativeModel` that averages M densities; its class supplies the four members named first."""

    distribution: PixelDistribution
    orders: Tensor  # (M, D), a member's order each
    logits: Callable[..., Tensor]  # x, member -> the logits of its conditionals, (N, C, H, W, parameters)
    incremental: Callable[..., IncrementalNetwork]  # n, members (n,) -> the same one value after another, in its order

    @property
    def reads_members(self) -> bool:
        """Whether `incremental` has to read which members were drawn, so that no two batches are the same work."""
        return False

    @property
    def number_of_members(self) -> int:
        """M."""
        return len(self.orders)

    def member_log_prob_map(self, x: Tensor, member: int) -> Tensor:
        """log p_m(x_i | predecessors in the order of m) in nats, summed over colours, (N, 1, H, W)."""
        return self.distribution.log_prob(self.logits(x, member), x).sum(1, keepdim=True)

    def log_prob_map(self, x: Tensor) -> Tensor:
        """The mean over members of their maps, (N, 1, H, W): its sum is at most `log_prob`, with one member equal."""
        x = self.check_images(x)
        return torch.stack([self.member_log_prob_map(x, m) for m in range(self.number_of_members)]).mean(0)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), exact: the logarithm of the members' mean probability of the image."""
        x = self.check_images(x)
        return _log_mean_exp([self.member_log_prob_map(x, m).flatten(1).sum(1) for m in range(self.number_of_members)])

    def conditional(self, x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
        """log of the mean over members of p_m(x_{c, row, column} = value | predecessors in its order), (N, C, V)."""
        check_conditional(self, row, column, values)
        x = self.check_images(x)
        members = (self.logits(x, member)[:, :, row, column] for member in range(self.number_of_members))
        return _log_mean_exp([log_prob_of_each(self.distribution, logits, values) for logits in members])

    def draw_members(self, log_weights: Tensor, generator: torch.Generator | None) -> Tensor:
        """A member for each image, (n,), with probability proportional to exp(log_weights) (n, M)."""
        if self.number_of_members == 1:
            return torch.zeros(len(log_weights), dtype=torch.long, device=self.device)
        home = "cpu" if generator is None else generator.device
        uniforms = torch.rand(len(log_weights), 1, generator=generator, dtype=log_weights.dtype, device=home)
        return choose(log_weights, uniforms.to(self.device))

    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw n images (n, C, H, W), each from a member drawn for it; every conditional is tempered alone."""
        inputs = self.draw_inputs(n, labels, temperature, generator)
        if self.reads_members:
            return last(self.steps_from(temperature, *inputs))
        return draw_images(self, self.steps_from, inputs, temperature)

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the images after as many values as a row has, each in the order of its member; others are 0."""
        yield from self.steps_from(temperature, *self.draw_inputs(n, labels, temperature, generator))

    def draw_inputs(
        self, n: int, labels: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """All that differs between one batch of n samples and another: uniforms (n, C, H, W) and members (n,)."""
        uniforms = draw_uniforms(self, n, labels, temperature, generator)
        return uniforms, self.draw_members(uniforms.new_zeros(n, self.number_of_members), generator)

    @without_autocast
    def steps_from(self, temperature: float, uniforms: Tensor, members: Tensor) -> Iterator[Tensor]:
        """Yield the images that follow from `draw_inputs`, as `sample_steps` does."""
        network = self.incremental(len(uniforms), members)
        yield from sample_in_orders(network, self.distribution, uniforms, self.orders[members], temperature)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Whether `complete` draws from p(unknown | known): where known pixels come first in every order."""
        known = known.bool().expand(-1, *self.data_shape)
        return known_values_come_first(in_sequence(known), self.orders.unique(dim=0).to(known.device))

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Fill in the pixels where `known` (1 or N, 1, H, W) is 0, keeping the others; x is not read there."""
        return last(self.complete_steps(x, known, temperature, generator))

    @without_autocast
    def complete_steps(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the completion after every pixel, in the order of each image's member; pixels still to come are 0.

        An exact completion draws its member given the known pixels, then the others in its order. Elsewhere one of
        several candidates of random members is chosen as `RasterModel` does, and then drawn once more for its steps.
        """
        x, mask = check_completion(self, x, known)
        if not len(x):
            yield x
            return
        exact = self.completion_is_exact(known)
        particles = 1 if exact else PARTICLES
        uniforms = draw_uniforms(self, len(x) * particles, None, temperature, generator)
        weights = self._known_log_prob(x, mask) if exact else uniforms.new_zeros(len(uniforms), self.number_of_members)
        members = self.draw_members(weights, generator)
        if not exact:
            weights = self._candidate_weights(x, mask, members, uniforms, temperature)
            choice = draw_uniforms(self, len(x), None, temperature, generator).flatten(1)[:, :1]
            chosen = choose(weights, choice) + particles * torch.arange(len(x), device=x.device)
            members, uniforms = members[chosen], uniforms[chosen]
        network, orders = self.incremental(len(x), members), self.orders[members]
        yield from complete_in_orders(network, self.distribution, uniforms, orders, temperature, x, mask)

    @torch.no_grad()
    def _known_log_prob(self, x: Tensor, mask: Tensor) -> Tensor:
        """log p_m(known pixels) of images (N, C, H, W) whose known pixels come first, (N, M)."""
        maps = [self.member_log_prob_map(x, member) for member in range(self.number_of_members)]
        return torch.stack([torch.where(mask, parts, 0).flatten(1).sum(1) for parts in maps], 1)

    def _candidate_weights(
        self, x: Tensor, mask: Tensor, members: Tensor, uniforms: Tensor, temperature: float
    ) -> Tensor:
        """log p_m(known pixels | what was drawn before each) of the candidates for every image, (N, candidates)."""
        orders, network = self.orders[members], self.incremental(len(members), members)
        repeats = len(members) // len(x)
        images, known = x.repeat_interleave(repeats, 0), mask.expand_as(x).repeat_interleave(repeats, 0)
        given = Given(in_order(images, orders), in_order(known, orders))
        last(sample_in_orders(network, self.distribution, uniforms, orders, temperature, given))
        return given.log_weight.view(len(x), repeats)


def complete_in_orders(
    network: IncrementalNetwork,
    distribution: PixelDistribution,
    uniforms: Tensor,
    orders: Tensor,
    temperature: float,
    x: Tensor,
    mask: Tensor,
) -> Iterator[Tensor]:
    """Draw what is not known (`mask`) of the images x, each in its own order (n, D), yielding them pixel by pixel."""
    given = Given(in_order(x, orders), in_order(mask.expand_as(x), orders))
    for images in sample_in_orders(network, distribution, uniforms, orders, temperature, given, pixel_by_pixel=True):
        yield torch.where(mask, x, images)


def _log_mean_exp(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).logsumexp(0) - math.log(len(parts))

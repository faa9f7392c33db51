"""A mixture of Bernoullis: every image belongs to one of K components, and within a component pixels are independent.

    p(x) = sum_k pi_k prod_d mu_kd^x_d (1 - mu_kd)^(1 - x_d)
    E step: r_nk = p(k | x_n),   M step: pi_k = (n_k + s) / (N + K s),  mu_kd = (sum_n r_nk x_nd + s) / (n_k + 2 s)

with n_k = sum_n r_nk. Seen pixel by pixel it is autoregressive: p(x_i | x_<i) mixes the components by how well they
explain the pixels so far. The known pixels of any mask weigh them just as well, so completions are always exact.

Papers: Dempster, Laird, Rubin: Maximum Likelihood from Incomplete Data via the EM Algorithm (1977); for Bernoullis
Bishop: Pattern Recognition and Machine Learning (2006), 9.3.3. Changed: s > 0, the mode under Beta(1 + s, 1 + s) and
Dirichlet(1 + s) priors, without which components forbid every pixel that they did not see; training starts with every
component half the way from a random one to an image: of 100 components that start at random half die on MNIST.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from gdm_core.contract import Batch, Phase, TrainingConfig
from gdm_core.layers.pixel_distribution import Bernoulli
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.raster_sampling import Given
from gdm_core.layers.value_sequence import in_images, in_sequence
from gdm_core.registry import register

BLOCK = 28  # dimensions whose weights of the components are in memory at once


@register("mixture_of_bernoullis", family="autoregressive", paper="Dempster, Laird and Rubin, 1977")
class MixtureOfBernoullis(RasterModel):
    """K components: `weight_logit` (K) with pi = softmax, `pixel_logit` (K, C, H, W) with mu = sigmoid; unconstrained.

    `components` and `smoothing` were chosen on the validation images of digits.
    """

    default_training = TrainingConfig(epochs=40, batch_size=256)

    def __init__(self, data_shape: Sequence[int], components: int = 100, smoothing: float = 0.2) -> None:
        super().__init__(data_shape)
        for name, value in (("components", components), ("smoothing", smoothing)):
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.distribution, self.smoothing = Bernoulli(), smoothing
        self.weight_logit = nn.Parameter(torch.zeros(components))
        self.pixel_logit = nn.Parameter(torch.empty(components, *self.data_shape).uniform_(-1, 1))

    def log_joint(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """log p(x, k) in nats, (N, K); of the known pixels alone where a mask (N, 1, H, W) is given."""
        return _log_joint(self.weight_logit, self.pixel_logit, x, known)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (N,), exact: without the detour over the pixels."""
        return self.log_joint(self.check_images(x)).logsumexp(1)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of p(x_i = 1 | x_<i), (N, C, H, W, 1)."""
        parts, weights = [], self.weight_logit.expand(len(x), -1)
        for values, logit in zip(in_sequence(x).split(BLOCK, 1), self.in_order().split(BLOCK), strict=True):
            terms = values[..., None] * logit - softplus(logit)  # log p(x_i | k), (N, B, K)
            before = weights.log_softmax(-1)[:, None]  # log p(k | x_<i) but for a constant
            before = torch.cat([before, terms[:, :-1]], 1).cumsum(1)
            parts.append(_conditional_logit(before, logit))
            weights = before[:, -1] + terms[:, -1]
        return in_images(torch.cat(parts, 1)[..., None], self.data_shape)

    def in_order(self) -> Tensor:
        """The logits of the components in raster order, (D, K)."""
        return self.pixel_logit.permute(2, 3, 1, 0).flatten(0, 2)

    def incremental(self, n: int) -> IncrementalMixture:
        """The conditionals one value at a time, for n images in O(D K) each."""
        return IncrementalMixture(self, self.weight_logit.expand(n, -1))

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        """One step of expectation maximisation per epoch."""
        yield Phase("EM", ExpectationMaximisation(self, config.epochs), config.epochs)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Always."""
        return True

    def completing(
        self, x: Tensor, known: Tensor, given: Given, generator: torch.Generator | None
    ) -> IncrementalMixture:
        """The mixture given all the known pixels, wherever they are: exact for any mask."""
        return IncrementalMixture(self, self.log_joint(x, known), known)

    def filters(self) -> Tensor:
        """The pixel logits of each component, (K, C, H, W)."""
        return self.pixel_logit.detach().clone()


def _log_joint(weight_logit: Tensor, pixel_logit: Tensor, x: Tensor, known: Tensor | None = None) -> Tensor:
    logit = pixel_logit.flatten(1)  # (K, D)
    log_weight = weight_logit.log_softmax(0)
    if known is None:
        return log_weight + x.flatten(1) @ logit.T - softplus(logit).sum(1)
    seen = known.expand_as(x).to(x)
    return log_weight + (x * seen).flatten(1) @ logit.T - seen.flatten(1) @ softplus(logit).T


def _conditional_logit(weights: Tensor, logit: Tensor) -> Tensor:
    """logit p(x_i = 1) of components weighted by exp(weights) (..., K), which need not sum to 1; (...)."""
    return (weights + logsigmoid(logit)).logsumexp(-1) - (weights + logsigmoid(-logit)).logsumexp(-1)


class IncrementalMixture:
    """The conditionals one value at a time: carries the unnormalised log weights (n, K) of the components along.

    Pixels that are `known` (n, 1, H, W) are in the weights from the start.
    """

    @torch.no_grad()
    def __init__(self, model: MixtureOfBernoullis, weights: Tensor, known: Tensor | None = None) -> None:
        self.model, self.weights, self.known = model, weights.clone(), known
        self.pixel_logit = model.in_order()  # (D, K)
        self.row, self.dimension = -1, -1

    def begin_row(self) -> None:
        self.row += 1

    def logits(self, column: int, colour: int) -> Tensor:
        """(n, 1)."""
        self.dimension += 1
        return _conditional_logit(self.weights, self.pixel_logit[self.dimension])[:, None]

    def write(self, values: Tensor, column: int, colour: int) -> None:
        logit = self.pixel_logit[self.dimension]
        terms = values[:, None] * logit - softplus(logit)  # (n, K)
        if self.known is not None:
            terms = terms.masked_fill(self.known[:, :, self.row, column], 0)
        self.weights += terms


class ExpectationMaximisation:
    """One EM step per epoch over all images, in batches.

    Every batch adds its responsibilities, under the parameters that the epoch began with, to the sums of the epoch,
    and the model becomes what these sums say: after an epoch's last batch that is the step over all images. The loss
    is that of the epoch's first parameters.
    """

    def __init__(self, model: MixtureOfBernoullis, epochs: int) -> None:
        self.model, self.epochs = model, epochs
        self._begin(epoch=-1)

    def _start_at(self, x: Tensor) -> None:
        """Move every component half the way to an image of its own, drawn at random."""
        logit = self.model.pixel_logit
        chosen = torch.randperm(max(len(x), len(logit)), device="cpu")[: len(logit)] % len(x)
        logit.copy_(torch.logit((logit.sigmoid() + x[chosen.to(x.device)]) / 2))

    def _begin(self, epoch: int) -> None:
        self.epoch = epoch
        self.before = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.counts, self.sums = (torch.zeros_like(parameter, dtype=torch.float64) for parameter in self.before)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        x, model = self.model.check_images(batch.images), self.model
        epoch = int(batch.progress * self.epochs + 1e-6)  # progress is a quotient, rounded
        if self.epoch < 0:
            self._start_at(x)
        if epoch != self.epoch:
            self._begin(epoch)
        with torch.autocast(x.device.type, enabled=False):  # half precision would lose the sums of many terms
            joint = _log_joint(*self.before, x)
            responsibilities = joint.softmax(1)  # (N, K)
            sums = (responsibilities.T @ x.flatten(1)).view_as(self.sums)
        self.counts = self.counts + responsibilities.sum(0)  # new tensors: a saved state stays as it was
        self.sums = self.sums + sums
        model.weight_logit.copy_(torch.log(self.counts + model.smoothing).log_softmax(0))
        zeros = (self.counts[:, None, None, None] - self.sums).clamp_min(0)  # a difference, rounded
        model.pixel_logit.copy_(torch.log((self.sums + model.smoothing) / (zeros + model.smoothing)))
        return {"loss": -joint.logsumexp(1).mean()}

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "before": self.before, "counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict) -> None:
        self.epoch = int(state["epoch"])
        self.before = [tensor.to(self.model.device) for tensor in state["before"]]
        self.counts, self.sums = (state[name].to(self.model.device) for name in ("counts", "sums"))

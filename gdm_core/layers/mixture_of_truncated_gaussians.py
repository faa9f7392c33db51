"""A mixture of Gaussians truncated to [0, 1]: the density of one real pixel.

    p(x) = sum_k pi_k N(x; m_k, s_k) / Z_k  on [0, 1],    Z_k = Phi((1 - m_k) / s_k) - Phi(-m_k / s_k)
    pi = softmax(w),    m = 2 sigmoid(a) - 1/2,    log s = log S_0 + sigmoid(b) log(S_1 / S_0)

Any real w, a, b give a density on [0, 1]: means lie between -1/2 and 3/2, scales between S_0 = 0.001 and S_1 = 4, from
a quarter of a level of 256 to nearly uniform. A mean outside leaves a tail that falls off from the edge, such as the
pixels of a background have. Measured in units of s from the edge nearer to the mean, x lies at d, the mean at -t and
the other edge at r = 1 / s. For a mean inside (t < 0) and outside (t > 0)

    Z = (erf((t + r) / sqrt 2) + erf(-t / sqrt 2)) / 2
    Z exp(t^2 / 2) = (erfcx(t / sqrt 2) - exp(-r (t + r / 2)) erfcx((t + r) / sqrt 2)) / 2,  erfcx(z) = exp(z^2) erfc(z)

are sums without cancellation and without underflow, so that the logarithm holds in single precision, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import erf, erfcx, ndtr, ndtri

SMALLEST_SCALE, LARGEST_SCALE = 1e-3, 4.0
NEWTON_STEPS = 7  # from an exponential tail to that of a Gaussian: no more digits after these
ROOT = math.sqrt(2)


@dataclass(frozen=True)
class MixtureOfTruncatedGaussians:
    """p(x) of one value in [0, 1] given logits (..., 3 * components): w, a and b, each of all components."""

    components: int

    @property
    def parameters(self) -> int:
        return 3 * self.components

    def spread_out(self) -> Tensor:
        """Logits to start from, (parameters): equal weights, means spread evenly over [0, 1], scales between."""
        means = (torch.arange(self.components) + 0.5) / self.components
        return torch.cat([torch.zeros(self.components), torch.logit((means + 0.5) / 2), torch.zeros(self.components)])

    def log_prob(self, logits: Tensor, x: Tensor) -> Tensor:
        """The log-density in nats with respect to x: logits (..., parameters), x (...) -> (...)."""
        weights, means, scales = _parts(logits)
        return (weights.log_softmax(-1) + log_density(x[..., None], means, scales)).logsumexp(-1)

    def sample(self, logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """Values shaped as uniforms: the uniform chooses the component, what is left of it a point of its Gaussian.

        At a temperature T the components have the weights softmax(w / T) and scales multiplied by sqrt(T), which is
        each component's density to the power 1 / T: at 1 the draw is exact, towards 0 it is the highest point of the
        component of largest weight.
        """
        weights, means, scales = _parts(logits)
        shares = torch.softmax(weights / temperature, -1)
        ends = shares.cumsum(-1)
        chosen = (uniforms[..., None] >= ends[..., :-1]).sum(-1, keepdim=True)
        share, end, mean, scale = (of.gather(-1, chosen)[..., 0] for of in (shares, ends, means, scales))
        rest = ((uniforms - (end - share)) / share.clamp_min(torch.finfo(share.dtype).tiny)).clamp(0, 1)
        return quantile(rest, mean, math.sqrt(temperature) * scale)


def _parts(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """w, the means and the scales, (..., components) each."""
    weights, a, b = logits.chunk(3, -1)
    span = math.log(LARGEST_SCALE / SMALLEST_SCALE)
    return weights, 2 * torch.sigmoid(a) - 0.5, SMALLEST_SCALE * torch.exp(span * torch.sigmoid(b))


def log_density(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log of N(x; mean, scale) / Z on [0, 1], elementwise."""
    low = mean < 0.5  # nearer to 0 than to 1
    d, t, r = torch.where(low, x, 1 - x) / scale, torch.where(low, -mean, mean - 1) / scale, 1 / scale
    inside, outside = t.clamp(max=0), t.clamp(min=0)
    mass = torch.where(t > 0, _mass_outside(outside, r), erf((inside + r) / ROOT) + erf(-inside / ROOT))
    exponent = torch.where(t > 0, d * (outside + d / 2), ((x - mean) / scale).square() / 2)
    return -exponent - torch.log(mass * scale) - 0.5 * math.log(math.pi / 2)


def _mass_outside(t: Tensor, r: Tensor) -> Tensor:
    """2 Z exp(t^2 / 2) for a mean at t >= 0 beyond the edge."""
    return erfcx(t / ROOT) - torch.exp(-r * (t + r / 2)) * erfcx((t + r) / ROOT)


def quantile(share: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The x of [0, 1] below which a `share` of the truncated Gaussian lies, elementwise."""
    low, smallest, largest = mean < 0.5, torch.finfo(mean.dtype).tiny, 1 - torch.finfo(mean.dtype).eps / 2
    t, r = torch.where(low, -mean, mean - 1) / scale, 1 / scale
    share = torch.where(low, share, 1 - share).clamp(max=largest)  # of what is nearer to the edge; 1 has no quantile
    inside = t.clamp(max=0)
    below = ndtr(inside)
    z = ndtri((below + share * (ndtr(inside + r) - below)).clamp(smallest, largest)) - t
    from_edge = torch.where(t > 0, _tail_quantile(share, t.clamp(min=0), r), z) * scale
    return torch.where(low, from_edge, 1 - from_edge).clamp(0, 1)


def _tail_quantile(share: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """The distance d from the edge, in scales, within which a `share` lies, for a mean at t >= 0 beyond the edge.

    Newton's method for log of exp(-d (t + d / 2)) erfcx((t + d) / sqrt 2), which is concave and falls: from d = 0 the
    first step goes beyond the solution and the others come back to it.
    """
    left = (1 - share) * erfcx(t / ROOT) + share * torch.exp(-r * (t + r / 2)) * erfcx((t + r) / ROOT)
    d, target = torch.zeros_like(t), left.log()
    for _ in range(NEWTON_STEPS):
        mills = erfcx((t + d) / ROOT)
        d = d + (mills.log() - d * (t + d / 2) - target) * mills * math.sqrt(math.pi / 2)
    return torch.minimum(d.clamp(min=0), r)

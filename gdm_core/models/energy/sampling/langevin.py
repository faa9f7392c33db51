"""Langevin chains of real pixels: a step down the energy's slope, noise, and mirrors at 0 and 1.

    x' = reflect(x - noise^2 / 2 grad E(x) + noise u),     u ~ N(0, I)

For small noise the chain's stationary density is exp(-E(x)) / Z on [0, 1]^D. Mirrors and no clamping, because the
reflected step is as likely there and back, so that pixels have a density up to the very border: of a flat energy it is
even. Clamping would collect pixels at exactly 0 and 1, which no density of real pixels does.

Paper: "Bayesian Learning via Stochastic Gradient Langevin Dynamics", Welling and Teh, 2011.
"""

from __future__ import annotations

from torch import Tensor


def reflect(x: Tensor) -> Tensor:
    """Fold any real number into [0, 1] as mirrors at 0 and 1 would, however far outside it is."""
    return 1 - (x.remainder(2) - 1).abs()


def langevin_step(x: Tensor, slope: Tensor, noise: float, normals: Tensor) -> Tensor:
    """One step from x (N, C, H, W) with `slope` grad E(x) and standard normal noise, both of its shape."""
    return reflect(x - noise**2 / 2 * slope + noise * normals)

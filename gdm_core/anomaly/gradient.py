"""The gradient of a model's energy as a heat map: what inverting each pixel would gain, to first order.

    s_i = (2 x_i - 1) dF/dx_i  ~  F(x) - F(x with 1 - x_i for x_i),      in nats; above 0: inverted it would fit better

F is what the model calls `energy`: -log p(x) - log Z, hidden units and labels summed out where there are any. Binary
pixels are flipped; F is then continued to real x by its own formula (of an RBM -b'x - sum_j softplus(c_j + W_j x)).
Exact where F is linear in x_i, as without hidden units; -log p(x_i | all others) is softplus of the exact difference.

Where log p(x) + log Z is known by a bound E_q[log p*(x, h) - log q(h | x)] only, q(h | x) is held at what it is:

    dF/dx_i = -E_q[d log p*(x, h) / dx_i]          (the slope of log q is 0 on average)

At a q that maximises the bound this is the gradient of the bound (the envelope theorem): mean field of a deep Boltzmann
machine. Where q is the posterior it is that of -log p(x) (Fisher's identity): the recognition net of a deep belief
network comes near it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gdm_core.contract import Energy, UnnormalisedBound
from gdm_core.energies import energy_or_bound


def energy_gradient(model: Energy | UnnormalisedBound, x: Tensor) -> Tensor:
    """dF/dx, of the shape of x (N, C, H, W), in nats per unit of grey; without a graph, also where gradients are off.

    The draws of a bound are the same for all images.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(energy_or_bound(model, x).sum(), x)
    return gradient


def gain_of_inverting(model: Energy | UnnormalisedBound, x: Tensor) -> Tensor:
    """s summed over channels, (N, H, W), higher = stranger; below 0 where a pixel fits as it is."""
    return ((2 * x - 1) * energy_gradient(model, x)).sum(1)

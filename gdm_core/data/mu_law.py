"""Companding by the mu-law: fine steps for quiet values and coarse ones for loud, as telephones and WaveNet have it.

    F(s) = sign(s) ln(1 + mu |s|) / ln(1 + mu),    k = round(mu (F(s) + 1) / 2) in 0..mu,    mu = levels - 1

ITU-T Recommendation G.711 (1972), in its continuous form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def compand(signal: Tensor, levels: int = 256) -> Tensor:
    """A signal in [-1, 1] of any shape -> stored levels, uint8; what is louder is cut off at the first and last level.

    Raises ValueError for NaN.
    """
    if torch.isnan(signal).any():
        raise ValueError("a signal with NaN cannot be companded")
    mu, s = levels - 1, signal.double().clamp(-1, 1)
    loudness = torch.log1p(mu * s.abs()) / math.log1p(mu)  # |F|
    return (mu * (s.sign() * loudness + 1) / 2).round().to(torch.uint8)


def expand(stored: Tensor, levels: int = 256) -> Tensor:
    """Stored levels -> the middle of what is companded to them, float64 in [-1, 1]."""
    mu = levels - 1
    loudness = 2 * stored.double() / mu - 1  # F
    return loudness.sign() * torch.expm1(loudness.abs() * math.log1p(mu)) / mu

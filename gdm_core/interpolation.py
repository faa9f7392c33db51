"""Ways from code to code in a latent space: straight, along a sphere, and a smooth random walk.

A straight line between two draws of a wide normal prior passes through a middle that is much shorter than any draw of
it, where a decoder was hardly trained; the way along the sphere keeps the length. White, Sampling Generative Networks
(2016).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST_SINE = 1e-6  # of the angle between two codes that still span a plane


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1 - t) a + t b for codes a and b (latent,) and positions t (T,) in [0, 1]: (T, latent). The ends are exact."""
    _check_ends(a, b, t)
    t = t.to(a).unsqueeze(1)
    return (1 - t) * a + t * b


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """[sin((1 - t) w) a + sin(t w) b] / sin(w) with w the angle between a and b: (T, latent). The ends are exact.

    Turns at a constant rate and, between codes of equal length, keeps that length. Codes that point the same way or
    opposite ways (or are zero) span no plane to turn in: then it is the straight line.
    """
    _check_ends(a, b, t)
    angle = _angle(a, b)
    if math.sin(angle) < SMALLEST_SINE:
        return linear(a, b, t)
    t = t.double().unsqueeze(1)
    weight_a, weight_b = torch.sin((1 - t) * angle) / math.sin(angle), torch.sin(t * angle) / math.sin(angle)
    path = weight_a * a.double() + weight_b * b.double()
    ends = torch.where(t == 0, a.double(), torch.where(t == 1, b.double(), path))
    return ends.to(a.dtype)


def walk(codes: Tensor, frames: int) -> Tensor:
    """A smooth closed walk made of random codes (2 J, latent), J >= 1: (frames, latent).

        z(s) = J^(-1/2) sum_j [cos(j s) a_j + sin(j s) b_j],   j = 1..J,   s = 0, 2 pi / frames, ...

    If the codes are independent draws from a normal prior N(0, I), so is every single frame: the walk never leaves the
    region the decoder knows. The frame after the last would be the first. Raises ValueError for an odd number of codes.
    """
    if codes.dim() != 2 or not len(codes) or len(codes) % 2:
        raise ValueError(f"a walk needs an even number of codes, (2 J, latent), got {tuple(codes.shape)}")
    if frames < 1:
        raise ValueError(f"a walk has at least 1 frame, got {frames}")
    waves = len(codes) // 2
    s = 2 * math.pi * torch.arange(frames, dtype=torch.float64) / frames
    angles = s.unsqueeze(1) * torch.arange(1, waves + 1)  # (frames, J)
    weights = torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(waves)
    return (weights.to(codes.device) @ codes.double()).to(codes.dtype)


def positions(steps: int) -> Tensor:
    """`steps` positions from 0 to 1, both included, (steps,) float64. Raises ValueError for fewer than two."""
    if steps < 2:
        raise ValueError(f"a path has at least its 2 ends, got {steps} steps")
    return torch.linspace(0, 1, steps, dtype=torch.float64)


def _angle(a: Tensor, b: Tensor) -> float:
    """The angle between two codes in [0, pi], 0 where one is zero; accurate for nearly parallel ones (Kahan, 2006)."""
    a, b = a.double(), b.double()
    length_a, length_b = a.norm(), b.norm()
    if not (length_a > 0 and length_b > 0):
        return 0.0
    a, b = a / length_a, b / length_b
    return float(2 * torch.atan2((a - b).norm(), (a + b).norm()))


def _check_ends(a: Tensor, b: Tensor, t: Tensor) -> None:
    if a.dim() != 1 or a.shape != b.shape:
        raise ValueError(f"both ends must be codes of one length, got {tuple(a.shape)} and {tuple(b.shape)}")
    if t.dim() != 1:
        raise ValueError(f"positions must have shape (T,), got {tuple(t.shape)}")

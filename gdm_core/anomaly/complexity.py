"""How many nats a small universal code needs for an image: the yardstick for the likelihood paradox.

Each bit plane of the image is coded with an adaptive code of Krichevsky and Trofimov (The Performance of Universal
Encoding, 1981), one per context: which plane, the bits to the left and above, and the next higher bit of the same
pixel. A context that saw n0 zeros and n1 ones costs

    -log KT(n0, n1) = -log [ G(n0 + 1/2) G(n1 + 1/2) / (pi G(n0 + n1 + 1)) ]      with G the gamma function

whatever their order, so the length is a sum over contexts. It is the length (to within two bits) of a real lossless
file, in the manner of JBIG, without the headers and whole bytes that swamp PNG or zlib on an image of 64 pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def code_length(x: Tensor, levels: int) -> Tensor:
    """Nats to code each image (N, C, H, W) in [0, 1], read as integers k = x (levels - 1), rounded: (N,) float64."""
    planes = max(1, math.ceil(math.log2(levels)))
    values = (x * (levels - 1)).round().long()
    bits = (values.unsqueeze(-1) >> torch.arange(planes, device=x.device)) & 1  # (N, C, H, W, planes)
    contexts = _contexts(bits)
    counts = torch.zeros(len(x), 2, 8 * planes, dtype=torch.float64, device=x.device)
    for bit in (0, 1):
        seen = (bits == bit).double().flatten(1)
        counts[:, bit].scatter_add_(1, contexts.flatten(1), seen)
    return _kt_length(counts[:, 0], counts[:, 1]).sum(1)


def _contexts(bits: Tensor) -> Tensor:
    left = functional.pad(bits, (0, 0, 1, 0))[..., :-1, :]
    above = functional.pad(bits, (0, 0, 0, 0, 1, 0))[..., :-1, :, :]
    higher = functional.pad(bits, (0, 1))[..., 1:]
    plane = torch.arange(bits.shape[-1], device=bits.device)
    return ((plane * 2 + higher) * 2 + above) * 2 + left


def _kt_length(zeros: Tensor, ones: Tensor) -> Tensor:
    return torch.lgamma(zeros + ones + 1) + math.log(math.pi) - torch.lgamma(zeros + 0.5) - torch.lgamma(ones + 0.5)

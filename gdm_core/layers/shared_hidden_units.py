"""NADE's hidden units for long inputs: all D x H of them in the forward pass, never all of them in memory.

    logit_d = b_d + V_d . h_d,    h_d = sigmoid(a_d),    a_d = c + sum_{j<d} v_j W_j

Written out, the hidden units of a batch are N x D x H numbers (200 MB for 128 images of 784 pixels and 500 units),
which autograd would keep several times. Here the forward pass carries one a (N, H) along and keeps it at the start of
each block of dimensions; the backward pass recomputes a block's units while it needs them. With g_d the gradient of
logit_d:

    da_d = g_d V_d h_d (1 - h_d),    s_d = sum_{k>d} da_k,
    dV_d = sum_n g_d h_d,    dW_d = sum_n v_d s_d,    dv_d = W_d . s_d,    dc = sum_n s_0 + da_0

Reference: Larochelle and Murray, The Neural Autoregressive Distribution Estimator (2011), algorithm 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 28  # dimensions whose hidden units are in memory at once


class SharedHiddenUnits(torch.autograd.Function):
    """logits (N, D) from v (N, D), weight and output weight (D, H), hidden bias (H), visible bias (D)."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, weight: Tensor, output_weight: Tensor, hidden_bias: Tensor, visible_bias: Tensor
    ) -> Tensor:
        by_dimension = v.T.contiguous()  # (D, N)
        with torch.autocast(v.device.type, enabled=False):  # a sum of D terms in half precision would drift
            logits, starts = _run_through(by_dimension, weight, output_weight, hidden_bias)
        ctx.save_for_backward(by_dimension, weight, output_weight, starts)
        return logits.T + visible_bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
        v, weight, output_weight, starts = ctx.saved_tensors
        g = gradient.T.contiguous()  # (D, N)
        d_weight, d_output = torch.empty_like(weight), torch.empty_like(output_weight)
        d_v = torch.empty_like(v) if ctx.needs_input_grad[0] else None
        later = torch.zeros_like(starts[0])  # (N, H): sum of da_k over the dimensions k after this one
        for index in reversed(range(len(starts))):
            first = index * BLOCK
            block = _hidden_units(starts[index], v[first : first + BLOCK], weight[first : first + BLOCK])
            for d in reversed(range(first, first + len(block))):
                h = block[d - first]
                torch.mv(later.T, v[d], out=d_weight[d])
                torch.mv(h.T, g[d], out=d_output[d])
                if d_v is not None:
                    torch.mv(later, weight[d], out=d_v[d])
                slope = h.addcmul_(h, h, value=-1).mul_(output_weight[d])  # V_d h (1 - h), over the units, used up
                later.addcmul_(slope, g[d][:, None])
        return None if d_v is None else d_v.T, d_weight, d_output, later.sum(0), gradient.sum(0)


def _run_through(v: Tensor, weight: Tensor, output_weight: Tensor, hidden_bias: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (D, N) without their bias, and a at the start of every block, (blocks, N, H); v (D, N)."""
    a = hidden_bias.repeat(v.shape[1], 1)
    h, logits, starts = torch.empty_like(a), torch.empty_like(v), []
    for d in range(len(v)):
        if d % BLOCK == 0:
            starts.append(a.clone())
        torch.sigmoid(a, out=h)
        torch.mv(h, output_weight[d], out=logits[d])
        a.addr_(v[d], weight[d])
    return logits, torch.stack(starts)


def _hidden_units(start: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """The hidden units of a block of B dimensions, (B, N, H), from a (N, H) at its start; v (B, N), weight (B, H)."""
    a, block = start.clone(), start.new_empty(len(v), *start.shape)
    for h, v_d, weight_d in zip(block, v, weight, strict=True):
        torch.sigmoid(a, out=h)
        a.addr_(v_d, weight_d)
    return block

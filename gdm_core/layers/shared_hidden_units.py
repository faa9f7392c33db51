"""NADE's hidden units for long inputs: all D x H of them in the forward pass, never all of them in memory.

    logit_d = b_d + V_d . h_d,    h_d = sigmoid(a_d),    a_d = c + sum_{j<d} v_j W_j

Written out, the hidden units of a batch are N x D x H numbers (200 MB for 128 images of 784 pixels and 500 units),
which autograd would keep several times. Here both passes go block by block: the forward pass keeps a at the start of
each block of dimensions, and the backward pass computes the block's units anew. With g_d the gradient of logit_d:

    da_d = g_d V_d h_d (1 - h_d),    s_d = sum_{k>d} da_k,
    dV_d = sum_n g_d h_d,    dW_d = sum_n v_d s_d,    dv_d = W_d . s_d,    dc = sum_n s_0 + da_0

Only the two running sums, a and s, go one dimension at a time; everything else is one operation a block. The threads of
a small operation spend their time waiting for each other, so the sums are kept to one thread: by parts of the batch.
They add in place, to terms that are there: memory that the other thread wrote last comes back ahead of being read, but
not ahead of being only written over, and waiting for it is slow where two cores share no cache.

Reference: Larochelle and Murray, The Neural Autoregressive Distribution Estimator (2011), algorithm 1.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 28  # dimensions whose hidden units are in memory at once
ONE_THREAD = 32_768  # numbers up to which torch gives an operation to one thread on a processor


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
        sums = _room_for_a_block(starts[0])
        later = torch.zeros_like(starts[0])  # (N, H): the sum of da_k over the blocks after this one
        for index in reversed(range(len(starts))):
            block = slice(index * BLOCK, (index + 1) * BLOCK)
            s = _weighted_inputs(starts[index], v[block], weight[block], sums)  # (B + 1, N, H), a for the moment
            h = s[:-1].sigmoid_()
            torch.bmm(g[block, None], h, out=d_output[block, None])
            _sum_from_the_end(s, later, output_weight[block], g[block])
            torch.bmm(v[block, None], s[1:], out=d_weight[block, None])
            if d_v is not None:
                torch.bmm(s[1:], weight[block, :, None], out=d_v[block, :, None])
            later.copy_(s[0])
        return None if d_v is None else d_v.T, d_weight, d_output, later.sum(0), gradient.sum(0)


def _run_through(v: Tensor, weight: Tensor, output_weight: Tensor, hidden_bias: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (D, N) without their bias, and a at the start of every block, (blocks, N, H); v (D, N)."""
    logits, starts, start = torch.empty_like(v), [], hidden_bias.repeat(v.shape[1], 1)
    sums = _room_for_a_block(start)
    for first in range(0, len(v), BLOCK):
        block = slice(first, first + BLOCK)
        starts.append(start)
        a = _weighted_inputs(start, v[block], weight[block], sums)
        start = a[-1].clone()
        torch.sum(a[:-1].sigmoid_().mul_(output_weight[block, None]), -1, out=logits[block])
    return logits, torch.stack(starts)


def _room_for_a_block(like: Tensor) -> Tensor:
    """Memory for the sums of a block, (B + 1, N, H), used again for every one of them."""
    return like.new_empty(BLOCK + 1, *like.shape)


def _weighted_inputs(start: Tensor, v: Tensor, weight: Tensor, room: Tensor) -> Tensor:
    """a before each of B dimensions and after the last, (B + 1, N, H) in `room`, from a (N, H); v (B, N), W (B, H)."""
    sums = room[: len(v) + 1]
    torch.mul(v[..., None], weight[:, None], out=sums[1:])
    sums[0] = start
    for part in sums.split(_images_for_one_thread(start), 1):
        places = part.unbind()
        for before, after in itertools.pairwise(places):
            after.add_(before)
    return sums


def _images_for_one_thread(like: Tensor) -> int:
    """How many rows of a tensor (N, H) an operation may have that is not worth two threads."""
    alone = like.device.type == "cpu" and torch.get_num_threads() > 1
    return max(1, ONE_THREAD // like.shape[1]) if alone else max(1, len(like))


def _sum_from_the_end(h: Tensor, later: Tensor, output_weight: Tensor, g: Tensor) -> None:
    """h of B dimensions (B + 1, N, H; the last place is free) becomes the sum of da over this and all later ones."""
    units = h[:-1]
    slope = torch.ops.aten.sigmoid_backward.grad_input  # V_d h (1 - h) in one pass over the block
    slope(output_weight[:, None].expand_as(units), units, grad_input=units)
    h[-1] = later
    images = _images_for_one_thread(later)
    for part, part_g in zip(h.split(images, 1), g[..., None].split(images, 1), strict=True):
        places, gradients = part.unbind(), part_g.unbind()
        for d in reversed(range(len(g))):
            torch.addcmul(places[d + 1], places[d], gradients[d], out=places[d])

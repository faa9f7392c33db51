"""Run a model on each image by itself, so that an image's numbers never depend on its companions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel


def one_by_one(model: GenerativeModel, x: Tensor, measure: Callable[[GenerativeModel, Tensor], Tensor]) -> Tensor:
    """Stack `measure(model, x[i:i+1])` over the N images of x: (N, ...) float64 on the CPU.

    A matrix product over a batch may add up the same row differently for another batch size, so a shared batch changes
    last bits; a batch of one does not. The model is put into evaluation mode (drop-out and batch statistics would tie
    images together) and back. Raises ValueError where x is not what the model takes.
    """
    model.check_images(x)
    was_training = model.training
    if was_training:
        model.eval()
    try:
        with torch.inference_mode():
            rows = [measure(model, _alone(x, i, model.device))[0].double().cpu() for i in range(len(x))]
    finally:
        if was_training:
            model.train()
    return torch.stack(rows).clone() if rows else torch.empty(0, dtype=torch.float64)


def _alone(x: Tensor, i: int, device: torch.device) -> Tensor:
    # a fresh tensor: a view into the batch has another memory alignment for every i, and kernels differ with it
    return x[i : i + 1].detach().clone().contiguous().to(device)

"""Images completed by Gibbs chains of whole layers, drawn at once: known pixels are put back after each step."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gdm_core.contract import GenerativeModel
from gdm_core.layers.sampling_arguments import check_completion, draw_uniforms


@torch.no_grad()
def complete_by_chains(
    model: GenerativeModel, x: Tensor, known: Tensor, temperature: float, generator: torch.Generator | None,
    start: Callable[[Tensor], Tensor], step: Callable[[Tensor, float, torch.Generator | None], Tensor],
) -> Tensor:  # fmt: skip
    """The ends (N, units) of chains of the model's `sampling_steps` steps that hold the pixels of x where `known` is 1.

    A chain's first units are the pixels, the others are free. `start` makes chains of uniforms (N, C, H, W), `step`
    moves them at a temperature. Raises ValueError for bad images, masks and temperatures.
    """
    x, known = check_completion(model, x, known)
    if not len(x):
        return x.flatten(1)
    chain = start(draw_uniforms(model, len(x), None, temperature, generator))  # (N, units)
    others = (0, chain.shape[1] - model.dimensions)
    fixed, held = F.pad(x.flatten(1).to(chain.dtype), others), F.pad(known.expand_as(x).flatten(1), others)
    chain = torch.where(held, fixed, chain)
    for _ in range(model.sampling_steps):
        chain = torch.where(held, fixed, step(chain, temperature, generator))
    return chain

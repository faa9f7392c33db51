"""The classes of a label RBM brought to the shares they have in its data, when everything else is learnt.

The mean of log p(x, y) is concave in the label biases d alone, with slope share_y - p(y) in d_y. p(y), the mass of a
class in the model, moves with them by a factor, p(y) exp(change) / sum, so that one step leads to the maximum:

    d_y <- d_y + log(share_y / p(y))

Learning itself does not get there: late in it persistent chains hardly ever change their class, and how many of them
stand in one is not its mass (on the 8x8 digits one class had a fifth of it, another a thirtieth). Annealed chains do
not stick: with their importance weights w, p(y) is the mean of p(y | v) over where they end. Ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gdm_core.annealing import annealed

if TYPE_CHECKING:
    from gdm_core.models.energy.label_rbm import LabelRBM

CHAINS, TEMPERATURES = 500, 300
FEWEST_EFFECTIVE = 50  # chains that must count: with fewer nobody knows the masses, and the biases stay as they are


@torch.no_grad()
def balance_classes(model: LabelRBM, counts: Tensor) -> None:
    """Move the label biases; `counts` (K,) of the classes seen in training, each taken for one more than it is."""
    masses = class_masses(model) if counts.any() else None
    if masses is not None:
        shares = (counts.double() + 1) / (counts + 1).sum()
        model.label_bias += (shares / masses).log().to(model.label_bias)


@torch.no_grad()
def class_masses(
    model: LabelRBM, chains: int = CHAINS, temperatures: int = TEMPERATURES, generator: torch.Generator | None = None
) -> Tensor | None:
    """p(y) of every class, (K,) float64, by annealing; None where too few of the chains count."""
    betas = torch.linspace(0, 1, temperatures, dtype=torch.float64)
    log_w, ends = annealed(model.tempered(), chains, betas, generator)
    weight = log_w.softmax(0)
    if 1 / weight.square().sum() < FEWEST_EFFECTIVE:
        return None
    log_p = model.class_terms(ends.logits).double().log_softmax(1)
    return (log_p + weight.log()[:, None]).logsumexp(0).exp()

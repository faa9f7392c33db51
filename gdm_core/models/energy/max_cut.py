"""Maximum cut by simulated annealing on a Boltzmann machine: optimisation as such machines were first shown.

A graph with weights w_ij is cut in two, s_i in {0, 1} saying on which side node i is. The value of the cut,

    sum_{i<j} w_ij [s_i != s_j] = d's - s'ws,    d_i = sum_j w_ij,

is minus the energy of a machine with biases d and connections -2w. Its Gibbs chains at a rising inverse temperature
prefer ever better cuts; the best one that any chain passes is the answer, with no promise that there is none better.

References: "Optimization by Simulated Annealing" (Kirkpatrick, Gelatt and Vecchi, 1983); as a Boltzmann machine
"Simulated Annealing and Boltzmann Machines" (Aarts and Korst, 1989).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gdm_core.models.energy.sampling.gibbs_scan import Units, blocks_of, gibbs_scan


def cut_value(weights: Tensor, partition: Tensor) -> Tensor:
    """The weight between the two sides of each partition (n, nodes) of 0 and 1, (n,) float64."""
    return _machine(weights).negative_energy(partition.double())


@torch.no_grad()
def anneal_max_cut(
    weights: Tensor, schedule: Sequence[float] | Tensor, chains: int = 20, generator: torch.Generator | None = None
) -> tuple[Tensor, float]:
    """A cut of large value, as 0 or 1 for each node, (nodes,), and its value.

    weights: symmetric (nodes, nodes) with a zero diagonal; negative ones too.
    schedule: the inverse temperature of each scan, in units of 1 / weight; from small to large.

    Raises ValueError naming what is wrong with an argument.
    """
    betas = torch.as_tensor(schedule, dtype=torch.float64).flatten()
    if not len(betas) or not torch.isfinite(betas).all() or betas.min() < 0:
        raise ValueError("schedule must hold at least one inverse temperature, none negative or infinite")
    if chains < 1:
        raise ValueError(f"chains must be at least 1, got {chains}")
    machine, shape = _machine(weights), (chains, len(weights))
    s = _uniforms(shape, generator).round().to(weights.device)
    best, best_value = s[0], machine.negative_energy(s[:1])[0]
    for beta in betas.tolist():
        s = gibbs_scan(machine.tempered(beta), s, _uniforms(shape, generator).to(weights.device))
        values = machine.negative_energy(s)
        if values.max() > best_value:
            best, best_value = s[values.argmax()], values.max()
    return best.long(), best_value.item()


def _machine(weights: Tensor) -> Units:
    if weights.dim() != 2 or weights.shape[0] != weights.shape[1] or not len(weights):
        raise ValueError(f"weights must be a square matrix, got shape {tuple(weights.shape)}")
    if not torch.isfinite(weights).all() or not torch.equal(weights, weights.T) or weights.diagonal().any():
        raise ValueError("weights must be finite and symmetric, with zeros on the diagonal")
    coupling = -2 * weights.double()
    return Units(coupling, -coupling.sum(1) / 2, blocks_of((len(weights), True)))


def _uniforms(shape: tuple[int, int], generator: torch.Generator | None) -> Tensor:
    home = "cpu" if generator is None else generator.device
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=home)

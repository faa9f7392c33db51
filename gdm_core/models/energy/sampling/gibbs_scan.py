"""Visiting binary units one after another: the scan behind every chain of a machine in which any two may be connected.

    p(s) ~ exp(a's + s'Cs / 2),    C symmetric, zero on its diagonal,    p(s_i = 1 | all others) = sigmoid(a_i + C_i s)

Units that are not connected among themselves are drawn at once, the others in turn, each given what those before it
became. A scan leaves p as it is; one forwards and then one backwards is reversible as well. With the sigmoid itself in
place of a draw the same scan is coordinate ascent to the mean-field solution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PART = 32  # connected units whose input from all others is one product


class Block(NamedTuple):
    """Neighbouring units, and whether they are connected among themselves."""

    units: slice
    connected: bool


class Units(NamedTuple):
    """A machine: C (U, U), a (U,) or one a for each of n chains (n, U), and the blocks in which units are visited."""

    coupling: Tensor
    bias: Tensor
    blocks: list[Block]

    def tempered(self, beta: float) -> Units:
        """The same with all energies times beta."""
        return Units(beta * self.coupling, beta * self.bias, self.blocks)

    def negative_energy(self, s: Tensor) -> Tensor:
        """a's + s'Cs / 2, (n,)."""
        return ((self.bias + s @ self.coupling / 2) * s).sum(1)

    def inputs(self, s: Tensor) -> Tensor:
        """The log-odds of each unit given all others, (n, U)."""
        return self.bias + s @ self.coupling


def blocks_of(*layers: tuple[int, bool]) -> list[Block]:
    """The blocks of neighbouring layers, each (units, whether connected): connected ones in parts of at most 32."""
    blocks, start = [], 0
    for size, connected in layers:
        length = PART if connected else max(1, size)
        blocks += [Block(slice(start + i, start + min(i + length, size)), connected) for i in range(0, size, length)]
        start += size
    return blocks


def gibbs_scan(units: Units, s: Tensor, uniforms: Tensor, backwards: bool = False) -> Tensor:
    """Draw every unit of s (n, U) once, each by its own uniform (n, U): 0 turns it on, 1 off, whatever the rest."""
    thresholds = torch.logit(uniforms).T.contiguous()  # u < sigmoid(input) where logit(u) < input
    return _scan(units, s, lambda inputs, which: (thresholds[which] < inputs).to(inputs.dtype), backwards)


def mean_field_scan(units: Units, means: Tensor) -> Tensor:
    """Put every unit of (n, U) once at its mean given the means of the others: never farther from p in KL(q | p)."""
    return _scan(units, means, lambda inputs, which: torch.sigmoid(inputs), False)


Update = Callable[[Tensor, "slice | int"], Tensor]  # inputs of units (..., n), and which units: what they become


@torch.no_grad()
def _scan(units: Units, s: Tensor, update: Update, backwards: bool) -> Tensor:
    columns = s.T.contiguous()  # (U, n): what one unit is in all chains lies together
    columns = columns.clone() if columns.data_ptr() == s.data_ptr() else columns
    bias = units.bias.T if units.bias.dim() == 2 else units.bias[:, None]
    for block in reversed(units.blocks) if backwards else units.blocks:
        which = block.units
        inputs = torch.addmm(bias[which], units.coupling[which], columns)  # (units of the block, n)
        if block.connected:
            _in_turn(columns, inputs, units.coupling[which, which], which.start, update, backwards)
        else:
            columns[which] = update(inputs, which)
    return columns.T.contiguous()


def _in_turn(
    columns: Tensor, inputs: Tensor, coupling: Tensor, start: int, update: Update, backwards: bool
) -> None:
    """Update a block's units, from `start` on, one by one; each change goes to the inputs of all of them."""
    size = len(inputs)
    rows, links, values = inputs.unbind(), coupling.unbind(), columns[start : start + size].unbind()
    for i in reversed(range(size)) if backwards else range(size):
        new = update(rows[i], start + i)
        inputs.addr_(links[i], new - values[i])  # also of those that have had their turn: cheaper than leaving them out
        values[i].copy_(new)

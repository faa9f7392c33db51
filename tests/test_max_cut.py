"""Cuts found by annealing against all cuts there are."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gdm_core.models.energy.max_cut import anneal_max_cut, cut_value
from gdm_core.randomness import seeded_generator

SCHEDULE = torch.logspace(-1, 1, 60)


def graph(nodes: int, seed: int, density: float = 0.6, signed: bool = False) -> Tensor:
    generator = seeded_generator(seed)
    weights = torch.rand(nodes, nodes, generator=generator) - (0.5 if signed else 0.0)
    weights *= torch.rand(nodes, nodes, generator=generator) < density
    return weights.triu(1) + weights.triu(1).T


def best_of_all(weights: Tensor) -> float:
    """By looking at every cut; a node's side may be chosen, as a cut and its mirror image are one."""
    nodes, edges = len(weights), weights.double().triu(1)
    sides = (torch.arange(2 ** (nodes - 1))[:, None] >> torch.arange(nodes) & 1).double()
    return max(((part @ edges) * (1 - part) + ((1 - part) @ edges) * part).sum(1).max().item()
               for part in sides.split(4096))  # fmt: skip


def test_the_value_is_the_weight_of_the_edges_between_the_sides() -> None:
    weights = graph(7, 0, signed=True)
    partitions = torch.tensor(list(itertools.product([0, 1], repeat=7)))
    expected = [sum(weights[i, j].item() for i, j in itertools.combinations(range(7), 2) if s[i] != s[j])
                for s in partitions]  # fmt: skip
    torch.testing.assert_close(cut_value(weights, partitions), torch.tensor(expected).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("nodes", [1, 2, 5, 10, 16])
def test_annealing_finds_the_best_cut_of_small_graphs(nodes: int, signed: bool) -> None:
    for seed in range(5):
        weights = graph(nodes, seed, signed=signed)
        partition, value = anneal_max_cut(weights, SCHEDULE, 30, seeded_generator(seed))
        assert partition.shape == (nodes,) and set(partition.tolist()) <= {0, 1}
        assert value == pytest.approx(cut_value(weights, partition[None]).item(), abs=1e-12)
        assert value == pytest.approx(best_of_all(weights), abs=1e-5)


def test_a_cold_end_beats_chains_that_stay_hot() -> None:
    weights = graph(60, 0)
    hot = anneal_max_cut(weights, torch.full((60,), 0.01), 5, seeded_generator(0))[1]
    assert anneal_max_cut(weights, SCHEDULE, 5, seeded_generator(0))[1] > 1.05 * hot


def test_a_bipartite_graph_is_cut_through_every_edge() -> None:
    """An even ring: only the two alternating partitions cut all of it."""
    ring = torch.zeros(12, 12)
    ring[torch.arange(12), (torch.arange(12) + 1) % 12] = 1
    partition, value = anneal_max_cut(ring + ring.T, SCHEDULE, 30, seeded_generator(1))
    assert value == 12 and (partition != partition.roll(1)).all()


def test_a_seed_repeats() -> None:
    weights = graph(30, 2)
    first = anneal_max_cut(weights, [0.1, 0.5], 2, seeded_generator(0))
    torch.rand(3)
    again = anneal_max_cut(weights, [0.1, 0.5], 2, seeded_generator(0))
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert first[1] != anneal_max_cut(weights, [0.1, 0.5], 2, seeded_generator(1))[1]


@pytest.mark.parametrize("weights", [torch.zeros(2, 3), torch.eye(3), torch.ones(3, 3).triu(1), torch.zeros(0, 0),
                                     torch.tensor([[0, math.nan], [math.nan, 0]])])  # fmt: skip
def test_what_is_no_graph_is_refused(weights: Tensor) -> None:
    with pytest.raises(ValueError, match="weights must"):
        anneal_max_cut(weights, SCHEDULE)


def test_bad_schedules_and_chains_are_refused() -> None:
    for bad in ([], [-0.1], [math.inf], [math.nan]):
        with pytest.raises(ValueError, match="schedule must"):
            anneal_max_cut(graph(4, 0), bad)
    with pytest.raises(ValueError, match="chains must"):
        anneal_max_cut(graph(4, 0), SCHEDULE, 0)


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture) -> None:
    page = (Path(__file__).parents[1] / "docs" / "boltzmann_machines.md").read_text()
    example = next(block for block in re.findall(r"(?:^ {4}.*\n|^\n)+", page, re.MULTILINE) if "max_cut" in block)
    exec("\n".join(line[4:] for line in example.splitlines()), {})
    assert capsys.readouterr().out.strip().endswith("12.0")

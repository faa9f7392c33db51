"""A label RBM's classes get the shares they have in the data: against enumeration."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.models.energy.label_rbm import LabelRBM
from gdm_core.models.energy.learning import class_balance
from gdm_core.models.energy.learning.class_balance import balance_classes, class_masses
from gdm_core.models.energy.learning.hybrid_divergence import HybridDivergence
from gdm_core.randomness import seeded_generator
from gdm_core.training import train
from tests.test_label_rbm import data, joint, machine
from tests.test_rbm import Rows

COUNTS = torch.tensor([70.0, 19.0, 8.0], dtype=torch.float64)


def exact_masses(model: LabelRBM) -> Tensor:
    """p(y) by enumeration of all pixels and hidden units."""
    return joint(model).logsumexp((0, 2)).softmax(0)


def test_annealed_masses_are_those_of_the_enumeration() -> None:
    """Also after three temperatures, where the weights have much to mend and chains as they end would be wrong."""
    model = machine(scale=1.5)
    found = class_masses(model, 40_000, 3, seeded_generator(0))
    assert found.sum().item() == pytest.approx(1, abs=1e-9)
    assert torch.allclose(found, exact_masses(model), atol=0.01)
    assert exact_masses(model).max() > 0.5  # far from even


def test_one_move_of_the_biases_leads_to_the_shares_and_nothing_else_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shares with one image more of each class; there the biases' likelihood of labelled images is highest."""
    model = machine(scale=1.5)
    before = copy.deepcopy(model)
    monkeypatch.setattr(class_balance, "class_masses", exact_masses)
    balance_classes(model, COUNTS)
    shares = (COUNTS + 1) / 100
    assert torch.allclose(exact_masses(model), shares, atol=1e-12)
    for name, value in before.named_parameters():
        assert torch.equal(value, model.get_parameter(name)) == (name != "label_bias")
    table = joint(model)
    bias = model.label_bias.detach().clone().requires_grad_()
    moved = table.logsumexp((0, 2)) - model.label_bias.detach() + bias  # log p(y) + log Z as the biases move
    slope = torch.autograd.grad((shares * moved.log_softmax(0)).sum(), bias)[0]
    assert slope.abs().max() < 1e-12


def test_where_few_chains_count_the_biases_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model = machine((1, 4, 4), hidden_units=20, scale=4.0)
    before = model.label_bias.clone()
    assert class_masses(model, 100, 3, seeded_generator(0)) is None
    balance_classes(model, torch.zeros(3, dtype=torch.float64))  # nothing was seen
    monkeypatch.setattr(class_balance, "class_masses", lambda model: None)
    balance_classes(model, COUNTS)
    assert torch.equal(model.label_bias, before)


def test_training_ends_with_the_shares_of_what_it_has_seen() -> None:
    """Of 30 images two thirds are of the first class; counted also after a stop."""
    x, _ = data(30)
    labels = torch.tensor([0] * 20 + [1] * 7 + [2] * 3)
    model = LabelRBM((1, 2, 2), 3, 3).double()
    for _ in train(model, Rows(x, labels), TrainingConfig(epochs=2, batch_size=10, learning_rate=0.05)):
        pass
    expected = (torch.tensor([40.0, 14.0, 6.0], dtype=torch.float64) + 1) / 63
    assert torch.allclose(exact_masses(model), expected, atol=0.05)
    update = HybridDivergence(model, 0.0, chains=4)
    update(Batch(x, labels))
    later = HybridDivergence(model, 0.0, chains=4)
    later.load_state_dict(copy.deepcopy(update.state_dict()))
    later(Batch(x[:5], labels[:5]))
    assert later.class_counts.tolist() == [25, 7, 3]

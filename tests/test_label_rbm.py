"""Laws of the RBM with labels: enumeration over pixels, labels and hidden units, and slopes against autograd."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdm_core.annealing import anneal, anneal_backwards
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.likelihoods.annealing_report import annealing_report
from gdm_core.models.energy.label_rbm import LabelRBM
from gdm_core.models.energy.learning.hybrid_divergence import (
    HybridDivergence,
    discriminative_gradient,
    generative_statistics,
)  # fmt: skip
from gdm_core.randomness import seeded_generator
from gdm_core.training import train
from tests.autoregressive_cases import all_images, chi_square, chi_square_bound


def machine(shape=(1, 2, 2), classes: int = 3, hidden_units: int = 3, scale: float = 1.0, **arguments) -> LabelRBM:
    torch.manual_seed(5)
    model = LabelRBM(shape, classes, hidden_units, **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
        model.base_visible_bias.copy_(0.5 * torch.randn_like(model.base_visible_bias))
    return model


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


@torch.no_grad()
def joint(model: LabelRBM) -> Tensor:
    """-E(v, y, h) of every image, label and hidden state, (2^D, K, 2^hidden), from the parameters alone."""
    v, h = states(model.dimensions), states(len(model.hidden_bias))
    pixels = (v @ model.visible_bias)[:, None] + h @ model.hidden_bias + v @ model.weight.T @ h.T  # (2^D, 2^hidden)
    labels = model.label_bias[:, None] + model.label_weight.T @ h.T  # (K, 2^hidden)
    return pixels[:, None] + labels


def data(n: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 1, 2, 2, generator=seeded_generator(0)).round().double()
    return x, torch.arange(n) % 3


# --- densities by enumeration ------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.5, 2.0, 10.0])
@pytest.mark.parametrize(("shape", "hidden_units"), [((1, 2, 2), 3), ((1, 1, 3), 6)])
def test_the_joint_sums_to_one_and_its_margins_are_those_of_the_enumeration(shape, hidden_units, scale):
    model = machine(shape, hidden_units=hidden_units, scale=scale)
    table, x = joint(model), all_images(shape)
    log_z = model.exact_log_partition()
    torch.testing.assert_close(log_z, table.logsumexp((0, 1, 2)))
    torch.testing.assert_close(-model.class_free_energies(x.flatten(1)), table.logsumexp(2))
    torch.testing.assert_close(-model.energy(x), table.logsumexp((1, 2)))
    assert (-model.energy(x) - log_z).exp().sum().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(model.class_log_prob(x), table.logsumexp(2).log_softmax(1))


@torch.no_grad()
def test_enumeration_in_blocks_is_enumeration_at_once(monkeypatch):
    for model in (machine(hidden_units=3), machine((1, 1, 3), hidden_units=6)):
        whole = model.exact_log_partition()
        monkeypatch.setattr("gdm_core.models.energy.partition.enumeration.BLOCK", 40)
        torch.testing.assert_close(model.exact_log_partition(), whole)
        monkeypatch.undo()


@torch.no_grad()
def test_code_and_surprise_are_the_enumerated_conditionals():
    model = machine()
    table, x = joint(model), all_images((1, 2, 2))
    p_h = table.logsumexp(1).softmax(1)  # (16, 8)
    torch.testing.assert_close(model.encode(x), p_h @ states(3))
    p_x = table.logsumexp((1, 2)).softmax(0)
    weights = torch.tensor([8, 4, 2, 1])
    flipped = (x.flatten(1).long() @ weights)[:, None] + (1 - 2 * x.flatten(1).long()) * weights
    expected = -(p_x[:, None] / (p_x[:, None] + p_x[flipped])).log()
    torch.testing.assert_close(model.surprise_map(x).flatten(1), expected)


# --- learning ----------------------------------------------------------------------------------------------------


def test_the_discriminative_slope_is_that_of_autograd():
    model, (x, labels) = machine(), data()
    (model.class_log_prob(x).gather(1, labels[:, None]).mean()).backward()
    found = discriminative_gradient(model, x.flatten(1), labels)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected, msg=name)


def test_the_generative_statistics_are_slopes_of_the_free_energy():
    model, (x, labels) = machine(), data()
    (-model.class_free_energies(x.flatten(1)).gather(1, labels[:, None]).mean()).backward()
    found = generative_statistics(model, x.flatten(1), labels)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name].detach(), parameter.grad, msg=name)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_step_moves_by_data_less_chains_plus_the_weighted_discriminative_slope(persistent):
    model, (x, labels) = machine(), data()
    update = HybridDivergence(model, 0.1, steps=2, chains=7 if persistent else None, discriminative_weight=1.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(1)
    start = (torch.zeros(7, 4).double(), torch.zeros(7).long()) if persistent else (x.flatten(1), labels)
    end = model.gibbs_step(*model.gibbs_step(*start))
    with torch.no_grad():
        data_side, chain_side = (generative_statistics(model, *pairs) for pairs in ((x.flatten(1), labels), end))
        slope = discriminative_gradient(model, x.flatten(1), labels)
    torch.manual_seed(1)
    metrics = update(Batch(x, labels, progress=0.75))
    assert set(metrics) == {"loss", "class_loss", "free_energy_gap"}
    for name, parameter in model.named_parameters():
        expected = 0.025 * (data_side[name] - chain_side[name] + 1.5 * slope[name])
        torch.testing.assert_close(parameter.detach() - before[name], expected, msg=name)
    if persistent:
        assert torch.equal(update.chains[0], end[0]) and torch.equal(update.chains[1], end[1])


def test_it_learns_which_image_belongs_to_which_class():
    """Images of one row or one column; the class is its number."""
    torch.manual_seed(0)
    images, labels = torch.zeros(240, 1, 4, 4), torch.arange(240) % 4
    images[torch.arange(240), 0, labels] = 1
    images = torch.where((torch.arange(240) % 8 < 4)[:, None, None, None], images, images.mT).contiguous()

    class Rows:
        def __len__(self) -> int:
            return 240

        def batch(self, chosen: Tensor, epoch: int) -> Batch:
            return Batch(images[chosen], labels[chosen])

    model = LabelRBM((1, 4, 4), classes=4, hidden_units=16, sampling_steps=200)
    for _ in train(model, Rows(), TrainingConfig(epochs=60, batch_size=20, learning_rate=0.2)):
        pass
    nats = (model.energy(images).double() + model.exact_log_partition()).mean().item()
    assert math.log(8) < nats < 4.5  # independent pixels: 9.0
    assert (model.class_log_prob(images).argmax(1) == labels).all()
    wanted = torch.arange(200) % 4
    drawn = model.sample(200, labels=wanted, generator=seeded_generator(0))
    assert (model.class_log_prob(drawn).argmax(1) == wanted).float().mean() > 0.8  # a quarter by chance


# --- chains ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_gibbs_step_leaves_the_joint_as_it_is():
    model, n = machine(scale=1.2), 200_000
    p = joint(model).logsumexp(2).flatten().softmax(0)  # (16 * 3,)
    chosen = torch.multinomial(p, n, replacement=True, generator=seeded_generator(0))
    v, labels = model.gibbs_step(states(4)[chosen // 3], chosen % 3, generator=seeded_generator(1))
    counts = torch.bincount((v.long() @ torch.tensor([8, 4, 2, 1])) * 3 + labels, minlength=48)
    assert ((counts - n * p).square() / (n * p)).sum() < chi_square_bound(48)
    assert not torch.equal(v, states(4)[chosen // 3])


@torch.no_grad()
@pytest.mark.parametrize("label", [None, 0, 2])
def test_samples_are_of_their_class_or_of_all(label):
    model = machine(scale=0.8, sampling_steps=40)
    labels = None if label is None else torch.full((20_000,), label)
    drawn = model.sample(20_000, labels=labels, generator=seeded_generator(2))
    table = joint(model).logsumexp(2)
    log_prob = (table.logsumexp(1) if label is None else table[:, label]).log_softmax(0)
    statistic, bound = chi_square(drawn, all_images((1, 2, 2)), log_prob)
    assert statistic < bound


@torch.no_grad()
def test_a_colder_machine_is_the_one_with_larger_parameters():
    model, colder = machine(scale=0.8, sampling_steps=50), machine(scale=1.6)
    drawn = model.sample(50_000, temperature=0.5, generator=seeded_generator(2))
    log_prob = joint(colder).logsumexp((1, 2)).log_softmax(0)
    statistic, bound = chi_square(drawn, all_images((1, 2, 2)), log_prob)
    assert statistic < bound


@torch.no_grad()
def test_completions_follow_the_enumerated_conditional_whatever_the_label():
    model, images = machine(scale=0.8, sampling_steps=40), all_images((1, 2, 2))
    known = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    x = torch.tensor([[[[1.0, math.nan], [7.0, 0.0]]]]).double().expand(20_000, 1, 2, 2)
    completed = model.complete(x, known, generator=seeded_generator(3))
    fits = (images[:, 0, 0, 0] == 1) & (images[:, 0, 1, 1] == 0)
    log_prob = torch.where(fits, joint(model).logsumexp((1, 2)), -math.inf).log_softmax(0)
    statistic, bound = chi_square(completed, images, log_prob)
    assert statistic < bound


@pytest.mark.parametrize("label", [0, 2])
def test_completions_of_a_class_follow_the_enumerated_conditional_of_that_class(label: int):
    model, images = machine(scale=1.5, sampling_steps=40), all_images((1, 2, 2))
    known = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    x = torch.tensor([[[[1.0, math.nan], [7.0, 0.0]]]]).double().expand(10_000, 1, 2, 2)
    labels = torch.full((10_000,), label)
    fits = (images[:, 0, 0, 0] == 1) & (images[:, 0, 1, 1] == 0)
    p = joint(model)
    of_class, of_any = (
        torch.where(fits, log_p.logsumexp(1), -math.inf).log_softmax(0) for log_p in (p[:, label], p.flatten(1))
    )
    completed = model.complete(x, known, generator=seeded_generator(3), labels=labels)
    statistic, bound = chi_square(completed, images, of_class)
    assert statistic < bound
    statistic, bound = chi_square(completed, images, of_any)
    assert statistic > bound  # or the class would not matter
    free = model.complete(x, known, generator=seeded_generator(3))
    statistic, bound = chi_square(free, images, of_any)
    assert statistic < bound


def test_labels_of_completions_are_checked():
    model, x = machine(), torch.zeros(2, 1, 2, 2).double()
    known = torch.ones(1, 1, 2, 2)
    assert torch.equal(model.complete(x, known, labels=torch.tensor([0, 2])), x)
    for bad in (torch.tensor([0]), torch.tensor([0, 9]), torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match="labels"):
            model.complete(x, known, labels=bad)


# --- annealing ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_family_starts_at_the_base_and_ends_at_the_model():
    model = machine()
    family, x = model.tempered(), all_images((1, 2, 2))
    state, _ = family.at_images(x)
    torch.testing.assert_close(family.log_density(state, 1.0), -model.energy(x))
    torch.testing.assert_close(family.log_density(state, 0.0).logsumexp(0), family.base_log_partition())


@torch.no_grad()
@pytest.mark.parametrize("beta", [0.4, 1.0])
def test_a_tempered_step_is_reversible_and_leaves_its_distribution_as_it_is(beta):
    model, x = machine((1, 1, 3), scale=1.5), all_images((1, 1, 3))
    family = model.tempered()
    log_prob = family.log_density(family.at_images(x)[0], beta).log_softmax(0)
    before = torch.multinomial(log_prob.exp(), 300_000, replacement=True, generator=seeded_generator(0))
    after = family.step(family.at_images(x[before])[0], beta, seeded_generator(1)).v
    statistic, bound = chi_square(after.view(-1, 1, 1, 3), x, log_prob)
    assert statistic < bound
    counts = torch.bincount(8 * before + after.long() @ torch.tensor([4, 2, 1]), minlength=64).view(8, 8).double()
    difference = (counts - counts.T) / (counts + counts.T).clamp_min(1).sqrt()  # standard normal if reversible
    assert difference.abs().max() < 4.5 and counts.diagonal().sum() < 0.9 * counts.sum()


@torch.no_grad()
def test_weights_have_the_constant_as_their_mean_from_both_sides():
    model, betas = machine(scale=0.8), torch.tensor([0, 0.3, 0.7, 1.0]).double()
    family, exact, n = model.tempered(), model.exact_log_partition().item(), 60_000
    forwards = anneal(family, n, betas, seeded_generator(0))
    p = joint(model).logsumexp((1, 2)).softmax(0)
    start = states(4)[torch.multinomial(p, n, replacement=True, generator=seeded_generator(1))]
    backwards = anneal_backwards(family, family.at(start), betas, seeded_generator(2))
    assert forwards.logsumexp(0).item() - math.log(n) == pytest.approx(exact, abs=0.02)
    assert math.log(n) - (-backwards).logsumexp(0).item() == pytest.approx(exact, abs=0.02)
    assert forwards.std() > 0.1 and backwards.std() > 0.1


@torch.no_grad()
def test_the_annealing_report_brackets_the_exact_likelihood():
    model, x = machine(scale=0.8), all_images((1, 2, 2))
    report = annealing_report(model, x, 50, 200, 50)
    assert report.exact.value == pytest.approx(report.forwards.value, abs=0.1)
    assert report.gap < 0.2


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [{"classes": 0}, {"hidden_units": 0}, {"steps": 0}, {"chains": 0},
                                 {"sampling_steps": 0}, {"discriminative_weight": -0.1},
                                 {"discriminative_weight": math.nan}])  # fmt: skip
def test_bad_arguments_name_themselves(bad: dict):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LabelRBM((1, 3, 3), **bad)


def test_bad_labels_are_refused_by_name():
    model, (x, labels) = machine(), data()
    update = HybridDivergence(model, 0.1)
    with pytest.raises(ValueError, match="labels are missing"):
        update(Batch(x))
    for bad in (labels[:-1], labels + 1, labels - 1, labels.double(), labels[None], labels.tolist()):
        with pytest.raises(ValueError, match="labels must"):
            update(Batch(x, bad))
        with pytest.raises(ValueError, match="labels must"):
            model.sample(12, labels=bad)

"""Laws of the general Boltzmann machine: enumeration of all its units, and the restricted machine as a special case."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdm_core.annealing import anneal, anneal_backwards, annealed_log_prob
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.data.treatments import treatment_for
from gdm_core.likelihoods import annealing_report, why_not_over_images
from gdm_core.models.energy.boltzmann_machine import BoltzmannMachine
from gdm_core.models.energy.learning.boltzmann_learning import (
    Activity,
    PersistentLearning,
    activity_of_images,
    pair_statistics,
)  # fmt: skip
from gdm_core.models.energy.partition import tempered_boltzmann_machine
from gdm_core.models.energy.partition.tempered_boltzmann_machine import MOST_ENUMERATED
from gdm_core.models.energy.partition.unit_sums import log_sum_of_units
from gdm_core.models.energy.rbm import RestrictedBoltzmannMachine
from gdm_core.models.energy.sampling.gibbs_scan import Units, blocks_of, gibbs_scan, mean_field_scan
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from gdm_core.storage import load_model, save_model
from gdm_core.training import train
from tests.autoregressive_cases import Images, all_images, chi_square, chi_square_bound

SHAPE = (1, 2, 2)
CONNECTIONS = [(True, True), (True, False), (False, True), (False, False)]
every_connection = pytest.mark.parametrize(("visible", "hidden"), CONNECTIONS)


def machine(
    visible: bool = True, hidden: bool = True, shape=SHAPE, hidden_units: int = 3, scale: float = 0.8, **arguments
) -> BoltzmannMachine:
    torch.manual_seed(6)
    model = BoltzmannMachine(shape, hidden_units, visible, hidden, **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
        model.base_visible_bias.copy_(0.5 * torch.randn_like(model.base_visible_bias))
    return model


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


@torch.no_grad()
def joint(model: BoltzmannMachine) -> Tensor:
    """-E(v, h) of every image and hidden state, (2^D, 2^hidden): each pair once, by loops over the pairs."""
    v, h = states(model.dimensions), states(len(model.hidden_bias))
    table = (v @ model.visible_bias)[:, None] + h @ model.hidden_bias + v @ model.weight.T @ h.T
    if model.visible_pairs is not None:
        for pair, (i, j) in zip(model.visible_pairs, itertools.combinations(range(v.shape[1]), 2), strict=True):
            table += (pair * v[:, i] * v[:, j])[:, None]
    if model.hidden_pairs is not None:
        for pair, (i, j) in zip(model.hidden_pairs, itertools.combinations(range(h.shape[1]), 2), strict=True):
            table += pair * h[:, i] * h[:, j]
    return table


# --- densities by enumeration ------------------------------------------------------------------------------------


@torch.no_grad()
@every_connection
@pytest.mark.parametrize("hidden_units", [1, 3, 6])
def test_energy_and_constant_are_those_of_the_enumeration(visible, hidden, hidden_units):
    model = machine(visible, hidden, hidden_units=hidden_units, scale=2.0)
    table, x = joint(model), all_images(SHAPE)
    torch.testing.assert_close(-model.energy(x), table.logsumexp(1))
    torch.testing.assert_close(model.exact_log_partition(), table.logsumexp((0, 1)))
    units = {(True, True): 4 + hidden_units, (True, False): 4, (False, True): hidden_units}
    assert model.enumerable_units() == units.get((visible, hidden), min(4, hidden_units))


@torch.no_grad()
def test_sums_in_blocks_are_sums_at_once(monkeypatch):
    model, x = machine(hidden_units=5), all_images(SHAPE)
    constant, energy = model.exact_log_partition(), model.energy(x)
    monkeypatch.setattr("gdm_core.models.energy.partition.enumeration.BLOCK", 70)
    torch.testing.assert_close(model.exact_log_partition(), constant)
    torch.testing.assert_close(model.energy(x), energy)


@torch.no_grad()
@every_connection
def test_couplings_are_symmetric_without_a_diagonal_and_make_up_the_energy(visible, hidden):
    model = machine(visible, hidden)
    units, s = model.units(), states(7)
    assert torch.equal(units.coupling, units.coupling.T) and not units.coupling.diagonal().any()
    torch.testing.assert_close(units.negative_energy(s).view(8, 16).T, joint(model))


@torch.no_grad()
@every_connection
def test_surprise_is_the_enumerated_conditional(visible, hidden):
    model, x = machine(visible, hidden), all_images(SHAPE)
    p = joint(model).logsumexp(1).softmax(0)
    weights = torch.tensor([8, 4, 2, 1])
    flipped = (x.flatten(1).long() @ weights)[:, None] + (1 - 2 * x.flatten(1).long()) * weights
    torch.testing.assert_close(model.surprise_map(x).flatten(1), -(p[:, None] / (p[:, None] + p[flipped])).log())


@torch.no_grad()
def test_the_annealed_energy_is_near_the_exact_one_and_an_image_s_own(monkeypatch):
    model, x = machine(hidden_units=6, scale=0.7), all_images(SHAPE)[::5]
    exact = model.energy(x)
    monkeypatch.setattr(tempered_boltzmann_machine, "MOST_ENUMERATED", 5)
    annealed = model.energy(x)
    assert not torch.equal(annealed, exact)
    torch.testing.assert_close(annealed, exact, atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cat([model.energy(one[None]) for one in x]), annealed)
    monkeypatch.setattr(tempered_boltzmann_machine, "TEMPERATURES", 3)
    monkeypatch.setattr(tempered_boltzmann_machine, "CHAINS", 20_000)
    torch.testing.assert_close(model.energy(x), exact, atol=0.03, rtol=0)  # the mean weight is right at any schedule
    monkeypatch.setattr(tempered_boltzmann_machine, "CHAINS", 500)
    flips = torch.eye(4).double().view(4, *SHAPE)
    expected = [model.energy(one[None]) - model.energy((one - flips).abs()) for one in x]
    torch.testing.assert_close(model.surprise_map(x).flatten(1), torch.nn.functional.softplus(torch.stack(expected)))


# --- without L and J it is the restricted machine ---------------------------------------------------------------


def restricted(model: BoltzmannMachine, **arguments) -> RestrictedBoltzmannMachine:
    twin = RestrictedBoltzmannMachine(model.data_shape, len(model.hidden_bias), **arguments).double()
    with torch.no_grad():
        for name in ("weight", "visible_bias", "hidden_bias", "base_visible_bias"):
            getattr(twin, name).copy_(getattr(model, name))
    return twin


@torch.no_grad()
@every_connection
def test_with_zero_connections_everything_is_as_in_the_restricted_machine(visible, hidden):
    model = machine(visible, hidden, shape=(1, 3, 3), hidden_units=5, sampling_steps=30)
    for pairs in (model.visible_pairs, model.hidden_pairs):
        if pairs is not None:
            pairs.zero_()
    rbm, x = restricted(model, sampling_steps=30), all_images((1, 3, 3))[::37]
    for name in ("energy", "encode", "reconstruct", "surprise_map"):
        torch.testing.assert_close(getattr(model, name)(x), getattr(rbm, name)(x), msg=name)
    assert torch.equal(model.filters(), rbm.filters())
    torch.testing.assert_close(model.exact_log_partition(), rbm.exact_log_partition())
    known = (torch.arange(9) % 2).double().view(1, 1, 3, 3)
    for temperature in (1.0, 2.0):
        drawn, twins = (m.sample(50, temperature=temperature, generator=seeded_generator(1)) for m in (model, rbm))
        assert torch.equal(drawn, twins)  # draw for draw, by the same uniforms
        filled, twins = (m.complete(x, known, temperature, generator=seeded_generator(2)) for m in (model, rbm))
        assert torch.equal(filled, twins)
    betas = torch.linspace(0, 1, 100, dtype=torch.float64)
    mean = model.anneal(300, betas, seeded_generator(0)).logsumexp(0) - math.log(300)
    assert mean.item() == pytest.approx(rbm.exact_log_partition().item(), abs=0.15)


# --- scans -------------------------------------------------------------------------------------------------------


@torch.no_grad()
@every_connection
@pytest.mark.parametrize("backwards", [False, True])
def test_a_scan_leaves_the_enumerated_distribution_as_it_is(visible, hidden, backwards):
    model, n = machine(visible, hidden, scale=1.2), 200_000
    units, s = model.units(), states(7)
    p = units.negative_energy(s).softmax(0)
    chosen = torch.multinomial(p, n, replacement=True, generator=seeded_generator(0))
    after = gibbs_scan(units, s[chosen], model.uniforms(n, seeded_generator(1)), backwards)
    counts = torch.bincount((after.long() @ (2 ** torch.arange(7).flip(0))), minlength=128)
    rare = n * p < 5
    seen = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
    expected = n * torch.cat([p[~rare], p[rare].sum(0, keepdim=True).clamp_min(1e-9)])
    assert ((seen - expected).square() / expected).sum() < chi_square_bound(len(seen))
    assert not torch.equal(after, s[chosen])


@torch.no_grad()
@pytest.mark.parametrize("backwards", [False, True])
def test_a_scan_by_hand_with_the_same_uniforms(backwards):
    """Unit after unit, each given what the others are by then; more units than one part of a block holds."""
    torch.manual_seed(0)
    upper = 0.3 * torch.randn(75, 75).double().triu(1)
    units = Units(upper + upper.T, torch.randn(75).double(), blocks_of((40, True), (35, True)))
    s, uniforms = torch.rand(6, 75).double().round(), torch.rand(6, 75).double()
    by_hand = s.clone()
    for i in reversed(range(75)) if backwards else range(75):
        inputs = units.bias[i] + by_hand @ units.coupling[:, i]
        by_hand[:, i] = (uniforms[:, i] < torch.sigmoid(inputs)).double()
    before = s.clone()
    assert torch.equal(gibbs_scan(units, s, uniforms, backwards), by_hand)
    assert torch.equal(s, before)


@torch.no_grad()
def test_uniforms_of_0_and_1_hold_a_unit():
    model = machine(scale=50.0)
    uniforms = torch.tensor([[0.0, 1.0] * 3 + [0.0]]).double().expand(128, -1)
    held = gibbs_scan(model.units(), states(7), uniforms)
    assert torch.equal(held, 1 - uniforms)


@torch.no_grad()
def test_mean_field_climbs_to_a_fixed_point_of_its_bound():
    model, x = machine(hidden_units=6, scale=1.5), all_images(SHAPE)
    v = x.flatten(1)
    units = model.units_given(v)
    exact, means, bounds = joint(model).logsumexp(1), torch.full((16, 6), 0.5).double(), []
    for _ in range(40):
        entropy = -(means.xlogy(means) + (1 - means).xlogy(1 - means)).sum(1)
        visible = (v @ model.visible_bias) + ((v @ model.visible_coupling()) * v).sum(1) / 2
        bounds.append(visible + units.negative_energy(means) + entropy)
        means = mean_field_scan(units, means)
    gains = torch.stack(bounds).diff(dim=0)
    assert (gains > -1e-12).all() and (gains[0] > 1e-3).all() and (gains[-1] < 1e-3).all()
    assert (bounds[-1] < exact).all()
    found = model.hidden_means(v)
    torch.testing.assert_close(torch.sigmoid(units.inputs(found)), found, atol=0.02, rtol=0)


@torch.no_grad()
@every_connection
def test_samples_follow_the_enumerated_distribution(visible, hidden):
    model = machine(visible, hidden, scale=0.7, sampling_steps=40)
    drawn = model.sample(20_000, generator=seeded_generator(2))
    statistic, bound = chi_square(drawn, all_images(SHAPE), joint(model).logsumexp(1).log_softmax(0))
    assert statistic < bound


@torch.no_grad()
def test_completions_follow_the_enumerated_conditional():
    model, images = machine(sampling_steps=40), all_images(SHAPE)
    known = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    x = torch.tensor([[[[1.0, math.nan], [7.0, 0.0]]]]).double().expand(20_000, 1, 2, 2)
    completed = model.complete(x, known, generator=seeded_generator(3))
    fits = (images[:, 0, 0, 0] == 1) & (images[:, 0, 1, 1] == 0)
    log_prob = torch.where(fits, joint(model).logsumexp(1), -math.inf).log_softmax(0)
    statistic, bound = chi_square(completed, images, log_prob)
    assert statistic < bound


# --- annealing ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@every_connection
def test_the_family_starts_at_the_base_ends_at_the_machine_and_its_steps_are_reversible(visible, hidden):
    model = machine(visible, hidden, shape=(1, 1, 2), hidden_units=2, scale=1.5)
    family, s = model.tempered(), states(4)
    start, end = (family.log_density(family.at(s), beta).logsumexp(0) for beta in (0.0, 1.0))
    torch.testing.assert_close(start, family.base_log_partition())
    torch.testing.assert_close(end, joint(model).logsumexp((0, 1)))
    p = family.log_density(family.at(s), 0.6).softmax(0)
    before = torch.multinomial(p, 300_000, replacement=True, generator=seeded_generator(0))
    after = family.step(family.at(s[before]), 0.6, seeded_generator(1)).s.long() @ torch.tensor([8, 4, 2, 1])
    counts = torch.bincount(16 * before + after, minlength=256).view(16, 16).double()
    difference = (counts - counts.T) / (counts + counts.T).clamp_min(1).sqrt()  # standard normal if reversible
    assert difference.abs().max() < 4.8 and counts.diagonal().sum() < 0.9 * counts.sum()
    assert ((counts.sum(0) - 300_000 * p).square() / (300_000 * p)).sum() < chi_square_bound(16)


@torch.no_grad()
def test_weights_have_the_constant_as_their_mean_from_both_sides():
    model, betas, n = machine(scale=0.6), torch.tensor([0, 0.3, 0.7, 1.0]).double(), 60_000
    family, exact, s = model.tempered(), model.exact_log_partition().item(), states(7)
    forwards = anneal(family, n, betas, seeded_generator(0))
    chosen = torch.multinomial(model.units().negative_energy(s).softmax(0), n, True, generator=seeded_generator(1))
    backwards = anneal_backwards(family, family.at(s[chosen]), betas, seeded_generator(2))
    assert forwards.logsumexp(0).item() - math.log(n) == pytest.approx(exact, abs=0.03)
    assert math.log(n) - (-backwards).logsumexp(0).item() == pytest.approx(exact, abs=0.03)
    assert forwards.std() > 0.1 and backwards.std() > 0.1


@torch.no_grad()
@every_connection
def test_chains_from_images_are_unbiased_for_any_connections(visible, hidden):
    """Hidden units have their posterior, ends of chains their probabilities, and 1 / Z its mean backwards."""
    model, betas, n = machine(visible, hidden), torch.tensor([0, 0.4, 1.0]).double(), 10_000
    family, x = model.tempered(), all_images(SHAPE)
    start, log_drawn = family.at_images(x.repeat_interleave(n, 0), seeded_generator(0))
    torch.testing.assert_close(log_drawn, family.log_density(start, 1.0) + model.energy(x).repeat_interleave(n))
    w = (annealed_log_prob(family, start, betas, seeded_generator(1)) - log_drawn).view(len(x), n).exp()
    p, variance = w.mean(1), w.var(1) / n
    assert p.sum().item() == pytest.approx(1, abs=0.03)
    state = family.base_sample(200_000, generator := seeded_generator(2))
    for beta in betas[1:].tolist():
        state = family.step(state, beta, generator)
    ends = (state.s[:, None, 3:] == x.flatten(1)).all(2).double().mean(0)
    assert ((p - ends) / (variance + ends * (1 - ends) / 200_000).sqrt()).abs().max() < 4  # standard normal
    drawn = x[torch.multinomial((-model.energy(x)).softmax(0), 100_000, True, generator=seeded_generator(3))]
    log_w = anneal_backwards(family, family.at_images(drawn, seeded_generator(4))[0], betas, seeded_generator(5))
    exact = joint(model).logsumexp((0, 1)).item()
    assert math.log(100_000) - (-log_w).logsumexp(0).item() == pytest.approx(exact, abs=0.03)


@torch.no_grad()
@pytest.mark.parametrize("strength", [1.0, 8.0])
def test_the_report_encloses_what_is_true(strength):
    """Also where hidden units shut each other out, so that their posterior is far from factorial."""
    model, images = machine(scale=1.2), all_images(SHAPE)
    model.hidden_pairs.mul_(strength)
    found = annealing_report(model, images, 300, chains=300, chains_per_image=100)
    exact, log_z = -model.energy(images) - found.exact.value, joint(model).logsumexp((0, 1)).item()
    assert found.backwards_is_bound and found.exact.value == pytest.approx(log_z)
    assert found.forwards.low - 0.02 <= log_z <= found.forwards.high + 0.02
    assert found.backwards.low - 0.02 <= log_z <= found.backwards.high + 0.02
    torch.testing.assert_close(found.conservative, exact, atol=0.3, rtol=0)


def test_an_energy_that_is_an_estimate_is_no_place_to_start():
    model = BoltzmannMachine(SHAPE, MOST_ENUMERATED + 1)
    with pytest.raises(ValueError, match="does not anneal over images.*itself an estimate.*evaluate"):
        annealing_report(model, torch.zeros(1, *SHAPE), 5)
    assert not why_not_over_images(BoltzmannMachine(SHAPE, MOST_ENUMERATED + 1, hidden_connections=False))


# --- learning ----------------------------------------------------------------------------------------------------


@every_connection
def test_statistics_of_exact_draws_are_slopes_of_the_free_energy(visible, hidden):
    model, n = machine(visible, hidden), 400_000
    v = all_images(SHAPE)[5:6]
    (-model.energy(v)).sum().backward()
    h = states(3)[torch.multinomial(joint(model)[5].softmax(0), n, True, generator=seeded_generator(0))]
    pixels = v.flatten(1).expand(n, -1)
    with torch.no_grad():
        p_h = torch.sigmoid(model.units_given(v.flatten(1)).inputs(h))
        found = pair_statistics(Activity(h, p_h, pixels, pixels))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=0.004, rtol=0, msg=name)


@torch.no_grad()
def test_a_pair_counts_by_probabilities_that_have_the_same_mean_as_draws():
    model, n, s = machine(), 400_000, states(7)
    units = model.units()
    drawn = s[torch.multinomial(units.negative_energy(s).softmax(0), n, True, generator=seeded_generator(0))]
    p = torch.sigmoid(units.inputs(drawn))
    smooth = pair_statistics(Activity(drawn[:, :3], p[:, :3], drawn[:, 3:], p[:, 3:]))
    plain = pair_statistics(Activity(drawn[:, :3], drawn[:, :3], drawn[:, 3:], drawn[:, 3:]))
    for name in smooth:
        torch.testing.assert_close(smooth[name], plain[name], atol=0.005, rtol=0, msg=name)


@torch.no_grad()
def test_gibbs_chains_of_the_hidden_units_have_their_posterior():
    model = machine(positive_phase="gibbs")
    activity = activity_of_images(model, all_images(SHAPE)[5:6].flatten(1).expand(100_000, -1))
    expected = joint(model)[5].softmax(0) @ states(3)
    torch.testing.assert_close(activity.h.mean(0), expected, atol=0.01, rtol=0)
    torch.testing.assert_close(activity.p_h.mean(0), expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("positive_phase", ["mean_field", "gibbs"])
def test_a_step_moves_by_data_less_chains(positive_phase):
    model, x = machine(positive_phase=positive_phase), all_images(SHAPE)[3:11]
    update = PersistentLearning(model, 0.1, steps=2, chains=6)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(1)
    data = activity_of_images(model, x.flatten(1))
    units, s = model.units(), torch.zeros(6, 7).double()
    for _ in range(2):
        s = gibbs_scan(units, s, model.uniforms(6, None))
    p = torch.sigmoid(units.inputs(s))
    positive, negative = pair_statistics(data), pair_statistics(Activity(s[:, :3], p[:, :3], s[:, 3:], p[:, 3:]))
    torch.manual_seed(1)
    metrics = update(Batch(x, progress=0.75))
    assert set(metrics) == {"loss", "energy_gap"} and torch.equal(update.chains, s)
    for name, parameter in model.named_parameters():
        expected = 0.025 * (positive[name] - negative[name])
        torch.testing.assert_close(parameter.detach() - before[name], expected.detach(), msg=name)


@pytest.mark.parametrize(("visible", "positive_phase"), [(True, "mean_field"), (True, "gibbs"), (False, "gibbs")])
def test_it_learns_what_goes_with_what(visible, positive_phase):
    """Two coins, each shown twice: 2 log 2 = 1.39 nats at best, 4 log 2 = 2.77 as independent pixels."""
    torch.manual_seed(0)
    coins = torch.rand(200, 1, 1, 2).round()
    x = torch.cat([coins, coins], 3)
    model = BoltzmannMachine((1, 1, 4), 2, visible_connections=visible, positive_phase=positive_phase)
    for _ in train(model, Images(x), TrainingConfig(epochs=40, batch_size=20, learning_rate=1.0)):
        pass
    nats = (model.energy(x).double() + model.exact_log_partition()).mean().item()
    assert 2 * math.log(2) - 0.03 < nats < 2.3


def test_trained_with_all_connections_it_resumes_bit_for_bit_and_is_the_same_once_stored(tmp_path):
    """What the contract's laws assert of the machine without L, whose log Z is a short sum in every shape."""
    x = all_images((1, 3, 3))[::11].float()
    config = TrainingConfig(epochs=2, batch_size=20, learning_rate=0.1)

    def fresh(seed: int) -> BoltzmannMachine:
        torch.manual_seed(seed)
        return build_model("boltzmann_machine", (1, 3, 3), hidden_units=4, positive_phase="gibbs", chains=5)

    whole, resumed = fresh(0), fresh(9)
    states_on_the_way = [torch.save(p.state_dict(), tmp_path / f"{i}.pt") or i
                         for i, p in enumerate(train(whole, Images(x), config))]  # fmt: skip
    assert len(states_on_the_way) == 6
    list(train(resumed, Images(x), config, torch.load(tmp_path / "1.pt", weights_only=True)))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert whole.visible_pairs.any() and whole.hidden_pairs.any()
    save_model(whole, tmp_path / "model", dataset={"name": "made up"}, treatment=treatment_for(None, 5, "binary"))
    assert torch.equal(load_model(tmp_path / "model").model.energy(x), whole.energy(x))


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hidden_units", "steps", "chains", "sampling_steps"])
def test_bad_arguments_name_themselves(name):
    with pytest.raises(ValueError, match=name):
        BoltzmannMachine(SHAPE, **{name: 0})


def test_too_many_units_are_not_enumerated():
    with pytest.raises(ValueError, match=r"2\^76"):
        BoltzmannMachine((1, 8, 8)).exact_log_partition()


def test_the_sum_takes_any_split():
    units = machine(False, True).units()
    whole = log_sum_of_units(units, slice(0, 7), slice(0, 0))
    torch.testing.assert_close(log_sum_of_units(units, slice(0, 3), slice(3, 7)), whole)

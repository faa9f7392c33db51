"""Annealing forwards, backwards and from an image, held against enumeration on small machines."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import Tensor

from gdm_core.annealing import anneal, anneal_backwards, annealed_log_prob
from gdm_core.contract import GenerativeModel
from gdm_core.likelihoods import annealing_report, annealing_report_steps
from gdm_core.likelihoods.log_partition import annealing_schedule, log_partition, standard_schedule
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from tests.autoregressive_cases import all_images, chi_square


def machine(shape: tuple = (1, 2, 3), hidden_units: int = 4, scale: float = 1.2) -> GenerativeModel:
    torch.manual_seed(3)
    model = build_model("rbm", shape, hidden_units=hidden_units).double()
    with torch.no_grad():
        for tensor in (model.weight, model.visible_bias, model.hidden_bias, model.base_visible_bias):
            tensor.copy_(scale * torch.randn_like(tensor))
    return model


def exact_draws(model: GenerativeModel, beta: float, n: int, seed: int) -> Tensor:
    """n draws from p_beta by enumeration, (n, D)."""
    family, states = model.tempered(), all_images(model.data_shape).flatten(1)
    p = family.log_density(family.at(states), beta).softmax(0)
    return states[torch.multinomial(p, n, replacement=True, generator=seeded_generator(seed))]


@torch.no_grad()
def test_the_family_starts_at_the_base_and_ends_at_the_model() -> None:
    model = machine()
    family, x = model.tempered(), all_images(model.data_shape)
    state = family.at(x.flatten(1))
    torch.testing.assert_close(family.log_density(state, 1.0), -model.energy(x))
    torch.testing.assert_close(family.log_density(state, 0.0).logsumexp(0), family.base_log_partition())


@torch.no_grad()
@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_a_step_leaves_the_tempered_distribution_as_it_is(beta: float) -> None:
    model = machine()
    family, x = model.tempered(), all_images(model.data_shape)
    before = family.at(exact_draws(model, beta, 100_000, 0))
    after = family.step(before, beta, seeded_generator(1)).v
    log_prob = family.log_density(family.at(x.flatten(1)), beta).log_softmax(0)
    statistic, bound = chi_square(after.view(-1, *model.data_shape), x, log_prob)
    assert statistic < bound and not torch.equal(before.v, after)


@torch.no_grad()
def test_a_step_is_reversible() -> None:
    """As often from a to b as from b to a, for the pairs that are seen most."""
    model = machine((1, 1, 3), 3)
    family = model.tempered()
    v = exact_draws(model, 0.7, 400_000, 0)
    code = torch.tensor([4.0, 2.0, 1.0]).double()
    pairs = torch.stack([v @ code, family.step(family.at(v), 0.7, seeded_generator(1)).v @ code]).long()
    counts = torch.bincount(8 * pairs[0] + pairs[1], minlength=64).view(8, 8).double()
    difference = (counts - counts.T) / (counts + counts.T).clamp_min(1).sqrt()  # standard normal if reversible
    assert difference.abs().max() < 4.5 and counts.diagonal().sum() < 0.9 * counts.sum()


def test_weights_forwards_and_backwards_have_the_constant_as_their_mean() -> None:
    model, betas = machine(scale=0.8), torch.tensor([0, 0.3, 0.7, 1.0]).double()
    family, exact = model.tempered(), model.exact_log_partition().item()
    forwards = anneal(family, 100_000, betas, seeded_generator(0))
    start = family.at(exact_draws(model, 1.0, 100_000, 1))
    backwards = anneal_backwards(family, start, betas, seeded_generator(2))
    assert forwards.logsumexp(0).item() - math.log(100_000) == pytest.approx(exact, abs=0.02)
    assert math.log(100_000) - (-backwards).logsumexp(0).item() == pytest.approx(exact, abs=0.02)
    assert forwards.std() > 0.2 and backwards.std() > 0.2
    assert forwards.mean() < exact - 0.02 and backwards.mean() > exact + 0.02  # a bound from either side


def test_the_annealed_probabilities_of_all_images_sum_to_one() -> None:
    """However few the temperatures: they belong to the distribution where the chains end."""
    model, betas = machine(scale=0.8), torch.tensor([0, 0.4, 1.0]).double()
    images = all_images(model.data_shape).flatten(1)
    state = model.tempered().at(images.repeat_interleave(4_000, 0))
    log_w = annealed_log_prob(model.tempered(), state, betas, seeded_generator(0)).view(len(images), -1)
    log_p = log_w.logsumexp(1) - math.log(4_000)
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=0.02)
    ends = forward_ends(model, betas, 200_000)
    statistic, bound = chi_square(ends.view(-1, *model.data_shape), images.view(-1, *model.data_shape), log_p)
    assert statistic < 2 * bound  # the probabilities are estimates too


@torch.no_grad()
def forward_ends(model: GenerativeModel, betas: Tensor, n: int) -> Tensor:
    family, generator = model.tempered(), seeded_generator(9)
    state = family.base_sample(n, generator)
    for beta in betas[1:].tolist():
        state = family.step(state, beta, generator)
    return state.v


@torch.no_grad()
def test_annealed_log_probabilities_are_conservative_and_come_near() -> None:
    model = machine(scale=0.8)
    images = all_images(model.data_shape)
    exact = -model.energy(images) - model.exact_log_partition()
    state = model.tempered().at(images.flatten(1).repeat_interleave(50, 0))
    found = annealed_log_prob(model.tempered(), state, annealing_schedule(300), seeded_generator(0)).view(-1, 50)
    weight = exact.exp()
    assert ((found.mean(1) - exact) * weight).sum() < 0
    assert ((found.logsumexp(1) - math.log(50) - exact) * weight).sum().item() == pytest.approx(0, abs=0.05)


# --- schedules, and when not to trust them -----------------------------------------------------------------------


@pytest.mark.parametrize("betas", [[0.5, 1.0], [0.0], [], [0.0, 0.9], [0.0, 0.6, 0.4, 1.0], [0.0, math.nan, 1.0]])
def test_weights_along_what_is_no_schedule_are_refused(betas: list[float]) -> None:
    """By every way that anneals, before anything is drawn."""
    model = machine()
    family, schedule = model.tempered(), torch.tensor(betas).double()
    state = family.at(torch.zeros(3, 6).double())
    for anneals in (lambda: model.anneal(3, schedule), lambda: anneal_backwards(family, state, schedule),
                    lambda: annealed_log_prob(family, state, schedule)):  # fmt: skip
        with pytest.raises(ValueError, match="betas must"):
            anneals()


def test_the_standard_schedule_has_its_three_densities() -> None:
    betas = standard_schedule()
    assert len(betas) == 14_501 and betas[0] == 0 and betas[-1] == 1
    gaps = betas.diff()
    for place, gap in ((slice(0, 500), 1e-3), (slice(500, 4500), 1e-4), (slice(4500, None), 1e-5)):
        torch.testing.assert_close(gaps[place], torch.full_like(gaps[place], gap))


def test_a_schedule_too_short_is_doubted_and_a_long_one_is_not() -> None:
    model = machine((1, 4, 4), 12, scale=1.5)
    short, long = (log_partition(model, n, 100, seeded_generator(0)) for n in (4, 2_000))
    assert "would decide: anneal with more temperatures" in short.doubt
    assert not long.doubt and long.low <= log_partition(model, method="exact").value <= long.high


def test_a_value_that_depends_on_the_schedule_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = machine((1, 4, 4), 12, scale=2.5)
    module = importlib.import_module("gdm_core.likelihoods.log_partition")  # the package has a function of this name
    monkeypatch.setattr(module, "FEWEST_EFFECTIVE", 0)
    assert "instead, so the value still depends" in log_partition(model, 31, 400, seeded_generator(0)).doubt


def test_the_trace_is_the_way_of_the_weights() -> None:
    model = machine()
    found = log_partition(model, 1_000, 20, seeded_generator(0))
    assert torch.equal(found.trace[-1], found.log_weights) and found.trace_betas[-1] == 1
    assert found.trace.shape == (len(found.trace_betas), 20) and 90 <= len(found.trace) <= 120
    assert (found.trace_betas.diff() > 0).all() and found.trace.std(1)[0] < found.trace.std(1)[-1]


# --- the report from all sides -----------------------------------------------------------------------------------


def test_the_report_encloses_what_is_true() -> None:
    model = machine((1, 3, 3), 8, scale=1.2)
    images = all_images(model.data_shape)[::17]
    found = annealing_report(model, images, 400, chains=200, chains_per_image=20)
    exact, log_z = -model.energy(images).detach() - found.exact.value, found.exact.value
    assert found.backwards_is_bound
    assert found.forwards.low <= log_z <= found.forwards.high and found.backwards.low <= log_z <= found.backwards.high
    assert found.conservative.mean() <= exact.mean() + 0.02
    torch.testing.assert_close(found.conservative, exact, atol=0.5, rtol=0)
    torch.testing.assert_close(found.optimistic, exact, atol=0.05, rtol=0)
    assert found.gap == pytest.approx((found.optimistic - found.conservative).mean().item())


def test_from_ends_of_chains_the_report_promises_no_bound() -> None:
    model = machine((1, 5, 5), 21)
    found = annealing_report(model, model.sample(3), 20, chains=10, chains_per_image=2)
    assert not found.backwards_is_bound and found.exact is None and found.conservative.shape == (3,)


def test_the_report_can_be_watched_and_is_the_same() -> None:
    model, shares = machine((1, 3, 3), 4), []
    images = all_images(model.data_shape)[:5]

    def watched():
        steps = annealing_report_steps(model, images, 41, chains=10, chains_per_image=3)
        while True:
            try:
                shares.append(next(steps))
            except StopIteration as end:
                return end.value

    found, alone = watched(), annealing_report(model, images, 41, chains=10, chains_per_image=3)
    for mine, other in ((found.forwards.log_weights, alone.forwards.log_weights),
                        (found.backwards.log_weights, alone.backwards.log_weights),
                        (found.conservative, alone.conservative), (found.optimistic, alone.optimistic)):  # fmt: skip
        assert torch.equal(mine, other)
    assert shares == sorted(shares) and 0.95 < shares[-1] <= 1  # 40 forwards, 10 coarser, 40 backwards, 40 from images
    assert len(shares) == 40 + 10 + 40 + 40 and shares[0] == pytest.approx(1 / 40 * 10 / (21.25 + 15))


def test_a_model_without_such_an_annealing_is_refused() -> None:
    with pytest.raises(ValueError, match="does not anneal over images"):
        annealing_report(build_model("nade", (1, 3, 3)), torch.zeros(1, 1, 3, 3))

"""Laws of the Helmholtz machine: a bound below the enumerated likelihood, and steps along the gradients they claim."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch
from gdm_core.models.energy.helmholtz_machine import HelmholtzMachine
from gdm_core.randomness import seeded_generator
from tests.autoregressive_cases import chi_square_bound


def machine(hidden_units: tuple[int, ...] = (3, 2), **arguments) -> HelmholtzMachine:
    torch.manual_seed(4)
    model = HelmholtzMachine((1, 2, 2), hidden_units, **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return model


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


def all_layers(model: HelmholtzMachine, x: Tensor) -> list[Tensor]:
    """[x, h_1, ..., h_L] of every image with every hidden state, each (hidden states, images, units)."""
    hidden = states(sum(model.hidden_units))[:, None].expand(-1, len(x), -1)
    return [x.expand(len(hidden), -1, -1), *hidden.split(model.hidden_units, -1)]


def enumerated(model: HelmholtzMachine) -> Tensor:
    """log p(x) of all 16 images."""
    return model.joint_log_prob(all_layers(model, states(4))).logsumexp(0)


@torch.no_grad()
@pytest.mark.parametrize("hidden_units", [(3,), (3, 2), (2, 2, 2)])
def test_both_nets_are_normalised(hidden_units):
    model = machine(hidden_units)
    assert enumerated(model).logsumexp(0).item() == pytest.approx(0, abs=1e-12)
    total = model.posterior_log_prob(all_layers(model, states(4))).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros_like(total))


@torch.no_grad()
def test_the_bound_grows_with_its_guesses_and_stays_below_the_likelihood():
    model = machine()
    images, exact = states(4).view(-1, 1, 2, 2), enumerated(model)
    weights = model.log_weights(images, 300_000, seeded_generator(0))
    bounds = [weights.unflatten(0, (-1, k)).logsumexp(1).mean(0) - math.log(k) for k in (1, 10, 3000)]
    assert (bounds[0] < bounds[1]).all() and (bounds[1] < bounds[2]).all() and (bounds[2] < exact + 0.02).all()
    torch.testing.assert_close(bounds[2], exact, rtol=0, atol=0.1)


@torch.no_grad()
def test_the_mean_weight_is_the_likelihood():
    """E_q[p(x, h) / q(h | x)] = p(x), summed over all h."""
    model = machine()
    layers = all_layers(model, states(4))
    posterior = model.posterior_log_prob(layers)
    weights = model.joint_log_prob(layers) - posterior
    torch.testing.assert_close((posterior + weights).logsumexp(0), enumerated(model))


@torch.no_grad()
def test_dreams_follow_the_density():
    model = machine()
    drawn = model.sample(100_000, generator=seeded_generator(3)).flatten(1)
    counts = torch.bincount((drawn @ torch.tensor([8.0, 4, 2, 1]).double()).long(), minlength=16)
    expected = enumerated(model).exp() * 100_000
    assert ((counts - expected) ** 2 / expected).sum().item() < chi_square_bound(16)


def expected_gradients(model: HelmholtzMachine, x: Tensor) -> dict[str, Tensor]:
    """The gradients that the wake and the sleep step follow on average, by enumeration of all h and all dreams."""
    layers = all_layers(model, x)
    q = model.posterior_log_prob(layers).exp().detach()
    wake = -(q * model.joint_log_prob(layers)).sum(0).mean()
    everything = all_layers(model, states(4))
    sleep = -(model.joint_log_prob(everything).exp().detach() * model.posterior_log_prob(everything)).sum()
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(wake + sleep, parameters), strict=True))


def test_wake_sleep_follows_its_two_gradients():
    model, x = machine(learning="wake_sleep"), states(4)[5:7]
    expected = expected_gradients(model, x)
    torch.manual_seed(0)
    model.loss(Batch(x.repeat(40_000, 1).view(-1, 1, 2, 2)))["loss"].backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=0.02, msg=name)


def test_many_reweighted_guesses_follow_the_likelihood():
    """The wake step's gradient tends to that of -log p(x)."""
    model, x = machine(learning="reweighted", guesses=3000), states(4)[5:7]
    exact = -model.joint_log_prob(all_layers(model, x)).logsumexp(0).mean()
    parameters = [*model.generative.parameters(), model.top_bias]
    expected = torch.autograd.grad(exact, parameters)
    torch.manual_seed(0)
    wake = model.loss(Batch(x.repeat(20, 1).view(-1, 1, 2, 2)))["wake"]
    for found, wanted in zip(torch.autograd.grad(wake, parameters), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)


@pytest.mark.parametrize("arguments", [{"hidden_units": ()}, {"hidden_units": (3, 0)}, {"guesses": 0}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        HelmholtzMachine((1, 2, 2), **arguments)


@torch.no_grad()
@pytest.mark.parametrize("hidden_units", [(3,), (3, 2), (2, 2, 2)])
@pytest.mark.parametrize(
    ("shown", "temperature"), [((1, None, 0, None), 1.0), ((None, 0, None, None), 0.3), ((None,) * 4, 1.0)]
)
def test_completions_follow_the_enumerated_conditional(hidden_units, shown, temperature):
    model, n = machine(hidden_units, completion_steps=300), 10_000
    known = torch.tensor([value is not None for value in shown]).view(1, 1, 2, 2).double()
    x = torch.tensor([0.0 if value is None else value for value in shown]).double()
    drawn = model.complete(x.view(1, 1, 2, 2).expand(n, -1, -1, -1), known, temperature, seeded_generator(6))
    counts = torch.bincount((drawn.flatten(1) @ torch.tensor([8.0, 4, 2, 1]).double()).long(), minlength=16)
    for parameter in (*model.generative.parameters(), model.top_bias):  # a temperature divides all logits of p
        parameter.div_(temperature)
    agree = (states(4) == x).logical_or(known.flatten() == 0).all(1)
    p = enumerated(model).exp()[agree]
    assert counts[~agree].sum() == 0
    expected = n * p / p.sum()
    assert ((counts[agree] - expected) ** 2 / expected).sum().item() < chi_square_bound(len(p))


def test_completion_needs_a_step():
    with pytest.raises(ValueError, match="completion_steps must be at least 1, got 0"):
        machine(completion_steps=0)

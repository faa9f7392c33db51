"""log Z: enumeration against brute force, annealing against enumeration, the interval against its definition."""

from __future__ import annotations

import math

import pytest
import torch

import gdm_core.models  # noqa: F401
from gdm_core.likelihoods.log_partition import annealing_schedule, from_log_weights, log_partition
from gdm_core.registry import build_model


def machine(shape=(1, 3, 3), hidden_units: int = 5, scale: float = 1.0):
    model = build_model("rbm", shape, hidden_units=hidden_units).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape))
        model.base_visible_bias.copy_(torch.randn(model.base_visible_bias.shape))
    return model


def brute_force(model) -> float:
    """log of the sum of exp(-E(v, h)) over all pairs."""
    hidden, visible = model.weight.shape
    v = (torch.arange(2**visible)[:, None] >> torch.arange(visible) & 1).double()
    h = (torch.arange(2**hidden)[:, None] >> torch.arange(hidden) & 1).double()
    joint = v @ model.visible_bias + (h @ model.hidden_bias)[:, None] + h @ model.weight @ v.T
    return joint.logsumexp((0, 1)).item()


@pytest.mark.parametrize(("shape", "hidden"), [((1, 3, 3), 5), ((1, 2, 2), 11), ((2, 2, 2), 8)])
def test_enumeration_equals_brute_force_whichever_layer_is_smaller(shape: tuple, hidden: int) -> None:
    model = machine(shape, hidden, scale=2.0)
    z = log_partition(model)
    assert z.value == pytest.approx(brute_force(model), abs=1e-10)
    assert (z.low, z.high, z.kind) == (z.value, z.value, "exact") and float(z) == z.value


def test_enumeration_in_blocks_equals_enumeration_at_once(monkeypatch) -> None:
    model = machine()
    whole = model.exact_log_partition()
    monkeypatch.setattr("gdm_core.models.energy.partition.enumeration.BLOCK", 30)
    assert torch.allclose(model.exact_log_partition(), whole, atol=1e-12)


def test_annealing_covers_enumeration_in_most_seeds_and_never_misses_by_far() -> None:
    model = machine((1, 4, 4), 10, scale=0.8)
    exact = log_partition(model, method="exact").value
    estimates = [log_partition(model, 150, 60, torch.Generator().manual_seed(seed)) for seed in range(40)]
    covered = sum(z.low <= exact <= z.high for z in estimates)
    assert covered >= 33  # of 40 at 95 %: fewer has a chance below 1 %
    assert sum(z.high - z.low for z in estimates) / 40 < 0.5  # and not because the interval is wide
    assert all(abs(z.value - exact) < 0.5 and z.kind == "estimate" for z in estimates)


def test_weights_are_unbiased_for_z_even_with_three_temperatures() -> None:
    model = machine((1, 2, 2), 3, scale=0.5)
    z = log_partition(model, [0.0, 0.4, 1.0], 100_000, torch.Generator().manual_seed(0))
    assert z.value == pytest.approx(brute_force(model), abs=0.01)
    assert z.log_weights.std() > 0.1  # a schedule this coarse leaves the weights far from equal


def test_a_machine_without_couplings_is_annealed_exactly() -> None:
    """With W = 0 and the base-rate bias in place every weight equals Z: nothing is left to chance."""
    model = machine()
    with torch.no_grad():
        model.weight.zero_()
        model.hidden_bias.zero_()
        model.visible_bias.copy_(model.base_visible_bias)
    z = log_partition(model, 10, 5)
    assert z.high - z.low < 1e-9 and z.value == pytest.approx(brute_force(model), abs=1e-9)
    assert z.effective_sample_size == pytest.approx(5)


def test_given_temperatures_mean_annealing_and_method_overrules() -> None:
    model = machine()
    assert log_partition(model).kind == "exact"
    assert log_partition(model, temperatures=20).kind == "estimate"
    assert log_partition(model, method="annealed").temperatures == 1000
    assert log_partition(model, temperatures=20, method="exact").kind == "exact"
    large = build_model("rbm", (1, 5, 5), hidden_units=21)
    assert log_partition(large, chains=4).kind == "estimate"


def test_one_seed_repeats_and_a_count_is_its_schedule() -> None:
    model = machine()
    first = log_partition(model, 30, 8, torch.Generator().manual_seed(1))
    torch.rand(1)
    again = log_partition(model, annealing_schedule(30), 8, torch.Generator().manual_seed(1))
    other = log_partition(model, 30, 8, torch.Generator().manual_seed(2))
    assert torch.equal(first.log_weights, again.log_weights) and first.value != other.value
    assert (first.temperatures, first.chains, first.log_weights.shape) == (30, 8, (8,))


def test_interval_and_effective_sample_size_by_their_definitions() -> None:
    w = torch.tensor([1.0, 2.0, 3.0, 2.0, 2.0], dtype=torch.float64)
    z = from_log_weights(w.log() + 800, 7)  # exp(800) overflows: all of it must happen in log space
    error = 1.96 * w.std() / math.sqrt(5)
    assert z.value == pytest.approx(800 + math.log(2))
    assert z.low == pytest.approx(800 + (w.mean() - error).log().item())
    assert z.high == pytest.approx(800 + (w.mean() + error).log().item())
    assert z.effective_sample_size == pytest.approx(100 / 22)


def test_one_weight_above_all_others_leaves_a_finite_interval_below_the_value() -> None:
    log_w = torch.cat([torch.zeros(9), torch.tensor([50.0])]).double()
    z = from_log_weights(log_w, 2)
    assert z.low == pytest.approx((log_w.mean() - 1.96 * log_w.std() / math.sqrt(10)).item())
    assert z.low < z.value < z.high and z.effective_sample_size == pytest.approx(1)


@pytest.mark.parametrize("temperatures", [1, 0, [0.0], [0.0, 0.5], [0.1, 1.0], [0.0, 0.6, 0.4, 1.0], [0.0, 0.0, 1.0],
                                          "x", 2.5, ["a", "b"]])  # fmt: skip
def test_bad_temperatures_are_refused(temperatures) -> None:
    with pytest.raises(ValueError, match="temperatures must"):
        log_partition(machine(), temperatures)


def test_other_bad_input_is_refused() -> None:
    model = machine()
    with pytest.raises(ValueError, match="chains"):
        log_partition(model, chains=1)
    with pytest.raises(ValueError, match="method"):
        log_partition(model, method="guess")
    with pytest.raises(ValueError, match="no anneal"):
        log_partition(torch.nn.Linear(2, 2), method="annealed")
    with pytest.raises(ValueError, match="no exact_log_partition"):
        log_partition(torch.nn.Linear(2, 2), method="exact")
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        log_partition(model, 10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_parameters_are_no_exact_constant(value: float) -> None:
    model = machine()
    with torch.no_grad():
        model.weight.fill_(value)
        model.visible_bias.fill_(value)
    with pytest.raises(ValueError, match="enumeration gave a log Z that is (nan|-?inf).*finite"):
        log_partition(model, method="exact")

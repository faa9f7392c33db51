"""Laws of the deep Boltzmann machine: its bound, its chains and its constant against enumeration of all its states."""

from __future__ import annotations

import io
import itertools

import pytest
import torch
from torch import Tensor

from gdm_core.annealing import anneal_backwards
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.likelihoods import likelihood, log_partition
from gdm_core.models.energy.dbm import DeepBoltzmannMachine
from gdm_core.models.energy.learning.mean_field_learning import DoubledLayer, MeanFieldLearning, ascent
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.autoregressive_cases import chi_square_bound
from tests.test_rbm import Rows, bars

DEPTHS = pytest.mark.parametrize("hidden_units", [(3, 2), (2, 4), (3, 2, 3), (2, 2, 2, 2)])
CODES = torch.tensor([8.0, 4, 2, 1]).double()


def machine(hidden_units: tuple[int, ...] = (3, 2), scale: float = 1.0, **arguments) -> DeepBoltzmannMachine:
    torch.manual_seed(4)
    model = build_model("dbm", (1, 2, 2), hidden_units=hidden_units, **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
        model.base_bias.copy_(0.5 * torch.randn_like(model.base_bias))
    return model


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


IMAGES = states(4).view(-1, 1, 2, 2)


def log_joint(model: DeepBoltzmannMachine) -> Tensor:
    """-E(v, h) of all 16 images (rows) with all hidden states, from nothing of the model but its parameters."""
    everything = states(sum(model.sizes))
    layers = everything.split(model.sizes, 1)
    total = sum(layer @ bias for layer, bias in zip(layers, model.biases, strict=True))
    for weight, below, above in zip(model.weights, layers[:-1], layers[1:], strict=True):
        total = total + torch.einsum("na,ab,nb->n", above, weight, below)
    return total.detach().view(16, -1)


def log_prob(model: DeepBoltzmannMachine) -> Tensor:
    """log p(v) of all images."""
    joint = log_joint(model)
    return joint.logsumexp(1) - joint.logsumexp((0, 1))


def counts_of(images: Tensor) -> Tensor:
    return torch.bincount((images.flatten(1) @ CODES).long(), minlength=16)


# --- the bound and the constant ----------------------------------------------------------------------------------


@DEPTHS
@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0])
def test_the_bound_lies_below_the_likelihood_and_the_constant_is_the_sum_over_all_states(hidden_units, scale):
    model = machine(hidden_units, scale)
    torch.testing.assert_close(model.exact_log_partition(), log_joint(model).logsumexp((0, 1)))
    bound = model.unnormalised_bound(IMAGES, 1) - model.exact_log_partition()
    assert bound.dtype == torch.float64 and bound.isfinite().all()
    assert (bound <= log_prob(model) + 1e-9).all()
    gap = (log_prob(model) - bound).max().item()
    assert gap > 1e-6 or scale == 10, "a posterior that is not factorial leaves a gap, unless all units are sure"


@DEPTHS
def test_with_weak_couplings_between_hidden_layers_the_gap_closes(hidden_units):
    model = machine(hidden_units, 0.7)
    with torch.no_grad():
        for weight in list(model.weights)[1:]:
            weight.mul_(0.05)
    gap = log_prob(model) - (model.unnormalised_bound(IMAGES, 1) - model.exact_log_partition())
    assert 0 <= gap.min() and gap.max() < 1e-3


@DEPTHS
def test_without_upper_weights_it_is_a_restricted_machine(hidden_units):
    model = machine(hidden_units)
    rbm = build_model("rbm", (1, 2, 2), hidden_units=hidden_units[0]).double()
    with torch.no_grad():
        for weight in list(model.weights)[1:]:
            weight.zero_()
        rbm.weight.copy_(model.weights[0])
        rbm.visible_bias.copy_(model.biases[0])
        rbm.hidden_bias.copy_(model.biases[1])
    bound = model.unnormalised_bound(IMAGES, 1) - model.exact_log_partition()
    torch.testing.assert_close(bound, (-rbm.energy(IMAGES) - rbm.exact_log_partition()).detach())
    torch.testing.assert_close(model.hidden_layers(IMAGES)[0], rbm.encode(IMAGES).detach())


@DEPTHS
@torch.no_grad()
def test_the_fixed_point_equations_hold(hidden_units):
    model = machine(hidden_units, 0.7, mean_field_steps=2000, tolerance=1e-13)
    layers = model.mean_field(states(4))
    for i in range(1, len(layers)):
        below = layers[i - 1] @ model.weights[i - 1].T
        above = layers[i + 1] @ model.weights[i] if i + 1 < len(layers) else 0
        torch.testing.assert_close(layers[i], torch.sigmoid(below + above + model.biases[i]), atol=1e-11, rtol=0)


@DEPTHS
@torch.no_grad()
def test_no_update_of_a_layer_lowers_the_bound(hidden_units):
    model = machine(hidden_units, 2.0)
    layers = [states(4), *(torch.rand(16, units, dtype=torch.float64) for units in hidden_units)]
    bounds = [model.bound_at(layers)]
    for layer in [*range(1, len(layers)), *range(len(layers) - 1, 0, -1)] * 3:
        layers[layer] = torch.sigmoid(model.input_of(layer, layers))
        bounds.append(model.bound_at(layers))
    steps = torch.stack(bounds).diff(dim=0)
    assert steps.min() > -1e-12 and steps[0].min() > 1e-3
    assert (bounds[-1] <= log_joint(model).logsumexp(1) + 1e-9).all()


@torch.no_grad()
def test_an_image_stops_by_itself():
    """Where inference stops for an image must not depend on the others; more sweeps raise the bound."""
    model = machine((3, 2), 2.0, tolerance=0.02)
    together = model.mean_field(states(4))
    for i in range(16):
        for one, all_ in zip(model.mean_field(states(4)[i : i + 1]), together, strict=True):
            torch.testing.assert_close(one[0], all_[i], atol=1e-12, rtol=0)
    fixed = machine((3, 2), 2.0, tolerance=1e-13, mean_field_steps=2000)
    one_sweep = machine((3, 2), 2.0, mean_field_steps=1)
    assert (fixed.unnormalised_bound(IMAGES, 1) > model.unnormalised_bound(IMAGES, 1) - 1e-12).all()
    assert (model.unnormalised_bound(IMAGES, 1) > one_sweep.unnormalised_bound(IMAGES, 1) - 1e-12).all()
    assert not torch.equal(fixed.mean_field(states(4))[2], together[2])


@pytest.mark.parametrize("hidden_units", [(3, 2), (2, 2, 2)])
def test_annealing_is_unbiased_with_four_temperatures(hidden_units):
    model = machine(hidden_units, 0.6)
    z = log_partition(model, [0.0, 0.3, 0.7, 1.0], 100_000, seeded_generator(0))
    exact = log_joint(model).logsumexp((0, 1)).item()
    assert z.value == pytest.approx(exact, abs=0.015) and z.log_weights.std() > 0.1
    folded, betas = model.folded(), torch.linspace(0, 1, 4, dtype=torch.float64)
    even = states(folded.dimensions)
    p = (-folded.free_energy(even)).softmax(0)
    drawn = even[torch.multinomial(p, 100_000, replacement=True, generator=seeded_generator(1))]
    family = model.tempered()
    back = anneal_backwards(family, family.at(drawn), betas, seeded_generator(2))
    assert -(-back).exp().mean().log().item() == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("hidden_units", [(3, 2), (2, 2, 2)])
def test_annealing_from_both_ends_brackets_the_enumerated_constant(hidden_units):
    """Single weights forwards are on average too small, backwards from exact draws too large: further apart when short.
    """
    model, gaps = machine(hidden_units, 1.5), []
    exact, folded, family = log_joint(model).logsumexp((0, 1)).item(), model.folded(), model.tempered()
    even = states(folded.dimensions)
    p = (-folded.free_energy(even)).softmax(0)
    drawn = even[torch.multinomial(p, 20_000, replacement=True, generator=seeded_generator(1))]
    for temperatures in (4, 40):
        betas = torch.linspace(0, 1, temperatures, dtype=torch.float64)
        below = model.anneal(20_000, betas, seeded_generator(0)).mean().item()
        above = anneal_backwards(family, family.at(drawn), betas, seeded_generator(2)).mean().item()
        assert below < exact < above
        gaps.append(above - below)
    assert gaps[1] < gaps[0] / 3


# --- chains ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_units", [(3, 2), (2, 1, 2)])
def test_a_gibbs_sweep_leaves_the_enumerated_joint_as_it_is(hidden_units):
    """Of pixels and even hidden layers; started elsewhere one sweep does not already land there."""
    model, n = machine(hidden_units), 100_000
    folded = model.folded()
    everything = states(sum(model.sizes)).split(model.sizes, 1)
    even = torch.cat(everything[::2], 1)
    codes = 2 ** torch.arange(even.shape[1]).double()
    joint = log_joint(model).flatten().softmax(0)
    p = torch.zeros(2 ** even.shape[1], dtype=torch.float64).index_add(0, (even @ codes).long(), joint)

    def one_sweep(start: Tensor) -> Tensor:
        after = folded.gibbs_step(start, generator=seeded_generator(1))
        return torch.bincount((after @ codes).long(), minlength=len(p))

    exact = even[torch.multinomial(joint, n, replacement=True, generator=seeded_generator(0))]
    assert (n * (one_sweep(exact) / n - p).square() / p).sum() < chi_square_bound(len(p))
    assert (one_sweep(torch.zeros_like(exact)) / n - p).abs().sum() > 0.05


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_follow_the_enumerated_density(temperature):
    model, n = machine((3, 2), sampling_steps=40), 20_000
    x = model.sample(n, temperature=temperature, generator=seeded_generator(3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(temperature)
    expected = log_prob(model).exp() * n
    assert ((counts_of(x) - expected) ** 2 / expected).sum() < chi_square_bound(16)


def test_chains_come_to_the_density_from_any_image():
    model, n = machine((3, 2)), 20_000
    *_, last = itertools.islice(model.chain_steps(IMAGES[-1:].expand(n, -1, -1, -1), generator=seeded_generator(5)), 40)
    expected = log_prob(model).exp() * n
    assert ((counts_of(last) - expected) ** 2 / expected).sum() < chi_square_bound(16)


def test_completion_follows_the_enumerated_conditional():
    model, n = machine((3, 2), sampling_steps=40), 20_000
    known = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    x = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64).expand(n, -1, -1, -1)
    counts = counts_of(model.complete(x, known, generator=seeded_generator(6)))
    p = log_prob(model).exp()
    agree = (IMAGES[:, 0, 0, 0] == 1) & (IMAGES[:, 0, 1, 0] == 0)
    assert counts[~agree].sum() == 0
    expected = n * p[agree] / p[agree].sum()
    assert ((counts[agree] - expected) ** 2 / expected).sum() < chi_square_bound(4)


# --- learning ----------------------------------------------------------------------------------------------------


def log_density_of_even(model: DeepBoltzmannMachine, even: Tensor) -> Tensor:
    """log of exp(-E) summed over the odd layers, as autograd sees it, (n,)."""
    states = even.split(model.sizes[::2], 1)
    total = sum(state @ bias for state, bias in zip(states, list(model.biases)[::2], strict=True))
    for i in range(1, len(model.sizes), 2):
        logits = model.biases[i] + states[i // 2] @ model.weights[i - 1].T
        if i + 1 < len(model.sizes):
            logits = logits + states[i // 2 + 1] @ model.weights[i]
        total = total + (1 + logits.exp()).log().sum(1)
    return total


@DEPTHS
def test_a_step_ascends_the_bound_minus_the_constant_as_its_chains_see_it(hidden_units):
    """And slower as the phase goes on. The chains themselves follow the Gibbs law above."""
    model, twin = machine(hidden_units), machine(hidden_units)
    x = torch.bernoulli(torch.full((8, 1, 2, 2), 0.5, dtype=torch.float64))
    update = MeanFieldLearning(model, 0.4, 1, 12)
    chains = update.chains
    metrics = update(Batch(x, progress=0.75))
    assert not torch.equal(update.chains, chains) and metrics["loss"].isfinite()
    objective = twin.bound_at(twin.mean_field(x.flatten(1))).mean() - log_density_of_even(twin, update.chains).mean()
    objective.backward()
    for (name, parameter), start in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter - start, 0.1 * start.grad, msg=name)


@DEPTHS
def test_the_centred_step_is_the_gradient_in_centred_parameters(hidden_units):
    """Of E written in h_l - o_l with weights W and biases a_l = b_l + W_l o_{l-1} + W_{l+1}'o_{l+1}."""
    model = machine(hidden_units)
    offsets = [torch.rand(units, dtype=torch.float64) for units in model.sizes]
    data, chains = ([torch.rand(n, units, dtype=torch.float64) for units in model.sizes] for n in (6, 9))
    weights = [weight.detach().clone().requires_grad_() for weight in model.weights]
    centred = [torch.zeros(units, dtype=torch.float64, requires_grad=True) for units in model.sizes]

    def minus_energy(layers: list[Tensor]) -> Tensor:
        moved = [states - offset for states, offset in zip(layers, offsets, strict=True)]
        total = sum((m @ a).mean() for m, a in zip(moved, centred, strict=True))
        pairs = zip(weights, itertools.pairwise(moved), strict=True)
        return total + sum(((below @ weight.T) * above).sum(1).mean() for weight, (below, above) in pairs)

    (minus_energy(data) - minus_energy(chains)).backward()
    found_weights, found_biases = ascent(data, chains, offsets)
    for i, (found, weight) in enumerate(zip(found_weights, weights, strict=True)):
        torch.testing.assert_close(found, weight.grad)
        centred[i + 1].grad -= weight.grad @ offsets[i]
        centred[i].grad -= offsets[i + 1] @ weight.grad
    for found, a in zip(found_biases, centred, strict=True):
        torch.testing.assert_close(found, a.grad)


@pytest.mark.parametrize("layer, copies", [(0, (2, 1)), (1, (2, 2)), (2, (1, 2))])
def test_a_doubled_layer_is_a_restricted_machine_of_tied_copies(layer, copies):
    """Its chain leaves the enumerated joint of all copies as it is; a step follows its two averages."""
    model, n = machine((2, 2, 2)), 100_000
    update = DoubledLayer(model, layer, 0.3, 1)
    assert (update.visible_copies, update.hidden_copies) == copies
    units = [update.weight.shape[1], update.weight.shape[0]]
    everything = states(units[0] * copies[0] + units[1] * copies[1])
    v = everything[:, : units[0] * copies[0]].unflatten(1, (copies[0], -1)).sum(1)
    h = everything[:, units[0] * copies[0] :].unflatten(1, (copies[1], -1)).sum(1)
    joint = v @ update.visible_bias + h @ update.hidden_bias + torch.einsum("nh,hv,nv->n", h, update.weight, v)
    p = joint.detach().softmax(0)
    codes = 3.0 ** torch.arange(units[0]).double()
    expected = torch.zeros(3 ** units[0], dtype=torch.float64).index_add(0, (v @ codes).long(), p)
    torch.manual_seed(0)
    with torch.no_grad():
        after = update.gibbs_step(v[torch.multinomial(p, n, replacement=True)])
    counts, possible = torch.bincount((after @ codes).long(), minlength=len(expected)), expected > 0
    assert counts[~possible].sum() == 0
    chi_square = ((counts - n * expected)[possible].square() / (n * expected[possible])).sum()
    assert chi_square < chi_square_bound(int(possible.sum()))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_doubled_layer_s_step_by_its_formula(layer):
    model, twin = machine((2, 3, 2)), machine((2, 3, 2))
    update, before = DoubledLayer(model, layer, 0.3, 2), DoubledLayer(twin, layer, 0.3, 2)
    for one in (update, before):
        one.visible_bias.data.copy_(torch.linspace(-1, 1, model.sizes[layer]))
    v = torch.bernoulli(torch.full((6, model.sizes[layer]), 0.5, dtype=torch.float64))
    torch.manual_seed(1)
    update(Batch(v, progress=0.5))
    torch.manual_seed(1)
    with torch.no_grad():
        copies = before.gibbs_step(before.gibbs_step(before.visible_copies * v))
        data = torch.sigmoid(before.visible_copies * v @ before.weight.T + before.hidden_bias)
        end = torch.sigmoid(copies @ before.weight.T + before.hidden_bias)
        mean = copies / before.visible_copies
        torch.testing.assert_close(update.weight - before.weight, 0.15 * (data.T @ v - end.T @ mean) / 6)
        torch.testing.assert_close(update.hidden_bias - before.hidden_bias, 0.15 * (data - end).mean(0))
        torch.testing.assert_close(update.visible_bias - before.visible_bias, 0.15 * (v - mean).mean(0))


def test_training_learns_the_bars_and_how_often_units_are_on():
    torch.manual_seed(0)
    data = bars(240)
    model = build_model("dbm", (1, 4, 4), hidden_units=(10, 6))
    phases = []
    for progress in train(model, Rows(data), TrainingConfig(epochs=100, batch_size=20, learning_rate=0.2)):
        if progress.end_of_epoch:
            phases.append(progress.phase)
    assert [phases.count(name) for name in ("layer 1", "layer 2", "mean field")] == [10, 10, 80]
    found = likelihood(model, data)
    assert found.kind == "lower bound" and -5 < found.mean < -2.07  # log 8 = 2.08 is perfect; apart, pixels have 9
    assert torch.allclose(model.base_bias[:16].sigmoid(), data.mean(0).flatten(), atol=0.01)
    estimate = likelihood(model, data, temperatures=200)
    assert estimate.kind == "bound with estimated normaliser"
    assert estimate.log_partition.value == pytest.approx(found.log_partition.value, abs=0.2)


@pytest.mark.parametrize("centred", [True, False])
def test_resumed_in_any_phase_it_is_bit_identical(centred: bool):
    def fresh(seed: int):
        torch.manual_seed(seed)
        return build_model("dbm", (1, 4, 4), hidden_units=(6, 5, 4), pretraining=0.6, centred=centred,
                           sampling_steps=3)  # fmt: skip

    data, config = Rows(bars(50)), TrainingConfig(epochs=10, batch_size=16, learning_rate=0.1, seed=4)
    whole, saved, phases = fresh(0), [], []
    for progress in train(whole, data, config):
        phases.append(progress.phase)
        file = io.BytesIO()
        torch.save(progress.state_dict(), file)
        saved.append(file.getvalue())
        whole.sample(1)
    assert list(dict.fromkeys(phases)) == ["layer 1", "layer 2", "layer 3", "mean field"] and len(saved) == 40
    for step in (3, 8, 13, 24, 30):  # in and at the ends of phases
        resumed = fresh(9)
        resume = torch.load(io.BytesIO(saved[step - 1]), weights_only=True)
        assert len(list(train(resumed, data, config, resume))) == 40 - step
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), (step, name)


@pytest.mark.parametrize("bad", [{"hidden_units": (3,)}, {"hidden_units": (3, 0)}, {"steps": 0}, {"chains": 0},
                                 {"sampling_steps": 0}, {"mean_field_steps": 0}, {"pretraining": 1.0},
                                 {"pretraining_rate": 0.0}, {"tolerance": 0.0}])  # fmt: skip
def test_bad_arguments_name_themselves(bad: dict):
    with pytest.raises(ValueError, match=next(iter(bad))):
        build_model("dbm", (1, 3, 3), **bad)

"""Laws of the deep belief network: a bound below the enumerated likelihood, tight where it must be, never worse."""

from __future__ import annotations

import io
import itertools

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.likelihoods import likelihood
from gdm_core.models.energy.dbn import DeepBeliefNetwork
from gdm_core.models.energy.learning.contrastive_divergence import ContrastiveDivergence
from gdm_core.models.energy.learning.greedy_layers import turn_upside_down
from gdm_core.models.energy.learning.up_down import UpDown, generative_ascent, recognition_ascent
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from gdm_core.training import train
from gdm_core.updates import OnFeatures, split_epochs
from tests.autoregressive_cases import chi_square_bound
from tests.test_rbm import Rows, bars


def network(hidden_units: tuple[int, ...] = (3, 2), shape=(1, 2, 2), scale: float = 1.0, **arguments):
    torch.manual_seed(4)
    model = build_model("dbn", shape, hidden_units=hidden_units, **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return model


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


def all_layers(model: DeepBeliefNetwork, x: Tensor) -> list[Tensor]:
    """[x, h_1, ..., h_{L-1}] of every image with every state of the guessed units, each (states images, units)."""
    hidden = states(sum(model.guessed_units)).repeat_interleave(len(x), 0)
    return [x.repeat(len(hidden) // len(x), 1), *hidden.split(model.guessed_units, 1)]


def log_joint(model: DeepBeliefNetwork, layers: list[Tensor]) -> Tensor:
    """log p(x, h_1, ..., h_{L-1}) from nothing of the model but its parameters; the top machine's states enumerated."""
    total = torch.zeros(len(layers[0]), dtype=torch.float64)
    for machine, below, above in zip(model.machines, layers[:-1], layers[1:], strict=False):
        p = torch.sigmoid(above @ machine.weight + machine.visible_bias)
        total += torch.where(below == 1, p, 1 - p).log().sum(1)
    weight, b, c = model.top.weight, model.top.visible_bias, model.top.hidden_bias
    v, h = states(len(b)), states(len(c))
    log_z = (v @ b + (h @ c)[:, None] + h @ weight @ v.T).logsumexp((0, 1))
    return total + (layers[-1] @ b + (h @ c)[:, None] + h @ weight @ layers[-1].T).logsumexp(0) - log_z


def enumerated(model: DeepBeliefNetwork) -> Tensor:
    """log p(x) of all images."""
    images = states(model.dimensions)
    return log_joint(model, all_layers(model, images)).view(-1, len(images)).logsumexp(0)


def as_images(model: DeepBeliefNetwork, vectors: Tensor) -> Tensor:
    return vectors.view(-1, *model.data_shape)


@torch.no_grad()
@pytest.mark.parametrize("hidden_units", [(3, 2), (2, 4), (3, 2, 3)])
@pytest.mark.parametrize("scale", [0.5, 2.0, 10.0])
def test_the_bound_is_its_expectation_and_lies_below_the_enumerated_likelihood(hidden_units, scale):
    model = network(hidden_units, scale=scale)
    exact = enumerated(model)
    assert exact.logsumexp(0).item() == pytest.approx(0, abs=1e-9)
    images, layers = states(4), all_layers(model, states(4))
    log_q = sum(model.recognition_log_probs(layers))
    gain = torch.where(log_q > -700, log_joint(model, layers) - log_q, torch.zeros_like(log_q))
    expected = (log_q.exp() * gain).view(-1, 16).sum(0)
    assert (expected <= exact + 1e-9).all() and (expected < exact - 0.01).any()
    found = model.unnormalised_bound(as_images(model, images), 20_000, seeded_generator(0))
    found -= model.exact_log_partition()
    deviation = (log_q.exp() * (gain - expected.repeat(len(gain) // 16)).square()).view(-1, 16).sum(0).sqrt()
    assert ((found - expected).abs() <= 5 * deviation / 20_000**0.5 + 1e-6).all()


@torch.no_grad()
@pytest.mark.parametrize("hidden_units", [(3, 4), (3, 6), (3, 4, 3)])
def test_upside_down_on_top_the_bound_is_the_first_machine_s_likelihood(hidden_units):
    """Every draw of h gives the same number, because the guesses are exact; idle units above change nothing."""
    model = network(hidden_units)
    model.machines[1].weight[4:] = 0
    turn_upside_down(model, 0)
    x, first = as_images(model, states(4)), model.machines[0]
    expected = -first.free_energy(states(4)) - first.exact_log_partition()
    torch.testing.assert_close(enumerated(model), expected)
    for seed in range(3):
        found = model.unnormalised_bound(x, 1, seeded_generator(seed)) - model.exact_log_partition()
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_a_smaller_top_is_left_as_it_is():
    model = network((3, 2))
    before = model.top.weight.clone()
    turn_upside_down(model, 0)
    assert torch.equal(model.top.weight, before)
    assert torch.equal(model.recognition_weights[0], model.machines[0].weight)


@torch.no_grad()
def test_the_guesses_are_worked_off_in_parts(monkeypatch):
    model = network((3, 2))
    x = as_images(model, states(4))
    whole = model.unnormalised_bound(x, 9, seeded_generator(1))
    monkeypatch.setattr("gdm_core.models.energy.dbn.ACTIVATIONS_AT_ONCE", 300)
    torch.testing.assert_close(model.unnormalised_bound(x, 9, seeded_generator(1)), whole)


@torch.no_grad()
@pytest.mark.parametrize("hidden_units", [(3, 2), (3, 2, 2)])
@pytest.mark.parametrize(
    ("shown", "temperature"), [((1, None, 0, None), 1.0), ((None, 0, None, None), 0.7), ((None,) * 4, 1.0)]
)
def test_completions_follow_the_enumerated_conditional(hidden_units, shown, temperature):
    model, n = network(hidden_units, sampling_steps=300), 5_000
    known = torch.tensor([value is not None for value in shown]).double()
    x = torch.tensor([0.0 if value is None else value for value in shown]).double()
    drawn = model.complete(as_images(model, x.expand(n, -1)), as_images(model, known), temperature, seeded_generator(6))
    counts = torch.bincount((drawn.flatten(1) @ torch.tensor([8.0, 4, 2, 1]).double()).long(), minlength=16)
    for parameter in model.machines.parameters():  # a temperature divides all of p
        parameter.div_(temperature)
    agree = (states(4)[:, known == 1] == x[known == 1]).all(1)
    p = enumerated(model).exp()[agree]
    assert counts[~agree].sum() == 0
    expected = n * p / p.sum()
    assert ((counts[agree] - expected) ** 2 / expected).sum().item() < chi_square_bound(len(p))


@torch.no_grad()
def test_guesses_that_are_poor_are_made_up_for():
    """A recognition net that knows nothing of the image still leaves the conditional as it is."""
    model, n = network((3, 2), sampling_steps=300), 5_000
    model.recognition_weights[0].zero_()
    model.machines[0].hidden_bias.fill_(0.7)
    known = torch.tensor([1.0, 0, 0, 1.0]).double()
    x = torch.tensor([1.0, 0, 0, 0]).double()
    drawn = model.complete(as_images(model, x.expand(n, -1)), as_images(model, known), generator=seeded_generator(6))
    counts = torch.bincount((drawn.flatten(1)[:, 1:3] @ torch.tensor([2.0, 1]).double()).long(), minlength=4)
    p = enumerated(model).exp()[[8, 10, 12, 14]]
    expected = n * p / p.sum()
    assert ((counts - expected) ** 2 / expected).sum().item() < chi_square_bound(4)


@torch.no_grad()
@pytest.mark.parametrize("hidden_units", [(3, 2), (3, 2, 2)])
def test_samples_follow_the_density(hidden_units):
    model, n = network(hidden_units, sampling_steps=30), 20_000
    drawn = model.sample(n, generator=seeded_generator(3)).flatten(1)
    counts = torch.bincount((drawn @ torch.tensor([8.0, 4, 2, 1]).double()).long(), minlength=16)
    expected = enumerated(model).exp() * n
    assert ((counts - expected) ** 2 / expected).sum().item() < chi_square_bound(16)


@torch.no_grad()
def test_chains_come_to_the_density_from_any_image():
    model, n = network((3, 2)), 20_000
    chain = model.chain_steps(torch.ones(n, 1, 2, 2, dtype=torch.float64), generator=seeded_generator(5))
    *_, last = itertools.islice(chain, 40)
    counts = torch.bincount((last.flatten(1) @ torch.tensor([8.0, 4, 2, 1]).double()).long(), minlength=16)
    expected = enumerated(model).exp() * n
    assert ((counts - expected) ** 2 / expected).sum().item() < chi_square_bound(16)


def test_one_temperature_divides_every_logit():
    model, n = network((3, 2), sampling_steps=30), 20_000
    drawn = model.sample(n, temperature=2.0, generator=seeded_generator(3)).flatten(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(2)
        counts = torch.bincount((drawn @ torch.tensor([8.0, 4, 2, 1]).double()).long(), minlength=16)
        expected = enumerated(model).exp() * n
    assert ((counts - expected) ** 2 / expected).sum().item() < chi_square_bound(16)


# --- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_units", [(3, 2), (2, 2, 3)])
def test_the_steps_up_and_down_are_gradients_by_enumeration(hidden_units):
    """Averaged over q(h | x) the one ascends log p below the top, averaged over p(x, h) the other ascends log q."""
    model = network(hidden_units)
    layers = all_layers(model, states(4))
    log_q = sum(model.recognition_log_probs(layers))
    for weights, value, ascent in (
        (log_q.exp().detach() / 16, sum(model.generative_log_probs(layers)), generative_ascent),
        (log_joint(model, layers).exp().detach(), log_q, recognition_ascent),
    ):
        parameters = [parameter for parameter, _ in ascent(model, layers)]
        expected = torch.autograd.grad((weights * value).sum(), parameters, retain_graph=True)
        found = [torch.zeros_like(parameter) for parameter in parameters]
        for i, weight in enumerate(weights):
            for total, (_, step) in zip(found, ascent(model, [layer[i : i + 1] for layer in layers]), strict=True):
                total += weight * step.detach()
        for left, right in zip(found, expected, strict=True):
            torch.testing.assert_close(left, right)


def test_an_up_down_step_is_made_of_its_three_parts():
    """The same random numbers through the model's own functions; the learning rate falls with progress."""
    model, twin = network((3, 2)), network((3, 2))
    x = torch.bernoulli(torch.full((8, 1, 2, 2), 0.5, dtype=torch.float64))
    top = ContrastiveDivergence(model.top, 1.0, 1, 5)
    torch.manual_seed(1)
    metrics = UpDown(model, 0.4, top, 2)(Batch(x, progress=0.75))
    torch.manual_seed(1)
    awake = twin.recognise(x.flatten(1))
    asleep = twin.generate(twin.top.gibbs_step(twin.top.gibbs_step(awake[-1])))
    for ascent, layers in ((generative_ascent, awake), (recognition_ascent, asleep)):
        for (moved, _), (start, step) in zip(ascent(model, layers), ascent(twin, layers), strict=True):
            torch.testing.assert_close(moved - start, 0.1 * step)
    assert metrics["loss"].item() == pytest.approx(-twin.generative_log_probs(awake)[0].mean().item())
    assert not torch.equal(model.top.weight, twin.top.weight)


@torch.no_grad()
def validation(model: DeepBeliefNetwork, x: Tensor) -> float:
    return (model.unnormalised_bound(x, 50, seeded_generator(0)) - model.exact_log_partition()).mean().item()


def test_every_phase_learns_and_the_bound_does_not_fall_where_a_layer_begins():
    torch.manual_seed(0)
    data = bars(240)
    model = build_model("dbn", (1, 4, 4), hidden_units=(8, 16), upper_rate=0.3)
    bounds = {}
    for progress in train(model, Rows(data), TrainingConfig(epochs=200, batch_size=20, learning_rate=0.3)):
        if progress.end_of_epoch and progress.epoch + 1 in (1, progress.epochs):
            bounds.setdefault(progress.phase, []).append(validation(model, data))
    assert list(bounds) == ["layer 1", "layer 2", "up-down"]
    first, second, together = bounds.values()
    assert second[0] > first[1] - 0.2  # not -9, where the first machine began
    assert first[1] + 0.05 < second[1] and second[1] + 0.05 < together[1] < -2.07  # log 8 = 2.08 is perfect
    assert likelihood(model, data).kind == "lower bound"


def test_persistent_chains_go_on_in_the_next_machine():
    model = build_model("dbn", (1, 4, 4), hidden_units=(6, 5), chains=9, fine_tuning=0.0)
    first, second = model.training_phases(TrainingConfig(epochs=2))
    assert isinstance(first.update, OnFeatures) and [first.epochs, second.epochs] == [1, 1]
    assert second.update.update.chains.v.shape == (9, 6)


@pytest.mark.parametrize("persistent", [True, False])
def test_resumed_in_any_phase_it_is_bit_identical(persistent: bool):
    def fresh(seed: int):
        torch.manual_seed(seed)
        return build_model("dbn", (1, 4, 4), hidden_units=(6, 16, 8), persistent=persistent, fine_tuning=0.4,
                           sampling_steps=3)  # fmt: skip

    data, config = Rows(bars(50)), TrainingConfig(epochs=10, batch_size=16, learning_rate=0.1, seed=4)
    whole, saved, phases = fresh(0), [], []
    for progress in train(whole, data, config):
        phases.append(progress.phase)
        file = io.BytesIO()
        torch.save(progress.state_dict(), file)
        saved.append(file.getvalue())
        whole.sample(1)
    assert list(dict.fromkeys(phases)) == ["layer 1", "layer 2", "layer 3", "up-down"] and len(saved) == 40
    for step in (7, 8, 9, 18, 25, 33):  # in and at the ends of phases
        resumed = fresh(9)
        resume = torch.load(io.BytesIO(saved[step - 1]), weights_only=True)
        assert len(list(train(resumed, data, config, resume))) == 40 - step
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), (step, name)


def test_epochs_are_split_without_loss():
    for epochs in range(30):
        for shares in ((0.4, 0.4, 0.2), (1, 1, 1), (0.1, 0.1, 0.8, 0.0)):
            parts = split_epochs(epochs, shares)
            assert sum(parts) == epochs and min(parts) >= 0
            assert all(abs(part - epochs * share / sum(shares)) <= 1 for part, share in zip(parts, shares, strict=True))
    assert split_epochs(2, (0.4, 0.4, 0.2)) == [1, 1, 0]


@pytest.mark.parametrize("bad", [{"hidden_units": (3,)}, {"hidden_units": (3, 0)}, {"steps": 0}, {"chains": 0},
                                 {"sampling_steps": 0}, {"fine_tuning": 1.0}, {"fine_tuning_rate": 0.0},
                                 {"upper_rate": -1.0}])  # fmt: skip
def test_bad_arguments_name_themselves(bad: dict):
    with pytest.raises(ValueError, match=next(iter(bad))):
        build_model("dbn", (1, 3, 3), **bad)

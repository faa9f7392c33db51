"""The options of learning a restricted Boltzmann machine, each against its formula written out and its law."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.models.energy.learning.centred_gradient import Offsets
from gdm_core.models.energy.learning.contrastive_divergence import ContrastiveDivergence, statistics
from gdm_core.models.energy.learning.fast_weights import FastWeights
from gdm_core.models.energy.learning.sparsity_target import SparsityTarget
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.test_rbm import Rows, bars, machine

NAMES = ("weight", "visible_bias", "hidden_bias")


def pairs(seed: int, n: int = 7, dimensions: int = 4, hidden: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Binary visibles and probabilities of hidden units, float64."""
    torch.manual_seed(seed)
    v = torch.bernoulli(torch.full((n, dimensions), 0.3, dtype=torch.float64))
    return v, torch.rand(n, hidden, dtype=torch.float64)


def binary_batch(n: int = 8, shape: tuple = (1, 3, 3), seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    return Batch(torch.bernoulli(torch.full((n, *shape), 0.4, dtype=torch.float64)))


def parameters(model) -> dict[str, torch.Tensor]:
    return {name: getattr(model, name).detach().clone() for name in NAMES}


# --- the centred gradient ----------------------------------------------------------------------------------------


def test_the_centred_gradient_by_hand() -> None:
    """<(h - lambda)(v - mu)'> with loops, data minus model, and the biases' corrections."""
    data, model = pairs(1), pairs(2, n=5)
    mu, lam = torch.rand(4, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    expected = np.zeros((3, 4))
    for sign, (v, h) in ((1, data), (-1, model)):
        for row, probabilities in zip(v.numpy(), h.numpy(), strict=True):
            expected += sign * np.outer(probabilities - lam.numpy(), row - mu.numpy()) / len(v)
    ascent = statistics(data, model)
    plain = {name: value.clone() for name, value in ascent.items()}
    Offsets(mu, lam).centre(ascent)
    assert np.allclose(ascent["weight"], expected, atol=1e-12)
    assert np.allclose(ascent["visible_bias"], plain["visible_bias"].numpy() - lam.numpy() @ expected, atol=1e-12)
    assert np.allclose(ascent["hidden_bias"], plain["hidden_bias"].numpy() - expected @ mu.numpy(), atol=1e-12)


def test_at_offsets_of_zero_it_is_the_ordinary_gradient() -> None:
    ascent = statistics(pairs(1), pairs(2))
    centred = {name: value.clone() for name, value in ascent.items()}
    Offsets(torch.zeros(4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)).centre(centred)
    assert all(torch.equal(ascent[name], centred[name]) for name in NAMES)


def test_it_is_a_positive_definite_matrix_times_the_ordinary_gradient() -> None:
    """So both vanish at the same points and both lead uphill."""
    offsets = Offsets(torch.rand(2, dtype=torch.float64), torch.rand(3, dtype=torch.float64))
    sizes = {"weight": (3, 2), "visible_bias": (2,), "hidden_bias": (3,)}
    columns = []
    for unit in torch.eye(11, dtype=torch.float64):
        parts = unit.split([6, 2, 3])
        ascent = {name: part.view(shape).clone() for part, (name, shape) in zip(parts, sizes.items(), strict=True)}
        offsets.centre(ascent)
        columns.append(torch.cat([ascent[name].flatten() for name in sizes]))
    matrix = torch.stack(columns, 1)
    assert torch.allclose(matrix, matrix.T, atol=1e-12)
    assert torch.linalg.eigvalsh(matrix).min() > 0.01
    assert not torch.allclose(matrix, torch.eye(11, dtype=torch.float64), atol=0.1)


def test_the_offsets_are_moving_averages_of_the_data() -> None:
    offsets, (v, h), (v_next, h_next) = Offsets(), pairs(1), pairs(2)
    offsets.follow(v, h)
    assert torch.allclose(offsets.visible, v.mean(0)) and torch.allclose(offsets.hidden, h.mean(0))
    offsets.follow(v_next, h_next)
    assert torch.allclose(offsets.visible, 0.99 * v.mean(0) + 0.01 * v_next.mean(0))
    assert torch.allclose(offsets.hidden, 0.99 * h.mean(0) + 0.01 * h_next.mean(0))


def flipped(model):
    """The same distribution of inverted images: W -> -W, b -> -b, c -> c + W 1."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.hidden_bias += model.weight.sum(1)
        twin.weight.neg_()
        twin.visible_bias.neg_()
        twin.base_visible_bias.neg_()
    plain = twin.uniforms

    def uniforms(n: int, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        for_hidden, for_visible = plain(n, generator)
        return for_hidden, 1 - for_visible

    twin.uniforms = uniforms
    return twin


def flip_error(centred: bool, chains: int | None) -> float:
    """How far the free energies differ after learning from images and from the inverted ones, with the same noise."""
    model = machine(hidden_units=4, scale=0.5)
    twin = flipped(model)
    x = binary_batch(20).images
    with torch.no_grad():
        assert torch.allclose(model.energy(x).diff(), twin.energy(1 - x).diff(), atol=1e-12)
    updates = [
        ContrastiveDivergence(one, 0.3, 2, chains, momentum=0.5, offsets=Offsets() if centred else None)
        for one in (model, twin)
    ]
    if chains is not None:  # the inverted chains start where the others start
        v = torch.ones(chains, 9, dtype=torch.float64)
        updates[1].chains = updates[1].chains._replace(v=v, logits=twin.hidden_logits(v).detach())
    for seed in range(10):
        for update, sign in zip(updates, (1, -1), strict=True):
            torch.manual_seed(seed)
            update(Batch(x[seed:] if sign == 1 else 1 - x[seed:]))
    with torch.no_grad():
        return (model.energy(x).diff() - twin.energy(1 - x).diff()).abs().max().item()


@pytest.mark.parametrize("chains", [None, 6])
def test_centred_learning_does_not_know_which_colour_is_1(chains: int | None) -> None:
    torch.manual_seed(3)
    assert flip_error(True, chains) < 1e-9
    assert flip_error(False, chains) > 0.1, "the ordinary gradient does, so this test can fail"


# --- the target of sparsity --------------------------------------------------------------------------------------


def test_the_sparsity_penalty_by_hand() -> None:
    penalty, (_, h), (_, h_next) = SparsityTarget(0.2, 0.5), pairs(1), pairs(2)
    for q, activities in ((h.mean(0), h), (0.9 * h.mean(0) + 0.1 * h_next.mean(0), h_next)):
        ascent = {name: torch.zeros(3, dtype=torch.float64) for name in NAMES}
        penalty.add_to(ascent, activities)
        assert torch.allclose(ascent["hidden_bias"], 0.5 * (0.2 - q), atol=1e-12)
        assert not ascent["weight"].any() and not ascent["visible_bias"].any()


def test_the_penalty_is_minus_the_slope_of_the_cross_entropy() -> None:
    """For one image, of which q is the activity itself: d/da of - p log q - (1 - p) log(1 - q)."""
    a = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.binary_cross_entropy_with_logits(a, torch.full_like(a, 0.2), reduction="sum").backward()
    ascent = {"hidden_bias": torch.zeros(3, dtype=torch.float64)}
    SparsityTarget(0.2, 1.0).add_to(ascent, a.detach().sigmoid())
    assert torch.allclose(ascent["hidden_bias"], -a.grad[0], atol=1e-12)


def test_a_target_brings_the_activity_to_it() -> None:
    data = bars(240)

    def activity(**arguments: float) -> float:
        torch.manual_seed(0)
        model = build_model("rbm", (1, 4, 4), hidden_units=12, **arguments)
        list(train(model, Rows(data), TrainingConfig(epochs=30, batch_size=20, learning_rate=0.2)))
        return model.encode(data).mean().item()

    assert activity() > 0.3
    assert activity(sparsity_target=0.1, sparsity_cost=1.0) == pytest.approx(0.1, abs=0.03)


# --- fast weights ------------------------------------------------------------------------------------------------


def test_fast_weights_by_hand_with_the_same_uniforms() -> None:
    """Two steps of persistent CD-1 whose chains run on theta + theta_fast, written in numpy."""
    model = machine((1, 2, 2), hidden_units=3)
    x = binary_batch(6, (1, 2, 2)).images
    w, b, c = (value.numpy() for value in parameters(model).values())
    fast = [np.zeros_like(value) for value in (w, b, c)]
    v0, v = x.flatten(1).numpy(), np.zeros((5, 4))

    def sigmoid(value: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-value))

    torch.manual_seed(11)
    for _ in range(2):
        uniforms = torch.rand(5, 7, dtype=torch.float64).numpy()
        h = (uniforms[:, :3] < sigmoid(v @ (w + fast[0]).T + c + fast[2])).astype(float)
        v = (uniforms[:, 3:] < sigmoid(h @ (w + fast[0]) + b + fast[1])).astype(float)
        on, off = sigmoid(v0 @ w.T + c), sigmoid(v @ w.T + c)
        slope = (on.T @ v0 / 6 - off.T @ v / 5, v0.mean(0) - v.mean(0), on.mean(0) - off.mean(0))
        fast = [19 / 20 * old + 0.7 * part for old, part in zip(fast, slope, strict=True)]
        w, b, c = (old + 0.1 * part for old, part in zip((w, b, c), slope, strict=True))

    update = ContrastiveDivergence(model, 0.1, chains=5, fast=FastWeights(model, 0.7))
    torch.manual_seed(11)
    update(Batch(x))
    update(Batch(x))
    assert np.array_equal(update.chains.v.numpy(), v)
    for value, expected, quick, name in zip(parameters(model).values(), (w, b, c), fast, NAMES, strict=True):
        assert np.allclose(value, expected, atol=1e-12), name
        assert np.allclose(update.fast.values[name], quick, atol=1e-12), name


def test_fast_weights_make_chains_leave_the_mode_they_are_in() -> None:
    """Of two far-apart modes, each half of the data, chains at a learning rate of 0 would never leave theirs."""

    def share_in_the_other(fast_learning_rate: float | None) -> float:
        model = build_model("rbm", (1, 4, 4), hidden_units=1).double()
        with torch.no_grad():
            model.weight.fill_(6.0)
            model.visible_bias.fill_(-3.0)
            model.hidden_bias.fill_(-48.0)
            model.base_visible_bias.fill_(-3.0)  # not a fresh machine, which would take its bias from the data
        fast = None if fast_learning_rate is None else FastWeights(model, fast_learning_rate)
        update = ContrastiveDivergence(model, 0.0, chains=4, fast=fast)
        x, there = torch.ones(8, 1, 4, 4, dtype=torch.float64), []
        x[:4] = 0
        torch.manual_seed(0)
        for _ in range(200):
            update(Batch(x))
            there.append((update.chains.v.mean(1) > 0.8).double().mean().item())
        return float(np.mean(there[50:]))

    assert share_in_the_other(None) == 0
    assert share_in_the_other(0.5) == pytest.approx(0.5, abs=0.15)


# --- all of them -------------------------------------------------------------------------------------------------

OPTIONS = {
    "centred": {"centred": True},
    "sparse": {"sparsity_target": 0.2, "sparsity_cost": 0.05},
    "fast": {"fast_learning_rate": 0.02},
    "all": {
        "centred": True, "sparsity_target": 0.2, "fast_learning_rate": 0.02, "momentum": 0.5, "weight_decay": 1e-4,
        "steps": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_bars_are_learnt_with_every_option(options: dict) -> None:
    torch.manual_seed(0)
    data = bars(240)
    model = build_model("rbm", (1, 4, 4), hidden_units=12, **options)
    rate = 0.2 * (1 - options.get("momentum", 0))
    list(train(model, Rows(data), TrainingConfig(epochs=100, batch_size=20, learning_rate=rate)))
    nats = (model.energy(data).double() + model.exact_log_partition()).mean().item()
    assert 2.07 < nats < 4.5  # log 8 = 2.08 is perfect, independent pixels have 9.0


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_resumed_in_mid_epoch_is_bit_identical_with_every_option(options: dict, tmp_path) -> None:
    def fresh(seed: int = 3):
        torch.manual_seed(seed)
        return build_model("rbm", (1, 4, 4), hidden_units=6, chains=10, **options)

    data, config = Rows(bars(50)), TrainingConfig(epochs=3, batch_size=16, learning_rate=0.1, seed=4)
    whole = fresh()
    for i, progress in enumerate(train(whole, data, config)):
        if i == 5:
            torch.save(progress.state_dict(), tmp_path / "state.pt")
    resumed = fresh(seed=5)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    list(train(resumed, data, config, resume=state))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    forgetful = fresh(seed=5)
    for part in {"offsets", "sparsity", "fast"} & set(state["update"]):
        for value in state["update"][part].values():
            value.add_(0.5)
    list(train(forgetful, data, config, resume=state))
    assert not torch.equal(forgetful.weight, whole.weight) or not torch.equal(forgetful.hidden_bias, whole.hidden_bias)


@pytest.mark.parametrize("bad", [
    {"sparsity_target": 0.0}, {"sparsity_target": 1.0}, {"sparsity_cost": -0.1}, {"sparsity_cost": float("nan")},
    {"fast_learning_rate": 0.0}, {"fast_learning_rate": 0.1, "persistent": False},
])  # fmt: skip
def test_bad_options_name_themselves(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        build_model("rbm", (1, 3, 3), **bad)


def test_the_numbers_of_large_images_are_those_of_the_first_few() -> None:
    model = machine((1, 64, 128), hidden_units=3, scale=0.1)
    x = binary_batch(5, (1, 64, 128)).images
    twin, h = copy.deepcopy(model), model.encode(x)
    expected = model.reconstruction_nats(x.flatten(1)[:2], h[:2])
    assert not torch.isclose(expected, model.reconstruction_nats(x.flatten(1), h))
    update = ContrastiveDivergence(model, 0.0, chains=7)
    metrics = update(Batch(x))
    assert torch.allclose(metrics["loss"], expected)
    gap = (twin.energy(x[:2]) - twin.free_energy(update.chains.v[:2])).mean()
    assert torch.allclose(metrics["free_energy_gap"], gap)


def test_the_numbers_are_taken_from_every_fourth_batch_also_after_a_stop() -> None:
    """A run that is stopped after six batches and taken up again returns what it would have returned."""
    torch.manual_seed(0)
    model, batches = machine(), [binary_batch(6, seed=seed) for seed in range(10)]
    whole = ContrastiveDivergence(model, 0.3, chains=None)
    losses = []
    for at, batch in enumerate(batches):
        if at == 6:
            later = ContrastiveDivergence(copy.deepcopy(model), 0.3, chains=None)
            later.load_state_dict(copy.deepcopy(whole.state_dict()))
        losses.append(whole(batch)["loss"].item())
    assert [at for at in range(1, 10) if losses[at] != losses[at - 1]] == [4, 8]
    taken_up = [later(batch)["loss"].item() for batch in batches[6:]]
    assert taken_up[:2] == losses[6:8] and taken_up[2] == taken_up[3] != losses[7]


@pytest.mark.parametrize("chains", [None, 7])
def test_a_step_straight_onto_the_parameters_is_the_step_along_the_stored_gradient(chains: int | None) -> None:
    """Options that do nothing make the update store its gradient; it must arrive where the plain one does."""
    plain, stored = (machine(scale=0.3) for _ in range(2))
    stored.load_state_dict(plain.state_dict())
    ends, batches = [], [binary_batch(5, seed=seed) for seed in range(3)]
    for model, momentum in ((plain, 0.0), (stored, 1e-300)):
        torch.manual_seed(3)
        update = ContrastiveDivergence(model, 0.3, 2, chains, momentum=momentum)
        assert update.climbs == (momentum == 0.0)
        for batch in batches:
            update(batch)
        ends.append(model.state_dict())
    assert not torch.equal(ends[0]["weight"], machine(scale=0.3).weight)
    assert all(torch.allclose(ends[0][name], value, atol=1e-12) for name, value in ends[1].items())

"""The restricted Boltzmann machine against brute force, scikit-learn and its own definition."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.neural_network import BernoulliRBM

import gdm_core.models  # noqa: F401
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.models.energy.learning.contrastive_divergence import ContrastiveDivergence
from gdm_core.registry import build_model
from gdm_core.training import train


def all_images(shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    d = int(np.prod(shape))
    return (torch.arange(2**d)[:, None] >> torch.arange(d) & 1).to(dtype).view(-1, *shape)


def machine(shape=(1, 3, 3), scale: float = 1.0, dtype: torch.dtype = torch.float64, **arguments):
    """A machine with weights of a size that makes its layers depend on each other."""
    model = build_model("rbm", shape, **{"hidden_units": 5, **arguments}).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape))
        model.base_visible_bias.copy_(0.5 * torch.randn(model.base_visible_bias.shape))
    return model


def distribution(model) -> torch.Tensor:
    """p(x) of every image, by brute force over (v, h) pairs and nothing of the model but its parameters."""
    v = all_images(model.data_shape).flatten(1)
    h = all_images((1, 1, len(model.hidden_bias))).flatten(1)
    joint = v @ model.visible_bias + (h @ model.hidden_bias)[:, None] + h @ model.weight @ v.T
    return joint.detach().logsumexp(0).softmax(0)


class Rows:
    """Training data in memory."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: torch.Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows], None if self.labels is None else self.labels[rows])


def bars(n: int) -> torch.Tensor:
    """4x4 images of one row or one column."""
    images = torch.zeros(n, 1, 4, 4)
    for i in range(n):
        images[i, 0, i % 4] = 1
    return torch.where((torch.arange(n) % 8 < 4)[:, None, None, None], images, images.mT).contiguous()


def test_parameters_and_capabilities() -> None:
    model = build_model("rbm", (1, 3, 3), hidden_units=5)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "weight": (5, 9), "visible_bias": (9,), "hidden_bias": (5,)
    }  # fmt: skip
    assert model.filters().shape == (5, 1, 3, 3)
    assert torch.equal(model.filters()[2, 0, 1], model.weight[2, 3:6])


@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0])
def test_density_sums_to_one_and_is_the_marginal_of_the_joint(scale: float) -> None:
    model = machine(scale=scale)
    p = (-model.energy(all_images((1, 3, 3))) - model.exact_log_partition()).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-10)
    assert torch.allclose(p, distribution(model), atol=1e-12)


def test_free_energy_and_conditionals_equal_scikit_learn() -> None:
    model = machine((1, 4, 4), hidden_units=7)
    oracle = BernoulliRBM(n_components=7)
    oracle.components_ = model.weight.detach().numpy()
    oracle.intercept_visible_ = model.visible_bias.detach().numpy()
    oracle.intercept_hidden_ = model.hidden_bias.detach().numpy()
    x = torch.bernoulli(torch.full((20, 1, 4, 4), 0.5, dtype=torch.float64))
    flat = x.flatten(1).numpy()
    assert np.allclose(model.energy(x).detach(), oracle._free_energy(flat), atol=1e-12)
    assert np.allclose(model.encode(x).detach(), oracle.transform(flat), atol=1e-12)


def test_gibbs_step_leaves_the_enumerated_distribution_invariant() -> None:
    """Two-sided: started at p it stays at p; started elsewhere one step does not already land on p."""
    model = machine((1, 2, 2), hidden_units=3)
    p, images, n = distribution(model), all_images((1, 2, 2)).flatten(1), 200_000
    codes = 2 ** torch.arange(4, dtype=torch.float64)

    def one_step(start: torch.Tensor) -> torch.Tensor:
        stepped = model.gibbs_step(images[start], generator=torch.Generator().manual_seed(1))
        return torch.bincount((stepped @ codes).long(), minlength=16) / n

    chi_square = n * ((one_step(torch.multinomial(p, n, replacement=True)) - p).square() / p).sum()
    assert chi_square < 44  # 15 degrees of freedom: passed by 99.99 %
    assert (one_step(torch.zeros(n, dtype=torch.long)) - p).abs().sum() > 0.05


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_samples_follow_the_enumerated_distribution_at_every_temperature(temperature: float) -> None:
    model, n = machine((1, 2, 2), hidden_units=3, scale=0.7, sampling_steps=40), 20_000
    tempered = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in tempered.parameters():
            parameter.div_(temperature)
    x = model.sample(n, temperature=temperature, generator=torch.Generator().manual_seed(3))
    counts = torch.bincount((x.flatten(1) @ (2 ** torch.arange(4, dtype=torch.float64))).long(), minlength=16)
    p = distribution(tempered)
    assert (n * (counts / n - p).square() / p).sum() < 44


def test_sample_is_the_last_of_its_steps_and_one_seed_repeats() -> None:
    model = machine(sampling_steps=120)
    frames = list(model.sample_steps(6, generator=torch.Generator().manual_seed(5)))
    torch.rand(3)  # the global state plays no part
    x = model.sample(6, generator=torch.Generator().manual_seed(5))
    assert torch.equal(frames[-1], x) and len(frames) == 41  # the start, then every third of 120 steps
    assert all(((frame == 0) | (frame == 1)).all() and frame.shape == (6, 1, 3, 3) for frame in frames)
    assert not torch.equal(x, model.sample(6, generator=torch.Generator().manual_seed(6)))


def test_cd_statistic_by_hand_with_the_same_uniforms() -> None:
    """CD-2 from the data: loops over units, one uniform draw (hidden, visible) per Gibbs step, v_2 sampled."""
    model = machine((1, 2, 2), hidden_units=3)
    x = torch.bernoulli(torch.full((6, 1, 2, 2), 0.5, dtype=torch.float64))
    before = {name: p.detach().clone().numpy() for name, p in model.named_parameters()}
    w, b, c = before["weight"], before["visible_bias"], before["hidden_bias"]

    def sigmoid(value: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-value))

    torch.manual_seed(11)
    v0 = x.flatten(1).numpy()
    v = v0
    for _ in range(2):
        uniforms = torch.rand(6, 7, dtype=torch.float64).numpy()
        h = (uniforms[:, :3] < sigmoid(v @ w.T + c)).astype(float)
        v = (uniforms[:, 3:] < sigmoid(h @ w + b)).astype(float)
    expected = np.zeros_like(w)
    for j in range(3):
        for i in range(4):
            data = np.mean([sigmoid(w[j] @ row + c[j]) * row[i] for row in v0])
            expected[j, i] = data - np.mean([sigmoid(w[j] @ row + c[j]) * row[i] for row in v])

    torch.manual_seed(11)
    ContrastiveDivergence(model, learning_rate=0.1, steps=2)(Batch(x))
    assert np.allclose(model.weight.detach().numpy() - w, 0.1 * expected, atol=1e-12)
    assert np.allclose(model.visible_bias.detach().numpy() - b, 0.1 * (v0 - v).mean(0), atol=1e-12)
    hidden = sigmoid(v0 @ w.T + c).mean(0) - sigmoid(v @ w.T + c).mean(0)
    assert np.allclose(model.hidden_bias.detach().numpy() - c, 0.1 * hidden, atol=1e-12)


def test_the_step_descends_the_free_energy_gap_as_autograd_sees_it() -> None:
    model = machine(hidden_units=4)
    x = torch.bernoulli(torch.full((8, 1, 3, 3), 0.5, dtype=torch.float64))
    twin = copy.deepcopy(model)
    update = ContrastiveDivergence(model, learning_rate=1.0, chains=12)
    metrics = update(Batch(x))
    gap = twin.energy(x).mean() - twin.energy(update.chains.v.view(12, 1, 3, 3)).mean()
    gap.backward()
    assert metrics["free_energy_gap"].item() == pytest.approx(gap.item(), abs=1e-12)
    for name, parameter in model.named_parameters():
        start = dict(twin.named_parameters())[name]
        assert torch.allclose(parameter - start, -start.grad, atol=1e-12), name


def test_momentum_and_weight_decay() -> None:
    model = machine(hidden_units=4)
    x = torch.bernoulli(torch.full((8, 1, 3, 3), 0.5, dtype=torch.float64))
    plain, heavy = copy.deepcopy(model), copy.deepcopy(model)
    torch.manual_seed(0)
    ContrastiveDivergence(plain, 0.1)(Batch(x))
    torch.manual_seed(0)
    update = ContrastiveDivergence(heavy, 0.1, momentum=0.9, weight_decay=0.5)
    update(Batch(x))
    assert torch.allclose(plain.weight - heavy.weight, 0.05 * model.weight)
    assert torch.equal(plain.hidden_bias, heavy.hidden_bias)
    velocity, before = update.velocity["hidden_bias"].clone(), heavy.hidden_bias.detach().clone()
    update.learning_rate = 0.0
    update(Batch(x))
    assert torch.allclose(heavy.hidden_bias - before, 0.9 * velocity)


def test_training_learns_the_bars_and_their_base_rates() -> None:
    torch.manual_seed(0)
    data = bars(240)
    model = build_model("rbm", (1, 4, 4), hidden_units=12)
    for progress in train(model, Rows(data), TrainingConfig(epochs=100, batch_size=20, learning_rate=0.2)):
        assert set(progress.metrics) == {"loss", "free_energy_gap"}
    nats = (model.energy(data).double() + model.exact_log_partition()).mean().item()
    assert 2.07 < nats < 4.0  # log 8 = 2.08 is perfect, independent pixels have 9.0
    assert torch.allclose(model.base_visible_bias.sigmoid(), data.mean(0).flatten(), atol=1e-3)


def test_the_learning_rate_falls_linearly_with_progress() -> None:
    moves = []
    for progress in (0.0, 0.75):
        torch.manual_seed(5)
        model = machine(hidden_units=4)
        update = ContrastiveDivergence(model, learning_rate=0.4, steps=1, chains=6)
        before = model.hidden_bias.detach().clone()
        torch.manual_seed(0)
        update(Batch(torch.ones(3, 1, 3, 3, dtype=torch.float64), progress=progress))
        moves.append(model.hidden_bias.detach() - before)
    assert moves[0].abs().max() > 0 and torch.allclose(moves[1], moves[0] / 4)


def test_persistent_chains_start_where_they_stopped() -> None:
    model = machine(hidden_units=4)
    update = ContrastiveDivergence(model, learning_rate=0.0, steps=3, chains=6)
    x = torch.zeros(3, 1, 3, 3, dtype=torch.float64)
    torch.manual_seed(0)
    update(Batch(x))
    update(Batch(x))
    torch.manual_seed(0)
    v = torch.zeros(6, 9, dtype=torch.float64)
    for _ in range(6):
        v = model.gibbs_step(v)
    assert torch.equal(update.chains.v, v)


def test_a_chain_goes_on_from_the_hidden_units_it_had_before_the_weights_moved() -> None:
    model = machine(hidden_units=4)
    update = ContrastiveDivergence(model, learning_rate=1.0, steps=2, chains=6)
    x = torch.ones(3, 1, 3, 3, dtype=torch.float64)
    update(Batch(x))
    v, logits = update.chains
    assert not torch.allclose(logits, model.hidden_logits(v)), "the weights moved"
    twin = copy.deepcopy(model)
    torch.manual_seed(0)
    update(Batch(x))
    torch.manual_seed(0)
    expected = twin.gibbs_step(twin.visible_after(logits))
    assert torch.equal(update.chains.v, expected)
    assert torch.equal(update.chains.logits, twin.hidden_logits(expected))


@pytest.mark.parametrize("persistent", [True, False])
def test_resumed_in_mid_epoch_is_bit_identical(persistent: bool, tmp_path) -> None:
    def fresh():
        torch.manual_seed(3)
        return build_model("rbm", (1, 4, 4), hidden_units=6, persistent=persistent, momentum=0.5, sampling_steps=3)

    data, config = Rows(bars(50)), TrainingConfig(epochs=3, batch_size=16, learning_rate=0.1, seed=4)
    whole = fresh()
    for i, progress in enumerate(train(whole, data, config)):
        if i == 5:  # the second epoch's second step of four
            torch.save(progress.state_dict(), tmp_path / "state.pt")
        whole.sample(2)  # using randomness in between changes nothing
    resumed = fresh()
    list(train(resumed, data, config, resume=torch.load(tmp_path / "state.pt", weights_only=True)))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_surprise_map_is_the_enumerated_conditional() -> None:
    model = machine((2, 2, 2), hidden_units=4)
    x, p = all_images((2, 2, 2)), distribution(model)
    flat, weights = x.flatten(1).long(), 2 ** torch.arange(8)
    code = (flat * weights).sum(1)
    partners = code[:, None] + (1 - 2 * flat) * weights  # the image with pixel i flipped
    conditional = -(p[:, None] / (p[:, None] + p[partners])).log()  # (256, 8)
    expected = conditional.view(-1, 2, 2, 2).sum(1, keepdim=True)
    assert torch.allclose(model.surprise_map(x), expected, atol=1e-9)
    assert torch.allclose(model.surprise_map(x[5:6]), model.surprise_map(x)[5:6], atol=1e-12)


def test_completion_keeps_known_pixels_and_follows_the_enumerated_conditional() -> None:
    model, n = machine(hidden_units=4, sampling_steps=60), 5000
    known = torch.ones(1, 1, 3, 3)
    known[0, 0, 1] = 0
    picture = torch.tensor([[1, 0, 1], [0.5, float("nan"), 7], [0, 0, 1]], dtype=torch.float64)  # unknown: anything
    x = picture.expand(n, 1, 3, 3)
    filled = model.complete(x, known, generator=torch.Generator().manual_seed(2))
    assert torch.equal(filled[:, :, [0, 2]], x[:, :, [0, 2]])
    images = all_images((1, 3, 3))
    agree = ((images == torch.nan_to_num(picture)) | (known[0] == 0)).flatten(1).all(1)
    p = distribution(model)[agree] / distribution(model)[agree].sum()
    expected = (p[:, None] * images[agree][:, 0, 1]).sum(0)
    assert torch.allclose(filled[:, 0, 1].mean(0), expected, atol=0.035)  # five standard errors of a fair coin


def test_energy_gradient_equals_its_formula() -> None:
    """dF/dW = -p(h | v) v', dF/db = -v, dF/dc = -p(h | v)."""
    model = machine()
    x = torch.bernoulli(torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64))
    model.energy(x).sum().backward()
    h, v = model.encode(x).detach()[0], x.flatten()
    assert torch.allclose(model.weight.grad, -torch.outer(h, v))
    assert torch.allclose(model.visible_bias.grad, -v)
    assert torch.allclose(model.hidden_bias.grad, -h)


def test_reconstruction_is_the_mean_field_way_there_and_back() -> None:
    model = machine()
    x = all_images((1, 3, 3))[:10]
    h = 1 / (1 + torch.exp(-(x.flatten(1) @ model.weight.T + model.hidden_bias)))
    v = 1 / (1 + torch.exp(-(h @ model.weight + model.visible_bias)))
    assert torch.allclose(model.reconstruct(x).flatten(1), v)


@pytest.mark.parametrize("bad", [{"hidden_units": 0}, {"steps": 0}, {"chains": 0}, {"sampling_steps": 0},
                                 {"momentum": 1.0}, {"weight_decay": -1.0}])  # fmt: skip
def test_bad_arguments_name_themselves(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        build_model("rbm", (1, 3, 3), **bad)


def test_bad_calls_are_refused() -> None:
    model = machine()
    with pytest.raises(ValueError, match="temperature"):
        model.sample(2, temperature=0.0)
    with pytest.raises(ValueError, match="labels"):
        model.sample(2, labels=torch.zeros(2))
    with pytest.raises(ValueError, match="n must be"):
        model.sample(0)
    with pytest.raises(ValueError, match="0 or 1"):
        model.energy(torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64))
    with pytest.raises(ValueError, match="known"):
        model.complete(torch.zeros(2, 1, 3, 3), torch.ones(3, 1, 3, 3))
    with pytest.raises(ValueError, match=r"2\^31"):
        build_model("rbm", (1, 6, 6), hidden_units=31).exact_log_partition()

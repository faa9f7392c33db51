"""The loop and its updates, on models small enough to follow by hand."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from gdm_core.contract import Batch, GenerativeModel, Phase, TrainingConfig
from gdm_core.likelihoods import likelihood
from gdm_core.randomness import random_state, seeded, seeded_generator, set_random_state
from gdm_core.registry import build_model
from gdm_core.training import DivergenceError, Progress, train
from gdm_core.updates import AdversarialUpdate, GradientUpdate
from tests.devices import DEVICES

SHAPE = (1, 2, 2)


class Rows:
    """Ten images whose pixels all hold their row's number / 9; remembers which rows were asked for in which epoch."""

    def __init__(self, size: int = 10) -> None:
        self.size, self.asked = size, []

    def __len__(self) -> int:
        return self.size

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        self.asked.append((epoch, rows.tolist()))
        return Batch((rows / 9).view(-1, 1, 1, 1).expand(-1, *SHAPE))


class Mean(GenerativeModel):
    """Learns the mean grey value by least squares. Its loss depends on noise, so that random states count."""

    def __init__(self, noise: float = 0.1) -> None:
        super().__init__(SHAPE, pixels="real", levels=None)
        self.mean, self.noise = nn.Parameter(torch.zeros(())), noise

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        target = batch.images.mean() + self.noise * torch.randn(())
        return {"loss": (self.mean - target).square(), "size": torch.tensor(float(len(batch.images)))}


class TwoPhases(Mean):
    """Two phases: the second learns `slope` from where the first left `mean`."""

    def __init__(self, epochs: tuple[int, int] = (2, 2)) -> None:
        super().__init__()
        self.slope, self.epochs, self.made = nn.Parameter(torch.zeros(())), epochs, []

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        gap = self.slope - self.mean.detach() + 0.1 * torch.randn(())
        return {"loss": gap.square() + super().loss(batch)["loss"]}

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        for name, epochs in zip(("mean", "slope"), self.epochs, strict=True):
            self.made.append((name, self.mean.item()))
            yield Phase(name, One(self, getattr(self, name), config), epochs)


class Rounding(TwoPhases):
    """Rounds what a phase has learnt when the phase is over."""

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        for phase in super().training_phases(config):
            yield Phase(phase.name, phase.update, phase.epochs, partial(self._round, phase.name))

    @torch.no_grad()
    def _round(self, name: str) -> None:
        self.made.append((f"{name} over", getattr(self, name).item()))
        getattr(self, name).mul_(4).round_().div_(4)


class One(GradientUpdate):
    """Gradient steps on a single parameter of a model."""

    def __init__(self, model: GenerativeModel, parameter: nn.Parameter, config: TrainingConfig) -> None:
        super().__init__(model, config)
        self.optimiser = torch.optim.Adam([parameter], lr=config.learning_rate)


CONFIG = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.05, seed=1)


def finish(model: GenerativeModel, config: TrainingConfig = CONFIG, resume: dict | None = None) -> list[Progress]:
    return list(train(model, Rows(), config, resume))


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


# --- the order of images and the numbers on the way ---------------------------------------------------------------


def orders(seed: int, epochs: int = 3) -> list[list[int]]:
    data = Rows()
    for _ in train(Mean(), data, TrainingConfig(epochs=epochs, batch_size=4, seed=seed)):
        pass
    assert [len(rows) for _, rows in data.asked] == [4, 4, 2] * epochs
    return [sum((rows for epoch, rows in data.asked if epoch == wanted), []) for wanted in range(epochs)]


def test_every_epoch_sees_every_image_once_in_its_own_order() -> None:
    first, second, third = orders(seed=0)
    assert sorted(first) == sorted(second) == sorted(third) == list(range(10))
    assert first != second != third != first and first != list(range(10))
    assert orders(seed=0) == [first, second, third]
    assert orders(seed=1)[0] != first


def test_the_numbers_of_progress_add_up() -> None:
    found = finish(Mean())
    assert [(p.epoch, p.step) for p in found] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert [p.images for p in found] == [4, 8, 10] * 2
    assert [p.end_of_epoch for p in found] == [False, False, True] * 2
    assert {(p.phase, p.phase_index, p.epochs, p.steps, p.images_per_epoch) for p in found} == {("train", 0, 2, 3, 10)}


def test_metrics_are_the_means_of_the_epoch_so_far() -> None:
    seen: list[float] = []

    class Recording(Mean):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            metrics = super().loss(batch)
            seen.append(metrics["loss"].item())
            return metrics

    found = [dict(progress.metrics) for progress in train(Recording(), Rows(), CONFIG)]
    for i, metrics in enumerate(found):
        epoch = seen[3 * (i // 3) : i + 1]
        assert metrics["loss"] == pytest.approx(sum(epoch) / len(epoch), rel=1e-5)
    assert found[2]["size"] == pytest.approx(10 / 3)


def test_progress_of_a_batch_is_the_share_of_the_phase_before_it() -> None:
    shares = []

    class Watching(Mean):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            shares.append(batch.progress)
            return super().loss(batch)

    finish(Watching())
    assert shares == pytest.approx([i / 6 for i in range(6)])


def test_a_batch_larger_than_the_data_is_one_step() -> None:
    (only,) = finish(Mean(), TrainingConfig(epochs=1, batch_size=64))
    assert (only.steps, only.images, only.end_of_epoch) == (1, 10, True)


def test_no_epochs_do_nothing() -> None:
    assert finish(Mean(), TrainingConfig(epochs=0)) == []


def test_training_converges_to_the_mean() -> None:
    model = Mean(noise=0.0)
    finish(model, TrainingConfig(epochs=200, batch_size=10, learning_rate=0.05))
    assert model.mean.item() == pytest.approx(0.5, abs=1e-3)


def test_a_phase_is_finished_after_its_last_batch_and_before_anybody_looks() -> None:
    model, seen = Rounding((2, 0)), []
    for progress in train(model, Rows(), CONFIG):
        seen.append(model.mean.item())
        state = progress.state_dict()
    assert [name for name, _ in model.made] == ["mean", "mean over", "slope"]  # a phase without epochs has no end
    assert seen[-1] % 0.25 == 0 and all(value % 0.25 for value in seen[:-1])
    again = Rounding((2, 0))
    assert finish(again, resume=through_a_file(state)) == [] and again.mean.item() == seen[-1]
    assert "mean over" not in dict(again.made)


def test_a_seed_repeats_a_training_and_another_does_not() -> None:
    means = []
    for seed in (1, 1, 2):
        model = Mean()
        finish(model, TrainingConfig(epochs=2, batch_size=4, learning_rate=0.05, seed=seed))
        means.append(model.mean.item())
    assert means[0] == means[1] != means[2]


def test_the_model_is_put_back_into_training_mode() -> None:
    model, modes = Mean(), []
    for _ in train(model.eval(), Rows(), CONFIG):
        modes.append(model.training)
        model.eval()
    assert all(modes) and model.training


# --- divergence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_says_what_to_do(value: float) -> None:
    class Diverging(Mean):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            return {"loss": self.mean * value, "fine": torch.ones(())}

    message = "^loss became NaN or infinite in epoch 1 .*'train'.*smaller learning rate"
    with pytest.raises(DivergenceError, match=message):
        finish(Diverging())


def test_a_rate_far_too_high_is_noticed_in_a_real_model() -> None:
    class Exploding(Mean):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            return {"loss": ((self.mean - 1) ** 4).exp()}

    with pytest.raises(DivergenceError, match="smaller learning rate"):
        finish(Exploding(), TrainingConfig(epochs=3, batch_size=4, learning_rate=100.0))


# --- updates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress, share", [(0.0, 1), (0.25, 1), (0.5, 1), (0.75, 0.5), (0.9, 0.2), (0.999, 0.002)])
def test_the_learning_rate_is_held_and_then_falls_to_nothing(progress: float, share: float) -> None:
    model = Mean(noise=0.0)
    update = GradientUpdate(model, TrainingConfig(learning_rate=0.1))
    update(Batch(torch.ones(1, *SHAPE), progress=progress))
    assert update.optimiser.param_groups[0]["lr"] == pytest.approx(0.1 * share)
    assert model.mean.item() == pytest.approx(0.1 * share, rel=1e-4)  # Adam's first step is the learning rate


def test_the_schedule_is_found_again_after_resuming() -> None:
    class Watched(Mean):
        def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
            self.update = GradientUpdate(self, config)
            yield Phase("train", self.update, config.epochs)

    def rates(resume: dict | None) -> tuple[list[float], list[dict]]:
        model, found, states = Watched(), [], []
        for progress in train(model, Rows(), CONFIG, resume):
            found.append(model.update.optimiser.param_groups[0]["lr"])
            states.append(through_a_file(progress.state_dict()))
        return found, states

    whole, states = rates(None)
    assert whole == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.05 * 2 / 3, 0.05 / 3])
    assert rates(states[3])[0] == whole[4:]


class Game:
    """Two numbers that play: each loss depends on both, so that a leak would move the other one."""

    def __init__(self, critic_steps: int = 1) -> None:
        self.critic, self.generator = nn.Linear(1, 1), nn.Linear(1, 1)
        self.played: list[str] = []
        self.update = AdversarialUpdate(
            self.generator, self.critic, self.critic_loss, self.generator_loss, 0.1, critic_steps=critic_steps
        )

    def critic_loss(self, batch: Batch) -> Tensor:
        self.played.append("critic")
        return (self.critic.weight * self.generator.weight + self.critic.bias + self.generator.bias).sum().square()

    def generator_loss(self, batch: Batch) -> Tensor:
        self.played.append("generator")
        return (self.critic(self.generator(batch.images.view(-1, 1))) - 3).square().mean()


@pytest.mark.parametrize("player, other", [("critic", "generator"), ("generator", "critic")])
def test_a_player_is_moved_by_its_own_loss_alone(player: str, other: str) -> None:
    game, batch = Game(), Batch(torch.ones(3, 1, 1, 1))
    before = {name: [p.clone() for p in getattr(game, name).parameters()] for name in (player, other)}
    game.update._step(player, batch)
    for name, moved in ((player, True), (other, False)):
        for old, new in zip(before[name], getattr(game, name).parameters(), strict=True):
            assert torch.equal(old, new) != moved
    assert all(p.grad is None for p in getattr(game, other).parameters()), "a gradient lies in wait for the other"


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_the_critic_plays_its_steps_first(critic_steps: int) -> None:
    game = Game(critic_steps)
    metrics = game.update(Batch(torch.ones(3, 1, 1, 1)))
    assert game.played == ["critic"] * critic_steps + ["generator"]
    assert metrics["loss"] == metrics["critic_loss"] + metrics["generator_loss"]
    assert not any(value.requires_grad for value in metrics.values())


def test_an_adversarial_update_goes_on_from_its_state() -> None:
    batch = Batch(torch.ones(3, 1, 1, 1))
    game, again = Game(), Game()
    game.update(batch)
    for name in ("critic", "generator"):
        getattr(again, name).load_state_dict(getattr(game, name).state_dict())
    again.update.load_state_dict(through_a_file(game.update.state_dict()))
    game.update(batch), again.update(batch)
    assert torch.equal(game.critic.weight, again.critic.weight)
    assert torch.equal(game.generator.weight, again.generator.weight)


# --- phases ------------------------------------------------------------------------------------------------------


def test_a_later_phase_begins_when_the_earlier_has_been_trained() -> None:
    model, seen = TwoPhases(), []
    for progress in train(model, Rows(), CONFIG):
        seen.append((progress.phase, progress.phase_index, progress.epoch, progress.step))
        if progress.phase == "mean":
            assert model.slope.item() == 0 and [name for name, _ in model.made] == ["mean"]
            reached = model.mean.item()
        else:
            assert model.mean.item() == reached, "the first phase's parameter moved in the second"
    assert [entry[:2] for entry in seen] == [("mean", 0)] * 6 + [("slope", 1)] * 6
    assert [entry[2:] for entry in seen[:6]] == [entry[2:] for entry in seen[6:]]
    assert model.made[1] == ("slope", reached), "the second phase was made before the first was over"
    assert reached != 0 and model.slope.item() != 0


def test_phases_see_the_images_in_orders_of_their_own() -> None:
    data = Rows()
    list(train(TwoPhases(), data, CONFIG))
    assert len({tuple(rows) for _, rows in data.asked}) == len(data.asked)


@pytest.mark.parametrize("at", [0, 2, 4, 5, 6, 8, 10])
def test_resuming_in_any_phase_is_bit_identical(at: int) -> None:
    model, states = TwoPhases(), []
    for progress in train(model, Rows(), CONFIG):
        states.append(through_a_file(progress.state_dict()))
    again = TwoPhases()
    rest = finish(again, resume=states[at])
    assert len(rest) == len(states) - at - 1
    assert (again.mean.item(), again.slope.item()) == (model.mean.item(), model.slope.item())
    assert rest[-1].metrics == progress.metrics


def test_resuming_what_was_finished_changes_nothing() -> None:
    model = TwoPhases()
    last = finish(model)[-1].state_dict()
    again = TwoPhases()
    assert finish(again, resume=through_a_file(last)) == []
    assert (again.mean.item(), again.slope.item()) == (model.mean.item(), model.slope.item())


def test_breaking_off_and_drawing_numbers_in_between() -> None:
    plain, meddled = Mean(), Mean()
    finish(plain)
    for _ in train(meddled, Rows(), CONFIG):
        torch.manual_seed(0)
        torch.randn(100)
    assert torch.equal(plain.mean, meddled.mean)
    first = next(train(Mean(), Rows(), CONFIG))
    assert (first.epoch, first.step) == (0, 1)


# --- randomness --------------------------------------------------------------------------------------------------


def test_a_stream_depends_on_seed_and_purpose() -> None:
    def draw(*key: object) -> tuple:
        return tuple(torch.rand(4, generator=seeded_generator(*key)).tolist())

    keys = [(0,), (1,), (0, "order"), (0, "order", 1), (0, "order", 2), (0, "pixels", 1), (1, "order", 1), (2**40,)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(0, "order", 1) == draw(0, "order", 1)


def test_a_seeded_block_leaves_the_random_state_as_it_was() -> None:
    before = random_state()
    with pytest.raises(KeyError), seeded(5):
        first = torch.rand(3)
        raise KeyError
    assert torch.equal(before["cpu"], torch.get_rng_state())
    with seeded(5):
        assert torch.equal(first, torch.rand(3))
    torch.rand(3)
    set_random_state(before)
    assert torch.equal(before["cpu"], torch.get_rng_state())


# --- half precision ----------------------------------------------------------------------------------------------


class Stripes:
    """Noisy binary images of vertical stripes."""

    def __init__(self, seed: int, size: int = 256) -> None:
        noise = torch.rand(size, 1, 4, 4, generator=seeded_generator(seed))
        self.images = (noise < torch.tensor([0.95, 0.1, 0.9, 0.05])).float()

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows])


SMALL = {
    "nade": {"hidden_units": 16},
    "pixel_cnn": {"channels": 8, "blocks": 1, "dropout": 0.0},
    "vae": {"hidden_units": 16, "latent_units": 2},
    "rbm": {"hidden_units": 8},
}


@pytest.mark.parametrize("precision", ["float16", "bf16", "double", ""])
def test_a_precision_that_there_is_not_is_named(precision: str) -> None:
    with pytest.raises(ValueError, match=f"precision must be one of float32, bfloat16, got '{precision}'"):
        TrainingConfig(precision=precision)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SMALL)
def test_half_precision_learns_the_same(name: str, device: str) -> None:
    """Autocast to bfloat16 keeps the weights in float32, and stays near in held-out likelihood."""
    held_out, found = Stripes(seed=1).images, {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = build_model(name, (1, 4, 4), **SMALL[name]).to(device)
        start = likelihood(model, held_out, k=100).mean
        config = TrainingConfig(epochs=1, batch_size=8, learning_rate=0.02, precision=precision, device=device)
        assert all(math.isfinite(p.metrics["loss"]) for p in train(model, Stripes(seed=0), config))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        found[precision] = likelihood(model, held_out, k=100).mean
        assert found[precision] > start + 1, "it learnt nothing"
    assert found["bfloat16"] == pytest.approx(found["float32"], abs=0.25)

"""Laws of the DCGAN: each player moves alone, no image depends on another, any small shape builds."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.contract import Batch, TrainingConfig
from gdm_core.models.adversarial.dcgan import DCGAN, BatchNorm
from gdm_core.training import train
from gdm_core.updates import AdversarialUpdate

SHAPES = [(1, 1, 1), (1, 3, 3), (1, 8, 8), (1, 5, 7), (1, 28, 28), (3, 32, 32), (2, 9, 40)]


def small(data_shape: tuple[int, int, int] = (1, 8, 8)) -> DCGAN:
    return DCGAN(data_shape, latent_units=6, channels=4)


def update_of(model: DCGAN) -> AdversarialUpdate:
    return next(model.training_phases(TrainingConfig())).update


@pytest.mark.parametrize("data_shape", SHAPES)
def test_any_small_shape_builds_samples_and_learns(data_shape: tuple[int, int, int]) -> None:
    model = small(data_shape).train()
    x = torch.rand(5, *data_shape)
    assert all(torch.isfinite(value) for value in update_of(model)(Batch(x)).values())
    samples = model.sample(3)
    assert samples.shape == (3, *data_shape)
    model.check_images(samples)
    assert model.critic(x).shape == (5,)


@pytest.mark.parametrize("data_shape", [(1, 3, 3), (1, 8, 8)])
def test_a_batch_of_one_trains_to_finite_values(data_shape: tuple[int, int, int]) -> None:
    model = small(data_shape).train()
    update = update_of(model)
    for size in (4, 1, 1, 3):
        update(Batch(torch.rand(size, *data_shape)))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize("player", ["critic", "generator", "encoder"])
def test_each_optimiser_touches_only_its_own_network(player: str) -> None:
    model = small().train()
    networks = {"critic": model.discriminator, "generator": model.generator, "encoder": model.encoder}
    update, before = update_of(model), copy.deepcopy(networks)
    update._step(player, Batch(torch.rand(6, 1, 8, 8)))
    for moved, earlier in zip(networks[player].parameters(), before[player].parameters(), strict=True):
        assert not torch.equal(moved, earlier) and moved.grad is not None
    for other in networks.keys() - {player}:
        for still, earlier in zip(networks[other].parameters(), before[other].parameters(), strict=True):
            assert torch.equal(still, earlier) and still.grad is None


def test_the_players_play_as_if_there_were_no_encoder() -> None:
    """Bit for bit: it draws no noise, and leaves the generator's running averages alone."""
    model, x = small().train(), Batch(torch.rand(6, 1, 8, 8))
    alone = copy.deepcopy(model)
    updates = update_of(model), update_of(alone)
    updates[1].follower = None
    for seed in range(3):
        for update in updates:
            torch.manual_seed(seed)
            update(x)
    for network in ("generator", "discriminator"):
        pairs = zip(getattr(model, network).state_dict().items(), getattr(alone, network).state_dict().values(),
                    strict=True)  # fmt: skip
        assert all(torch.equal(value, other) for (_, value), other in pairs)
    assert not torch.equal(model.encoder.layers[0].weight, alone.encoder.layers[0].weight)


def test_the_encoder_learns_to_find_codes() -> None:
    """With the generator held still, what it gives back comes nearer to what it made from a code."""
    torch.manual_seed(0)
    model = small().train()
    with torch.no_grad():
        for weight in model.generator.parameters():
            weight.mul_(10)  # fresh weights make the same grey image of every code
        x = model.decode(model.sample_latent(64, torch.Generator().manual_seed(0)))
    update = update_of(model)

    def error() -> float:
        return (x - model.reconstruct(x)).square().sum().item()

    before = error()
    for _ in range(150):
        update._step("encoder", Batch(x))
    assert error() < before / 2


def test_the_encoder_loss_is_its_formula() -> None:
    model, x = small().eval(), torch.rand(6, 1, 8, 8)
    z = model.encode(x)
    expected = ((x - model.decode(z)) ** 2).sum((1, 2, 3)) + 0.03 * (z**2).sum(1)
    assert model.encoder_loss(Batch(x)).item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_one_update_gives_every_parameter_a_gradient() -> None:
    model = small().train()
    update_of(model)(Batch(torch.rand(6, 1, 8, 8)))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_losses_are_cross_entropies_and_the_generator_does_not_saturate() -> None:
    model, x = small().eval(), torch.rand(6, 1, 8, 8)
    z = torch.randn(6, 6, generator=torch.Generator().manual_seed(7))
    model._training_noise = lambda batch: z
    real, generated = model.critic(x), model.critic(model.decode(z))
    entropy = F.binary_cross_entropy_with_logits
    critic = entropy(real, torch.ones(6)) + entropy(generated, torch.zeros(6))
    assert model.critic_loss(Batch(x)).item() == pytest.approx(critic.item(), rel=1e-5)
    assert model.generator_loss(Batch(x)).item() == pytest.approx(entropy(generated, torch.ones(6)).item(), rel=1e-5)


@torch.no_grad()
def test_no_image_depends_on_the_others_even_in_the_midst_of_training() -> None:
    model = small().train()
    before = copy.deepcopy(model.state_dict())
    z, x = model.sample_latent(5), torch.rand(5, 1, 8, 8)
    assert torch.allclose(model.decode(z)[2:3], model.decode(z[2:3]), atol=1e-6)
    assert torch.allclose(model.critic(x)[2:3], model.critic(x[2:3]), atol=1e-6)
    assert model.training and model.generator.training and model.discriminator.layers[3].training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_seed_repeats_and_temperature_scales_the_noise() -> None:
    model = small().eval()

    def draw(seed: int, temperature: float = 1.0) -> Tensor:
        return model.sample(4, temperature=temperature, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))
    assert torch.allclose(draw(0, temperature=0.0), model.decode(torch.zeros(4, 6)))
    with pytest.raises(ValueError, match="labels"):
        model.sample(2, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="temperature"):
        model.sample(2, temperature=-1.0)
    with pytest.raises(ValueError, match="n must"):
        model.sample(0)


def test_the_architecture_follows_the_paper() -> None:
    model = DCGAN((1, 32, 32))
    generator, discriminator = list(model.generator.layers), list(model.discriminator.layers)
    assert isinstance(generator[0], BatchNorm) and isinstance(generator[-1], nn.ConvTranspose2d)
    assert not isinstance(discriminator[1], BatchNorm) and isinstance(discriminator[3], BatchNorm)
    assert isinstance(discriminator[-1], nn.Linear)
    weights = torch.cat([layer.weight.flatten() for layer in generator if isinstance(layer, nn.ConvTranspose2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)


class Images:
    """Nine images: with a batch size of 4, the last batch of an epoch is a single image."""

    def __init__(self) -> None:
        self.images = torch.rand(9, 1, 3, 3, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows])


def test_resuming_in_mid_epoch_is_bit_identical_buffers_included() -> None:
    config = TrainingConfig(epochs=3, batch_size=4)
    whole, interrupted, resumed = small((1, 3, 3)), small((1, 3, 3)), small((1, 3, 3))
    interrupted.load_state_dict(whole.state_dict())
    for _ in train(whole, Images(), config):
        whole.eval().sample(2)  # the loop puts training mode and random state back
    progress = next(p for p in train(interrupted, Images(), config) if (p.epoch, p.step) == (1, 2))
    for _ in train(resumed, Images(), config, resume=copy.deepcopy(progress.state_dict())):
        pass
    assert any("running_mean" in name for name in whole.state_dict())
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("argument", ["latent_units", "channels"])
def test_a_size_below_one_is_refused_by_name(argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        DCGAN((1, 3, 3), **{argument: 0})


def test_half_precision_training_keeps_losses_and_weights_in_full() -> None:
    model = small((1, 3, 3))
    config = TrainingConfig(epochs=1, batch_size=4, precision="bfloat16")
    *_, last = train(model, Images(), config)
    assert all(total.dtype == torch.float32 and torch.isfinite(total) for total in last._totals.values())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())

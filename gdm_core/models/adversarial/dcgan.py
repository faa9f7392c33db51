"""A deep convolutional generative adversarial network: a generator turns noise into images, a discriminator tells them
from real ones, and each learns by beating the other.

    discriminator: minimise -E[log D(x)] - E[log(1 - D(G(z)))]      generator: minimise -E[log D(G(z))],  z ~ N(0, I)

Paper: "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks", Radford, Metz &
Chintala, 2016: strided and transposed convolutions in place of pooling, batch norm in all but the generator's last and
the discriminator's first layer, ReLU against LeakyReLU, tanh output, weights from N(0, 0.02), Adam with beta_1 = 0.5.
Ours: normal noise in place of uniform, so that codes can be interpolated on a sphere, as many layers as the image has
room for, and an encoder, which learns beside the two players without moving them to bring an image to the code that the
generator makes it from, as in "f-AnoGAN", Schlegl et al., 2019:

    encoder: minimise E[|x - G(E(x))|^2 + s^2 |E(x)|^2],  the most probable code where x ~ N(G(z), s^2)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.contract import Batch, GenerativeModel, Phase, TrainingConfig
from gdm_core.layers.latent_noise import check_latent_sampling, draw_normals
from gdm_core.registry import register
from gdm_core.updates import AdversarialUpdate, Follower

NOISE_VARIANCE = 0.03  # s^2, chosen by how well validation images' defects are found
ENCODER_SPEED = 5  # times the players' learning rate: it has a moving target to follow, and nobody to outplay


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also trains on a batch of one: a single image is normalised by the running averages."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


def doublings(height: int, width: int) -> int:
    """How often the generator doubles the image's sides: down to 4 pixels and more, as in the paper, at least twice."""
    return max(2, int(math.log2(min(height, width) / 4)) if min(height, width) >= 4 else 0)


class Generator(nn.Module):
    """Noise (N, latent) to images (N, C, H, W) in [0, 1]: each layer doubles the sides, the surplus is cropped."""

    def __init__(self, data_shape: Sequence[int], latent_units: int, channels: int) -> None:
        super().__init__()
        colours, self.height, self.width = data_shape
        stages = doublings(self.height, self.width)
        self.start = (-(-self.height // 2**stages), -(-self.width // 2**stages))
        widths = [channels * 2**stage for stage in reversed(range(stages))]
        self.project = nn.Linear(latent_units, widths[0] * self.start[0] * self.start[1], bias=False)
        layers: list[nn.Module] = [BatchNorm(widths[0]), nn.ReLU()]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), BatchNorm(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], colours, 4, 2, 1))

    def forward(self, z: Tensor) -> Tensor:
        image = self.layers(self.project(z).view(len(z), -1, *self.start))
        return (image[:, :, : self.height, : self.width].to(z.dtype).tanh() + 1) / 2


class MirroredGenerator(nn.Module):
    """Images (N, C, H, W) in [0, 1] to (N, outputs): the generator's layers mirrored, its crop padded again."""

    def __init__(self, data_shape: Sequence[int], channels: int, outputs: int) -> None:
        super().__init__()
        colours, height, width = data_shape
        stages = doublings(height, width)
        self.padding = (0, -width % 2**stages, 0, -height % 2**stages)
        layers: list[nn.Module] = [nn.Conv2d(colours, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for stage in range(1, stages):
            before, after = channels * 2 ** (stage - 1), channels * 2**stage
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), BatchNorm(after), nn.LeakyReLU(0.2)]
        places = -(-height // 2**stages) * -(-width // 2**stages)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 2 ** (stages - 1) * places, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(F.pad(2 * x - 1, self.padding)).to(x.dtype)


@register("dcgan", family="adversarial", paper="Radford et al., 2016")
class DCGAN(GenerativeModel):
    """Samples and codes: it has no likelihood. `channels` is the number of feature maps next to the image; it doubles
    with every halving of the sides. Outside training, batch norm always uses its running averages: no image depends
    on the others.
    """

    default_training = TrainingConfig(epochs=30, batch_size=64, learning_rate=2e-4)
    pixel_kinds = ("real",)

    def __init__(self, data_shape: Sequence[int], latent_units: int = 100, channels: int = 64) -> None:
        super().__init__(data_shape, pixels="real", levels=None)
        for name, value in (("latent_units", latent_units), ("channels", channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.latent_units = latent_units
        self.generator = Generator(self.data_shape, latent_units, channels)
        self.discriminator = MirroredGenerator(self.data_shape, channels, 1)
        self.encoder = MirroredGenerator(self.data_shape, channels, latent_units)
        self.apply(_paper_weights)

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        follower = Follower("encoder", self.encoder, self.encoder_loss, ENCODER_SPEED * config.learning_rate)
        update = AdversarialUpdate(
            self.generator, self.discriminator, self.critic_loss, self.generator_loss, config.learning_rate,
            follower=follower,
        )  # fmt: skip
        yield Phase("adversarial", update, config.epochs)

    def critic_loss(self, batch: Batch) -> Tensor:
        """-mean log D(x) - mean log(1 - D(G(z))), real and generated images in batches of their own."""
        with torch.no_grad():
            generated = self.generator(self._training_noise(batch))
        real, fake = self.discriminator(batch.images), self.discriminator(generated)
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator_loss(self, batch: Batch) -> Tensor:
        """-mean log D(G(z)), the paper's loss that does not saturate where the discriminator is sure."""
        return F.softplus(-self.discriminator(self.generator(self._training_noise(batch)))).mean()

    def encoder_loss(self, batch: Batch) -> Tensor:
        """The mean of |x - G(E(x))|^2 + s^2 |E(x)|^2 over the images, the generator as it samples."""
        z = self.encoder(batch.images)
        error = (batch.images - self.decode(z)).square().flatten(1).sum(1)
        return (error + NOISE_VARIANCE * z.square().sum(1)).mean()

    def _training_noise(self, batch: Batch) -> Tensor:
        return torch.randn(len(batch.images), self.latent_units, device=batch.images.device)

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """n images (n, C, H, W); `temperature` scales the noise: below 1 more typical images, fewer kinds."""
        check_latent_sampling(self, n, labels, temperature)
        return self.decode(temperature * self.sample_latent(n, generator))

    def sample_latent(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n codes from N(0, I), (n, latent)."""
        return draw_normals(self, (n, self.latent_units), generator)

    def decode(self, z: Tensor) -> Tensor:
        """The image of each code, (N, C, H, W)."""
        with _evaluating(self.generator):
            return self.generator(z)

    def critic(self, x: Tensor) -> Tensor:
        """The discriminator's logit log D(x) / (1 - D(x)), (N,)."""
        with _evaluating(self.discriminator):
            return self.discriminator(self.check_images(x))[:, 0]

    def encode(self, x: Tensor) -> Tensor:
        """The code that the encoder finds for x, (N, latent)."""
        with _evaluating(self.encoder):
            return self.encoder(self.check_images(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """G(E(x)), (N, C, H, W): what of x the generator can make."""
        return self.decode(self.encode(x))


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    before = network.training
    network.train(False)
    try:
        yield
    finally:
        network.train(before)


def _paper_weights(layer: nn.Module) -> None:
    if isinstance(layer, BatchNorm):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    elif isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

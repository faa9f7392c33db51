"""A deep energy: a network gives each image a number, and exp of minus that number is its density but for a constant.

    p(x) = exp(-E(x)) / Z on [0, 1]^D,     E(x) = f(x) step_size / noise^2

f is a convolutional network. Images are drawn by Langevin chains, reflected at 0 and 1,

    x' = x - step_size / 2 grad f(x) + noise u,     u ~ N(0, I)

which is the Langevin step of E, whatever `step_size` and `noise` are. E is learnt by maximum likelihood with chains
from a replay buffer (langevin_likelihood.py) or by denoising score matching (score_matching.py).
Z is not known, and is not estimated: annealing chains of this many dimensions would miss it by tens of nats.

Paper: "Implicit Generation and Modeling with Energy-Based Models", Du and Mordatch, 2019. Ours: the scale of the
energy follows from the chain, so that a step size far above noise^2, as theirs, means a small f and not a chain colder
than the density; the chains are reflected and their slopes not clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from gdm_core.contract import GenerativeModel, Phase, TrainingConfig
from gdm_core.layers.latent_noise import draw_normals
from gdm_core.layers.sampling_arguments import check_completion, draw_uniforms
from gdm_core.models.energy.energy_network import EnergyNetwork
from gdm_core.models.energy.grey_surprise import grey_surprise
from gdm_core.models.energy.learning.langevin_likelihood import LangevinLikelihood
from gdm_core.models.energy.learning.score_matching import DenoisingScoreMatching
from gdm_core.models.energy.sampling.chain_moments import moments
from gdm_core.models.energy.sampling.langevin import langevin_step
from gdm_core.registry import register
from gdm_core.updates import GradientUpdate


@register("deep_energy", family="energy", paper="Du and Mordatch, 2019; Vincent, 2011")
class DeepEnergy(GenerativeModel):
    """Arguments: `step_size` and `noise` are the chain's; `steps` the Langevin steps of each of the batch's chains per
    learning step, of the `chains` in the replay buffer, a share of `restarts` of which begins anew at noise;
    `energy_penalty` weighs squared energies in the loss. Score matching uses none of the last four, but `noise_levels`
    from `smallest_noise` to `largest_noise`; its energy is that of the smallest, its samples go through all from the
    largest on; it is quicker a step, and wants a learning rate of 2e-3 and 120 epochs. `sampling_steps` is the length
    of the chains that draw and complete images; `surprise` what the heat map shows.
    """

    default_training = TrainingConfig(epochs=40, batch_size=64, learning_rate=3e-4)
    pixel_kinds = ("real",)

    def __init__(
        self,
        data_shape: Sequence[int],
        learning: Literal["likelihood", "score_matching"] = "likelihood",
        channels: int = 16,
        spectral_norm: bool = False,
        energy_penalty: float = 1e-3,
        step_size: float = 0.02,
        noise: float = 0.02,
        steps: int = 20,
        chains: int = 1000,
        restarts: float = 0.05,
        noise_levels: int = 10,
        smallest_noise: float = 0.025,
        largest_noise: float = 0.5,
        sampling_steps: int = 300,
        surprise: Literal["greys", "slope"] = "greys",
    ) -> None:
        super().__init__(data_shape, pixels="real", levels=None)
        counts = {"channels": channels, "steps": steps, "chains": chains, "noise_levels": noise_levels,
                  "sampling_steps": sampling_steps}  # fmt: skip
        _check_counts_and_words(counts, learning, surprise)
        if not (step_size > 0 and noise > 0 and 0 <= restarts <= 1 and energy_penalty >= 0):
            raise ValueError(
                "step_size and noise must be positive, restarts in [0, 1], energy_penalty at least 0, got "
                f"{step_size}, {noise}, {restarts} and {energy_penalty}"
            )
        if not 0 < smallest_noise <= largest_noise:
            raise ValueError(f"smallest_noise must be in (0, largest_noise], got {smallest_noise} and {largest_noise}")
        self.learning, self.energy_penalty, self.surprise = learning, energy_penalty, surprise
        self.scale, self.noise = step_size / noise**2, noise
        self.steps, self.chains, self.restarts = steps, chains, restarts
        self.noise_levels = noise_levels if learning == "score_matching" else 1
        self.smallest_noise, self.largest_noise = smallest_noise, largest_noise
        self.sampling_steps = sampling_steps
        self.network = EnergyNetwork(self.data_shape, channels, spectral_norm, conditional=self.noise_levels > 1)

    # --- the energy ---

    def noise_scales(self) -> Tensor:
        """The standard deviations of score matching's noise, (noise_levels,), geometric from the smallest."""
        if self.noise_levels == 1:
            return torch.tensor([self.smallest_noise])
        share = torch.linspace(0, 1, self.noise_levels)
        return self.smallest_noise * (self.largest_noise / self.smallest_noise) ** share

    def tempered_energy(self, x: Tensor, levels: Tensor | None = None) -> Tensor:
        """E(x; s) in nats, (N,), of x with noise of `levels` s (N,); of the smallest where none are given."""
        ratio = x.new_ones(len(x)) if levels is None else levels / self.smallest_noise
        return self.scale * self.network(x.to(self.network.last.weight.dtype), ratio.log()) / ratio

    def energy(self, x: Tensor) -> Tensor:
        """E(x), (N,) nats: p(x) = exp(-E(x)) / Z."""
        return self.tempered_energy(self.check_images(x))

    def slope(self, x: Tensor, levels: Tensor | None = None) -> Tensor:
        """The gradient of E with respect to x, of its shape; without a graph, also where gradients are off."""
        with torch.inference_mode(False), torch.enable_grad():
            x, levels = x.clone().detach().requires_grad_(), None if levels is None else levels.clone()
            (slope,) = torch.autograd.grad(self.tempered_energy(x, levels).sum(), x)
        return slope

    def surprise_map(self, x: Tensor) -> Tensor:
        """How strange each pixel is, (N, 1, H, W), summed over channels, by the argument `surprise`:

        "greys": its grey value against others, in nats (grey_surprise.py); "slope": |dE / dx_i|, in nats per unit of
        grey, which costs one backward pass, and finds steep places of the energy rather than strange pixels.
        """
        x = self.check_images(x)
        pixels = grey_surprise(self.tempered_energy, x) if self.surprise == "greys" else self.slope(x).abs()
        return pixels.sum(1, keepdim=True)

    # --- learning ---

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        if self.learning == "score_matching":
            yield Phase("score matching", GradientUpdate(DenoisingScoreMatching(self), config), config.epochs)
        else:
            yield Phase("Langevin likelihood", LangevinLikelihood(self, config), config.epochs)

    # --- chains ---

    @torch.no_grad()
    def step(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None, level: float | None = None
    ) -> Tensor:
        """One Langevin step of E(x; level) / temperature, its noise in proportion to the level; (N, C, H, W)."""
        level = self.smallest_noise if level is None else level
        slope = self.slope(x, torch.full((len(x),), level, dtype=x.dtype, device=x.device)) / temperature
        return langevin_step(x, slope, self.noise * level / self.smallest_noise, draw_normals(self, x.shape, generator))

    def run_chains(self, x: Tensor, steps: int) -> Tensor:
        """Where chains from x stand after so many steps at the smallest level, by torch's global random state."""
        for _ in range(steps):
            x = self.step(x)
        return x

    def chain_steps(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (N, C, H, W) after every Langevin step from x on, without end."""
        x = self.check_images(x)
        while True:
            x = self.step(x, temperature, generator)
            yield x

    def schedule(self) -> list[float]:
        """The noise level of each of the `sampling_steps` steps, from the largest to the smallest, as long at each."""
        levels = self.noise_scales().flip(0).tolist()
        return [levels[step * len(levels) // self.sampling_steps] for step in range(self.sampling_steps)]

    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The ends of n Langevin chains of `sampling_steps` steps from even noise, (n, C, H, W).

        Energies are divided by `temperature`. Raises ValueError for labels.
        """
        *_, last = self.sample_steps(n, labels, temperature, generator)
        return last

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield where the chains of `sample` start, then where they stand at up to 50 moments on the way."""
        x = draw_uniforms(self, n, labels, temperature, generator)
        levels = iter(self.schedule())
        yield from moments(lambda x: self.step(x, temperature, generator, next(levels)), x, self.sampling_steps)

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the pixels where `known` is 0 given the others, by Langevin chains whose known pixels are held fixed."""
        x, held = check_completion(self, x, known)
        if not len(x):
            return x
        chain = torch.where(held, x, draw_uniforms(self, len(x), None, temperature, generator))
        for level in self.schedule():
            chain = torch.where(held, x, self.step(chain, temperature, generator, level))
        return chain

    def completion_is_exact(self, known: Tensor) -> bool:
        """Where there is nothing to draw: a Langevin chain only comes near its distribution."""
        return bool(known.all())


def _check_counts_and_words(counts: dict[str, int], learning: str, surprise: str) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if learning not in ("likelihood", "score_matching"):
        raise ValueError(f"learning must be likelihood or score_matching, got {learning!r}")
    if surprise not in ("greys", "slope"):
        raise ValueError(f"surprise must be greys or slope, got {surprise!r}")

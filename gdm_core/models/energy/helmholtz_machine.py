"""A Helmholtz machine: a sigmoid belief net that generates from the top down, and a recognition net that guesses its
hidden units from the bottom up; each learns from what the other makes up.

    p(x, h) = p(h_L) prod_l p(h_{l-1} | h_l),  h_0 = x,      q(h | x) = prod_l q(h_l | h_{l-1}),
    p(h_{l-1} = 1 | h_l) = sigmoid(b_{l-1} + G_l h_l),        q(h_l = 1 | h_{l-1}) = sigmoid(c_l + R_l h_{l-1})

Wake: h ~ q(h | x) of an image, ascend log p(x, h). Sleep: (x, h) ~ p, ascend log q(h | x). The recognition net thereby
learns to be right about dreams. Reweighted, K guesses h_k of an image count by weights w_k ~ p(x, h_k) / q(h_k | x)
that sum to one: ascend sum_k w_k log p(x, h_k), and besides the sleep step also sum_k w_k log q(h_k | x).

Papers: "The wake-sleep algorithm for unsupervised neural networks", Hinton, Dayan, Frey & Neal, 1995; "Reweighted
Wake-Sleep", Bornschein & Bengio, 2015. Changed: Adam in place of plain gradient steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.contract import Batch, GenerativeModel, TrainingConfig
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.models.energy.sampling.guessed_completion import GuessedLayers, complete_by_guesses
from gdm_core.registry import register

ACTIVATIONS_AT_ONCE = 1 << 24  # numbers in memory at once where many guesses are weighed


@register("helmholtz_machine", family="energy", paper="Hinton et al., 1995; Bornschein and Bengio, 2015")
class HelmholtzMachine(GenerativeModel):
    """Binary pixels below `hidden_units` binary units, from the layer next to the image to the top one.

    `learning` is wake_sleep (one guess per image) or reweighted (`guesses` of them). `completion_steps`: of the Markov
    chains that complete images.
    """

    default_training = TrainingConfig(epochs=60, batch_size=32, learning_rate=1e-2)

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: tuple[int, ...] = (64, 32),
        learning: Literal["wake_sleep", "reweighted"] = "reweighted",
        guesses: int = 10,
        completion_steps: int = 1000,
    ) -> None:
        super().__init__(data_shape)
        if not hidden_units or min(hidden_units) < 1:
            raise ValueError(f"hidden_units must be at least 1 in every layer, got {hidden_units}")
        for name, value in {"guesses": guesses, "completion_steps": completion_steps}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.completion_steps = completion_steps
        self.hidden_units, self.learning = tuple(hidden_units), learning
        self.guesses = guesses if learning == "reweighted" else 1
        sizes = (self.dimensions, *hidden_units)
        self.generative = nn.ModuleList(nn.Linear(above, below) for below, above in itertools.pairwise(sizes))
        self.recognition = nn.ModuleList(nn.Linear(below, above) for below, above in itertools.pairwise(sizes))
        self.top_bias = nn.Parameter(torch.zeros(sizes[-1]))

    # --- the two nets, on vectors: layers = [x, h_1, ..., h_L], each (..., units) ---

    def joint_log_prob(self, layers: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
        """log p(x, h) in nats, (...), all logits divided by the temperature."""
        top = _log_bernoulli(self.top_bias.expand_as(layers[-1]) / temperature, layers[-1])
        pairs = zip(self.generative, layers[:-1], layers[1:], strict=True)
        return top + sum(_log_bernoulli(down(above) / temperature, below) for down, below, above in pairs)

    def posterior_log_prob(self, layers: Sequence[Tensor]) -> Tensor:
        """log q(h | x) in nats, (...)."""
        pairs = zip(self.recognition, layers[:-1], layers[1:], strict=True)
        return sum(_log_bernoulli(up(below), above) for up, below, above in pairs)

    @torch.no_grad()
    def guess(self, x: Tensor, uniforms: Tensor) -> list[Tensor]:
        """[x, h_1, ..., h_L] with h ~ q(h | x): x (..., D), uniforms (..., hidden units of all layers)."""
        layers = [x]
        for up, noise in zip(self.recognition, uniforms.split(self.hidden_units, -1), strict=True):
            layers.append(_bernoulli(up(layers[-1]), noise))
        return layers

    @torch.no_grad()
    def dream(self, uniforms: Tensor, temperature: float = 1.0) -> list[Tensor]:
        """[x, h_1, ..., h_L] ~ p(x, h), all logits divided by the temperature; uniforms (n, all units)."""
        noise = uniforms.split((self.dimensions, *self.hidden_units), -1)
        layers = [_bernoulli(self.top_bias / temperature, noise[-1])]
        for down, below in zip(reversed(self.generative), reversed(noise[:-1]), strict=True):
            layers.insert(0, _bernoulli(down(layers[0]) / temperature, below))
        return layers

    # --- learning and likelihood ---

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """wake + sleep, whose gradients are those of the two steps; nats per image. `wake` is what falls with learning:

        -log p(x, h) of the guesses; `bound` is the negative bound of log p(x) by as many guesses.
        """
        x = self.check_images(batch.images).flatten(1)
        noise = self._uniforms((self.guesses, len(x), sum(self.hidden_units)), None)
        layers = self.guess(x.expand(self.guesses, -1, -1), noise)
        joint, posterior = self.joint_log_prob(layers), self.posterior_log_prob(layers)  # (guesses, N)
        log_weights = (joint - posterior).detach()
        share = log_weights.softmax(0)
        wake = -(share * joint).sum(0).mean()
        asleep = self.dream(self._uniforms((len(x), self.dimensions + sum(self.hidden_units)), None))
        sleep = -self.posterior_log_prob(asleep).mean()
        if self.learning == "reweighted":
            sleep = (sleep - (share * posterior).sum(0).mean()) / 2
        bound = math.log(self.guesses) - log_weights.logsumexp(0).mean()
        return {"loss": wake + sleep, "wake": wake, "sleep": sleep, "bound": bound}

    @torch.no_grad()
    def log_weights(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """log p(x, h) - log q(h | x) for k guesses h ~ q(h | x), (k, N); the guesses are worked off in parts."""
        v = self.check_images(x).flatten(1)
        uniforms = self._uniforms((k, 1, sum(self.hidden_units)), generator)
        floats_per_guess = max(1, len(v) * (self.dimensions + sum(self.hidden_units)))
        parts = uniforms.split(max(1, ACTIVATIONS_AT_ONCE // floats_per_guess))
        return torch.cat([self._log_weights(v, part.expand(-1, len(v), -1)) for part in parts])

    def _log_weights(self, v: Tensor, uniforms: Tensor) -> Tensor:
        layers = self.guess(v.expand(len(uniforms), -1, -1), uniforms)
        return self.joint_log_prob(layers) - self.posterior_log_prob(layers)

    def _uniforms(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        home = "cpu" if generator is None else generator.device
        dtype = self.top_bias.dtype
        return torch.rand(shape, generator=generator, dtype=dtype, device=home).to(self.device)

    # --- images ---

    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw n images (n, C, H, W): hidden units from the top down, then the pixels."""
        pixels = draw_uniforms(self, n, labels, temperature, generator).flatten(1)
        hidden = self._uniforms((n, sum(self.hidden_units)), generator)
        return self.dream(torch.cat([pixels, hidden], 1), temperature)[0].view(n, *self.data_shape)

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the pixels where `known` is 0 given the others, near their distribution, (N, C, H, W).

        Chains of `completion_steps` steps, from dreams with the known pixels put in.
        """
        hidden = self._uniforms((len(x), sum(self.hidden_units)), generator)
        net = GuessedLayers(
            self.hidden_units,
            start=lambda pixels: self.dream(torch.cat([pixels, hidden], 1), temperature)[0],
            guess_logits=lambda layer, below: self.recognition[layer](below),
            pixel_logits=self.generative[0],
            log_joint=self.joint_log_prob,
        )
        return complete_by_guesses(self, net, self.completion_steps, x, known, temperature, generator)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Where there is nothing to draw: a Markov chain only comes near its distribution."""
        return bool(known.all())

    def hidden_layers(self, x: Tensor) -> list[Tensor]:
        """The recognition net's probabilities, each layer given those of the layer below, [(N, units)]."""
        layers = [self.check_images(x).flatten(1)]
        for up in self.recognition:
            layers.append(torch.sigmoid(up(layers[-1])))
        return layers[1:]

    def reconstruct(self, x: Tensor) -> Tensor:
        """p(x = 1 | h_1) at the recognition net's probabilities h_1, (N, C, H, W)."""
        h = torch.sigmoid(self.recognition[0](self.check_images(x).flatten(1)))
        return torch.sigmoid(self.generative[0](h)).view_as(x)

    def filters(self) -> Tensor:
        """What each unit of the first hidden layer adds to the pixels' logits, (units, C, H, W)."""
        return self.generative[0].weight.detach().T.reshape(-1, *self.data_shape)


def _log_bernoulli(logits: Tensor, values: Tensor) -> Tensor:
    """log p of the last axis together; sums need full precision."""
    logits = logits.to(values.dtype)
    return -F.binary_cross_entropy_with_logits(logits, values.expand_as(logits), reduction="none").sum(-1)


def _bernoulli(logits: Tensor, uniforms: Tensor) -> Tensor:
    return (uniforms < torch.sigmoid(logits.to(uniforms.dtype))).to(uniforms.dtype)

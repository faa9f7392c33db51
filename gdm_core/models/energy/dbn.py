"""A deep belief network: a restricted Boltzmann machine over hidden units, from which layers of independent switches
generate downwards to the image; separate weights guess the hidden units from the image upwards.

    p(x, h_1, ..., h_L) = p(x | h_1) ... p(h_{L-2} | h_{L-1}) p(h_{L-1}, h_L),    the last of a restricted machine,
    p(h_{l-1} = 1 | h_l) = sigmoid(b_{l-1} + W_l' h_l),      q(h_l = 1 | h_{l-1}) = sigmoid(c_l + R_l h_{l-1}),
    log p(x) >= E_q[log p(x, h_1, ..., h_{L-1}) - log q(h_1, ..., h_{L-1} | x)]      (h_L is summed out)

Learnt layer upon layer, each as a restricted machine on samples of the layer below, then all together (up_down.py).
Where machine l + 1 has room for the pixels of machine l as hidden units, it starts as machine l upside down: the stack
then is machine l, the bound is tight, and from there it can only gain. Log Z is that of the top machine.

Papers: "A Fast Learning Algorithm for Deep Belief Nets", Hinton, Osindero & Teh, 2006; the bound as in "On the
Quantitative Analysis of Deep Belief Networks", Salakhutdinov & Murray, 2008. Changed: persistent chains, which go on
from one machine to the next; learning rates that fall linearly to 0 within every phase.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.annealing import anneal
from gdm_core.contract import GenerativeModel, Phase, TrainingConfig
from gdm_core.layers.sampling_arguments import draw_uniforms
from gdm_core.models.energy.learning.contrastive_divergence import ContrastiveDivergence
from gdm_core.models.energy.learning.greedy_layers import turn_upside_down
from gdm_core.models.energy.learning.up_down import UpDown, h_as_images
from gdm_core.models.energy.partition.tempered_layers import TemperedLayers, guess_by_recognition
from gdm_core.models.energy.partition.tempered_rbm import Chains, bernoulli
from gdm_core.models.energy.rbm import RestrictedBoltzmannMachine
from gdm_core.models.energy.sampling.chain_moments import moments
from gdm_core.models.energy.sampling.guessed_completion import below_a_machine, complete_by_guesses, log_bernoulli
from gdm_core.registry import register
from gdm_core.updates import OnFeatures, split_epochs

ACTIVATIONS_AT_ONCE = 1 << 24  # numbers in memory at once where many guesses are weighed


@register("dbn", family="energy", paper="Hinton, Osindero and Teh, 2006; Salakhutdinov and Murray, 2008")
class DeepBeliefNetwork(GenerativeModel):
    """Binary pixels below two or more layers of `hidden_units`, from the layer next to the image to the top one.

    `steps`, `persistent`, `chains`: of contrastive divergence, as for one machine. The machines above the first learn
    at `upper_rate` times the learning rate. `fine_tuning` is the share of the epochs in which all layers learn
    together, at `fine_tuning_rate` times it; the other epochs are divided evenly between the layers. `sampling_steps`
    is the length of the top machine's Gibbs chains that draw images, and of those that complete them.
    """

    default_training = TrainingConfig(epochs=300, batch_size=32, learning_rate=0.2)

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: tuple[int, ...] = (128, 128),
        steps: int = 1,
        persistent: bool = True,
        chains: int = 100,
        upper_rate: float = 0.25,
        fine_tuning: float = 0.2,
        fine_tuning_rate: float = 0.1,
        sampling_steps: int = 1000,
    ) -> None:
        super().__init__(data_shape)
        if len(hidden_units) < 2 or min(hidden_units) < 1:
            raise ValueError(f"hidden_units must be two layers or more, each of at least 1, got {hidden_units}")
        for name, value in {"steps": steps, "chains": chains, "sampling_steps": sampling_steps}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not (upper_rate > 0 and fine_tuning_rate > 0):
            raise ValueError(f"upper_rate, fine_tuning_rate must be positive, got {upper_rate} and {fine_tuning_rate}")
        if not 0 <= fine_tuning < 1:
            raise ValueError(f"fine_tuning must be in [0, 1), got {fine_tuning}")
        self.steps, self.chains, self.sampling_steps = steps, chains if persistent else None, sampling_steps
        self.upper_rate, self.fine_tuning, self.fine_tuning_rate = upper_rate, fine_tuning, fine_tuning_rate
        sizes = (self.dimensions, *hidden_units)
        # Machine l: weight W, visible_bias b (generative); hidden_bias c (recognition; at the top, of its own).
        self.machines = nn.ModuleList(
            RestrictedBoltzmannMachine((below, 1, 1), above) for below, above in itertools.pairwise(sizes)
        )
        self.recognition_weights = nn.ParameterList(machine.weight.detach().clone() for machine in self.machines[:-1])
        self.guessed_units = sizes[1:-1]

    @property
    def top(self) -> RestrictedBoltzmannMachine:
        return self.machines[-1]

    # --- the two nets, on vectors: layers = [x, h_1, ..., h_{L-1}], each (N, units) ---

    def as_vectors(self, x: Tensor) -> Tensor:
        return x.flatten(1).to(self.top.weight.dtype)  # (N, D)

    def recognition_logits(self, layer: int, below: Tensor) -> Tensor:
        return F.linear(below, self.recognition_weights[layer], self.machines[layer].hidden_bias)

    @torch.no_grad()
    def recognise(self, v: Tensor, uniforms: Tensor | None = None, layers: int | None = None) -> list[Tensor]:
        """[x, h_1, ...] with h ~ q(h | x), up to layer `layers` (None: L - 1); uniforms (N, hidden units guessed)."""
        units = self.guessed_units[:layers]
        noise = self._uniforms((len(v), sum(units)), None) if uniforms is None else uniforms
        states = [v]
        for i, part in enumerate(noise.split(units, 1) if units else ()):
            states.append(bernoulli(self.recognition_logits(i, states[-1]), part))
        return states

    @torch.no_grad()
    def generate(self, h: Tensor, uniforms: Tensor | None = None, temperature: float = 1.0) -> list[Tensor]:
        """[x, h_1, ..., h_{L-1}] ~ p given h_{L-1}; uniforms (N, units of x, h_1, ..., h_{L-2})."""
        units = (self.dimensions, *self.guessed_units[:-1])
        noise = self._uniforms((len(h), sum(units)), None) if uniforms is None else uniforms
        states = [h]
        for machine, part in zip(reversed(self.machines[:-1]), reversed(noise.split(units, 1)), strict=True):
            states.insert(0, bernoulli(machine.visible_logits(states[0]) / temperature, part))
        return states

    def generative_log_probs(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """[log p(x | h_1), ..., log p(h_{L-2} | h_{L-1})] in nats, each (N,)."""
        pairs = zip(self.machines[:-1], itertools.pairwise(layers), strict=True)
        return [log_bernoulli(machine.visible_logits(above), below) for machine, (below, above) in pairs]

    def recognition_log_probs(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """[log q(h_1 | x), ..., log q(h_{L-1} | h_{L-2})] in nats, each (N,)."""
        pairs = enumerate(itertools.pairwise(layers))
        return [log_bernoulli(self.recognition_logits(i, below), above) for i, (below, above) in pairs]

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        each = (1 - self.fine_tuning) / len(self.machines)
        *greedy, together = split_epochs(config.epochs, [each] * len(self.machines) + [self.fine_tuning])
        chains = None
        for layer, (machine, epochs) in enumerate(zip(self.machines, greedy, strict=True)):
            rate = config.learning_rate * (1 if layer == 0 else self.upper_rate)
            update = ContrastiveDivergence(machine, rate, self.steps, self.chains)
            if chains is not None:  # the hidden units of a machine's chains are the next one's visible units
                h = torch.bernoulli(chains.logits.sigmoid())
                update.chains = Chains(h, machine.hidden_logits(h).detach())
            features, follow = partial(self._draw_features, layer), partial(turn_upside_down, self, layer)
            yield Phase(f"layer {layer + 1}", OnFeatures(update, features, follow), epochs)
            chains = update.chains
        if together:
            top = ContrastiveDivergence(self.top, config.learning_rate * self.fine_tuning_rate, self.steps, self.chains)
            top.chains = chains
            yield Phase("up-down", UpDown(self, top.learning_rate, top, self.steps), together)

    def _draw_features(self, layer: int, images: Tensor) -> Tensor:
        return h_as_images(self.recognise(self.as_vectors(images), layers=layer)[-1])

    def unnormalised_bound(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """The mean over k guesses h ~ q of log p(x, .. | h_{L-1}) - F(h_{L-1}) - log q(h | x), (N,); its slope in x is
        taken at fixed guesses."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        v = self.as_vectors(self.check_images(x))
        uniforms = self._uniforms((k, 1, sum(self.guessed_units)), generator)
        numbers = max(1, len(v) * (self.dimensions + sum(self.guessed_units)))
        total = v.new_zeros(len(v), dtype=torch.float64)
        for part in uniforms.split(max(1, ACTIVATIONS_AT_ONCE // numbers)):
            noise = part.expand(-1, len(v), -1).flatten(0, 1)  # (guesses N, units)
            layers = self.recognise(v.repeat(len(part), 1), noise)
            log_weight = below_a_machine(self).log_joint(layers) - sum(self.recognition_log_probs(layers))
            total += log_weight.double().view(len(part), -1).sum(0)
        return total / k

    def tempered(self) -> TemperedLayers:
        """The family of the top machine."""
        return TemperedLayers(self.top, partial(guess_by_recognition, self), self.sampling_steps)

    def anneal(self, n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """n annealed importance weights along `betas`, increasing from 0 to 1: log w (n,), float64."""
        return anneal(self.tempered(), n, betas, generator)

    def enumerable_units(self) -> int:
        """Of the top machine."""
        return self.top.enumerable_units()

    def exact_log_partition(self) -> Tensor:
        """log Z of the top machine, a float64 scalar."""
        return self.top.exact_log_partition()

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The ends of n Gibbs chains of `sampling_steps` steps in the top machine, and one way down, (n, C, H, W)."""
        *_, last = self.sample_steps(n, labels, temperature, generator)
        return last

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the image below the start of the chains of `sample`, then those at up to 50 moments on the way."""
        draw_uniforms(self, n, labels, temperature, generator)
        base = self.top.base_visible_bias
        h = bernoulli(base, self._uniforms((n, len(base)), generator))
        step = partial(self.top.gibbs_step, temperature=temperature, generator=generator)
        for state in moments(step, h, self.sampling_steps):
            yield self._image_below(state, temperature, generator)

    def chain_steps(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield the image below h_{L-1} after every Gibbs step in the top machine, from h_{L-1} ~ q(h | x) on."""
        v = self.as_vectors(self.check_images(x))
        h = self.recognise(v, self._uniforms((len(v), sum(self.guessed_units)), generator))[-1]
        while True:
            h = self.top.gibbs_step(h, temperature, generator)
            yield self._image_below(h, temperature, generator)

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the pixels where `known` is 0 given the others, near their distribution, (N, C, H, W)."""
        return complete_by_guesses(self, below_a_machine(self), self.sampling_steps, x, known, temperature, generator)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Where there is nothing to draw: a Markov chain only comes near its distribution."""
        return bool(known.all())

    def _image_below(self, h: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
        noise = self._uniforms((len(h), self.dimensions + sum(self.guessed_units[:-1])), generator)
        return self.generate(h, noise, temperature)[0].view(len(h), *self.data_shape)

    def _uniforms(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        device = self.device if generator is None else generator.device
        return torch.rand(shape, generator=generator, dtype=self.top.weight.dtype, device=device).to(self.device)

    def hidden_layers(self, x: Tensor) -> list[Tensor]:
        """The recognition net's probabilities, each layer given those of the layer below, [(N, units)]."""
        layers = [self.as_vectors(self.check_images(x))]
        for i in range(len(self.recognition_weights)):
            layers.append(torch.sigmoid(self.recognition_logits(i, layers[-1])))
        return [*layers[1:], self.top.hidden_probability(layers[-1])]

    def encode(self, x: Tensor) -> Tensor:
        """The top layer's probabilities, (N, units)."""
        return self.hidden_layers(x)[-1]

    def reconstruct(self, x: Tensor) -> Tensor:
        """Probabilities up to the top layer and down again, (N, C, H, W)."""
        state = self.encode(x)
        for machine in reversed(self.machines):
            state = torch.sigmoid(machine.visible_logits(state))
        return state.view_as(x)

    def filters(self) -> Tensor:
        """What each unit of the first hidden layer adds to the pixels' logits, (units, C, H, W)."""
        return self.machines[0].weight.detach().reshape(-1, *self.data_shape)

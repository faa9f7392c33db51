"""A deep Boltzmann machine: layers of binary units h_1, ..., h_L above the pixels v = h_0, each joined to the next.

    E(v, h) = - sum_l b_l'h_l - sum_l h_l'W_l h_{l-1},      p(v) = sum over h of exp(-E(v, h)) / Z

Unlike in a belief network nothing is directed: what a unit stands for is decided from below and from above at once. The
posterior is approached by a factorial one with means m_l, the fixed point (each sweep raises the bound)

    m_l = sigmoid(W_l m_{l-1} + W_{l+1}'m_{l+1} + b_l),      log p(v) + log Z >= E_q[-E(v, h)] + H(q)

Gibbs chains, annealing and log Z are those of a restricted machine, with the even layers as visible and the odd ones as
hidden units (folding.py); annealing runs over the even layers, the odd ones summed out.

Paper: "Deep Boltzmann Machines", Salakhutdinov & Hinton, 2009; learning in mean_field_learning.py. Changed: they
anneal over the first layer and sum out its neighbours; over the even layers one can start at the pixels' frequencies.
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
from gdm_core.models.energy.folding import fold
from gdm_core.models.energy.learning.mean_field_learning import DoubledLayer, MeanFieldLearning
from gdm_core.models.energy.partition.tempered_layers import TemperedLayers, guess_by_mean_field
from gdm_core.models.energy.partition.tempered_rbm import bernoulli
from gdm_core.models.energy.rbm import RestrictedBoltzmannMachine
from gdm_core.models.energy.sampling.chain_moments import moments
from gdm_core.models.energy.sampling.gibbs_chains import complete_by_chains
from gdm_core.registry import register
from gdm_core.updates import OnFeatures, split_epochs


@register("dbm", family="energy", paper="Salakhutdinov and Hinton, 2009")
class DeepBoltzmannMachine(GenerativeModel):
    """Binary pixels below two or more layers of `hidden_units`, from the layer next to the image to the top one.

    `steps` Gibbs sweeps of `chains` persistent chains between two learning steps. `pretraining` is the share of the
    epochs that is divided evenly between the layers, at `pretraining_rate` times the learning rate; in the others all
    learn together; `centred`: all by centred gradients. Mean-field inference stops for an image when no unit moves by
    more than `tolerance` in a sweep, and after `mean_field_steps`. `sampling_steps`: of chains that draw or complete.
    """

    default_training = TrainingConfig(epochs=150, batch_size=32, learning_rate=0.2)

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_units: tuple[int, ...] = (128, 64),
        steps: int = 1,
        chains: int = 100,
        pretraining: float = 0.2,
        pretraining_rate: float = 0.5,
        centred: bool = True,
        mean_field_steps: int = 50,
        tolerance: float = 1e-5,
        sampling_steps: int = 1000,
    ) -> None:
        super().__init__(data_shape)
        if len(hidden_units) < 2 or min(hidden_units) < 1:
            raise ValueError(f"hidden_units must be two layers or more, each of at least 1, got {hidden_units}")
        counts = dict(steps=steps, chains=chains, mean_field_steps=mean_field_steps, sampling_steps=sampling_steps)
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= pretraining < 1:
            raise ValueError(f"pretraining must be in [0, 1), got {pretraining}")
        if not (pretraining_rate > 0 and tolerance > 0):
            raise ValueError(f"pretraining_rate, tolerance must be positive, got {pretraining_rate} and {tolerance}")
        self.steps, self.chains, self.sampling_steps = steps, chains, sampling_steps
        self.pretraining, self.pretraining_rate, self.centred = pretraining, pretraining_rate, centred
        self.mean_field_steps, self.tolerance = mean_field_steps, tolerance
        self.sizes = (self.dimensions, *hidden_units)
        pairs = itertools.pairwise(self.sizes)
        self.weights = nn.ParameterList(0.01 * torch.randn(above, below) for below, above in pairs)
        self.biases = nn.ParameterList(torch.zeros(units) for units in self.sizes)
        self.register_buffer("base_bias", torch.zeros(sum(self.sizes[::2])))  # even layers': annealing starts there

    # --- inference, on vectors: layers = [v, m_1, ..., m_L], each (N, units) ---

    def as_vectors(self, x: Tensor) -> Tensor:
        return x.flatten(1).to(self.weights[0].dtype)  # (N, D)

    def input_of(self, layer: int, layers: Sequence[Tensor]) -> Tensor:
        """W_l m_{l-1} + W_{l+1}'m_{l+1} + b_l, (N, units of the layer): the logits of a layer given its neighbours."""
        total = self.biases[layer]
        if layer > 0:
            total = F.linear(layers[layer - 1], self.weights[layer - 1], total)
        return total + layers[layer + 1] @ self.weights[layer] if layer + 1 < len(self.sizes) else total

    def bottom_up(self, v: Tensor) -> list[Tensor]:
        """[v, m_1, ..., m_L] of one way up; the input that is missing from above is made up for by doubling."""
        layers = [v]
        for i, weight in enumerate(self.weights):
            copies = 2 if i + 1 < len(self.weights) else 1
            layers.append(torch.sigmoid(F.linear(copies * layers[-1], weight, self.biases[i + 1])))
        return layers

    @torch.no_grad()
    def mean_field(self, v: Tensor) -> list[Tensor]:
        """[v, m_1, ..., m_L] at the fixed point, from `bottom_up` on: first the odd layers, then the even ones."""
        layers, moving = self.bottom_up(v), torch.ones(len(v), 1, dtype=torch.bool, device=v.device)
        order = [*range(1, len(layers), 2), *range(2, len(layers), 2)]
        for _ in range(self.mean_field_steps):
            after = list(layers)
            for layer in order:
                after[layer] = torch.sigmoid(self.input_of(layer, after))
            moved = torch.stack([(new - old).abs().amax(1) for new, old in zip(after[1:], layers[1:], strict=True)])
            layers = [v, *(torch.where(moving, new, old) for new, old in zip(after[1:], layers[1:], strict=True))]
            moving = moving & (moved.amax(0) > self.tolerance)[:, None]
            if not moving.any():
                break
        return layers

    def bound_at(self, layers: Sequence[Tensor]) -> Tensor:
        """E_q[-E(v, h)] + H(q) of a factorial q with means [v, m_1, ..., m_L], (N,) float64."""
        total = sum((m @ bias).double() for m, bias in zip(layers, self.biases, strict=True))
        for weight, (below, above) in zip(self.weights, itertools.pairwise(layers), strict=True):
            total = total + (F.linear(below, weight) * above).sum(1, dtype=torch.float64)
            total = total + (torch.special.entr(above) + torch.special.entr(1 - above)).sum(1, dtype=torch.float64)
        return total

    def unnormalised_bound(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """The bound on log p(x) + log Z at the mean-field fixed point, (N,); nothing is drawn, k plays no part.

        Its slope in x is taken at fixed means, where it is that of the bound: these maximise it.
        """
        return self.bound_at(self.mean_field(self.as_vectors(self.check_images(x))))

    # --- learning ---

    def training_phases(self, config: TrainingConfig) -> Iterator[Phase]:
        shares = [self.pretraining / len(self.weights)] * len(self.weights) + [1 - self.pretraining]
        *alone, together = split_epochs(config.epochs, shares)
        rate = config.learning_rate * self.pretraining_rate
        for layer, epochs in enumerate(alone):
            update = DoubledLayer(self, layer, rate, self.steps, self.centred)
            features = OnFeatures(update, partial(self._draw_features, layer))
            yield Phase(f"layer {layer + 1}", features, epochs, update.finish)
        update = MeanFieldLearning(self, config.learning_rate, self.steps, self.chains, self.centred)
        yield Phase("mean field", update, together)

    @torch.no_grad()
    def _draw_features(self, layer: int, images: Tensor) -> Tensor:
        v = self.as_vectors(images)
        for i in range(layer):
            v = torch.bernoulli(torch.sigmoid(F.linear(2 * v, self.weights[i], self.biases[i + 1])))
        return v

    # --- as a restricted machine, and its constant ---

    def folded(self) -> RestrictedBoltzmannMachine:
        """This machine as a restricted one: even layers, the pixels first, are visible units, odd layers hidden."""
        return fold(self.weights, self.biases, self.base_bias)

    def tempered(self) -> TemperedLayers:
        """The family from a machine that knows only how often pixels and even layers are on to this one."""
        return TemperedLayers(self.folded(), partial(guess_by_mean_field, self), self.sampling_steps)

    def anneal(self, n: int, betas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """n annealed importance weights along `betas`, increasing from 0 to 1: log w (n,), float64."""
        return anneal(self.tempered(), n, betas, generator)

    def enumerable_units(self) -> int:
        """The even layers' units or the odd layers', whichever are fewer: the others are summed in closed form."""
        return min(sum(self.sizes[::2]), sum(self.sizes[1::2]))

    def exact_log_partition(self) -> Tensor:
        """log Z by enumeration, a float64 scalar. ValueError where it takes more than 30 units."""
        return self.folded().exact_log_partition()

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """The ends of n Gibbs chains of `sampling_steps` sweeps, binary (n, C, H, W)."""
        *_, last = self.sample_steps(n, labels, temperature, generator)
        return last

    def sample_steps(
        self, n: int, labels: Tensor | None = None, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield where the chains of `sample` start (units by their frequencies), then up to 50 moments on the way."""
        draw_uniforms(self, n, labels, temperature, generator)
        machine = self.folded()
        even = self._start(machine, n, generator)
        step = partial(machine.gibbs_step, temperature=temperature, generator=generator)
        yield from map(self._as_images, moments(step, even, self.sampling_steps))

    def chain_steps(
        self, x: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Yield images (N, C, H, W) after every Gibbs sweep from x on, hidden layers drawn by mean field at first."""
        means, machine = self.mean_field(self.as_vectors(self.check_images(x))), self.folded()
        _, uniforms = machine.uniforms(len(x), generator)
        even = (uniforms < torch.cat(means[::2], 1)).to(uniforms.dtype)  # of the pixels as they are
        while True:
            even = machine.gibbs_step(even, temperature, generator)
            yield self._as_images(even)

    def complete(
        self, x: Tensor, known: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw the pixels where `known` is 0 given the others, by Gibbs chains whose known pixels are held fixed."""
        machine = self.folded()
        even = complete_by_chains(
            self, x, known, temperature, generator, lambda noise: self._start(machine, len(noise), generator),
            machine.gibbs_step,
        )  # fmt: skip
        return self._as_images(even)

    def completion_is_exact(self, known: Tensor) -> bool:
        """Where there is nothing to draw: a Gibbs chain only comes near its distribution."""
        return bool(known.all())

    def _start(self, machine: RestrictedBoltzmannMachine, n: int, generator: torch.Generator | None) -> Tensor:
        _, uniforms = machine.uniforms(n, generator)
        return bernoulli(machine.base_visible_bias, uniforms)  # (n, units of the even layers)

    def _as_images(self, even: Tensor) -> Tensor:
        return even[:, : self.dimensions].reshape(len(even), *self.data_shape)

    def hidden_layers(self, x: Tensor) -> list[Tensor]:
        """The mean-field means, [(N, units)]."""
        return self.mean_field(self.as_vectors(self.check_images(x)))[1:]

    def reconstruct(self, x: Tensor) -> Tensor:
        """p(v = 1 | h_1) at the mean-field means, (N, C, H, W)."""
        return torch.sigmoid(self.input_of(0, [x, *self.hidden_layers(x)])).view_as(x)

    def encode(self, x: Tensor) -> Tensor:
        """The top layer's mean-field means, (N, units)."""
        return self.hidden_layers(x)[-1]

    def filters(self) -> Tensor:
        """The weights between the pixels and each unit of the first hidden layer, (units, C, H, W)."""
        return self.weights[0].detach().reshape(-1, *self.data_shape)

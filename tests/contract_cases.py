"""Every registered model as it can be built, and every capability as it is called: what the contract tests run over.

A capability is one row of USES: how it is called, the shape it returns, whether it reads images.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import gdm_core.models  # noqa: F401  (registers every model)
from gdm_core.contract import Batch, GenerativeModel, capabilities
from gdm_core.randomness import seeded_generator
from gdm_core.registry import argument_defaults, build_model, list_models, model_class, pixel_kinds

# Small versions, so that the laws are quick; a model without a line is built with its defaults.
SMALL = {
    "helmholtz_machine": {"hidden_units": (4, 3), "guesses": 3, "completion_steps": 100},
    "conditional_gated_pixel_cnn": {"classes": 3, "channels": 12, "blocks": 1, "first_kernel_size": 3},
    "deep_energy": {"channels": 4, "steps": 3, "chains": 12, "sampling_steps": 6},
    "dbm": {"hidden_units": (4, 3), "chains": 7, "sampling_steps": 6},
    "dbn": {"hidden_units": (4, 3), "chains": 7, "sampling_steps": 6},
    "dcgan": {"latent_units": 3, "channels": 4},
    "markov_chain": {"order": 2},
    "image_transformer": {"features": 8, "blocks": 1, "heads": 2},
    "mixture_of_bernoullis": {"components": 3},
    "eonade": {"hidden_units": 6, "hidden_layers": 2, "orderings": 2},
    "gaussian_rbm": {"hidden_units": 5, "chains": 7, "sampling_steps": 6},
    "gated_pixel_cnn": {"channels": 12, "blocks": 1, "first_kernel_size": 3},
    "made": {"hidden_units": (9, 8), "orderings": 2, "masks": 2, "direct_connections": True},
    "multiscale_pixel_rnn": {"channels": 6, "layers": 1, "kernel_size": 3},
    "nade": {"hidden_units": 5},
    "pixel_cnn": {"channels": 4, "blocks": 1, "kernel_size": 3, "position_bias": True},
    "pixel_cnn_plus_plus": {"channels": 4, "components": 2},
    "pixel_rnn": {"channels": 6, "layers": 1, "kernel_size": 3, "position_bias": True},
    "boltzmann_machine": {  # with L its log Z would be a sum over all pixels of the larger shapes
        "hidden_units": 4, "visible_connections": False, "chains": 7, "sampling_steps": 6,
    },
    "label_rbm": {"classes": 3, "hidden_units": 5, "chains": 7, "sampling_steps": 6},
    "rbm": {"hidden_units": 5, "chains": 7, "sampling_steps": 6},
    "rnade": {"hidden_units": 5, "components": 3},
    "wavenet": {"channels": 4, "skip_channels": 5, "position_bias": True},
    "vae": {"hidden_units": 8, "latent_units": 2},
}
ENSEMBLES = {"eonade", "made"}  # built as averages of densities: their map and their loss are bounds
LEVELS = 5
SHAPES = {"3x3": (1, 3, 3), "5x4-colour": (3, 5, 4)}


@dataclass(frozen=True)
class Case:
    """One model as it can be built: name, kind of pixels, image shape."""

    name: str
    pixels: str
    shape: tuple[int, int, int]

    def build(self, seed: int = 0) -> GenerativeModel:
        torch.manual_seed(seed)
        arguments, known = dict(SMALL.get(self.name, {})), argument_defaults(self.name)
        if "pixels" in known:
            arguments["pixels"] = self.pixels
        if "levels" in known and self.pixels != "binary":
            arguments["levels"] = LEVELS
        return build_model(self.name, self.shape, **arguments)

    def images(self, n: int = 4, seed: int = 1) -> Tensor:
        noise = torch.rand(n, *self.shape, generator=seeded_generator(seed, "images"))
        if self.pixels == "real":
            return noise
        steps = (2 if self.pixels == "binary" else LEVELS) - 1
        return (noise * steps).round() / steps


CASES = {
    f"{name}-{pixels}-{size}": Case(name, pixels, shape)
    for name in list_models()
    for pixels in pixel_kinds(name)
    for size, shape in SHAPES.items()
}
PAIRS = [(name, capability) for name in list_models() for capability in capabilities(model_class(name))]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@dataclass(frozen=True)
class Use:
    """One call of a capability: of a model, images and a generator; the shape it returns for N images."""

    call: Callable[[GenerativeModel, Tensor, torch.Generator], Tensor]
    shape: Callable[[GenerativeModel, int], tuple]
    reads_images: bool = True
    images_axis: int | None = 0  # along which an image's own result lies; None where its noise depends on its place


def labels_of(n: int) -> Tensor:
    """Classes 0 to 2 for n images, the same for every ten."""
    return torch.arange(n) % 10 % 3


def halfway(model: GenerativeModel) -> Tensor:
    """A mask whose first half in raster order is known, (1, 1, H, W)."""
    _, height, width = model.data_shape
    return (torch.arange(height * width) < height * width // 2).float().view(1, 1, height, width)


def per_image(model: GenerativeModel, n: int) -> tuple:
    return (n,)


def per_pixel(model: GenerativeModel, n: int) -> tuple:
    return (n, 1, *model.data_shape[1:])


def images_of(model: GenerativeModel, n: int) -> tuple:
    return (n, *model.data_shape)


def values_of(model: GenerativeModel) -> int:
    return 7 if model.pixels == "real" else model.levels


ANY = -1  # a size that the model decides
USES: dict[str, Use] = {
    "Samples": Use(lambda m, x, g: m.sample(len(x), generator=g), images_of, reads_images=False),
    "SamplesStepwise": Use(
        lambda m, x, g: torch.stack(list(m.sample_steps(len(x), generator=g))),
        lambda m, n: (ANY, n, *m.data_shape), reads_images=False,
    ),
    "ExactLikelihood": Use(lambda m, x, g: m.log_prob(x), per_image),
    "PixelLikelihood": Use(lambda m, x, g: m.log_prob_map(x), per_pixel),
    "LatentLikelihood": Use(lambda m, x, g: m.log_weights(x, 3, generator=g), lambda m, n: (3, n), images_axis=1),
    "Energy": Use(lambda m, x, g: m.energy(x), per_image),
    "Anneals": Use(
        lambda m, x, g: m.anneal(len(x), torch.linspace(0, 1, 5, dtype=torch.float64), generator=g),
        per_image, reads_images=False,
    ),
    "UnnormalisedBound": Use(lambda m, x, g: m.unnormalised_bound(x, 3, generator=g), per_image),
    "RunsChains": Use(
        lambda m, x, g: torch.stack(list(itertools.islice(m.chain_steps(x, generator=g), 3))),
        lambda m, n: (3, n, *m.data_shape), images_axis=None,
    ),
    "HiddenLayers": Use(lambda m, x, g: torch.cat(m.hidden_layers(x), 1), lambda m, n: (n, ANY)),
    "Enumerates": Use(lambda m, x, g: m.exact_log_partition(), lambda m, n: (), reads_images=False),
    "Encodes": Use(lambda m, x, g: m.encode(x), lambda m, n: (n, ANY)),
    "Decodes": Use(lambda m, x, g: m.decode(m.sample_latent(len(x), generator=g)), images_of, reads_images=False),
    "Reconstructs": Use(lambda m, x, g: m.reconstruct(x), images_of),
    "Completes": Use(lambda m, x, g: m.complete(x, halfway(m), generator=g), images_of, images_axis=None),
    "CompletesStepwise": Use(
        lambda m, x, g: torch.stack(list(m.complete_steps(x, halfway(m), generator=g))),
        lambda m, n: (ANY, n, *m.data_shape), images_axis=None,
    ),
    "InAnyOrder": Use(lambda m, x, g: m.log_prob_in_order(x, torch.arange(x[0].numel()).flip(0)), per_image),
    "PixelConditional": Use(
        lambda m, x, g: m.conditional(x, 1, 2, torch.linspace(0, 1, values_of(m))),
        lambda m, n: (n, m.data_shape[0], values_of(m)),
    ),
    "Filters": Use(lambda m, x, g: m.filters(), lambda m, n: (ANY, *m.data_shape), reads_images=False),
    "Discriminates": Use(lambda m, x, g: m.critic(x), per_image),
    "Classifies": Use(lambda m, x, g: m.class_log_prob(x), lambda m, n: (n, ANY)),
    "SurpriseMap": Use(lambda m, x, g: m.surprise_map(x), per_pixel),
}  # fmt: skip

USED = {
    f"{label}-{capability}": (case, capability)
    for label, case in CASES.items()
    for capability in capabilities(model_class(case.name))
}
every_use = pytest.mark.parametrize("case, capability", USED.values(), ids=USED)
IMAGE_USES = {label: used for label, used in USED.items() if USES[used[1]].reads_images}
ALONE_USES = {label: used for label, used in IMAGE_USES.items() if USES[used[1]].images_axis is not None}
every_use_of_images = pytest.mark.parametrize("case, capability", IMAGE_USES.values(), ids=IMAGE_USES)
every_use_image_by_image = pytest.mark.parametrize("case, capability", ALONE_USES.values(), ids=ALONE_USES)


def cases_with(*wanted: str) -> pytest.MarkDecorator:
    """Parametrise by the cases that have all these capabilities."""
    found = {label: case for label, case in CASES.items() if {*wanted} <= {*capabilities(model_class(case.name))}}
    return pytest.mark.parametrize("case", found.values(), ids=found)


def use(model: GenerativeModel, capability: str, x: Tensor, seed: int = 0) -> Tensor:
    return USES[capability].call(model, x, seeded_generator(seed, "use"))


def same_state(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def copy_of_state(model: GenerativeModel) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


class Images:
    """Ten images of a case, as the loop takes them."""

    def __init__(self, case: Case) -> None:
        self.images = case.images(10, seed=7)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows], labels_of(len(self.images))[rows])

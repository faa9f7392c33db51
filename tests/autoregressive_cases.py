"""The autoregressive models as the laws try them: built small, every image there is, and what is likely by chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

import gdm_core.models  # noqa: F401  (registers every model)
from gdm_core.contract import Batch, GenerativeModel
from gdm_core.layers.ordering_ensemble import OrderingEnsemble
from gdm_core.layers.raster_model import RasterModel
from gdm_core.layers.raster_sampling import IncrementalNetwork
from gdm_core.registry import build_model

GREY_BINARY, GREY_LEVELS, COLOUR, EIGHT_BIT = (1, 3, 3), (1, 2, 2), (3, 1, 2), (1, 1, 2)

def pixels_of(levels: int) -> dict:
    return {"pixels": "binary"} if levels == 2 else {"pixels": "levels", "levels": levels}


# Every model of the family, built small for an image shape and a number of levels; one line each.
BUILDERS: dict[str, Callable[[tuple, int], GenerativeModel]] = {
    "pixel_cnn": lambda shape, levels: build_model("pixel_cnn", shape, channels=4, blocks=2, **pixels_of(levels)),
    "pixel_cnn with places": lambda shape, levels: build_model(
        "pixel_cnn", shape, channels=3, blocks=1, position_bias=True, **pixels_of(levels)
    ),
    "pixel_cnn without blocks": lambda shape, levels: build_model(
        "pixel_cnn", shape, channels=4, blocks=0, kernel_size=5, **pixels_of(levels)
    ),
    "pixel_cnn_plus_plus": lambda shape, levels: build_model(
        "pixel_cnn_plus_plus", shape, channels=3, components=3, **pixels_of(levels)
    ),
    "pixel_cnn_plus_plus without down-sampling": lambda shape, levels: build_model(
        "pixel_cnn_plus_plus", shape, channels=3, blocks=2, resolutions=1, components=1, **pixels_of(levels)
    ),
    "pixel_cnn_plus_plus 3 resolutions": lambda shape, levels: build_model(
        "pixel_cnn_plus_plus", shape, channels=2, resolutions=3, components=2, **pixels_of(levels)
    ),
    "gated_pixel_cnn": lambda shape, levels: build_model(
        "gated_pixel_cnn", shape, channels=24, blocks=2, first_kernel_size=3, **pixels_of(levels)
    ),
    "gated_pixel_cnn 5x5": lambda shape, levels: build_model(
        "gated_pixel_cnn", shape, channels=12, blocks=1, kernel_size=5, **pixels_of(levels)
    ),
    "wavenet": lambda shape, levels: build_model(
        "wavenet", shape, channels=5, skip_channels=12, **pixels_of(levels)
    ),
    "wavenet 2 stacks": lambda shape, levels: build_model(
        "wavenet", shape, channels=4, skip_channels=12, stacks=2, position_bias=True, **pixels_of(levels)
    ),
    "wavenet 2 layers": lambda shape, levels: build_model(
        "wavenet", shape, channels=5, skip_channels=12, layers=2, **pixels_of(levels)
    ),
    "image_transformer": lambda shape, levels: build_model(
        "image_transformer", shape, features=8, blocks=2, heads=2, **pixels_of(levels)
    ),
    "image_transformer 1 head": lambda shape, levels: build_model(
        "image_transformer", shape, features=8, blocks=1, heads=1, **pixels_of(levels)
    ),
    "pixel_rnn row by row": lambda shape, levels: build_model(
        "pixel_rnn", shape, kind="row_by_row", channels=5, **pixels_of(levels)
    ),
    "pixel_rnn row by row with places": lambda shape, levels: build_model(
        "pixel_rnn", shape, kind="row_by_row", channels=7, layers=1, position_bias=True, **pixels_of(levels)
    ),
    "pixel_rnn row lstm": lambda shape, levels: build_model(
        "pixel_rnn", shape, kind="row_lstm", channels=6, layers=1, kernel_size=3, **pixels_of(levels)
    ),
    "pixel_rnn row lstm 2 layers": lambda shape, levels: build_model(
        "pixel_rnn", shape, kind="row_lstm", channels=6, layers=2, kernel_size=3, position_bias=True,
        **pixels_of(levels),
    ),  # fmt: skip
    "pixel_rnn diagonal": lambda shape, levels: build_model(
        "pixel_rnn", shape, channels=12, layers=1, kernel_size=3, position_bias=True, **pixels_of(levels)
    ),
    "pixel_rnn diagonal 2 layers": lambda shape, levels: build_model(
        "pixel_rnn", shape, channels=6, layers=2, kernel_size=3, **pixels_of(levels)
    ),
    "multiscale_pixel_rnn": lambda shape, levels: build_model(
        "multiscale_pixel_rnn", shape, channels=6, layers=1, kernel_size=3, **pixels_of(levels)
    ),
    "multiscale_pixel_rnn 3 scales": lambda shape, levels: build_model(
        "multiscale_pixel_rnn", shape, kind="diagonal_bilstm", scales=3, channels=6, layers=1, **pixels_of(levels)
    ),
    "multiscale_pixel_rnn 2 layers": lambda shape, levels: build_model(
        "multiscale_pixel_rnn", shape, channels=6, layers=2, kernel_size=3, position_bias=True, **pixels_of(levels)
    ),
    "nade": lambda shape, levels: build_model("nade", shape, hidden_units=6),
    "made": lambda shape, levels: build_model("made", shape, hidden_units=(20,), **pixels_of(levels)),
    "made 2 layers": lambda shape, levels: build_model("made", shape, hidden_units=(20, 15), **pixels_of(levels)),
    "made with orderings": lambda shape, levels: build_model(
        "made", shape, hidden_units=(20,), orderings=3, **pixels_of(levels)
    ),
    "made with masks": lambda shape, levels: build_model(
        "made", shape, hidden_units=(20, 10), masks=2, direct_connections=True, **pixels_of(levels)
    ),
    "made 3 layers": lambda shape, levels: build_model(
        "made", shape, hidden_units=(20, 15, 10), direct_connections=True, **pixels_of(levels)
    ),
    "made with orderings and masks": lambda shape, levels: build_model(
        "made", shape, hidden_units=(20, 15, 10), orderings=2, masks=2, **pixels_of(levels)
    ),
    "eonade": lambda shape, levels: build_model("eonade", shape, hidden_units=8, orderings=2, **pixels_of(levels)),
    "eonade 2 layers": lambda shape, levels: build_model(
        "eonade", shape, hidden_units=7, hidden_layers=2, orderings=2, ensemble_seed=1, **pixels_of(levels)
    ),
    "eonade 3 layers": lambda shape, levels: build_model(
        "eonade", shape, hidden_units=7, hidden_layers=3, orderings=2, ensemble_seed=2, **pixels_of(levels)
    ),
    "independent_bernoulli": lambda shape, levels: build_model("independent_bernoulli", shape),
    "markov_chain": lambda shape, levels: build_model(
        "markov_chain", shape, order=1 if levels > 9 else 3, **pixels_of(levels)
    ),
    "markov_chain shared": lambda shape, levels: build_model(
        "markov_chain", shape, order=1 if levels > 9 else 2, per_position=False, **pixels_of(levels)
    ),
    "markov_chain order 0": lambda shape, levels: build_model("markov_chain", shape, order=0, **pixels_of(levels)),
    "markov_chain of all before": lambda shape, levels: build_model(  # in images of at most 4096 contexts
        "markov_chain", shape, order=min(math.prod(shape) - 1, int(math.log2(4096) / math.log2(levels))),
        **pixels_of(levels),
    ),  # fmt: skip
    "mixture_of_bernoullis": lambda shape, levels: build_model("mixture_of_bernoullis", shape, components=3),
    "fvsbn": lambda shape, levels: build_model("fvsbn", shape),
}
BINARY_ONLY = {"nade", "independent_bernoulli", "mixture_of_bernoullis", "fvsbn"}
SHORT_SIGHTED = {  # do not see every pixel before
    "pixel_cnn",
    "pixel_cnn with places",
    "pixel_cnn without blocks",
    "independent_bernoulli",
    "markov_chain",
    "markov_chain shared",
    "markov_chain order 0",
    "markov_chain of all before",  # of few pixels it sees them all, but reads a table, which has no slopes
    "pixel_rnn row lstm",
    "pixel_rnn row lstm 2 layers",
    "multiscale_pixel_rnn",  # by row LSTMs, too; the one of 3 scales has diagonal ones
    "multiscale_pixel_rnn 2 layers",
    "wavenet 2 layers",
    "made",  # in these small ones some paths are cut by rectified units; see test_made.py for wide ones
    "made 2 layers",
}
EXACT_FOR_ANY_MASK = {"mixture_of_bernoullis", "independent_bernoulli"}  # of those in raster order
BY_SCALES = {"multiscale_pixel_rnn", "multiscale_pixel_rnn 2 layers", "multiscale_pixel_rnn 3 scales"}
IN_OTHER_ORDERS = {
    "made with orderings", "made with orderings and masks", "eonade", "eonade 2 layers", "eonade 3 layers"
} | BY_SCALES  # fmt: skip
ENSEMBLES = IN_OTHER_ORDERS - BY_SCALES | {"made with masks"}  # averages, whose map is the mean of maps
LEVEL_MODELS = [name for name in BUILDERS if name not in BINARY_ONLY]
ONE_DENSITY = [name for name in BUILDERS if name not in ENSEMBLES]
IN_RASTER_ORDER = [
    name for name in ONE_DENSITY if isinstance(BUILDERS[name]((1, 2, 2), 2), RasterModel | OrderingEnsemble)
]


def random_model(name: str, shape: tuple, levels: int = 2, scale: float = 1.5) -> GenerativeModel:
    """A model in float64 whose parameters are stretched, so that its pixels depend on each other markedly."""
    model = BUILDERS[name](shape, levels).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3).mul_(scale)
    return model


def order_of(shape: tuple, scales: int = 2, factor: int = 2) -> list[tuple[int, int]]:
    """The pixels in the order of the scales, written down from the definition; with one scale that of the raster."""
    _, height, width = shape
    order = []
    for power in reversed(range(scales)):
        stride = factor**power
        scale = itertools.product(range(0, height, stride), range(0, width, stride))
        order += [place for place in scale if place not in order]
    return order


def slopes_in_order(logits: Callable[[Tensor], Tensor], shape: tuple, order: list[tuple[int, int]]) -> Tensor:
    """How each value's logits change with each value at any of three images, (values, values), both in this order.

    Colour after colour within a pixel. At a single image rectified units may cut the few paths of a small network.
    """
    x, (rows, columns) = torch.rand(3, *shape, dtype=torch.float64), torch.tensor(order).unbind(1)
    slopes = torch.autograd.functional.jacobian(lambda x: logits(x).abs().sum((0, -1)), x).abs().sum(3)
    slopes = slopes[:, rows, columns][..., rows, columns]  # (colour, pixel, colour, pixel)
    return slopes.permute(1, 0, 3, 2).reshape(math.prod(shape), -1)


def slopes_in_order_of_values(logits: Callable[[Tensor], Tensor], shape: tuple, order: Tensor) -> Tensor:
    """The same in an order (D,) of the values, which may part the colours of a pixel."""
    return slopes_in_order(logits, shape, order_of(shape, scales=1))[order][:, order]


@torch.no_grad()
def logits_one_by_one(network: IncrementalNetwork, x: Tensor, parameters: int) -> Tensor:
    """What a network says of each value of x (N, C, H, W) before it is told it, (N, C, H, W, parameters)."""
    colours, height, width = x.shape[1:]
    logits = x.new_empty(*x.shape, parameters)
    for row in range(height):
        network.begin_row()
        for column, colour in itertools.product(range(width), range(colours)):
            logits[:, colour, row, column] = network.logits(column, colour)
            network.write(x[:, colour, row, column], column, colour)
    return logits


def all_images(shape: tuple, levels: int = 2) -> Tensor:
    values = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    return torch.cartesian_prod(*[values] * math.prod(shape)).view(-1, *shape)


def chi_square_bound(cells: int) -> float:
    """About the 1 - 1e-5 quantile of chi-square with cells - 1 degrees of freedom (Wilson and Hilferty, 1931)."""
    freedom = cells - 1
    return freedom * (1 - 2 / (9 * freedom) + 4.265 * math.sqrt(2 / (9 * freedom))) ** 3


def chi_square(drawn: Tensor, images: Tensor, log_prob: Tensor) -> tuple[float, float]:
    """The statistic and its bound; cells expected fewer than 5 times are put together."""
    levels = images.unique().numel()
    weights = levels ** torch.arange(images[0].numel()).flip(0)
    counts = torch.bincount(
        ((drawn.flatten(1) * (levels - 1)).round().long() * weights).sum(1), minlength=len(images)
    ).double()
    expected = log_prob.exp() * len(drawn)
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
    expected = torch.cat([expected[~rare], expected[rare].sum(0, keepdim=True).clamp_min(1e-9)])
    return ((counts - expected) ** 2 / expected).sum().item(), chi_square_bound(len(counts))


class Images:
    """Training data of fixed images."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        return Batch(self.images[rows])

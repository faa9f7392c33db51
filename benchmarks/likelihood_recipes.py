"""What the likelihood benchmark trains, in two sizes, and the published numbers its rows stand beside.

`small` recipes are for minutes on a few processor cores, `paper` ones have the papers' sizes and want a GPU. Published
numbers are test nats per image of 28x28 MNIST, each of one binarisation, with the evidence it rests on:

    P  seen in the full text of the paper that produced it          S  seen in another source that quotes it
    C  a repository's own claim about its own run                   R  measured on another draw of the pixels
    M  from memory, no source found: unconfirmed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SIZES = ("small", "paper")
Size = Literal["small", "paper"]


@dataclass(frozen=True)
class Recipe:
    """How a model is built and trained. `passes`: over the training images, at most; what a time budget leaves of them.

    A binarisation without passes has no such row: that of Larochelle and Murray knows no labels. `variant` tells rows
    of one model apart.
    """

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    learning_rate: float = 1e-3
    passes: dict[str, int] = field(default_factory=lambda: {"fixed": 50, "dynamic": 200})  # by binarisation
    variant: str = ""

    @property
    def label(self) -> str:
        """The row's name."""
        return f"{self.model}, {self.variant}" if self.variant else self.model


@dataclass(frozen=True)
class Published:
    """A published test log-likelihood of one model on one binarisation, in nats per image."""

    nats: float
    size: str  # the published model's
    kind: str  # exact, estimate, bound with estimated normaliser
    tag: str  # the evidence: P, S, C, R or M
    source: str

    @property
    def text(self) -> str:
        confirmed = "from memory, unconfirmed" if self.tag == "M" else self.tag
        return f"{self.nats:.2f} ({confirmed}; {self.size}; {self.source})"


def _both(passes: int) -> dict[str, int]:
    return {"fixed": passes, "dynamic": passes}


BINARY = {"pixels": "binary", "levels": 2}

SMALL = [
    Recipe("independent_bernoulli", {}, 500, passes=_both(1)),
    Recipe("markov_chain", {}, 500, passes=_both(1)),
    Recipe("mixture_of_bernoullis", {"components": 500}, 500, passes=_both(60)),
    Recipe("fvsbn", {}, 100, 2e-3, passes={"fixed": 60, "dynamic": 200}),
    Recipe("nade", {"hidden_units": 500}, 100, 2e-3, passes={"fixed": 30, "dynamic": 100}),
    Recipe("made", {"hidden_units": (1000,)}, 100, 1e-3, passes={"fixed": 60, "dynamic": 150}),
    Recipe("eonade", {"hidden_units": 500, "orderings": 8}, 100, 1e-3, passes=_both(500)),
    Recipe("pixel_cnn", {"channels": 16, "blocks": 5}, 16, 2e-3),
    Recipe("gated_pixel_cnn", {"channels": 16, "blocks": 4, "dropout": 0.0}, 16, 2e-3),
    Recipe(
        "conditional_gated_pixel_cnn", {"channels": 16, "blocks": 4, "dropout": 0.0}, 16, 2e-3, {"dynamic": 200}
    ),
    Recipe("pixel_cnn_plus_plus", {"channels": 16, "blocks": 1, "dropout": 0.0, **BINARY}, 16, 2e-3),
    Recipe("pixel_rnn", {"kind": "row_lstm", "channels": 16, "layers": 2}, 16, 3e-3, variant="row LSTM"),
    Recipe("pixel_rnn", {"channels": 16, "layers": 1}, 16, 3e-3, variant="diagonal BiLSTM"),
    Recipe("multiscale_pixel_rnn", {"kind": "diagonal_bilstm", "channels": 16, "layers": 1}, 16, 3e-3),
    Recipe("wavenet", {"channels": 24, "skip_channels": 48, "dropout": 0.0}, 16, 2e-3),
    Recipe("image_transformer", {"features": 32, "blocks": 2, "heads": 1, "dropout": 0.0}, 16, 2e-3),
    Recipe("rbm", {"hidden_units": 500}, 100, 0.05, passes=_both(250)),
    Recipe("dbn", {"hidden_units": (500, 1000)}, 100, 0.05, passes=_both(250)),
    Recipe("dbm", {"hidden_units": (500, 500)}, 100, 0.02, passes=_both(250)),
    Recipe("helmholtz_machine", {"hidden_units": (200, 200), "guesses": 5}, 100, 1e-3, passes=_both(200)),
]

PAPER = [
    Recipe("independent_bernoulli", {}, 500, passes=_both(1)),
    Recipe("markov_chain", {}, 500, passes=_both(1)),
    Recipe("mixture_of_bernoullis", {"components": 500}, 500, passes=_both(100)),
    Recipe("fvsbn", {}, 100, 2e-3, passes={"fixed": 60, "dynamic": 200}),
    Recipe("nade", {"hidden_units": 500}, 100, 2e-3, passes={"fixed": 40, "dynamic": 150}),
    Recipe("made", {"hidden_units": (8000,), "masks": 32}, 100, 1e-3, passes={"fixed": 150, "dynamic": 300}),
    Recipe("eonade", {"hidden_units": 500, "hidden_layers": 2, "orderings": 128}, 100, 1e-3, passes=_both(1000)),
    Recipe("pixel_cnn", {"channels": 16, "blocks": 15}, 64, 2e-3, passes=_both(150)),
    Recipe("gated_pixel_cnn", {"channels": 64, "blocks": 10}, 64, 1e-3, passes={"fixed": 40, "dynamic": 100}),
    Recipe("conditional_gated_pixel_cnn", {"channels": 64, "blocks": 10}, 64, 1e-3, {"dynamic": 100}),
    Recipe("pixel_cnn_plus_plus", {"channels": 64, "blocks": 2, "dropout": 0.5, **BINARY}, 64, 1e-3, passes=_both(100)),
    Recipe("pixel_rnn", {"kind": "row_lstm", "channels": 16, "layers": 7}, 64, 2e-3, _both(60), "row LSTM"),
    Recipe("pixel_rnn", {"channels": 16, "layers": 7}, 64, 2e-3, _both(60), "diagonal BiLSTM"),
    Recipe("multiscale_pixel_rnn", {"kind": "diagonal_bilstm", "channels": 16, "layers": 7}, 64, 2e-3, _both(60)),
    Recipe("wavenet", {"channels": 64, "skip_channels": 128, "stacks": 2, "dropout": 0.1}, 64, 1e-3, passes=_both(100)),
    Recipe("image_transformer", {"features": 64, "blocks": 8, "heads": 2, "dropout": 0.1}, 64, 1e-3, passes=_both(100)),
    Recipe("rbm", {"hidden_units": 500, "steps": 25}, 100, 0.05, passes=_both(300)),
    Recipe("dbn", {"hidden_units": (500, 2000), "steps": 25}, 100, 0.05, passes=_both(300)),
    Recipe("dbm", {"hidden_units": (500, 1000), "steps": 5}, 100, 0.02, passes=_both(500)),
    Recipe("helmholtz_machine", {"hidden_units": (200, 200), "guesses": 10}, 100, 1e-3, passes=_both(500)),
]

RECIPES: dict[str, list[Recipe]] = {"small": SMALL, "paper": PAPER}

PG, PAE, BILSTM = "pytorch-generative, README", "pytorch-ae, README", "Variational Bi-LSTMs, table 2"

# By row and binarisation: a number never stands beside one of the other binarisation.
PUBLISHED: dict[str, dict[str, Published]] = {
    "independent_bernoulli": {
        "fixed": Published(-205.8, "784 pixels", "exact", "R", "another draw of the pixels"),
    },
    "mixture_of_bernoullis": {
        "fixed": Published(-137.64, "500 components", "exact", "M", "Germain et al., 2015, table 6"),
    },
    "fvsbn": {
        "fixed": Published(-97.45, "784 x 784", "exact", "M", "NADE and DARN papers"),
        "dynamic": Published(-96.58, "784 x 784", "exact", "C", PG),
    },
    "nade": {
        "fixed": Published(-88.33, "500 hidden", "exact", "S", BILSTM),
        "dynamic": Published(-85.65, "500 hidden", "exact", "C", PG),
    },
    "made": {
        "fixed": Published(-88.04, "8000 hidden, 32 masks", "exact", "S", "an older README of pytorch-generative"),
        "dynamic": Published(-84.87, "8000 hidden, 1 mask", "exact", "C", PG),
    },
    "eonade": {"fixed": Published(-85.10, "2 x 500 hidden, 128 orders", "exact", "S", "Papers with Code on NADE-k")},
    "pixel_cnn": {
        "fixed": Published(-81.30, "size not given", "exact", "S", "PixelVAE, table 1"),
        "dynamic": Published(-81.45, "15 blocks, 16 channels", "exact", "C", PG),
    },
    "gated_pixel_cnn": {
        "fixed": Published(-80.10, "size not given", "exact", "P", "PixelVAE, table 1, its authors' code"),
        "dynamic": Published(-81.50, "10 blocks, 128 channels", "exact", "C", PG),
    },
    "pixel_cnn_plus_plus": {"dynamic": Published(-78.2, "Bernoulli head", "exact", "C", PAE)},
    "pixel_rnn, row LSTM": {
        "fixed": Published(-80.54, "size not given", "exact", "M", "van den Oord et al., 2016, table 4"),
    },
    "pixel_rnn, diagonal BiLSTM": {"fixed": Published(-79.20, "7 layers, h = 16", "exact", "S", BILSTM)},
    "image_transformer": {"dynamic": Published(-79.17, "ImageGPT, 8 blocks, d = 64", "exact", "C", PG)},
    "rbm": {"fixed": Published(-86.34, "500 hidden, CD-25", "estimate", "S", "a demonstration of natural_bm")},
    "dbn": {"fixed": Published(-84.55, "500-2000 hidden", "estimate", "S", f"{BILSTM}; its bound is about -86")},
    "dbm": {
        "fixed": Published(
            -84.62, "500-1000 hidden", "bound with estimated normaliser", "S", "boltzmann-machines, README"
        ),
    },
    "helmholtz_machine": {
        "fixed": Published(-93.4, "200-200 hidden, reweighted", "estimate", "M", "Bornschein and Bengio, 2015"),
    },
}


def recipes(size: str, models: list[str] | None = None) -> list[Recipe]:
    """The recipes of a size, of these models where any are named. Raises ValueError for a model without one."""
    known = RECIPES[size]
    unknown = sorted(set(models or []) - {recipe.model for recipe in known})
    if unknown:
        names = ", ".join(dict.fromkeys(recipe.model for recipe in known))
        raise ValueError(f"no {size} recipe for {', '.join(unknown)}; there are {names}")
    return [recipe for recipe in known if not models or recipe.model in models]

"""How much each pixel of an image surprises a model, and what the model expected of one pixel. No web in here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gdm_core.contract import ExactLikelihood, GenerativeModel, has

COLOURS = ("red", "green", "blue")
CURVE_POINTS = 240
TOLERANCE = 1e-3  # relative: two sums of the same terms in single precision


@dataclass(frozen=True, eq=False)
class Surprise:
    """-log p(x_i | predecessors) of one image, (H, W) float64 in nats; `exact` is -log p(x), where there is one."""

    map: Tensor
    exact: float | None

    @property
    def total(self) -> float:
        """The sum over all pixels."""
        return float(self.map.sum())

    @property
    def low(self) -> float:
        """Where a scale of colours begins: at 0, below it only for densities above 1."""
        return min(0.0, float(self.map.min()))

    @property
    def high(self) -> float:
        return float(self.map.max())

    @property
    def most_surprising(self) -> tuple[int, int]:
        """Row and column of the pixel with the highest value."""
        row, column = divmod(int(self.map.argmax()), self.map.shape[1])
        return row, column

    def in_words(self) -> str:
        """The sum over the pixels, and how it stands to log p(x)."""
        if self.exact is None:
            return f"The pixels sum to {self.total:.2f} nats."
        if abs(self.total - self.exact) <= TOLERANCE * max(1.0, abs(self.exact)):
            return f"The pixels sum to {self.total:.2f} nats, which is -log p(x), exact."
        return (
            f"The pixels sum to {self.total:.2f} nats, more than -log p(x) = {self.exact:.2f} nats (exact): the map is "
            "the mean over several orderings of the pixels, and p(x) the mean of their probabilities."
        )


@dataclass(frozen=True, eq=False)
class Expected:
    """log p(value) of one pixel in each colour, (C, V), its `values` (V,) and its true value in each colour.

    `levels` is None for real pixels, whose log p is a log-density.
    """

    values: Tensor
    log_prob: Tensor
    true: list[float]
    true_log_prob: list[float]
    levels: int | None

    @property
    def surprise(self) -> float:
        """-log p of what is there, in nats, summed over colours."""
        return -sum(self.true_log_prob)

    def in_words(self) -> str:
        """What the model expected, and what is there."""
        if self.levels == 2 and len(self.true) == 1:
            on = float(self.log_prob[0, 1].exp())
            return f"Expected to be 1 with probability {on:.3g}, given the pixels before it; it is {self.true[0]:.0f}."
        kind = "density" if self.levels is None else "probability"
        parts = [
            f"{self.shown(value)} had {kind} {_digits(log_prob)}"
            for value, log_prob in zip(self.true, self.true_log_prob, strict=True)
        ]
        names = [f"{name} " for name in COLOURS] if len(parts) == len(COLOURS) else [""] * len(parts)
        said = ", ".join(name + part for name, part in zip(names, parts, strict=True))
        return f"Given the pixels before it, its value {said}."

    def shown(self, value: float) -> str:
        """A value as the charts have it: the number of its level, or three digits."""
        return f"{value:.3f}" if self.levels is None else str(round(value * (self.levels - 1)))


def _digits(log_prob: float) -> str:
    """A probability or density, with three digits."""
    return f"{torch.tensor(log_prob).exp().item():.3g}"


@torch.inference_mode()
def surprise_of(model: GenerativeModel, x: Tensor) -> Surprise:
    """The surprise of one image (1, C, H, W)."""
    surprise = -model.log_prob_map(x)[0, 0].double().cpu()
    return Surprise(surprise, -float(model.log_prob(x)[0]) if has(model, ExactLikelihood) else None)


@torch.inference_mode()
def expected_of(model: GenerativeModel, x: Tensor, row: int, column: int) -> Expected:
    """What a model expected of the pixel at row and column of one image (1, C, H, W)."""
    true = x[0, :, row, column]
    if model.pixels == "real":
        values = (torch.arange(CURVE_POINTS) + 0.5) / CURVE_POINTS
    else:
        values = torch.arange(model.levels) / (model.levels - 1)
    log_prob = model.conditional(x, row, column, torch.cat([values, true]))[0].double().cpu()  # (C, V + C)
    return Expected(
        values, log_prob[:, : len(values)], true.tolist(), log_prob[:, len(values) :].diagonal().tolist(),
        None if model.pixels == "real" else model.levels,
    )  # fmt: skip

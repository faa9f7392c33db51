"""Pixel treatments: from stored integer levels to the numbers a model sees.

A likelihood means something only together with its treatment: log p of thresholded digits and of 17-level digits are
about different things. `Treatment.label` names it; only equal labels on one data set may be compared.

With S stored levels and a stored value k in 0..S-1:

    threshold   1 if k / (S - 1) >= 0.5 else 0
    dynamic     1 with probability k / (S - 1), drawn anew each time (Salakhutdinov and Murray, 2008)
    levels      j / (L - 1) with j = floor(k L / S): L <= S bins of equal width; L = S leaves k
    real        (k + u) / S with u uniform on [0, 1): dequantised (Theis, van den Oord, Bethge, 2016), so that the
                density of the result bounds the probability of the level from below
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Generator, Tensor

TREATMENTS = {"threshold": "binary", "dynamic": "binary", "levels": "levels", "real": "real"}  # name -> pixels
NATURAL = {"binary": "threshold", "levels": "levels", "real": "real"}  # pixels -> name


@dataclass(frozen=True)
class Treatment:
    """One treatment of images with `stored_levels` values a pixel; call it on stored images."""

    name: str
    stored_levels: int
    levels: int  # of the result: 2 for binary pixels, that of the stored images for real ones

    def __post_init__(self) -> None:
        if self.name not in TREATMENTS:
            raise ValueError(f"unknown pixel treatment {self.name!r}; known are {', '.join(TREATMENTS)}")
        if not 2 <= self.stored_levels <= 256:
            raise ValueError(f"images must be stored in 2 to 256 levels, got {self.stored_levels}")
        if not 2 <= self.levels <= self.stored_levels:
            raise ValueError(f"levels must be between 2 and the {self.stored_levels} stored ones, got {self.levels}")
        if self.pixels == "binary" and self.levels != 2:
            raise ValueError(f"treatment {self.name!r} gives 2 levels, not {self.levels}")
        if self.pixels == "real" and self.levels != self.stored_levels:
            raise ValueError(f"treatment 'real' keeps the {self.stored_levels} stored levels, got {self.levels}")

    @property
    def pixels(self) -> str:
        """'binary', 'levels' or 'real', as models name them."""
        return TREATMENTS[self.name]

    @property
    def is_random(self) -> bool:
        """Whether calls with a generator draw; given binary pixels are certain."""
        return self.name == "real" or (self.name == "dynamic" and self.stored_levels > 2)

    @property
    def label(self) -> str:
        """The treatment in words: what a number computed on these pixels has to be shown with."""
        if self.pixels == "binary" and self.stored_levels == 2:
            return "binary, fixed (given)"
        return {
            "threshold": "binary, on if >= 0.5",
            "dynamic": "binary, sampled anew (dynamic)",
            "levels": f"{self.levels} levels",
            "real": f"real, dequantised ({self.levels} levels)",
        }[self.name]

    def __call__(self, stored: Tensor, generator: Generator | None = None) -> Tensor:
        """Stored uint8 levels -> float images in [0, 1] of the same shape.

        Without a generator the result is deterministic, the form used for scoring: dynamic pixels are thresholded and
        real ones are the midpoints (k + 0.5) / S. Raises ValueError for values that are not stored levels.
        """
        if stored.dtype != torch.uint8:
            raise ValueError(f"stored images must be uint8 levels, got {stored.dtype}")
        if stored.numel() and int(stored.max()) >= self.stored_levels:
            raise ValueError(f"stored images must lie in 0..{self.stored_levels - 1}, got {int(stored.max())}")
        if self.name == "real":
            return _dequantise(stored, self.stored_levels, generator)
        if self.name == "levels":
            return quantise(stored, self.stored_levels, self.levels).float() / (self.levels - 1)
        if generator is None or not self.is_random:
            return (stored.int() * 2 >= self.stored_levels - 1).float()  # exact: no rounding decides a pixel at 0.5
        return torch.bernoulli(stored.float() / (self.stored_levels - 1), generator=generator)

    def to_dict(self) -> dict[str, str | int]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Treatment:
        """The treatment `to_dict` described; raises ValueError for anything else."""
        expected = {"name": str, "stored_levels": int, "levels": int}
        if not isinstance(values, dict) or {key: type(value) for key, value in values.items()} != expected:
            raise ValueError(f"a pixel treatment has name, stored_levels and levels, got {values!r}")
        return cls(**values)


def treatment_for(name: str | None, dataset_levels: int, pixels: str, levels: int | None = None) -> Treatment:
    """The treatment of a data set for a model of `pixels`; None takes the natural one.

    `levels` reduces the number of values of 'levels' pixels. Raises ValueError where name and pixels disagree.
    """
    if pixels not in NATURAL:
        raise ValueError(f"pixels must be one of {', '.join(NATURAL)}, got {pixels!r}")
    name = NATURAL[pixels] if name is None else name
    if name in TREATMENTS and TREATMENTS[name] != pixels:
        fitting = [known for known, kind in TREATMENTS.items() if kind == pixels]
        raise ValueError(f"treatment {name!r} gives {TREATMENTS[name]} pixels, but the model takes {pixels} ones: "
                         f"use {' or '.join(fitting)}")  # fmt: skip
    natural = 2 if pixels == "binary" else dataset_levels
    return Treatment(name, dataset_levels, natural if levels is None else levels)


def quantise(stored: Tensor, stored_levels: int, levels: int) -> Tensor:
    """Stored values 0..stored_levels-1 -> 0..levels-1 by bins of equal width, uint8."""
    return (stored.int() * levels // stored_levels).to(torch.uint8)


def _dequantise(stored: Tensor, levels: int, generator: Generator | None) -> Tensor:
    if generator is None:
        return (stored.float() + 0.5) / levels
    noise = torch.rand(stored.shape, generator=generator, device=stored.device)
    return (stored.float() + noise.clamp_(max=1 - 2**-16)) / levels  # clamped: 255 + u must not round up to 256

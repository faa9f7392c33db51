"""Sample grids of several runs at one step: the nearest picture each run has, enlarged without blur."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image

WIDTH = 480  # dots a grid is brought to


def all_steps(grids: Sequence[Mapping[int, str]]) -> list[int]:
    """Every step at which one of the runs has a picture."""
    return sorted({step for grid in grids for step in grid})


def nearest_step(steps: Sequence[int], wanted: int) -> int:
    """The step nearest to the wanted one, the earlier of two equally near. Raises ValueError where there is none."""
    if not steps:
        raise ValueError("a run without pictures has no nearest step")
    return min(steps, key=lambda step: (abs(step - wanted), step))


def enlarged(content: bytes, width: int = WIDTH) -> bytes:
    """A stored PNG brought near to a width by whole pixels: each dot of it stays a sharp square."""
    picture = Image.open(io.BytesIO(content))
    factor = max(1, round(width / picture.width))
    if factor == 1:
        return content
    buffer = io.BytesIO()
    large = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    large.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()

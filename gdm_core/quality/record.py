"""One number about sample quality, with what it takes to read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Quality:
    """A value, its kind and unit, and how many images stood on either side."""

    kind: str
    value: float
    unit: str
    reference_count: int  # real images
    sample_count: int
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, for a run's evaluation."""
        return asdict(self)

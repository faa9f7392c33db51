"""Which log-likelihoods may share an axis: those of equal data set, image shape and pixel treatment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion, RunRecord


@dataclass(frozen=True)
class Axis:
    """What must be equal for two log-likelihoods to share an axis."""

    dataset: str
    digest: str
    data_shape: str
    treatment: str


def axis_of(record: ModelVersion | RunRecord) -> Axis:
    """The axis a version's or a run's log-likelihoods belong on, from the facts that every run writes down."""
    facts = ("gdm.dataset", "gdm.dataset_digest", "gdm.data_shape", "gdm.treatment")
    return Axis(*(record.tags.get(fact, "") for fact in facts))


def by_axis(versions: Sequence[ModelVersion]) -> dict[Axis, list[ModelVersion]]:
    """The versions with a test log-likelihood by the axis they may share, best first; the fullest axis first."""
    axes: dict[Axis, list[ModelVersion]] = {}
    for _, version in sorted(_with_mean(versions), key=lambda pair: -pair[0]):
        axes.setdefault(axis_of(version), []).append(version)
    return dict(sorted(axes.items(), key=lambda item: -len(item[1])))


def titles(axes: Iterable[Axis]) -> dict[Axis, str]:
    """A title for each axis, no two alike: data set and treatment, and shape and digest only where those are alike."""
    axes = list(dict.fromkeys(axes))
    short = {axis: f"{axis.dataset}, {axis.treatment}" for axis in axes}
    alike = {title for title in short.values() if list(short.values()).count(title) > 1}
    return {
        axis: f"{title} ({axis.data_shape}, data {axis.digest[:8]})" if title in alike else title
        for axis, title in short.items()
    }


def _with_mean(versions: Sequence[ModelVersion]) -> list[tuple[float, ModelVersion]]:
    return [(version.test_mean, version) for version in versions if version.test_mean is not None]

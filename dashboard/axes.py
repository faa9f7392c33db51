"""Which log-likelihoods may share an axis (those of equal data set, image shape and pixels), and why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion, RunRecord


@dataclass(frozen=True, order=True)
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
    return {
        axis: (", ".join(filter(None, (axis.dataset, axis.treatment))) or "data set not noted") + more
        for axis, more in _told_apart(axes).items()
    }


def dataset_names(axes: Iterable[Axis]) -> dict[Axis, str]:
    """The data set of each axis, as a column beside one of pixels shows it: no two rows of both columns are alike."""
    return {axis: axis.dataset + more for axis, more in _told_apart(axes).items()}


def groups(records: Mapping[str, ModelVersion | RunRecord], metric: str) -> dict[str, list[str]]:
    """The names of versions or runs whose values of a metric may share an axis, by the title of that axis.

    Losses and likelihoods belong to one data set, shape and treatment; speed and the machine's load share one axis.
    """
    if not (metric.startswith("train/") or "log_likelihood" in metric):
        return {"": list(records)}
    found: dict[str, list[str]] = {}
    names = titles(map(axis_of, records.values()))
    for name, record in records.items():
        found.setdefault(names[axis_of(record)], []).append(name)
    return found


def why_no_likelihood(version: ModelVersion) -> str | None:
    """Why a version has no test log-likelihood, to stand after a colon; None where it has one."""
    if version.test_mean is not None:
        return None
    if version.run_status is None:
        return "its run was deleted from the store, and its numbers with it"
    if version.likelihood_kind != "none":
        return "it came out infinite or not a number, and its training health may say why"
    return "models of this kind give no likelihood"


def _told_apart(axes: Iterable[Axis]) -> dict[Axis, str]:
    """Shape and digest of axes that agree in data set and treatment, nothing for the others."""
    axes = list(dict.fromkeys(axes))
    seen = [(axis.dataset, axis.treatment) for axis in axes]
    return {
        axis: f" ({axis.data_shape}, data {axis.digest[:8]})" if seen.count(pair) > 1 else ""
        for axis, pair in zip(axes, seen, strict=True)
    }


def _with_mean(versions: Sequence[ModelVersion]) -> list[tuple[float, ModelVersion]]:
    return [(version.test_mean, version) for version in versions if version.test_mean is not None]

"""Two models on the same test images: may they be compared, by how much do they differ, and how to read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.axes import why_no_likelihood
from dashboard.choices import version_name
from dashboard.figures.differences import PairedDifference

if TYPE_CHECKING:
    from pipelines.tracking import ModelVersion


def why_not(first: ModelVersion, second: ModelVersion) -> str | None:
    """One sentence on why two versions have no paired difference, or None where they have one."""
    if version_name(first) == version_name(second):
        return "Choose two different models."
    for version in (first, second):
        if reason := why_no_likelihood(version):
            return f"{version_name(version)} has no test log-likelihood: {reason}."
    for what, one, other in (
        ("data sets", f"{first.dataset} {first.dataset_digest}", f"{second.dataset} {second.dataset_digest}"),
        ("image shapes", first.data_shape, second.data_shape),
        ("pixel treatments", first.treatment, second.treatment),
        ("numbers of test images", first.test_count, second.test_count),
    ):
        if one != other:
            return f"The two were tested on different {what} ({one} and {other}), so there are no pairs to compare."
    return None


def in_words(difference: PairedDifference, first: ModelVersion, second: ModelVersion) -> str:
    """What the difference says, with the caution that the two kinds of likelihood ask for."""
    names = version_name(first), version_name(second)
    better, worse = names if difference.mean >= 0 else names[::-1]
    if difference.standard_error <= 1e-9 * abs(difference.mean):  # constant but for rounding
        verdict = f"{better} and {worse} differ by the same amount on every image."
    else:
        errors = abs(difference.mean) / difference.standard_error
        verdict = (
            f"{better} has the higher number by {errors:.1f} standard errors, {_conclusion(difference, first, second)}."
            if errors >= 2
            else f"The two cannot be told apart on these images ({errors:.1f} standard errors)."
        )
    return " ".join([verdict, *_cautions(first, second)])


def _conclusion(difference: PairedDifference, first: ModelVersion, second: ModelVersion) -> str:
    """A higher number is a better model only if the lower one is exact and the higher one exact or a lower bound."""
    higher, lower = (first, second) if difference.mean >= 0 else (second, first)
    certain = lower.likelihood_kind == "exact" and higher.likelihood_kind in ("exact", "lower bound")
    return "so it is the better model of these images" if certain else "which does not prove it better"


def _cautions(first: ModelVersion, second: ModelVersion) -> list[str]:
    cautions = []
    for version in (first, second):
        if version.likelihood_kind == "lower bound":
            cautions.append(f"{version_name(version)} gives a lower bound: its true values are at least as high.")
        if version.likelihood_kind in ("estimate", "bound with estimated normaliser"):
            text = f"{version_name(version)} rests on an estimated log Z, whose error shifts all images together"
            if version.log_partition:
                text += f" (95 % interval {version.log_partition.low:.2f} to {version.log_partition.high:.2f})"
            cautions.append(text + " and is not part of the standard error.")
    return cautions

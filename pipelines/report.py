"""What the command line prints: every number with its kind, unit, split, treatment, count and error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.tracker import OFFLINE_VERSION

if TYPE_CHECKING:
    from gdm_core.likelihoods import Likelihood
    from pipelines.offline import ImportReport
    from pipelines.registry_reader import ModelVersion
    from pipelines.training_run import RunResult


def result_report(result: RunResult) -> str:
    """A finished run in a few lines."""
    test = result.evaluation.likelihoods["test"]
    offline = result.version == OFFLINE_VERSION
    kept = f"kept for the import of {result.name}" if offline else f"registered {result.name} version {result.version}"
    lines = [f"{kept} after {result.training_seconds:.1f} s of training"]
    if test.kind != "none":
        lines.append(f"test log-likelihood {numbers(test)}, {result.evaluation.treatment.label}")
    if result.evaluation.frechet is not None:
        distance = result.evaluation.frechet
        lines.append(f"Frechet distance {distance.value:.1f} ({distance.sample_count} samples)")
    grave = [finding for finding in result.evaluation.health if finding.verdict != "good"]
    lines += [f"{finding.verdict}: {finding.sentence}" for finding in grave]
    lines.append(f"champion: {'yes' if result.promoted else 'no'}, {result.decision}")
    lines.append(f"weights {result.weights_digest[:16]}, run {result.run_id}")
    return "\n".join(lines)


def numbers(record: Likelihood) -> str:
    """-17.42 +- 0.31 nats per image (exact, 300 images); of more than two values a pixel also in bits per dimension"""
    count = len(record.values)
    text = f"{record.mean:.2f} +- {record.standard_error:.2f} {record.unit} ({record.kind}, {count} images)"
    if record.pixels != "binary":
        text += f", {record.bits_per_dimension():.3f} bits per dimension"
    if record.log_partition is not None:
        log_z = record.log_partition
        text += f", log Z {log_z.value:.2f} [{log_z.low:.2f}, {log_z.high:.2f}]"
        text += f". {log_z.doubt}" if log_z.doubt else ""
    return text


def likelihood_report(uri: str, split: str, k: int, temperatures: int | str | None) -> dict[str, Any]:
    """A registered model's likelihood on a split of its data set, computed now; None: as its run was evaluated."""
    from gdm_core.data import load_recorded
    from pipelines.evaluation import split_likelihood
    from pipelines.registry_reader import load_registered

    if split not in ("validation", "test"):  # calibration images serve p-values and nothing else
        raise ValueError(f"split must be validation or test, got {split!r}")
    stored = load_registered(uri)
    dataset = load_recorded(stored.card.dataset.get("specification"), stored.card.dataset.get("digest"))
    asked = {"k": k} if temperatures is None else {"k": k, "temperatures": temperatures}
    record = split_likelihood(stored.model, dataset, stored.treatment, split, **asked)
    report: dict[str, Any] = {"model": uri, "dataset": dataset.name, "split": split, "kind": record.kind}
    if record.kind == "none":
        return report
    report |= {"log_likelihood": record.mean, "standard_error": record.standard_error, "unit": record.unit}
    report |= {"count": len(record.values), "treatment": stored.treatment.label, "settings": record.settings}
    if record.pixels != "binary":
        report["bits_per_dimension"] = record.bits_per_dimension()
    if record.log_partition is not None:
        log_z = record.log_partition
        report["log_partition"] = f"{log_z.value:.3f} [{log_z.low:.3f}, {log_z.high:.3f}] (95 %)"
        report |= {"doubt": log_z.doubt} if log_z.doubt else {}
    return report


def import_report(report: ImportReport) -> str:
    """What an import took in, and what it could not."""
    lines = [f"imported {offline} as run {run}" for offline, run in report.imported.items()]
    lines += [f"{offline} was imported before, as run {run}" for offline, run in report.known.items()]
    lines += [f"registered {name} version {version}" for name, version in report.versions.values()]
    return "\n".join(lines + [f"problem: {problem}" for problem in report.problems])


def version_table(every: bool) -> str:
    """The registered versions, a line each."""
    from pipelines.registry_reader import list_versions

    versions = [version for version in list_versions() if every or version.aliases]
    if not versions:
        return "no models are registered yet: `python -m pipelines train nade` makes the first"
    header = ("model", "version", "aliases", "test nats per image", "kind", "treatment", "parameters", "trained in")
    return _columns([header, *(_version_row(version) for version in versions)])


def _version_row(version: ModelVersion) -> tuple[str, ...]:
    likelihood = "-"
    if version.test_mean is not None and version.test_standard_error is not None:
        likelihood = f"{version.test_mean:.2f} +- {version.test_standard_error:.2f} (n={version.test_count})"
    seconds = "-" if version.training_seconds is None else f"{version.training_seconds:.0f} s"
    parameters = "-" if version.parameters is None else f"{version.parameters:,}"
    aliases = ",".join(version.aliases)
    return (
        version.name, version.version, aliases, likelihood, version.likelihood_kind, version.treatment, parameters,
        seconds,
    )  # fmt: skip


def model_table() -> str:
    """The models that can be trained, with family, paper, pixels and arguments."""
    from gdm_core import describe_model, list_models

    rows: list[tuple[str, ...]] = [("model", "family", "pixels", "arguments", "paper")]
    for name in list_models():
        about = describe_model(name)
        arguments = " ".join(f"{key}={value}" for key, value in about.arguments.items())
        rows.append((name, about.family, ",".join(about.pixels), arguments, about.paper))
    return _columns(rows)


def markdown_model_table() -> str:
    """The README's table of models, from the registry."""
    from gdm_core import describe_model, list_models
    from gdm_core.registry import FAMILIES

    rows = ["| model | family | pixels | likelihood | paper |", "|---|---|---|---|---|"]
    for about in (describe_model(name) for family in FAMILIES for name in list_models(family)):
        kind = next((word for word, needs in LIKELIHOOD_KINDS.items() if needs <= {*about.capabilities}), "none")
        rows.append(f"| `{about.name}` | {about.family} | {', '.join(about.pixels)} | {kind} | {about.paper} |")
    return "\n".join(rows)


LIKELIHOOD_KINDS = {
    "exact": {"ExactLikelihood"},
    "lower bound": {"LatentLikelihood"},
    "estimate (exact where small)": {"Energy", "Anneals"},
    "bound with estimated normaliser": {"UnnormalisedBound", "Anneals"},
}


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

"""Model: one registered version: what it is, what it can do, its numbers, where it comes from, versions and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard import loading
from dashboard.abilities import abilities_of
from dashboard.aliases import show_versions
from dashboard.axes import why_no_likelihood
from dashboard.choices import best_of_each, pick_model, say_if_gone, version_name
from dashboard.live import say_how_to_begin, show_running
from dashboard.page import PAGES, boundary, link, plain
from dashboard.tables import run_name
from dashboard.views.model_evaluation import frechet_distance, show_health, validation_likelihood
from dashboard.views.model_partition import show_partition

if TYPE_CHECKING:
    from gdm_core.registry import ModelDescription
    from pipelines.tracking import ModelVersion

ABOUT = {
    "model.json": "what it is: architecture, arguments, pixel treatment, data set, and the table of tensors",
    "model.safetensors": "the weights",
    "calibration.safetensors": "scores of held-out normal images, for p-values and heat maps",
}


def render() -> None:
    """The page of the version that is chosen, or that the address names (?model=digits-nade/3)."""
    versions = loading.versions()
    if not versions:
        show_running()
        say_how_to_begin("registered model")
        return
    say_if_gone(versions, "model")
    best = best_of_each(versions)
    version = pick_model([*best, *(other for other in versions if other not in best)])
    if version is None:
        return
    _show_heading(version)
    left, right = st.columns([3, 2], gap="large")
    for column, part in ((left, _show_idea), (right, _show_abilities), (left, _show_numbers), (right, _show_lineage)):
        with column, boundary():
            part(version)
    with left, boundary():
        show_health(version)
    with left, boundary():
        _show_arguments(version)
    with right, boundary():
        _show_files(version)
    with boundary():
        show_partition(version)
    with boundary():
        show_versions(version, [other for other in versions if other.name == version.name])


def _show_heading(version: ModelVersion) -> None:
    from pipelines.tracking import ui_link

    st.header(plain(version_name(version)), anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(plain(version.family or "family unknown"), color="primary")
        for alias in version.aliases:
            st.badge(plain(alias), icon=":material/star:" if alias == "champion" else ":material/label:", color="green")
        if address := ui_link(version):
            st.link_button("In MLflow", address, icon=":material/open_in_new:", type="tertiary")


def _description(version: ModelVersion) -> ModelDescription:
    import gdm_core.models  # noqa: F401
    from gdm_core.registry import describe_model

    return describe_model(version.architecture)


def _show_idea(version: ModelVersion) -> None:
    st.subheader("What it is", anchor=False)
    description = _description(version)
    for is_formula, text in paragraphs(description.idea):
        st.code(text, language=None, wrap_lines=True) if is_formula else st.markdown(prose(text))
    st.caption(f"{plain(version.architecture)} · {plain(description.paper)}")


def paragraphs(text: str) -> list[tuple[bool, str]]:
    """The text of a model's file in parts: (True, formula) for indented lines, (False, prose) for the others."""
    parts: list[tuple[bool, list[str]]] = []
    for line in text.splitlines():
        is_formula = line.startswith("    ")
        if not line.strip():
            parts.append((False, []))
        elif parts and parts[-1][1] and parts[-1][0] == is_formula:
            parts[-1][1].append(line)
        else:
            parts.append((is_formula, [line]))
    joined = [(is_formula, (_without_indent(lines) if is_formula else " ".join(lines))) for is_formula, lines in parts]
    return [(is_formula, words) for is_formula, words in joined if words]


def prose(text: str) -> str:
    """Text as Markdown that shows it as it is, but for `names`, which become code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return plain(text)
    return "".join(f"`{part}`" if index % 2 else plain(part) for index, part in enumerate(parts))


def _without_indent(lines: Sequence[str]) -> str:
    return "\n".join(line[4:] for line in lines)


def _show_abilities(version: ModelVersion) -> None:
    st.subheader("What it can do", anchor=False)
    abilities = abilities_of(_description(version).capabilities)
    st.markdown("\n".join(f"- {ability.words}" for ability in abilities))
    used = {ability.page for ability in abilities}
    with st.container(horizontal=True):
        for entry in PAGES:
            if entry.name in used - {"compare"}:
                link(entry.name, entry.title, models=version_name(version))


def _show_numbers(version: ModelVersion) -> None:
    st.subheader("Numbers", anchor=False)
    if reason := why_no_likelihood(version):
        st.markdown(f"There is no number on how likely it finds an image: {reason}.")
    else:
        _show_likelihood(version)
    facts = {
        "Parameters": f"{version.parameters:,}" if version.parameters is not None else None,
        "Training": f"{version.training_seconds:,.1f} s" if version.training_seconds is not None else None,
        "64 samples": f"{version.sampling_seconds:.2f} s" if version.sampling_seconds is not None else None,
        "Epochs": f"{version.epochs}" if version.epochs is not None else None,
        "Fréchet distance": frechet_distance(version),
    }
    _show_facts(facts)


def _show_likelihood(version: ModelVersion) -> None:
    error = version.test_standard_error
    value = f"{version.test_mean:.2f}" + (f" ± {error:.2f}" if error is not None else "")
    st.metric("Test log-likelihood, nats per image", value, help="Mean and standard error over the test images.")
    log_z = version.log_partition
    _show_facts({
        "Kind": version.likelihood_kind,
        "Pixels": version.treatment,
        "Test images": f"{version.test_count:,}" if version.test_count is not None else None,
        "Bits per dimension": f"{version.bits_per_dimension:.3f}" if version.bits_per_dimension is not None else None,
        "Validation": validation_likelihood(version),
        "log Z": f"{log_z.value:.2f}, 95 % interval {log_z.low:.2f} to {log_z.high:.2f}" if log_z else None,
    })  # fmt: skip


def _show_lineage(version: ModelVersion) -> None:
    st.subheader("Where it comes from", anchor=False)
    _show_facts({
        "Data set": version.dataset,
        "Digest of the data": version.dataset_digest,
        "Image shape": " x ".join(map(str, version.data_shape)),
        "Registered": f"{version.created:%d %b %Y, %H:%M} UTC",
        "Run": version.run_id,
        "Git commit": _commit(version.tags),
        "Made": version.tags.get("gdm.source"),
        "Digest of the weights": version.tags.get("gdm.weights_digest", "")[:16],
    })  # fmt: skip
    if version.run_status is None:
        st.caption("The run was deleted from the store.")
    else:
        link("runs", "The run beside others", runs=run_name(loading.run(version.run_id)))


def _commit(tags: dict[str, str]) -> str:
    """The commit the run was made from, and whether the files differed from it."""
    changed = ", with changes" if tags.get("gdm.git_changed") == "yes" else ""
    commit = tags.get("mlflow.source.git.commit", "")[:12]
    return commit + changed if commit else ""


def _show_arguments(version: ModelVersion) -> None:
    import pandas

    st.subheader("Arguments", anchor=False)
    description, used = _description(version), loading.card(version.uri).arguments
    if not used:
        st.markdown("It has none.")
        return
    rows = [
        {"argument": name, "value": str(value), "default": str(description.arguments.get(name, "–")),
         "type": description.argument_types.get(name, "")}
        for name, value in used.items()
    ]  # fmt: skip
    st.dataframe(pandas.DataFrame(rows), hide_index=True, alt="Arguments of the model")


def _show_files(version: ModelVersion) -> None:
    st.subheader("Files", anchor=False)
    for name, path in loading.version_files(version.uri).items():
        st.download_button(
            f"{name} ({_size(path.stat().st_size)})", path.read_bytes, f"{version.name}-{version.version}-{name}",
            icon=":material/download:", help=ABOUT.get(name), on_click="ignore", key=f"download {version.uri} {name}",
        )  # fmt: skip
    st.caption("Data only: JSON and safetensors, no code.")


def _show_facts(facts: dict[str, Any]) -> None:
    """Names and values, one per line; what is not known is left out."""
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    st.markdown("\n".join(f"- {name}: **{plain(str(value))}**" for name, value in known.items()))


def _size(count: int) -> str:
    return f"{count / 1024:,.0f} KiB" if count < 2**20 else f"{count / 2**20:,.1f} MiB"

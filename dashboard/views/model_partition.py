"""The Model page's section on log Z: what the evaluation stored, and annealing from all sides, here and now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import loading
from dashboard.choices import version_name
from dashboard.job_panel import session_jobs, show_state, watch
from dashboard.offers import able
from dashboard.page import plain
from dashboard.partition import IMAGES, Line, annealing, lines
from dashboard.tables import csv_of
from dashboard.trained_on import dataset_or_word
from dashboard.views import model_evaluation
from gdm_core.contract import Anneals
from gdm_core.data import evaluation_images
from gdm_core.likelihoods import why_not_over_images

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from dashboard.jobs import Job
    from dashboard.loading import LoadedModel
    from gdm_core.likelihoods import AnnealingReport
    from pipelines.tracking import ModelVersion

TEMPERATURES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
CHAINS = (20, 50, 100, 200, 500)
ASKED = "_partition"  # what this session asked to have annealed: {address: (temperatures, chains)}


def show_partition(version: ModelVersion) -> None:
    """What is stored of log Z, and the button that anneals; nothing for a model that does not anneal."""
    if not able([version], Anneals):
        return
    st.subheader("Partition function", anchor=False)
    _show_stored(version)
    loaded = loading.model(version.uri)
    if refusal := why_not_over_images(loaded.model):
        st.info(refusal.replace("NAME", loaded.uri), icon=":material/info:")
        return
    images = _validation_images(loaded)
    if images is not None:
        _show_annealed(version, loaded, images)


def _show_stored(version: ModelVersion) -> None:
    log_z = model_evaluation.evaluation_of(version).get("likelihood", {}).get("test", {}).get("log_partition")
    if not log_z:
        st.caption("No evaluation of log Z is stored with this model.")
    elif log_z["kind"] == "exact":
        st.markdown(f"Its evaluation summed all states: log Z = **{log_z['value']:.2f}**, exactly.")
    else:
        model_evaluation.show_annealing(version)


def _validation_images(loaded: LoadedModel) -> Tensor | None:
    """The first validation images as the model sees them; None where they are not here, and it says so."""
    data = dataset_or_word(loaded.stored.card, "validation", ", and annealing back from images needs some")
    return None if data is None else evaluation_images(data.splits["validation"], loaded.stored.treatment)[:IMAGES]


# --- annealing here and now -------------------------------------------------------------------------------------------


def _show_annealed(version: ModelVersion, loaded: LoadedModel, images: Tensor) -> None:
    st.markdown("How sure is it? Anneal forwards, backwards and from images, and see how far the answers lie apart.")
    warm, count, button = st.columns([2, 2, 1], vertical_alignment="bottom", gap="medium")
    temperatures = warm.select_slider("Temperatures", TEMPERATURES, 1000, key="temperatures", bind="query-params",
                                      help="More of them bring all answers nearer to the truth.")  # fmt: skip
    chains = count.select_slider("Chains", CHAINS, 100, key="chains", bind="query-params",
                                 help="More of them narrow the intervals.")  # fmt: skip
    button.button("Anneal", type="primary", icon=":material/thermostat:", width="stretch", on_click=_ask,
                  args=(loaded.uri, int(temperatures), int(chains)))  # fmt: skip
    asked = st.session_state.get(ASKED, {}).get(loaded.uri)
    if asked is None:
        return
    job = session_jobs().keep(_key(loaded.uri), asked, annealing(loaded.model, loaded.lock, images, *asked))
    watch([job], partial(_result, version, loaded, len(images), job))


def _ask(uri: str, temperatures: int, chains: int) -> None:
    """Anneal like this from the next run of the page on; again where it ended without a result."""
    st.session_state[ASKED] = st.session_state.get(ASKED, {}) | {uri: (temperatures, chains)}
    job = session_jobs().get(_key(uri))
    if job is not None and job.done and job.result is None:
        session_jobs().forget(_key(uri))


def _key(uri: str) -> str:
    return f"partition {uri}"


def _result(version: ModelVersion, loaded: LoadedModel, count: int, job: Job) -> None:
    if not show_state(job, _key(loaded.uri), partial(session_jobs().forget, _key(loaded.uri))):
        return
    found: AnnealingReport = job.result
    if found.forwards.doubt:
        st.warning(plain(found.forwards.doubt), icon=":material/warning:")
    rows = lines(found)
    st.table(shown(rows))
    st.markdown("\n".join(f"- {row.what}: {row.meaning}" for row in rows))
    apart = f"**{abs(found.gap):.2f} nats**"
    st.markdown(f"The bound forwards and the conservative log p(x) lie {apart} apart." if found.of_bound else
                f"The optimistic and the conservative log p(x) differ by {apart}: so unsure is this model's "
                "log-likelihood.")  # fmt: skip
    name, forwards = version_name(version), found.forwards
    st.caption(f"log p(x): nats per image, mean of {count} validation images of {plain(version.dataset)} "
               f"({plain(loaded.stored.treatment.label)}) ± standard error over them. {forwards.temperatures:,} "
               f"temperatures, {forwards.chains} chains; the same as `python -m pipelines partition {loaded.uri} "
               f"--temperatures {forwards.temperatures} --chains {forwards.chains}`.")  # fmt: skip
    st.download_button("CSV", csv_of(table(rows, version, loaded, count, found)),
                       f"{name.replace('/', '-')}-partition.csv", "text/csv", f"csv {_key(loaded.uri)}",
                       on_click="ignore", icon=":material/download:")  # fmt: skip


def shown(rows: list[Line]) -> pandas.DataFrame:
    """The numbers to be read, a row for each way."""
    import pandas

    return pandas.DataFrame(
        {
            "log Z": f"{row.log_z.value:.2f}" if row.log_z else "–",
            "95 % interval": f"{row.log_z.low:.2f} to {row.log_z.high:.2f}" if _estimated(row) else "–",
            "effective chains": f"{row.log_z.effective_sample_size:.0f} of {row.log_z.chains}" if _estimated(row)
            else "–",
            "log p(x)": f"{row.log_p[0]:.2f} ± {row.log_p[1]:.2f}",
            "which is": row.verdict,
        }
        for row in rows
    ).set_index(pandas.Index([row.what for row in rows]))  # fmt: skip


def table(
    rows: list[Line], version: ModelVersion, loaded: LoadedModel, count: int, found: AnnealingReport
) -> pandas.DataFrame:
    """The numbers in full, each with what it is of."""
    import pandas

    forwards = found.forwards
    return pandas.DataFrame(
        {
            "model": loaded.uri, "data_set": version.dataset, "split": "validation", "images": count,
            "pixels": loaded.stored.treatment.label, "temperatures": forwards.temperatures, "chains": forwards.chains,
            "method": row.what, "log_z_nats": row.log_z.value if row.log_z else None,
            "low": row.log_z.low if _estimated(row) else None, "high": row.log_z.high if _estimated(row) else None,
            "effective_chains": row.log_z.effective_sample_size if _estimated(row) else None,
            "log_p_nats_per_image": row.log_p[0], "standard_error": row.log_p[1],
            "log_p_is": row.verdict, "meaning": row.meaning, "doubt": forwards.doubt,
        }
        for row in rows
    )  # fmt: skip


def _estimated(row: Line) -> bool:
    return row.log_z is not None and row.log_z.kind == "estimate"

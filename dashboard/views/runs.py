"""Runs: everything that was trained, chosen and laid side by side: numbers, parameters, curves, sample grids."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import loading, tables
from dashboard.choices import pick_one, pick_some, say_if_not_offered
from dashboard.live import say_how_to_begin, show_running
from dashboard.page import boundary, guarded, plain
from dashboard.run_parameters import differing, highlighted, parameter_table
from dashboard.run_pictures import all_steps, enlarged, nearest_step
from dashboard.tables import run_name
from dashboard.training_curves import OF_EPOCHS, show_curves

if TYPE_CHECKING:
    from pipelines.tracking import RunRecord

MOST_RUNS = 6
SYSTEM = "system/"


def render() -> None:
    """The page: filters, the table, and the chosen runs beside each other."""
    records = loading.runs()  # first: a store that is down is said once
    show_running()
    if not records:
        say_how_to_begin("run")
        return
    fitting = _filtered(records)
    if not fitting:
        st.info("No run fits these filters: take one of them away.", icon=":material/filter_alt_off:")
        return
    _show_table(fitting, is_cut=len(records) >= loading.NEWEST_RUNS)
    names = {run_name(record): record for record in fitting}
    standard = [name for name, record in names.items() if record.status == "FINISHED"][:3] or list(names)[:1]
    say_if_not_offered(names, "runs", why_not_offered({run_name(record) for record in records}))
    chosen = [names[name] for name in pick_some("Runs to compare", list(names), standard, "runs", most=MOST_RUNS)]
    if not chosen:
        st.info("Choose runs to lay them side by side.", icon=":material/info:")
        return
    for part in (_show_problems, _show_curves, _show_grids, _show_parameters):
        with boundary():
            part(chosen)


def why_not_offered(listed: Collection[str]) -> Callable[[str], str]:
    """Why a link names a run that is not offered, given the names of all runs that are listed."""
    absent = "not in the store (any more)"
    if len(listed) >= loading.NEWEST_RUNS:
        absent += f", or older than the newest {loading.NEWEST_RUNS:,} runs"
    return lambda name: "left out by these filters" if name in listed else absent


def _filtered(records: Sequence[RunRecord]) -> list[RunRecord]:
    columns = st.columns([2, 2, 2, 3], vertical_alignment="bottom")
    fields = {"Data set": _dataset, "Status": lambda record: record.status, "Model": _model}
    for column, (label, field) in zip(columns[:3], fields.items(), strict=True):
        with column:
            options = sorted({field(record) for record in records})
            wanted = pick_some(label, options, [], label.lower().replace(" ", ""), placeholder="all")
        records = [record for record in records if not wanted or field(record) in wanted]
    text = columns[3].text_input(
        "Text", key="text", placeholder="in name, id, parameters", icon=":material/search:", bind="query-params"
    )
    return [record for record in records if matches(record, text)]


def matches(record: RunRecord, text: str) -> bool:
    """Whether every word stands somewhere in the run's name, id, parameters (as key=value) or tags."""
    haystack = " ".join(
        [record.name, record.run_id, *(f"{key}={value}" for key, value in record.params.items()),
         *(value for key, value in record.tags.items() if key.startswith("gdm."))]
    ).lower()  # fmt: skip
    return all(word in haystack for word in text.lower().split())


def _dataset(record: RunRecord) -> str:
    return record.tags.get("gdm.dataset", record.experiment)


def _model(record: RunRecord) -> str:
    return record.tags.get("gdm.model") or record.params.get("model", record.name)


def _show_table(records: Sequence[RunRecord], is_cut: bool) -> None:
    table = tables.run_table(records)
    columns = tables.run_columns(table)
    st.dataframe(table, hide_index=True, column_config=columns, placeholder="–", height=_height(len(table)), alt="Runs")
    left, right = st.columns([4, 1], vertical_alignment="center")
    cut = f" Only the newest {loading.NEWEST_RUNS:,} runs of the store are listed." if is_cut else ""
    left.caption(f"{len(table):,} {'run' if len(table) == 1 else 'runs'}, newest first.{cut}")
    right.download_button(
        "CSV", tables.csv_of(table), "runs.csv", "text/csv", icon=":material/download:", on_click="ignore",
        width="stretch",
    )  # fmt: skip


def _height(rows: int) -> int:
    """Room for all rows of a short table, a scrolling ten of a long one."""
    return 38 + 35 * min(10, rows)


def _show_problems(records: Sequence[RunRecord]) -> None:
    from pipelines.tracking import ui_link

    for record in records:
        if record.status == "FAILED":
            address = ui_link(record)
            more = f" [Look at the run in MLflow]({address})" if address else ""
            text = f"**{plain(run_name(record))}** failed: {plain(why_failed(record))}{more}"
            st.error(text, icon=":material/error:")


def why_failed(record: RunRecord) -> str:
    """The last line of the run's traceback."""
    if "traceback.txt" not in loading.files(record):
        return "it left no traceback."
    lines = loading.file(record.run_id, "traceback.txt").decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else "its traceback is empty."


@st.fragment
@guarded
def _show_curves(records: Sequence[RunRecord]) -> None:
    st.subheader("Metrics", anchor=False)
    keys = sorted({key for record in records for key in record.metrics}, key=lambda key: (key.startswith(SYSTEM), key))
    curves = [key for key in keys if "/" in key and not key.startswith(("test/", "log_partition/", "health/"))]
    if not curves:
        st.info("These runs logged no metric yet.", icon=":material/info:")
        return
    standard = next((key for key in (OF_EPOCHS, "train/loss") if key in curves), curves[0])
    metric = pick_one("Metric", curves, standard, "metric") or standard
    with st.container():  # replaced as a whole: metrics differ in how many charts they need
        show_curves({run_name(record): record for record in records}, metric)


@st.fragment
@guarded
def _show_grids(records: Sequence[RunRecord]) -> None:
    st.subheader("Samples while training", anchor=False)
    grids = {record.run_id: loading.grids(record).get("samples", {}) for record in records}
    steps = all_steps(list(grids.values()))
    if not steps:
        st.info("These runs kept no sample grids.", icon=":material/info:")
        return
    step = _pick_step(steps)
    with_grids = [record for record in records if grids[record.run_id]]
    columns = st.columns(max(2, min(3, len(with_grids))))
    for index, record in enumerate(with_grids):
        with columns[index % len(columns)]:
            found = nearest_step(list(grids[record.run_id]), step)
            content = loading.file(record.run_id, grids[record.run_id][found])
            what = f"{run_name(record)}, epoch {found}"
            st.image(enlarged(content), width="stretch", caption=plain(what), alt=f"Samples of {what}")
    st.caption("The same noise at every epoch, so what changes is the model. Where a run has no picture at the chosen "
               "epoch, the nearest one is shown.")  # fmt: skip


def _pick_step(steps: Sequence[int]) -> int:
    """One slider for all runs; without two steps there is nothing to slide."""
    if len(steps) < 2:
        return steps[0]
    if st.session_state.get("epoch") not in (None, *steps):
        st.session_state["epoch"] = nearest_step(steps, int(st.session_state["epoch"]))
    return st.select_slider("Epoch", list(steps), value=steps[-1], key="epoch", bind="query-params")


def _show_parameters(records: Sequence[RunRecord]) -> None:
    st.subheader("Parameters", anchor=False)
    table = parameter_table(records)
    only = len(records) > 1 and st.toggle("Only what differs", value=True, key="differing", bind="query-params")
    if only:
        table = table[differing(table)]
        if table.empty:
            st.info("These runs had the same parameters.", icon=":material/info:")
            return
    st.dataframe(table if only else highlighted(table), placeholder="–", alt="Parameters of the runs")

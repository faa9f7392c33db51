"""Parameters of several runs side by side, and which of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dashboard.tables import run_name

if TYPE_CHECKING:
    import pandas
    from pandas.io.formats.style import Styler

    from pipelines.tracking import RunRecord

HIGHLIGHT = "background-color: rgba(217, 130, 43, 0.22)"  # legible on light and dark


def parameter_table(records: Sequence[RunRecord]) -> pandas.DataFrame:
    """One row per parameter, one column per run; an empty cell where a run has no such parameter."""
    import pandas

    keys = dict.fromkeys(key for record in records for key in record.params)
    columns = {run_name(record): [record.params.get(key, "") for key in keys] for record in records}
    return pandas.DataFrame(columns, index=pandas.Index(list(keys), name="parameter"))


def differing(table: pandas.DataFrame) -> pandas.Series:
    """Which rows do not have the same value in every column."""
    return table.nunique(axis=1) > 1


def highlighted(table: pandas.DataFrame) -> Styler:
    """The table with the rows that differ in colour."""
    rows = differing(table)
    return table.style.apply(lambda row: [HIGHLIGHT if rows[row.name] else ""] * len(row), axis=1)

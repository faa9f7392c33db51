"""Verdicts as tables: a row for each image on the page, a row for each image, model and score in the CSV. No web."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pandas

from dashboard import images
from dashboard.scoring import Judged, Picture, Sight

CSV_COLUMNS = (
    "image", "model", "architecture", "data_set", "pixels", "scorer", "score", "p_value", "calibration_images",
    "rate", "procedure", "flagged", "looks_inverted", "inverted",
)  # fmt: skip
VERDICTS = {True: "flagged", False: "not flagged"}
FLAGGED_STYLE = "background-color: rgba(209, 73, 91, 0.25)"


def order(judged: Judged) -> list[int]:
    """The images from the strangest on: by p-value, ties by score."""
    return sorted(range(len(judged.p)), key=lambda i: (float(judged.p[i]), -float(judged.scores[i])))


def table(
    pictures: Sequence[Picture], pngs: Sequence[bytes], judged: Sequence[Judged], first: int = 0
) -> pandas.DataFrame:
    """A row for each image, sorted by the p-value of `judged[first]`; the index is the image's place in `pictures`.

    `pngs` are the images as a model sees them.
    """
    columns: dict[str, list] = {
        "as seen": [images.data_address(png) for png in pngs],
        "image": [picture.name for picture in pictures],
    }
    if len(judged) == 1:
        columns |= {"score": judged[0].scores.tolist(), "p-value": judged[0].p.tolist(), "verdict": _words(judged[0])}
    else:
        counts = sum(one.flagged.long() for one in judged).tolist()
        columns |= {"flagged by": [f"{count} of {len(judged)}" for count in counts]}
        columns |= {one.column: one.p.tolist() for one in judged}
    return pandas.DataFrame(columns).loc[order(judged[first])]


def flagged_styles(frame: pandas.DataFrame, judged: Sequence[Judged]) -> pandas.DataFrame:
    """CSS for the cells of `table`: the ones that say flagged are marked."""
    styles = pandas.DataFrame("", index=frame.index, columns=frame.columns)
    for one in judged:
        column = "verdict" if len(judged) == 1 else one.column
        styles[column] = [FLAGGED_STYLE if bool(one.flagged[i]) else "" for i in frame.index]
    return styles


def csv_text(
    pictures: Sequence[Picture], sights: dict[str, Sight], judged: Sequence[Judged], rate: float, procedure: str
) -> str:
    """Everything on the page as comma-separated values with a header; numbers in full precision."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for one in judged:
        card, seen = one.model.stored.card, sights[one.model.uri]
        for i, picture in enumerate(pictures):
            writer.writerow([
                _harmless(picture.name), one.model.uri, card.architecture, card.dataset.get("name", ""),
                one.model.stored.treatment.label, one.scorer.name, repr(float(one.scores[i])), repr(float(one.p[i])),
                len(one.calibration_scores), repr(rate), procedure, VERDICTS[bool(one.flagged[i])],
                _yes(seen.suspect[i]), _yes(seen.inverted[i]),
            ])  # fmt: skip
    return buffer.getvalue()


def _words(judged: Judged) -> list[str]:
    return [VERDICTS[flag] for flag in judged.flagged.tolist()]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _harmless(name: str) -> str:
    """A file name that a spreadsheet does not take for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t")) else name

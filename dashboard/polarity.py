"""What models see of several pictures at once; where some look inverted, the page says so and offers to invert them."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import scoring
from dashboard.page import plain
from dashboard.scoring import Picture, Sight, Subject


def sights(subjects: Sequence[Subject], pictures: Sequence[Picture]) -> dict[str, Sight]:
    """What each model sees, by its address; says so where polarity looks inverted, and offers to invert."""
    as_given = {subject.uri: scoring.sight(subject, pictures) for subject in subjects}
    suspects = [i for i in range(len(pictures)) if any(seen.suspect[i] for seen in as_given.values())]
    if not suspects:
        return as_given
    names = ", ".join(plain(pictures[i].name) for i in suspects[:3]) + (", ..." if len(suspects) > 3 else "")
    st.warning(f"{len(suspects)} of {len(pictures)} images look inverted, dark and bright exchanged, beside the images "
               f"the model was trained on: {names}.", icon=":material/invert_colors:")  # fmt: skip
    polarity = st.segmented_control(
        "Polarity", scoring.POLARITIES, default=scoring.AS_GIVEN, required=True, key="polarity", bind="query-params"
    )
    if polarity == scoring.AS_GIVEN:
        return as_given
    return {subject.uri: scoring.sight(subject, pictures, polarity) for subject in subjects}

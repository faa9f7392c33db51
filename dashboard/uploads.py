"""Reading uploaded files once per browser session: kept in its memory alone, until the files change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.page import plain
from dashboard.scoring import Format, Picture, read_pictures

PROBLEMS_SHOWN = 20
PRIVACY = "They stay in the memory of this browser session, are never written to disk, and nobody else sees them."


def uploaded_pictures(files: Sequence[Any], formats: Sequence[Format], slot: str) -> list[Picture]:
    """The uploads of one uploader (`slot`) as pictures; a sentence on the page for each one that cannot be used."""
    key = tuple(file.file_id for file in files), tuple(formats)
    name = f"_pictures {slot}"
    if st.session_state.get(name, (None,))[0] != key:
        with st.spinner(f"Reading {len(files)} files"):
            read = read_pictures([(file.name, file.getvalue()) for file in files], formats)
        st.session_state[name] = (key, read)
    pictures, problems = st.session_state[name][1]
    for problem in problems[:PROBLEMS_SHOWN]:
        st.warning(plain(problem), icon=":material/broken_image:")
    if len(problems) > PROBLEMS_SHOWN:
        st.warning(f"{len(problems) - PROBLEMS_SHOWN} more files could not be used.", icon=":material/broken_image:")
    return pictures

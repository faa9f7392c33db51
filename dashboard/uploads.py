"""Reading uploaded files once per browser session: kept in its memory alone, until the files change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from dashboard.page import plain
from dashboard.scoring import Format, Picture, read_pictures

PROBLEMS_SHOWN = 20
PRIVACY = "They stay in the memory of this browser session, are never written to disk, and nobody else sees them."


def say_what_was_done(pictures: Sequence[Picture], formats: Sequence[Format]) -> None:
    """One sentence below an uploader: what size and colours its pictures had, and what the models are given instead.

    Pictures that are what every model takes need none.
    """
    given = list(dict.fromkeys(_words(*picture.size, colour=picture.thumbnail.mode == "RGB") for picture in pictures))
    made = list(dict.fromkeys(_words(shape[2], shape[1], colour=shape[0] == 3) for shape, _ in formats))
    changed = [words for words in given if made != [words]]
    if not changed:
        return
    what = changed[0] if len(given) == 1 else f"{len(pictures)} pictures of {len(given)} sizes and kinds"
    framed = any(one.size[0] * shape[1] != one.size[1] * shape[2] for one in pictures for shape, _ in formats)
    rest = "; the rest of the frame is filled with the colour of the border" if framed else ""
    st.caption(f"Brought to the size and colours of the models' images: {what} \u2192 {' and '.join(made)}{rest}.")


def _words(width: int, height: int, *, colour: bool) -> str:
    return f"{width}x{height} {'colour' if colour else 'grey'}"


def uploaded_pictures(files: Sequence[Any], formats: Sequence[Format], slot: str, tell: bool = True) -> list[Picture]:
    """The uploads of one uploader (`slot`) as pictures; a sentence on the page for each one that cannot be used.

    `tell` says what was done to those of another size or colours, for pages that do not show them as they were.
    """
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
    if tell:
        say_what_was_done(pictures, formats)
    return pictures

"""A brush over one image, to paint which of its pixels are unknown: a canvas in the page, without other packages.

The mask on screen is the one that the page hands in. A stroke hands the changed one to `painted` and runs the page.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st
from torch import Tensor

from dashboard.masks import UNKNOWN_COLOUR, from_text, to_text

FOLDER = Path(__file__).parent
STROKE = "_stroke"  # how many strokes this session has painted: see brush.js

_canvas = st.components.v2.component(
    "brush", html=(FOLDER / "brush.html").read_text(), css=(FOLDER / "brush.css").read_text(),
    js=(FOLDER / "brush.js").read_text(),
)  # fmt: skip


def brush(image: Tensor, unknown: Tensor, painted: Callable[[Tensor], None], key: str) -> None:
    """Show the image (1 or 3, H, W) with its unknown pixels (H, W) covered; `painted` is given the mask of a stroke."""
    height, width = unknown.shape
    data = {
        "image": _colours(image), "unknown": to_text(unknown), "height": height, "width": width,
        "colour": UNKNOWN_COLOUR, "stroke": st.session_state.get(STROKE, 0),
        "label": "The image. Paint the pixels that are to be unknown; or move with the arrow keys, and hide or reveal "
        "a pixel with the space bar.",
    }  # fmt: skip
    _canvas(data=data, key=key, on_painted_change=partial(_take, key, height, width, painted))


def _take(key: str, height: int, width: int, painted: Callable[[Tensor], None]) -> None:
    """What the browser sent, where it is a mask of this size: anybody can send anything."""
    sent = st.session_state[key].get("painted")
    text, stroke = (sent.get("unknown"), sent.get("stroke")) if isinstance(sent, dict) else (None, None)
    mask = from_text(text, height, width) if isinstance(text, str) else None
    if mask is not None and isinstance(stroke, int):
        st.session_state[STROKE] = stroke
        painted(mask)


def _colours(image: Tensor) -> str:
    """rrggbb of every pixel, row by row."""
    levels = (image.expand(3, -1, -1).clamp(0, 1) * 255).round().byte()
    return levels.permute(1, 2, 0).contiguous().numpy().tobytes().hex()

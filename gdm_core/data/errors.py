"""What can be wrong with data, said in one sentence: what, which, and what to do."""

from __future__ import annotations


class DataError(ValueError):
    """A data set cannot be had or used."""


class ImageError(ValueError):
    """A picture, or an archive of pictures, cannot be used."""


def printable(text: object, length: int = 120) -> str:
    """A foreign name or message as one short line."""
    line = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return line if len(line) <= length else f"{line[: length - 3]}..."

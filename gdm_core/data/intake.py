"""Any user's picture -> stored levels: the one way in for folders of images, uploads and served models.

A picture is known by its content, never by its name. What comes out is the first frame, turned as its EXIF says, in 8
bits, grey (L) or RGB, with transparent parts over black (the background of the bright-on-dark sets here). Nothing is
ever written to disk.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gdm_core.data.archives import archive_members, is_archive
from gdm_core.data.errors import ImageError, printable

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAXIMUM_PIXELS = 50_000_000
MAXIMUM_BYTES = 256 * 2**20
MAXIMUM_UPLOADS = 1_000
MAXIMUM_HELD_PIXELS = 300_000_000
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError,
    AttributeError, OverflowError, ZeroDivisionError, RuntimeError,
)  # fmt: skip  # what Pillow's readers are known to raise on damaged files


def decode_image(data: bytes, name: str) -> Image.Image:
    """The picture in these bytes, in mode L or RGB. Raises ImageError naming `name`."""
    name = printable(name)
    if not data:
        raise ImageError(f"{name} is empty (0 bytes): save it again")
    if len(data) > MAXIMUM_BYTES:
        raise ImageError(f"{name} has {len(data) >> 20} MiB, more than {MAXIMUM_BYTES >> 20}: make it smaller")
    image = _open(data, name)
    width, height = image.size
    if width * height > MAXIMUM_PIXELS:
        raise ImageError(_too_large(name, f"{width} x {height} pixels"))
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        return _to_eight_bits(image, name)
    except ImageError:
        raise
    except _BROKEN as error:
        raise ImageError(f"{name} is broken ({printable(error)}): save it again") from error


def to_stored(image: Image.Image, data_shape: tuple[int, int, int], levels: int) -> Tensor:
    """Bring a picture (mode L or RGB) to stored levels: uint8 (C, H, W) with values 0..levels-1.

    The whole picture is kept: it is scaled to fit, and the rest of the frame is filled with the median of its border,
    so that nothing is cut off and the fill looks like background. Scaling down by a whole factor averages squares,
    other reductions use a Hamming window, enlargements are bilinear: none of them overshoots. A value v of 0..255
    becomes round(v (levels - 1) / 255). A picture that has the size already comes through unchanged with 256 levels,
    and one made of k / (levels - 1) gives k back.
    """
    channels, height, width = data_shape
    if channels not in (1, 3):
        raise ImageError(f"pictures can be brought to 1 or 3 channels, not {channels}")
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = _fit(image, width, height)
    pixels = np.asarray(image, dtype=np.int64).reshape(height, width, channels)
    stored = (pixels * (2 * (levels - 1)) + 255) // 510
    return torch.from_numpy(stored.astype(np.uint8)).permute(2, 0, 1).contiguous()


def polarity_looks_inverted(stored: Tensor, mean_image: Tensor, levels: int) -> bool:
    """Whether an image (C, H, W) is much nearer to the data set's mean image in [0, 1] once it is inverted.

    Compares the mean squared distances of x and of 1 - x; data without a polarity of its own (mean near 1/2) never
    counts as inverted.
    """
    x = stored.double() / (levels - 1)
    as_is, inverted = (x - mean_image).square().mean(), (1 - x - mean_image).square().mean()
    return bool(inverted < 0.75 * as_is)


def read_uploads(
    files: Sequence[tuple[str, bytes]], keep: Callable[[Image.Image], Any] | None = None
) -> tuple[list[tuple[str, Any]], list[str]]:
    """Decode uploaded files (name, bytes), zip archives opened in memory: ([(name, picture)], problems).

    What cannot be used is left out with one sentence among the problems; the rest goes on. `keep` is applied to each
    picture as soon as it is read (such as bringing it to a model's size), so that many large ones need not be held at
    once; without it, pictures past 300 megapixels in all are left out.
    """
    pictures: list[tuple[str, Any]] = []
    problems: list[str] = []
    pixels = 0
    for name, data in _unpacked(files, problems):
        try:
            picture = decode_image(data, name)
            pixels += 0 if keep else picture.width * picture.height
            _check_held(name, len(pictures), pixels)
            pictures.append((printable(name), keep(picture) if keep else picture))
        except ImageError as problem:
            problems.append(str(problem))
    return pictures, problems


def _unpacked(files: Sequence[tuple[str, bytes]], problems: list[str]) -> Iterator[tuple[str, bytes]]:
    for name, data in files:
        if not is_archive(data):
            yield name, data
            continue
        before = len(problems)
        count = 0
        try:
            for member in archive_members(data, name, problems):
                count += 1
                yield member
        except ImageError as problem:
            problems.append(str(problem))
        if not count and len(problems) == before:
            problems.append(f"{printable(name)} holds no files: pack the pictures into it")


def _check_held(name: str, count: int, pixels: int) -> None:
    if count >= MAXIMUM_UPLOADS:
        raise ImageError(f"{printable(name)} was left out: at most {MAXIMUM_UPLOADS} pictures are taken at a time")
    if pixels > MAXIMUM_HELD_PIXELS:
        limit = MAXIMUM_HELD_PIXELS // 1_000_000
        raise ImageError(f"{printable(name)} was left out: over {limit} megapixels in all, upload fewer at a time")


def _open(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_too_large(name, "far too many pixels")) from error
    except _BROKEN as error:
        if data.startswith(_SIGNATURES):
            raise ImageError(f"{name} is broken (its header cannot be read): save it again") from error
        raise ImageError(
            f"{name} is not a picture in a format that is read here (PNG, JPEG, WebP, BMP, GIF, TIFF): convert it"
        ) from error


def _too_large(name: str, what: str) -> str:
    return f"{name} has {what}, more than {MAXIMUM_PIXELS // 1_000_000} megapixels: make it smaller"


def _to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep(np.asarray(image), name)
    is_grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), picture)
    return image.convert("L" if is_grey else "RGB")


def _from_deep(values: np.ndarray, name: str) -> Image.Image:
    """Grey pixels of 16 bits (0..65535), or floating-point ones in [0, 1], as 8 bits."""
    is_float = np.issubdtype(values.dtype, np.floating)
    top = 1.0 if is_float else 65535.0
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= top):  # also catches NaN
        raise ImageError(f"{name} has pixels from {low:.6g} to {high:.6g}, not 0 to {top:g}: save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values.astype(np.float32) * (255 / top)).astype(np.uint8))


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(width / image.width, height / image.height)
    inner = (min(width, max(1, round(image.width * scale))), min(height, max(1, round(image.height * scale))))
    small = image.resize(inner, _filter(image.size, inner))
    if inner == (width, height):
        return small
    frame = Image.new(image.mode, (width, height), _border_median(small))
    frame.paste(small, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return frame


def _filter(before: tuple[int, int], after: tuple[int, int]) -> Image.Resampling:
    if all(old % new == 0 for old, new in zip(before, after, strict=True)):
        return Image.Resampling.BOX  # exact means of squares: an enlarged picture comes back as it was
    reduces = before[0] > after[0] or before[1] > after[1]
    return Image.Resampling.HAMMING if reduces else Image.Resampling.BILINEAR


def _border_median(image: Image.Image) -> int | tuple[int, ...]:
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = [int(value) for value in np.percentile(border, 50, axis=0, method="lower")]
    return colour[0] if len(colour) == 1 else tuple(colour)

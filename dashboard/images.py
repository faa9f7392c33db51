"""Pictures for the pages: small images enlarged without blur, heat maps in colour, animations, as bytes to send.

A heat map is black where a pixel is not lit. Lit pixels go through Inferno, a perceptually uniform scale; it begins
well above black, so that a pixel that is only just lit can be told from one that is not.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gdm_core.data.pictures import grid, to_picture

INFERNO = torch.tensor([
    [0, 0, 4], [27, 12, 65], [74, 12, 107], [120, 28, 109], [165, 44, 96], [207, 68, 70], [237, 105, 37],
    [251, 155, 6], [247, 209, 61], [252, 255, 164],
]) / 255  # fmt: skip
FIRST_LIT = 0.35  # where on the scale brightness 0+ begins
THUMBNAIL_SIDE = 192
FRAME_COLOUR = "#2fb98d"


def enlargement(height: int, width: int, side: int) -> int:
    """The whole factor that brings an image nearest to `side` dots without passing it, at least 1."""
    return max(1, side // max(height, width))


def png(picture: Image.Image) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def data_address(content: bytes, kind: str = "image/png") -> str:
    """Bytes as an address that a page can show without asking the server again."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def image_png(image: Tensor, side: int) -> bytes:
    """An image (C, H, W) in [0, 1], enlarged to about `side` dots by whole pixels."""
    return png(to_picture(image, enlargement(image.shape[-2], image.shape[-1], side)))


def framed_png(image: Tensor, side: int, pixel: tuple[int, int]) -> bytes:
    """The same with a frame around the pixel at (row, column), seen on dark and on bright ones."""
    factor = enlargement(image.shape[-2], image.shape[-1], side)
    picture = to_picture(image, factor).convert("RGB")
    top, left = pixel[0] * factor, pixel[1] * factor
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 2, top - 2, left + factor + 1, top + factor + 1), outline="black", width=1)
    draw.rectangle((left - 1, top - 1, left + factor, top + factor), outline=FRAME_COLOUR, width=max(2, factor // 8))
    return png(picture)


def grid_picture(images: Tensor, columns: int, side: int) -> Image.Image:
    """Images (N, C, H, W) in rows, about `side` dots wide in all; a small image's pixel is at most 16 dots."""
    columns = min(columns, len(images))
    factor = side // (columns * (images.shape[-1] + 1))
    return grid(images, columns, min(16, max(1, factor)))


def beside(pictures: Sequence[Image.Image], gap: int = 24) -> Image.Image:
    """Pictures of any size side by side, tops aligned, on white."""
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        canvas.paste(picture.convert("RGB"), (left, 0))
        left += picture.width + gap
    return canvas


def heat_colours(brightness: Tensor) -> Tensor:
    """Colours (..., 3) in [0, 1] of brightness (...) in [0, 1]: black at 0, from dark violet to pale yellow above."""
    place = (FIRST_LIT + (1 - FIRST_LIT) * brightness.double().clamp(0, 1)) * (len(INFERNO) - 1)
    low = place.floor().long().clamp(max=len(INFERNO) - 2)
    share = (place - low).unsqueeze(-1)
    colours = INFERNO[low] * (1 - share) + INFERNO[low + 1] * share
    return torch.where((brightness > 0).unsqueeze(-1), colours, 0.0)


def heat_map(brightness: Tensor) -> Tensor:
    """Brightness (H, W) as a colour image (3, H, W) on black."""
    return heat_colours(brightness).permute(2, 0, 1)


def heat_overlay(image: Tensor, brightness: Tensor) -> Tensor:
    """The image (C, H, W), dimmed, with lit pixels in colour over it, (3, H, W); not lit is transparent."""
    ground = image.double().expand(3, -1, -1) if image.shape[0] == 1 else image.double()
    lit = (brightness > 0).double()
    return (1 - 0.85 * lit) * 0.55 * ground + 0.85 * lit * heat_map(brightness)


def legend_gradient(stops: int = 8) -> str:
    """The scale of a heat map as a CSS gradient, from the first lit colour to the last."""
    colours = heat_colours(torch.linspace(1e-6, 1, stops)).mul(255).round().int().tolist()
    return f"linear-gradient(to right, {', '.join(f'rgb({r},{g},{b})' for r, g, b in colours)})"


def thumbnail(picture: Image.Image) -> Image.Image:
    """A picture to look at: large ones reduced, small ones enlarged by whole pixels, in mode RGB or L."""
    if max(picture.size) > THUMBNAIL_SIDE:
        small = picture.copy()
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return small
    factor = enlargement(picture.height, picture.width, THUMBNAIL_SIDE)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def film(frames: Tensor, seconds: float) -> bytes:
    """Images (T, C, H, W) in [0, 1] as a PNG that moves once and stays at the last one, exact in every pixel.

    Not enlarged, which would take three times as long to write: for a gallery, whose style does that without blur.
    """
    pictures = [to_picture(frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, format="PNG", save_all=True, append_images=pictures[1:], loop=1, compress_level=1,
        duration=max(20, round(1000 * seconds / len(pictures))),
    )  # fmt: skip
    return buffer.getvalue()


def animation(frames: Tensor, side: int, milliseconds: int = 80) -> bytes:
    """Images (T, C, H, W) in [0, 1] as a GIF that repeats."""
    factor = enlargement(frames.shape[-2], frames.shape[-1], side)
    pictures = [to_picture(frame, factor) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, disposal=1
    )
    return buffer.getvalue()

"""Any picture in, stored levels out; every bad upload gets one sentence and the rest goes on."""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from gdm_core.data.archives import MAXIMUM_MEMBERS
from gdm_core.data.errors import ImageError
from gdm_core.data.intake import MAXIMUM_PIXELS, decode_image, polarity_looks_inverted, read_uploads, to_stored
from gdm_core.data.pictures import to_picture


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise_image(width: int = 9, height: int = 7, mode: str = "L") -> Image.Image:
    channels = () if mode == "L" else (3,)
    return Image.fromarray(np.random.RandomState(0).randint(256, size=(height, width, *channels)).astype(np.uint8))


def pack(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is this large, without the pixels."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


_written: list[str] | None = None


def _note_writing(event: str, arguments: tuple) -> None:
    if event == "open" and _written is not None and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _written.append(str(arguments[0]))


sys.addaudithook(_note_writing)  # sees every way of opening a file; it cannot be taken off, hence the switch


@pytest.fixture(autouse=True)
def nothing_is_written() -> Iterator[None]:
    """Uploads stay in memory: no file is opened for writing while they are read."""
    global _written
    _written = []
    yield
    written, _written = _written, None
    assert [file for file in written if ".pyc" not in file] == []


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("name", ["a.png", "a.txt", "a"])
def test_lossless_formats_are_known_by_content_and_come_through_exactly(kind: str, name: str) -> None:
    image = noise_image()
    decoded = decode_image(encode(image, kind), name).convert("L")
    assert np.array_equal(np.asarray(decoded), np.asarray(image))


@pytest.mark.parametrize("kind, options", [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_photograph_formats_are_read(kind: str, options: dict) -> None:
    smooth = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    decoded = decode_image(encode(smooth, kind, **options), "a.jpg")
    assert decoded.mode == "RGB"
    assert np.abs(np.asarray(decoded, dtype=float) - np.asarray(smooth)).max() <= 4


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PDF"])
def test_other_formats_are_refused_even_under_a_png_name(kind: str) -> None:
    with pytest.raises(ImageError, match="a.png is not a picture in a format.*convert it"):
        decode_image(encode(noise_image(32, 32, "RGB"), kind), "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # a damaged tag, which it skips
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # refused right after
@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "x.png is empty"),
        (b"hello, this is text", "x.png is not a picture"),
        (b"\x89PNG\r\n\x1a\nrubbish", "x.png is broken"),
        (encode(noise_image(64, 64))[:800], "x.png is broken"),
        (encode(noise_image(64, 64, "RGB"), "JPEG")[:900], "x.png is broken"),
        (encode(noise_image(), "TIFF")[:60], "x.png is broken"),
        (encode(noise_image(64, 64), "GIF")[:700], "x.png is broken"),
        (encode(noise_image(64, 64, "RGB"), "WEBP")[:200], "x.png is broken"),
        (png_header(10, 10), "x.png is broken"),
        (png_header(8000, 6251), "x.png has 8000 x 6251 pixels, more than 50 megapixels"),
        (png_header(12_000, 10_000), "more than 50 megapixels"),
        (png_header(60_000, 60_000), "more than 50 megapixels"),
    ],
)
def test_bad_files_get_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as problem:
        decode_image(data, "x.png")
    assert "\n" not in str(problem.value) and ": " in str(problem.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # a damaged tag, which it skips
def test_damage_anywhere_is_an_image_error_or_a_picture() -> None:
    random = np.random.RandomState(1)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        whole = bytearray(encode(noise_image(20, 20, "RGB"), kind))
        for _ in range(40):
            damaged = bytearray(whole)
            for place in random.randint(len(whole), size=6):
                damaged[place] = random.randint(256)
            try:
                assert decode_image(bytes(damaged), "x").mode in ("L", "RGB")
            except ImageError as problem:
                assert str(problem).startswith("x ")


def test_fifty_megapixels_are_decoded_and_not_one_row_more() -> None:
    wide = Image.new("1", (10_000, MAXIMUM_PIXELS // 10_000))
    assert decode_image(encode(wide), "wide.png").size == (10_000, 5_000)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 128, 256, 257], [32768, 65280, 65534, 65535]], dtype=np.uint16)
    decoded = np.asarray(decode_image(encode(Image.fromarray(values), kind), "deep"))
    assert np.array_equal(decoded, np.rint(values / 257).astype(np.uint8))


def test_thirty_two_bit_pixels_are_taken_in_range_and_refused_beyond() -> None:
    assert np.asarray(decode_image(encode(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF"), "i")).max() == 255
    assert np.asarray(decode_image(encode(Image.fromarray(np.array([[0, 0.5]], np.float32)), "TIFF"), "f")).max() == 128
    for values in (np.array([[0, 70_000]], np.int32), np.array([[0, 7.5]], np.float32), np.array([[0, np.nan]], "f4")):
        with pytest.raises(ImageError, match="deep.tif has pixels from .* save it with 8 or 16 bits"):
            decode_image(encode(Image.fromarray(values), "TIFF"), "deep.tif")


def test_palettes_and_one_bit_pictures_become_plain() -> None:
    palette = noise_image().convert("P")
    assert np.array_equal(np.asarray(decode_image(encode(palette), "p").convert("L")), np.asarray(noise_image()))
    bits = noise_image().convert("1")
    assert set(np.unique(np.asarray(decode_image(encode(bits), "b")))) == {0, 255}


def test_transparent_parts_lie_over_black() -> None:
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], dtype=np.uint8)
    decoded = np.asarray(decode_image(encode(Image.fromarray(pixels)), "alpha.png"))
    assert decoded.tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]
    grey = decode_image(encode(Image.fromarray(pixels[..., [0, 3]], "LA")), "la.png")
    assert grey.mode == "L" and np.asarray(grey).tolist() == [[200, 0, 40]]
    key = Image.fromarray(np.array([[7, 9]], dtype=np.uint8))
    assert np.asarray(decode_image(encode(key, transparency=9), "key.png")).tolist() == [[7, 0]]


def test_cmyk_becomes_rgb() -> None:
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for kind in ("JPEG", "TIFF"):
        red = np.asarray(decode_image(encode(picture, kind), "print"))[8, 8]
        assert red[0] > 240 and red[1] < 15 and red[2] < 15


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (value, value, value)) for value in (40, 120, 200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (np.asarray(decode_image(data, "moving")) == 40).all()


def test_exif_turns_are_followed() -> None:
    image = Image.fromarray(np.repeat(np.array([[0, 255]], dtype=np.uint8), 2, axis=0))  # left dark, right bright
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees: the left side comes up
    assert np.asarray(decode_image(encode(image, exif=exif), "turned.png")).tolist() == [[0, 0], [255, 255]]


@pytest.mark.parametrize("levels", [2, 3, 17, 100, 256])
def test_pictures_of_stored_levels_give_them_back(levels: int) -> None:
    for channels, scale in ((1, 1), (3, 1), (1, 5), (3, 8)):
        stored = torch.randint(levels, (channels, 8, 8), dtype=torch.uint8)
        picture = encode(to_picture(stored.double() / (levels - 1), scale))
        assert torch.equal(to_stored(decode_image(picture, "own.png"), (channels, 8, 8), levels), stored)


def test_the_aspect_is_kept_and_the_frame_filled_with_the_borders_median() -> None:
    pixels = np.full((8, 16), 90, dtype=np.uint8)
    pixels[2:6, 4:12] = 250
    stored = to_stored(Image.fromarray(pixels), (1, 8, 8), 256)
    expected = np.full((8, 8), 90)
    expected[3:5, 2:6] = 250
    assert stored[0].tolist() == expected.tolist()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 7), (28, 27), (200, 30), (31, 33)])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (1, 5, 11)])
def test_every_size_comes_to_the_shape_without_overshoot(size: tuple[int, int], shape: tuple[int, int, int]) -> None:
    pixels = np.random.RandomState(0).choice([60, 200], size=(size[1], size[0])).astype(np.uint8)
    stored = to_stored(Image.fromarray(pixels), shape, 256)
    assert stored.shape == shape and stored.dtype == torch.uint8
    assert stored.min() >= 60 and stored.max() <= 200
    assert torch.equal(stored, to_stored(Image.fromarray(pixels), shape, 256))


def test_reduction_is_antialiased() -> None:
    board = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    for size in (32, 27):
        stored = to_stored(board, (1, size, size), 256).float()
        assert (stored[0, 2:-2, 2:-2] - 127.5).abs().max() < 30  # a fine pattern becomes grey, not a coarse pattern


def test_inverted_polarity_is_noticed_and_normal_images_are_left_alone() -> None:
    from gdm_core.data.sources import load_dataset

    dataset = load_dataset("digits")
    mean = dataset.splits["train"].images.float().mean(0) / 16
    for stored in dataset.splits["validation"].images:
        assert not polarity_looks_inverted(stored, mean, 17)
        assert polarity_looks_inverted((16 - stored.int()).to(torch.uint8), mean, 17)
        assert not polarity_looks_inverted(stored, torch.full_like(mean, 0.5), 17)


def test_uploads_and_zips_are_read_and_the_rest_goes_on() -> None:
    good = encode(noise_image())
    archive = pack({"in/b.png": good, "notes.txt": b"hello", "empty.png": b"", "__MACOSX/._b.png": b"x"})
    pictures, problems = read_uploads([("a.png", good), ("bad.png", b"?"), ("many.zip", archive), ("c.png", good)])
    assert [name for name, _ in pictures] == ["a.png", "many.zip/in/b.png", "c.png"]
    assert len(problems) == 3
    for name, problem in zip(["bad.png", "many.zip/notes.txt", "many.zip/empty.png"], problems, strict=True):
        assert problem.startswith(name)


def test_keep_is_applied_to_each_picture() -> None:
    kept, _ = read_uploads([("a.png", encode(noise_image()))], lambda image: to_stored(image, (1, 4, 4), 17))
    assert kept[0][1].shape == (1, 4, 4)


def test_pictures_held_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdm_core.data.intake.MAXIMUM_HELD_PIXELS", 150)
    files = [(f"{index}.png", encode(noise_image())) for index in range(4)]  # 63 pixels each
    pictures, problems = read_uploads(files)
    assert [name for name, _ in pictures] == ["0.png", "1.png"] and len(problems) == 2
    assert len(read_uploads(files, lambda image: image.size)[0]) == 4
    monkeypatch.setattr("gdm_core.data.intake.MAXIMUM_UPLOADS", 3)
    assert "at most 3 pictures" in read_uploads(files, lambda image: image.size)[1][0]


@pytest.mark.parametrize("name", ["../up.png", "a/../../up.png", "/etc/up.png", "C:\\up.png", "..\\up.png"])
def test_paths_that_climb_out_are_left_out(name: str) -> None:
    pictures, problems = read_uploads([("z.zip", pack({name: encode(noise_image()), "ok.png": encode(noise_image())}))])
    assert [shown for shown, _ in pictures] == ["z.zip/ok.png"]
    assert len(problems) == 1 and "leads out of the archive" in problems[0]


def test_bombs_are_refused() -> None:
    bomb = pack({"bomb.png": bytes(20 * 2**20), "ok.png": encode(noise_image())})
    pictures, problems = read_uploads([("z.zip", bomb)])
    assert len(pictures) == 1 and "z.zip/bomb.png unpacks to more than 200 times its size" in problems[0]
    many = pack({f"{index}.png": b"x" for index in range(MAXIMUM_MEMBERS + 1)})
    assert "z.zip holds 1001 files" in read_uploads([("z.zip", many)])[1][0]
    listing = pack({f"{index:0200}.png": b"" for index in range(6000)})
    assert "lists more files" in read_uploads([("z.zip", listing)])[1][0]


def test_an_archive_that_unpacks_to_too_much_is_refused_by_its_header() -> None:
    data = bytearray(pack({"a.png": b"x", "b.png": b"y"}))
    directory = data.find(b"PK\x01\x02")
    struct.pack_into("<I", data, directory + 24, 2**30)  # the uncompressed size of the first member
    pictures, problems = read_uploads([("z.zip", bytes(data))])
    assert not pictures and "z.zip unpacks to 1024 MiB, more than 512" in problems[0]


def test_a_member_larger_than_its_header_says_is_broken() -> None:
    data = bytearray(pack({"a.png": bytes(100_000), "ok.png": encode(noise_image())}))
    struct.pack_into("<I", data, data.find(b"PK\x01\x02") + 24, 10)
    pictures, problems = read_uploads([("z.zip", bytes(data))])
    assert len(pictures) == 1 and "z.zip/a.png is broken" in problems[0]


def test_archives_inside_and_encrypted_members_are_left_out() -> None:
    good = encode(noise_image())
    inner = pack({"x.png": good})
    pictures, problems = read_uploads([("z.zip", pack({"inner.zip": inner, "hidden.png": inner, "ok.png": good}))])
    assert len(pictures) == 1 and len(problems) == 2 and all("inside an archive" in problem for problem in problems)
    locked = bytearray(pack({"secret.png": good, "ok.png": good}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = locked.find(signature) + offset
        struct.pack_into("<H", locked, place, struct.unpack_from("<H", locked, place)[0] | 1)
    pictures, problems = read_uploads([("z.zip", bytes(locked))])
    assert len(pictures) == 1 and problems == [
        "z.zip/secret.png is encrypted and was left out: pack it without a password"
    ]


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04 rubbish", pack({"a.png": b"x"})[:40], b"PK\x05\x06" + bytes(18)],
    ids=["rubbish", "cut", "empty"],
)
def test_broken_and_empty_archives_get_one_sentence(data: bytes) -> None:
    pictures, problems = read_uploads([("z.zip", data), ("a.png", encode(noise_image()))])
    assert len(pictures) == 1 and len(problems) == 1 and problems[0].startswith("z.zip ")


def test_a_member_without_a_name_is_read_like_any_other() -> None:
    data = pack({"x": encode(noise_image())})
    nameless = data.replace(b"\x01\x00\x00\x00x", b"\x00\x00\x01\x00x")  # a name of 0 bytes, extra data of 1
    at = data.find(b"PK\x01\x02") + 28
    nameless = nameless[:at] + struct.pack("<HHH", 0, 1, 0) + nameless[at + 6 :]
    pictures, problems = read_uploads([("z.zip", nameless)])
    assert [name for name, _ in pictures] == ["z.zip/(without a name)"] and not problems


def test_damaged_archives_never_raise() -> None:
    random = np.random.RandomState(2)
    whole = pack({"a.png": encode(noise_image()), "b.png": encode(noise_image())})
    for _ in range(150):
        damaged = bytearray(whole)
        for place in random.randint(len(whole), size=4):
            damaged[place] = random.randint(256)
        read_uploads([("z.zip", b"PK\x03\x04" + bytes(damaged[4:]))])


def test_names_of_others_become_one_short_line() -> None:
    _, problems = read_uploads([("a\nb\x1b[31m" + "c" * 500 + ".png", b"")])
    assert problems[0].isprintable() and len(problems[0]) < 200

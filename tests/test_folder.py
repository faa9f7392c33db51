"""A user's own folder: classes, given splits, one broken image among many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gdm_core.data.dataset import DataError, ImageDataset
from gdm_core.data.folder import folder_name
from gdm_core.data.intake import to_stored
from gdm_core.data.sources import load_dataset


def numbered(number: int, size: int = 8) -> Image.Image:
    pixels = np.full((size, size, 3), 10, dtype=np.uint8)
    pixels[0, 0] = number // 256, number % 256, 77
    return Image.fromarray(pixels)


def fill(folder: Path, numbers: range, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        numbered(number).save(folder / f"{number:04}{suffix}")


def load(folder: Path, size: int = 8, channels: int = 3, seed: int = 0) -> ImageDataset:
    return load_dataset(f"folder:{folder}", size=size, channels=channels, seed=seed)


def numbers_of(dataset: ImageDataset, split: str) -> list[int]:
    images = dataset.splits[split].images.int()
    return (images[:, 0, 0, 0] * 256 + images[:, 1, 0, 0]).tolist()


def test_a_flat_folder_is_dealt_to_four_splits(tmp_path: Path) -> None:
    fill(tmp_path / "My Screws!", range(100))
    dataset = load(tmp_path / "My Screws!")
    assert dataset.name == "folder-my-screws" and dataset.levels == 256 and dataset.data_shape == (3, 8, 8)
    assert dataset.counts == {"train": 70, "validation": 8, "calibration": 12, "test": 10}
    assert dataset.splits["train"].labels is None and dataset.class_names == () and dataset.notes == ()
    assert sorted(sum((numbers_of(dataset, split) for split in dataset.splits), [])) == list(range(100))
    assert load_dataset(**dataset.specification).digest == dataset.digest
    assert load(tmp_path / "My Screws!", seed=1).digest != dataset.digest


def test_class_folders_become_labels_and_are_stratified(tmp_path: Path) -> None:
    fill(tmp_path / "bolts", range(60))
    fill(tmp_path / "nuts" / "deep", range(60, 100))
    dataset = load(tmp_path)
    assert dataset.class_names == ("bolts", "nuts")
    for split in dataset.splits:
        assert dataset.splits[split].labels.tolist() == [int(n >= 60) for n in numbers_of(dataset, split)]
    assert dataset.splits["test"].labels.bincount().tolist() == [6, 4]


def test_given_splits_are_respected(tmp_path: Path) -> None:
    for index, split in enumerate(("train", "val", "calibration", "test")):
        fill(tmp_path / split, range(index * 20, index * 20 + 20))
    dataset = load(tmp_path)
    for index, split in enumerate(("train", "validation", "calibration", "test")):
        assert numbers_of(dataset, split) == list(range(index * 20, index * 20 + 20))


def test_splits_that_are_not_given_come_from_validation_and_train(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "good", range(50))
    fill(tmp_path / "validation" / "good", range(50, 71))
    fill(tmp_path / "extra", range(200, 203))
    dataset = load(tmp_path)
    assert dataset.counts == {"train": 45, "validation": 11, "calibration": 10, "test": 5}
    assert sorted(numbers_of(dataset, "validation") + numbers_of(dataset, "calibration")) == list(range(50, 71))
    assert sorted(numbers_of(dataset, "train") + numbers_of(dataset, "test")) == list(range(50))
    assert "3 files: extra/0200.png" in dataset.notes[0]


def test_train_and_test_in_the_way_of_defect_benchmarks(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "good", range(50))
    fill(tmp_path / "test" / "good", range(50, 60))
    fill(tmp_path / "test" / "scratched", range(60, 65))
    dataset = load(tmp_path)
    assert numbers_of(dataset, "test") == list(range(50, 65)) and dataset.class_names == ("good", "scratched")
    assert dataset.notes == ("scratched occur only in held-out images, not in train",)


def test_one_broken_image_among_many_is_skipped_and_named(tmp_path: Path) -> None:
    fill(tmp_path, range(60))
    (tmp_path / "0030.png").write_bytes((tmp_path / "0030.png").read_bytes()[:50])
    dataset = load(tmp_path)
    assert sum(dataset.counts.values()) == 59
    assert len(dataset.notes) == 1 and "skipped 1 broken image: 0030.png is broken" in dataset.notes[0]


def test_hidden_files_and_links_that_lead_out_are_passed_by(tmp_path: Path) -> None:
    fill(tmp_path / "data", range(30))
    fill(tmp_path / "data" / ".cache", range(30, 33))
    fill(tmp_path / "outside", range(40, 43))
    numbered(99).save(tmp_path / "data" / ".hidden.png")
    (tmp_path / "data" / "linked.png").symlink_to(tmp_path / "outside" / "0040.png")
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "readme.txt").write_text("hello")
    dataset = load(tmp_path / "data")
    assert sorted(sum((numbers_of(dataset, split) for split in dataset.splits), [])) == list(range(30))
    assert len(dataset.notes) == 1 and "1 file: readme.txt" in dataset.notes[0]


def test_exact_copies_never_land_on_both_sides_of_a_split(tmp_path: Path) -> None:
    fill(tmp_path / "train", range(40))
    fill(tmp_path / "validation", range(25, 35))
    fill(tmp_path / "calibration", range(60, 80))
    fill(tmp_path / "test", range(30, 50))
    dataset = load(tmp_path)
    assert numbers_of(dataset, "test") == list(range(30, 50))  # held-out images stay whole
    assert numbers_of(dataset, "validation") == list(range(25, 30))
    assert numbers_of(dataset, "train") == list(range(25))
    everything = sum((numbers_of(dataset, split) for split in dataset.splits), [])
    assert sorted(everything) == [*range(50), *range(60, 80)]
    assert "left out 20 files: train/0025.png" in dataset.notes[0]


def test_every_format_and_kind_of_name_is_read(tmp_path: Path) -> None:
    for index, suffix in enumerate((".png", ".JPG", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".TIFF")):
        for number in range(4):
            pixels = np.random.RandomState(index * 4 + number).randint(256, size=(8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{index}{number}{suffix}")
    assert sum(load(tmp_path).counts.values()) == 32


def test_images_are_brought_to_size_as_uploads_are(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    pictures = [Image.fromarray(random.randint(256, size=(12, 20)).astype(np.uint8)) for _ in range(40)]
    for index, picture in enumerate(pictures):
        picture.save(tmp_path / f"{index:02}.png")
    dataset = load(tmp_path, size=9, channels=1)
    images = torch.cat([split.images for split in dataset.splits.values()])
    expected = [to_stored(picture, (1, 9, 9), 256).flatten().tolist() for picture in pictures]
    assert sorted(images.flatten(1).tolist()) == sorted(expected)


def test_too_few_missing_or_senseless_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "few", range(19))
    (tmp_path / "few" / "bad.png").write_bytes(b"x")
    with pytest.raises(DataError, match="has 19 usable images, at least 20.*bad.png"):
        load(tmp_path / "few")
    with pytest.raises(DataError, match="there is no folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has 0 usable images"):
        load(tmp_path / "empty")
    for size, channels in ((0, 1), (1, 1), (5000, 1), (32, 2), (32, 4)):
        with pytest.raises(DataError, match="size 2 to 1024 and 1 or 3 channels"):
            load(tmp_path / "few", size, channels)


def test_a_folder_too_big_for_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, range(30))
    monkeypatch.setattr("gdm_core.data.folder.MAXIMUM_MEMORY", 29 * 3 * 64)
    monkeypatch.setattr("gdm_core.data.folder.decode_image", lambda *_: pytest.fail("was read"))
    with pytest.raises(DataError, match="30 images.*3 x 8 x 8.*choose a smaller size"):
        load(tmp_path)


def test_names_are_short_and_legal() -> None:
    assert folder_name(Path("/data/Ünïcode & Spaces")) == "folder-n-code-spaces"
    assert len(folder_name(Path("/data/" + "x" * 200))) == 47
    assert folder_name(Path("/data/日本")).removeprefix("folder-").isalnum()

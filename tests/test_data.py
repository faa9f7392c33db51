"""Data sets: splits that never overlap and never change, read from tiny files in the real formats."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from gdm_core.data import corruptions
from gdm_core.data.dataset import SPLIT_NAMES, DataError, ImageDataset, Split
from gdm_core.data.examples import examples
from gdm_core.data.pictures import grid, to_picture
from gdm_core.data.sources import data_root, list_datasets, load_dataset, load_recorded
from gdm_core.data.splits import shares, stratified_rows

DIGITS_DIGEST = "bbae7975d3da1f8b"  # every likelihood ever reported on digits is about exactly these bytes


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


def numbered(count: int) -> torch.Tensor:
    """28x28 images whose first two pixels are their number."""
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    images[:, 0, 0], images[:, 0, 1] = torch.arange(count) // 256, torch.arange(count) % 256
    return images


def numbers_of(split: Split) -> list[int]:
    return (split.images[:, 0, 0, 0].int() * 256 + split.images[:, 0, 0, 1].int()).tolist()


def write_idx(file: Path, array: np.ndarray, packed: bool) -> None:
    """An IDX file of bytes, as MNIST's: magic 0x0000_08_dimensions, sizes, values."""
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_name(file.name + ".gz" * packed).write_bytes(gzip.compress(data) if packed else data)


def write_mnist(folder: Path, train: int = 240, test: int = 30, packed: bool = True) -> None:
    for prefix, count in (("train", train), ("t10k", test)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", numbered(count).numpy(), packed)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10, packed)


def test_digits_are_embedded_in_four_stratified_splits(digits: ImageDataset) -> None:
    assert digits.counts == {"train": 1097, "validation": 150, "calibration": 250, "test": 300}
    assert digits.data_shape == (1, 8, 8) and digits.levels == 17 and digits.digest == DIGITS_DIGEST
    everything = torch.cat([split.labels for split in digits.splits.values()]).bincount() / 1797
    for split in digits.splits.values():
        assert ((split.labels.bincount() - everything * len(split)).abs() <= 2).all()


def test_the_specification_repeats_the_load(digits: ImageDataset) -> None:
    assert load_dataset(**digits.specification).digest == digits.digest
    assert load_dataset("digits", seed=1).digest != digits.digest


def test_a_recorded_data_set_is_the_one_it_was(digits: ImageDataset) -> None:
    assert load_recorded(digits.specification, digits.digest).digest == digits.digest
    with pytest.raises(DataError, match="are not those of the record"):
        load_recorded({"name": "digits", "seed": 1}, digits.digest)


@pytest.mark.parametrize(
    "record",
    [
        None, [], {}, {"seed": 0}, {"name": 3}, {"name": None}, {"name": "digits", "seed": "0"},
        {"name": "digits", "seed": -1}, {"name": "digits", "seed": 2**70}, {"name": "digits", "seed": True},
        {"name": "digits", "run": "x"},
    ],
)  # fmt: skip
def test_a_record_that_names_no_data_set_is_refused(record: object) -> None:
    with pytest.raises(DataError, match="names no data set"):
        load_recorded(record)


def test_nothing_is_downloaded_into_a_folder_that_a_record_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        load_recorded({"name": "mnist", "seed": 0, "root": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_all_of_the_digits_are_dealt_and_none_twice(digits: ImageDataset) -> None:
    from sklearn.datasets import load_digits

    dealt = torch.cat([split.images for split in digits.splits.values()]).view(-1, 64)
    given = torch.from_numpy(load_digits().images).to(torch.uint8).view(-1, 64)
    assert sorted(map(tuple, dealt.tolist())) == sorted(map(tuple, given.tolist()))


@pytest.mark.parametrize("labelled", [True, False])
def test_stratified_rows_never_overlap_and_have_the_asked_sizes(labelled: bool) -> None:
    labels = torch.randint(7, (500,)) if labelled else None
    sizes = {"a": 301, "b": 77, "c": 122}
    rows = stratified_rows(labels, 500, sizes, seed=5)
    assert {name: len(part) for name, part in rows.items()} == sizes
    assert torch.cat(list(rows.values())).sort().values.tolist() == list(range(500))
    again, other = stratified_rows(labels, 500, sizes, seed=5), stratified_rows(labels, 500, sizes, seed=6)
    assert all(torch.equal(rows[name], again[name]) for name in sizes)
    assert not torch.equal(rows["b"], other["b"])
    if labelled:
        for part in rows.values():
            assert ((labels[part].bincount() - labels.bincount() * len(part) / 500).abs() <= 2).all()


def test_sizes_that_do_not_fit_are_refused() -> None:
    assert shares(60_000, {"validation": 1 / 12, "calibration": 1 / 12}, "train") == {
        "train": 50_000, "validation": 5_000, "calibration": 5_000,
    }  # fmt: skip
    with pytest.raises(DataError, match="cannot deal 5"):
        stratified_rows(None, 5, {"a": 4, "b": 2}, 0)
    with pytest.raises(DataError, match="too few"):
        shares(3, {"a": 0.1, "b": 0.1, "c": 0.1}, "train")


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
@pytest.mark.parametrize("packed", [True, False])
def test_torchvision_sets_load_from_their_files(tmp_path: Path, name: str, folder: str, packed: bool) -> None:
    write_mnist(tmp_path / folder / "raw", packed=packed)
    dataset = load_dataset(name, root=tmp_path, download=False)
    assert dataset.counts == {"train": 200, "validation": 20, "calibration": 20, "test": 30}
    assert dataset.data_shape == (1, 28, 28) and dataset.levels == 256 and len(dataset.class_names) == 10
    assert numbers_of(dataset.splits["test"]) == list(range(30))  # the given test images, in their order
    dealt = [numbers_of(dataset.splits[split]) for split in ("train", "validation", "calibration")]
    assert sorted(sum(dealt, [])) == list(range(240))
    assert dataset.splits["validation"].labels.bincount().tolist() == [2] * 10
    for split in dataset.splits.values():
        assert split.labels.tolist() == [number % 10 for number in numbers_of(split)]
    assert load_dataset(**dataset.specification, download=False).digest == dataset.digest


def test_a_missing_file_names_its_folder(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw)
    (raw / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as problem:
        load_dataset("mnist", root=tmp_path, download=False)
    assert f"needs train-labels-idx1-ubyte.gz in {raw}" in str(problem.value) and "GDM_DATA" in str(problem.value)


def test_a_failed_download_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(address: str, timeout: float) -> None:
        asked.append(address)
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match="t10k-labels.*put them there.*no network here"):
        load_dataset("kmnist", root=tmp_path)
    assert len(asked) == 1  # one try, not one for each file


def test_a_download_with_another_checksum_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("urllib.request.urlopen", lambda address, timeout: io.BytesIO(b"not this file"))
    with pytest.raises(DataError, match="another checksum"):
        load_dataset("mnist", root=tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"no idx")],
    ids=["empty", "no gzip", "cut off", "no idx"],  # gzip writes the time into the bytes: as names they would change
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match="raw.*delete"):
        load_dataset("mnist", root=tmp_path, download=False)


def binary_images(count: int) -> np.ndarray:
    return np.random.RandomState(count).randint(2, size=(count, 784)).astype(np.uint8)


def test_binarized_mnist_from_packed_bits(tmp_path: Path) -> None:
    (tmp_path / "BinarizedMNIST").mkdir()
    given = {"train": binary_images(50), "valid": binary_images(21), "test": binary_images(11)}
    arrays = {name: np.packbits(images, axis=1) for name, images in given.items()}
    arrays |= {f"{name}_label": (np.arange(len(images)) % 10).astype(np.uint8) for name, images in given.items()}
    np.savez_compressed(tmp_path / "BinarizedMNIST" / "binarized_mnist.npz", shape=[28, 28], **arrays)
    dataset = load_dataset("binarized_mnist", root=tmp_path)
    assert dataset.counts == {"train": 50, "validation": 11, "calibration": 10, "test": 11} and dataset.levels == 2
    for split, key in (("train", "train"), ("test", "test")):
        assert torch.equal(dataset.splits[split].images.view(-1, 784), torch.from_numpy(given[key]))
    halves = torch.cat([dataset.splits["validation"].images, dataset.splits["calibration"].images]).view(-1, 784)
    assert sorted(halves.tolist()) == sorted(given["valid"].tolist())
    assert dataset.splits["train"].labels.tolist() == [row % 10 for row in range(50)]


def test_binarized_mnist_from_the_original_text_files(tmp_path: Path) -> None:
    folder = tmp_path / "BinarizedMNIST"
    folder.mkdir()
    for part, count in (("train", 12), ("valid", 6), ("test", 5)):
        np.savetxt(folder / f"binarized_mnist_{part}.amat", binary_images(count), fmt="%d")
    dataset = load_dataset("binarized_mnist", root=tmp_path)
    assert dataset.counts == {"train": 12, "validation": 3, "calibration": 3, "test": 5}
    assert torch.equal(dataset.splits["test"].images.view(-1, 784), torch.from_numpy(binary_images(5)))
    assert dataset.splits["test"].labels is None
    (folder / "binarized_mnist_test.amat").write_text("0 1 2 1\n")
    with pytest.raises(DataError, match="test.amat must hold 0 and 1"):
        load_dataset("binarized_mnist", root=tmp_path)


def test_binarized_mnist_missing_broken_or_pickled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="binarized_mnist.npz.*BinarizedMNIST"):
        load_dataset("binarized_mnist", root=tmp_path)
    file = tmp_path / "BinarizedMNIST" / "binarized_mnist.npz"
    file.parent.mkdir()
    file.write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("binarized_mnist", root=tmp_path)
    np.savez(file, train=np.array([{}], dtype=object), valid=np.zeros(1), test=np.zeros(1))
    with pytest.raises(DataError, match="allow_pickle"):
        load_dataset("binarized_mnist", root=tmp_path)


def test_unknown_names_list_the_known() -> None:
    known = "known are digits, mnist, .*kmnist, cifar10, svhn, binarized_mnist, .*omniglot28, harmonics, folder:PATH"
    with pytest.raises(DataError, match=known):
        load_dataset("minst")
    with pytest.raises(DataError, match="folder data sets"):
        load_dataset("digits", size=16)
    assert list_datasets()[0] == "digits"


def test_data_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GDM_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("GDM_DATA")
    assert data_root() == Path.home() / ".cache" / "gdm-data"


def test_a_data_set_checks_what_it_holds_and_its_digest_covers_every_byte() -> None:
    def make(**changes: Split) -> ImageDataset:
        splits = {name: Split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8)) for name in SPLIT_NAMES}
        return ImageDataset("tiny", splits | changes, 2)

    changed = torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    changed[1, 0, 2, 2] = 1
    labelled = Split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
    digests = {make().digest, make(test=Split(changed)).digest, make(train=Split(changed)).digest,
               make(test=labelled).digest}  # fmt: skip
    assert len(digests) == 4 and all(len(digest) == 16 for digest in digests)
    for wrong, words in [
        (Split(torch.zeros(2, 1, 3, 3)), "uint8"), (Split(changed * 2), "0..1"), (Split(changed[:0]), "no images"),
        (Split(changed[..., :2]), "one shape"), (Split(changed, torch.zeros(3)), "2 images, 3 labels"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=words):
            make(test=wrong)


def test_corruptions_do_what_they_say(digits: ImageDataset) -> None:
    stored, before = digits.splits["test"].images, digits.splits["test"].images.clone()
    assert torch.equal(corruptions.inverted(corruptions.inverted(stored, 17), 17), stored)
    assert (corruptions.inverted(stored, 17).int() + stored.int() == 16).all()
    mixed = corruptions.shuffled(stored, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.flatten(1).sort().values, stored.flatten(1).sort().values)
    assert (mixed != stored).flatten(1).any(1).all()
    assert torch.equal(mixed, corruptions.shuffled(stored, torch.Generator().manual_seed(0)))
    assert torch.equal(corruptions.turned(corruptions.turned(stored)), stored.flip((2, 3)))
    spliced = corruptions.spliced(stored)
    assert torch.equal(spliced[0, :, :, :4], stored[0, :, :, :4])
    assert torch.equal(spliced[-1, ..., 4:], stored[0, ..., 4:])
    assert torch.equal(stored, before)
    with pytest.raises(ValueError, match="square"):
        corruptions.turned(stored[..., :5])


def test_shuffling_keeps_colours_together() -> None:
    stored = torch.randint(256, (3, 3, 6, 6), dtype=torch.uint8)
    mixed = corruptions.shuffled(stored, torch.Generator().manual_seed(0))
    for image, other in zip(stored, mixed, strict=True):
        assert sorted(image.flatten(1).T.tolist()) == sorted(other.flatten(1).T.tolist())


def test_pasted_blocks_change_what_the_mask_marks_and_no_more(digits: ImageDataset) -> None:
    stored = digits.splits["test"].images
    images, masks = corruptions.pasted_block(stored, 17, torch.Generator().manual_seed(0))
    assert masks.shape == (300, 1, 8, 8) and (masks.sum((1, 2, 3)) == 4).all()
    assert torch.equal(images[~masks], stored[~masks])
    pasted = images[masks].view(300, 4)
    assert (pasted == pasted[:, :1]).all() and set(pasted.unique().tolist()) == {0, 16}
    assert ((pasted.int() - stored[masks].view(300, 4).int()).abs().float().mean(1) >= 8).all()
    assert masks.any(0).all()  # every place is hit
    large = torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
    assert (corruptions.pasted_block(large, 256, torch.Generator())[1].sum((1, 2, 3)) == 49).all()


def test_examples_are_the_same_every_time_and_from_validation(digits: ImageDataset) -> None:
    first, again = examples(digits, 10), examples(digits, 10)
    held_out = set(map(tuple, digits.splits["validation"].images.flatten(1).tolist()))
    assert all(tuple(image) in held_out for image in first.normal.flatten(1).tolist())
    rows = [digits.splits["validation"].images.flatten(1).tolist().index(i) for i in first.normal.flatten(1).tolist()]
    assert digits.splits["validation"].labels[rows].tolist() == list(range(10))
    for name, odd in first.odd.items():
        assert odd.shape == first.normal.shape and odd.dtype == torch.uint8 and odd.max() <= 16
        assert torch.equal(odd, again.odd[name])
    assert len(first.odd) == 7


def test_pictures_are_nearest_neighbour_and_grids_are_in_order() -> None:
    image = torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])
    picture = to_picture(image, scale=3)
    assert picture.size == (6, 6) and picture.mode == "L"
    assert np.array_equal(np.asarray(picture)[::3, ::3], [[0, 255], [128, 255]])
    images = torch.stack([torch.full((3, 2, 2), value) for value in (0.0, 0.2, 0.4, 0.6, 0.8)])
    sheet = np.asarray(grid(images, columns=3, scale=1, gap=1))
    assert sheet.shape == (5, 8, 3) and sheet[0, [0, 3, 6], 0].tolist() == [0, 51, 102]
    assert sheet[3, [0, 3], 0].tolist() == [153, 204] and sheet[2, 0, 0] == 128
    assert to_picture(images).size == (8, 5)
    with pytest.raises(ValueError, match="NaN"):
        to_picture(torch.full((1, 2, 2), float("nan")))
    with pytest.raises(ValueError, match="grid needs"):
        grid(images[:0])

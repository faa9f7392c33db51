"""CIFAR-10, its subset, SVHN and Omniglot, from tiny files in the real formats: splits, colours, errors."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import CIFAR10, SVHN

from gdm_core.data.dataset import DataError, Split
from gdm_core.data.sources import load_dataset

CLASSES = [f"class {number}" for number in range(10)]
TRAIN, TEST = 200, 12
BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def colourful(count: int) -> np.ndarray:
    """uint8 (N, 3, 32, 32): a number in the red corner, the place's row in green, its column in blue."""
    images = np.zeros((count, 3, 32, 32), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    images[:, 1], images[:, 2] = np.arange(32)[:, None], np.arange(32)
    return images


def check_colours(split: Split) -> list[int]:
    """The images' numbers, once it is known that colours, rows and columns are where they belong."""
    assert split.images.dtype == torch.uint8 and split.images.is_contiguous()
    numbers = split.images[:, 0, 0, 0].tolist()
    blank = split.images.clone()
    blank[:, 0, 0, 0] = 0
    assert torch.equal(blank, torch.from_numpy(colourful(1)).expand_as(blank))
    assert split.labels.dtype == torch.int64 and split.labels.tolist() == [number % 10 for number in numbers]
    return numbers


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ROOT/cifar-10-batches-py as published, but small; torchvision is told the small files' md5 sums."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    training = np.split(np.arange(TRAIN), 5)
    for name, rows in zip(BATCHES, [*training, np.arange(TEST)], strict=True):
        pixels = colourful(TRAIN)[rows].reshape(len(rows), -1)  # red, green, blue; row by row
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [int(row) % 10 for row in rows]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES}))
    sums = [[name, md5(folder / name)] for name in BATCHES]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:-1])
    monkeypatch.setattr(CIFAR10, "test_list", sums[-1:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(folder / "batches.meta")})
    return tmp_path


def pack(root: Path) -> Path:
    """The folder of CIFAR-10 in its archive instead."""
    folder, archive = root / "cifar-10-batches-py", root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, folder.name)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return archive


@pytest.fixture
def svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ROOT/SVHN with .mat files as published: images (32, 32, 3, N), the digit 0 labelled 10."""
    (tmp_path / "SVHN").mkdir()
    sums = {}
    for part, count in (("train", 240), ("test", TEST)):
        file = tmp_path / "SVHN" / f"{part}_32x32.mat"
        labels = np.arange(count) % 10
        labels[labels == 0] = 10
        savemat(file, {"X": colourful(count).transpose(2, 3, 1, 0), "y": labels[:, None].astype(np.uint8)})
        sums[part] = [f"http://nowhere.test/{file.name}", file.name, md5(file)]
    monkeypatch.setattr(SVHN, "split_list", sums)
    return tmp_path


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_from_its_batches(cifar10: Path, packed: bool) -> None:
    if packed:
        pack(cifar10)
    dataset = load_dataset("cifar10", root=cifar10, download=False)
    assert dataset.counts == {"train": 160, "validation": 20, "calibration": 20, "test": TEST}
    assert dataset.data_shape == (3, 32, 32) and dataset.levels == 256 and dataset.class_names == tuple(CLASSES)
    numbers = {name: check_colours(split) for name, split in dataset.splits.items()}
    assert numbers["test"] == list(range(TEST))  # the given test images, in their order
    assert sorted(numbers["train"] + numbers["validation"] + numbers["calibration"]) == list(range(TRAIN))
    assert dataset.splits["validation"].labels.bincount().tolist() == [2] * 10
    assert load_dataset(**dataset.specification, download=False).digest == dataset.digest


def test_cifar10_is_downloaded_once_and_checked(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, asked = pack(cifar10), []
    data = archive.read_bytes()
    archive.unlink()

    def answer(address: str, timeout: float) -> io.BytesIO:
        asked.append(address)
        return io.BytesIO(data)

    monkeypatch.setattr("urllib.request.urlopen", answer)
    with pytest.raises(DataError, match="another checksum"):
        load_dataset("cifar10", root=cifar10)
    assert not list(cifar10.iterdir())
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(data).hexdigest())
    for _ in range(2):
        assert len(load_dataset("cifar10", root=cifar10).splits["test"]) == TEST
    assert asked == [CIFAR10.url] * 2  # the refused one, and the one that was kept


def test_a_pickle_with_another_md5_sum_is_never_opened(cifar10: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (cifar10 / "opened",)

    for name in ("test_batch", "batches.meta"):
        file = cifar10 / "cifar-10-batches-py" / name
        good = file.read_bytes()
        file.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(DataError, match="cifar-10-batches-py cannot be read.*delete them"):
            load_dataset("cifar10", root=cifar10, download=False)
        file.write_bytes(good)
    assert not (cifar10 / "opened").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", None], ids=["empty", "no archive", "another archive"])
def test_a_broken_archive_is_named(cifar10: Path, content: bytes | None) -> None:
    archive = pack(cifar10)
    if content is None:
        with tarfile.open(archive, "w:gz") as packed:
            packed.addfile(tarfile.TarInfo("cifar-10-batches-py/data_batch_9"))
    else:
        archive.write_bytes(content)
    with pytest.raises(DataError, match="cifar-10-python.tar.gz is broken.*delete it"):
        load_dataset("cifar10", root=cifar10, download=False)


def test_svhn_from_its_mat_files(svhn: Path) -> None:
    dataset = load_dataset("svhn", root=svhn, download=False)
    assert dataset.counts == {"train": 200, "validation": 20, "calibration": 20, "test": TEST}
    assert dataset.data_shape == (3, 32, 32) and dataset.levels == 256
    assert dataset.class_names == tuple("0123456789")
    numbers = {name: check_colours(split) for name, split in dataset.splits.items()}  # label 10 is the digit 0
    assert numbers["test"] == list(range(TEST))
    assert sorted(numbers["train"] + numbers["validation"] + numbers["calibration"]) == list(range(240))
    (svhn / "SVHN" / "test_32x32.mat").write_bytes(b"MATLAB 5.0 no longer")
    with pytest.raises(DataError, match="SVHN cannot be read.*delete them"):
        load_dataset("svhn", root=svhn, download=False)


@pytest.mark.parametrize(
    "name, file, folder",
    [
        ("cifar10", "cifar-10-python.tar.gz", "cifar-10-batches-py"), ("svhn", "test_32x32.mat", "SVHN"),
        ("cifar10_subset", "cifar10_subset.npz", "CIFAR10-subset"), ("omniglot28", "omniglot28.npz", "OMNIGLOT28"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_its_folder(tmp_path: Path, name: str, file: str, folder: str) -> None:
    with pytest.raises(DataError) as problem:
        load_dataset(name, root=tmp_path, download=False)
    for word in (f"{name} needs", file, str(tmp_path), f"set GDM_DATA to the folder that holds {folder}"):
        assert word in str(problem.value)


def write_subset(file: Path, **changes: np.ndarray) -> None:
    arrays = {"class_names": np.array(CLASSES)}
    for part, count in (("train", TRAIN), ("test", TEST)):
        arrays[f"{part}_images"] = colourful(count).transpose(0, 2, 3, 1)
        arrays[f"{part}_labels"] = (np.arange(count) % 10).astype(np.uint8)
    file.parent.mkdir(exist_ok=True)
    np.savez_compressed(file, **(arrays | changes))


def test_the_subset_of_cifar10(tmp_path: Path) -> None:
    file = tmp_path / "CIFAR10-subset" / "cifar10_subset.npz"
    write_subset(file)
    dataset = load_dataset("cifar10_subset", root=tmp_path)
    assert dataset.counts == {"train": 160, "validation": 20, "calibration": 20, "test": TEST}
    assert dataset.data_shape == (3, 32, 32) and dataset.levels == 256 and dataset.class_names == tuple(CLASSES)
    numbers = {name: check_colours(split) for name, split in dataset.splits.items()}
    assert numbers["test"] == list(range(TEST))
    assert sorted(numbers["train"] + numbers["validation"] + numbers["calibration"]) == list(range(TRAIN))
    assert load_dataset(**dataset.specification).digest == dataset.digest
    for wrong in (np.array([{}], dtype=object), np.zeros((3, 32), dtype=np.uint8)):
        write_subset(file, test_images=wrong)
        with pytest.raises(DataError, match="cifar10_subset.npz cannot be read"):
            load_dataset("cifar10_subset", root=tmp_path)
    file.write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="cifar10_subset.npz cannot be read"):
        load_dataset("cifar10_subset", root=tmp_path)


def test_omniglot_is_split_by_who_drew(tmp_path: Path) -> None:
    drawer, alphabet = np.repeat(np.arange(1, 21), 6).astype(np.uint8), np.tile([0, 1], 60).astype(np.uint8)
    pixels = np.random.RandomState(0).randint(2, size=(120, 784)).astype(np.uint8)
    file = tmp_path / "OMNIGLOT28" / "omniglot28.npz"
    file.parent.mkdir()
    arrays = {"drawer": drawer, "alphabet": alphabet, "alphabet_names": np.array(["Greek", "Futurama"])}
    np.savez(file, images=np.packbits(pixels, axis=1), **arrays)
    dataset = load_dataset("omniglot28", root=tmp_path)
    assert dataset.counts == {"train": 74, "validation": 8, "calibration": 8, "test": 30}
    assert dataset.data_shape == (1, 28, 28) and dataset.levels == 2 and dataset.class_names == ("Greek", "Futurama")
    assert torch.equal(dataset.splits["test"].images.view(-1, 784), torch.from_numpy(pixels[drawer > 15]))
    dealt = torch.cat([dataset.splits[name].images for name in ("train", "validation", "calibration")]).view(-1, 784)
    assert sorted(dealt.tolist()) == sorted(pixels[drawer <= 15].tolist())
    assert dataset.splits["validation"].labels.bincount().tolist() == [4, 4]
    np.savez(file, images=pixels, drawer=drawer)
    with pytest.raises(DataError, match="omniglot28.npz cannot be read"):
        load_dataset("omniglot28", root=tmp_path)

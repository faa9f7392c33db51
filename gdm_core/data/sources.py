"""Where data sets come from: one function a source, `load_dataset` by name."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from gdm_core.data.binarized_mnist import load_binarized_mnist
from gdm_core.data.cifar10_subset import load_cifar10_subset
from gdm_core.data.dataset import ImageDataset, Split
from gdm_core.data.errors import DataError
from gdm_core.data.folder import load_folder
from gdm_core.data.harmonics import load_harmonics
from gdm_core.data.omniglot28 import load_omniglot28
from gdm_core.data.splits import deal
from gdm_core.data.torchvision_sets import TORCHVISION_SETS, load_torchvision_set

DIGITS_SIZES = {"train": 1097, "validation": 150, "calibration": 250, "test": 300}
FROM_FILES = {  # sets of one file or a few, which a user puts under the data root
    "binarized_mnist": load_binarized_mnist, "cifar10_subset": load_cifar10_subset, "omniglot28": load_omniglot28,
}  # fmt: skip


def data_root() -> Path:
    """The folder of downloaded data sets: GDM_DATA, else a cache folder under the home directory."""
    return Path(os.environ.get("GDM_DATA") or Path.home() / ".cache" / "gdm-data").expanduser()


def list_datasets() -> list[str]:
    """The names `load_dataset` takes."""
    return ["digits", *TORCHVISION_SETS, *FROM_FILES, "harmonics", "folder:PATH"]


def load_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    download: bool = True,
) -> ImageDataset:
    """Load a data set by name; `folder:PATH` is a user's own folder of images, brought to `size` and `channels`.

    `root` is where downloaded sets lie (default: `data_root()`), `seed` decides the splits that are not given (and the
    sounds of harmonics), and `download=False` never asks the network. Raises DataError where the name is unknown, or
    naming the file that is missing and what would supply it.
    """
    if name.startswith("folder:"):
        return load_folder(name.removeprefix("folder:"), 32 if size is None else size, channels or 1, seed)
    if name not in list_datasets():
        raise DataError(f"unknown data set {name!r}; known are {', '.join(list_datasets())}")
    if size is not None or channels is not None:
        raise DataError(f"size and channels belong to folder data sets; {name} has its own")
    specification = {"name": name, "seed": seed} | ({} if root is None else {"root": str(root)})
    folder = data_root() if root is None else Path(root).expanduser()
    if name in TORCHVISION_SETS:
        return load_torchvision_set(name, folder, seed, download, specification)
    if name in FROM_FILES:
        return FROM_FILES[name](folder, seed, specification)
    if name == "harmonics":
        return load_harmonics(seed, specification)
    return _load_digits(seed, specification)


def load_recorded(specification: object, digest: str | None = None, download: bool = True) -> ImageDataset:
    """The data set that a model's card or a run's configuration names, whose images have this digest where it is given.

    A record may come from elsewhere: a folder that it names as `root` is read, and nothing is downloaded into it.
    Raises DataError where the record names no data set, its files are not here, or they have changed.
    """
    kinds = {"name": str, "root": str, "size": int, "channels": int, "seed": int}
    if not isinstance(specification, dict) or "name" not in specification or not all(
        type(value) is kinds.get(name) for name, value in specification.items()
    ) or not 0 <= specification.get("seed", 0) < 2**32:  # fmt: skip
        raise DataError(f"the record {str(specification)[:100]} names no data set: train the model again")
    data = load_dataset(**specification, download=download and "root" not in specification)
    if digest not in (None, data.digest):
        raise DataError(f"the images of {data.name} here are not those of the record (digest {digest}, now "
                        f"{data.digest}): put the old files back, or train again")  # fmt: skip
    return data


def _load_digits(seed: int, specification: dict) -> ImageDataset:
    """The 1,797 handwritten digits of scikit-learn: 8x8, 17 levels, embedded in the package."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)  # (1797, 1, 8, 8)
    splits = deal(Split(images, torch.from_numpy(bunch.target).long()), DIGITS_SIZES, seed)
    return ImageDataset("digits", splits, 17, tuple(map(str, range(10))), specification=specification)

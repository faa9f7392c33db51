"""Published sets by torchvision: the test images as given, the other ones dealt to three splits.

Files are looked for in torchvision's layout below ROOT: MNIST/raw/train-images-idx3-ubyte and so on,
cifar-10-batches-py/data_batch_1 and so on; SVHN has a folder of its own, SVHN/train_32x32.mat. What lies there packed
(.gz, .tar.gz) is unpacked once; what is missing is downloaded once and checked against torchvision's md5 sums.
CIFAR-10 is published as pickles: torchvision opens them only where each file's md5 sum is the published one.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gdm_core.data.dataset import ImageDataset, Split
from gdm_core.data.downloads import Published, provide
from gdm_core.data.errors import DataError
from gdm_core.data.splits import deal, shares

TORCHVISION_SETS = {
    "mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10", "svhn": "SVHN",
}  # fmt: skip
HELD_OUT = 1 / 12  # of the training images for validation, and as many for calibration: 5,000 of MNIST's 60,000
HELD_OUT_OF_CIFAR = 1 / 10  # 5,000 of 50,000


def load_torchvision_set(name: str, root: Path, seed: int, download: bool, specification: dict) -> ImageDataset:
    """MNIST and its relatives: (1, 28, 28), 256 levels, 50,000 / 5,000 / 5,000 / 10,000.

    `cifar10`: (3, 32, 32), 256 levels, 40,000 / 5,000 / 5,000 / 10,000; `svhn`: 61,047 / 6,105 / 6,105 / 26,032.
    Raises DataError naming the folder and the files where some are missing and cannot be downloaded, or are broken.
    """
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION_SETS[name])
    wanted = _published(kind, root)
    folder = wanted[0].holds[0].parent
    provide(name, wanted, folder.relative_to(root).as_posix(), download)
    try:
        given, test, class_names = _read(kind, root)
    except (ValueError, RuntimeError, AssertionError, IndexError, KeyError, OSError) as error:
        message = f"the files of {name} in {folder} cannot be read ({error}): delete them and get them again"
        raise DataError(message) from error
    part = HELD_OUT_OF_CIFAR if name == "cifar10" else HELD_OUT
    sizes = shares(len(given), {"validation": part, "calibration": part}, rest="train")
    splits = deal(given, sizes, seed) | {"test": test}
    return ImageDataset(name, splits, 256, class_names, specification=specification)


def _published(kind: type, root: Path) -> list[Published]:
    """The files a set is published in."""
    if kind.__name__ == "CIFAR10":
        names = [name for name, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]
        batches = [root / kind.base_folder / name for name in names]
        return [Published(root / kind.filename, kind.tgz_md5, [kind.url.removesuffix(kind.filename)], batches)]
    if kind.__name__ == "SVHN":
        parts = [kind.split_list[part] for part in ("train", "test")]
        files = [root / "SVHN" / file for _, file, _ in parts]
        return [
            Published(file, checksum, [address.removesuffix(file.name)], [file])
            for file, (address, _, checksum) in zip(files, parts, strict=True)
        ]
    folder = root / kind.__name__ / "raw"
    return [
        Published(folder / packed, checksum, kind.mirrors, [folder / packed.removesuffix(".gz")])
        for packed, checksum in kind.resources
    ]


def _read(kind: type, root: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """The images that are not test images, those that are, and the names of the classes."""
    if kind.__name__ == "SVHN":
        parts = [kind(str(root / "SVHN"), split=part) for part in ("train", "test")]
        given, test = (Split(torch.from_numpy(part.data).contiguous(), torch.from_numpy(part.labels)) for part in parts)
        return given, test, tuple(map(str, range(10)))
    parts = [kind(str(root), train=train, download=False) for train in (True, False)]
    given, test = (Split(_as_images(part.data), torch.as_tensor(part.targets).long()) for part in parts)
    return given, test, tuple(parts[0].classes)


def _as_images(data: object) -> Tensor:
    """uint8 (N, C, H, W), from grey images (N, H, W) or colours last (N, H, W, 3)."""
    images = torch.as_tensor(data)
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()

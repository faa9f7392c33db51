"""The feature network of a data set: trained once per data set and treatment, kept beside the store."""

from __future__ import annotations

import torch

from gdm_core.data import ImageDataset, Treatment, evaluation_images
from gdm_core.quality.features import FeatureNetwork, train_feature_network
from gdm_core.tensor_files import read_tensors, tensor_table, write_tensors
from pipelines.checkpoints import store_folder

SIZE_LIMIT = 64 * 2**20  # bytes
SMALLEST_SIDE = 8


def feature_network(dataset: ImageDataset, treatment: Treatment) -> FeatureNetwork | None:
    """A classifier of the data set's training split under a treatment, from the cache or trained now (seed 0).

    None for sets without at least two classes or with images below 8 x 8: no distance is better than one that
    means nothing.
    """
    split = dataset.splits["train"]
    classes = len(dataset.class_names)
    if split.labels is None or classes < 2 or min(dataset.data_shape[1:]) < SMALLEST_SIDE:
        return None
    path = store_folder() / "features" / f"{dataset.digest}-{treatment.name}-{treatment.levels}.safetensors"
    network = FeatureNetwork(dataset.data_shape, classes)
    if path.is_file():
        network.load_state_dict(read_tensors(path, tensor_table(network.state_dict()), SIZE_LIMIT))
        return network.eval()
    with torch.random.fork_rng(devices=[]):
        network = train_feature_network(evaluation_images(split, treatment), split.labels, classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, network.state_dict())
    return network

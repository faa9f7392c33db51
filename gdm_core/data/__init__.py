"""Data sets as stored levels, their splits, and the pixel treatments models see them through."""

from gdm_core.data.dataset import DataError, ImageDataset, Split, TreatedSplit, evaluation_images
from gdm_core.data.sources import data_root, list_datasets, load_dataset
from gdm_core.data.treatments import Treatment, treatment_for

__all__ = [
    "DataError", "ImageDataset", "Split", "Treatment", "TreatedSplit", "data_root", "evaluation_images",
    "list_datasets", "load_dataset", "treatment_for",
]  # fmt: skip

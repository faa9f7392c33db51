"""Data sets as stored levels, their splits, pixel treatments, and the way in for any picture."""

from gdm_core.data.dataset import ImageDataset, Split, TreatedSplit, evaluation_images
from gdm_core.data.errors import DataError, ImageError
from gdm_core.data.intake import decode_image, polarity_looks_inverted, read_uploads, to_stored
from gdm_core.data.pictures import grid, to_picture
from gdm_core.data.sources import data_root, list_datasets, load_dataset, load_recorded
from gdm_core.data.treatments import Treatment, treatment_for

__all__ = [
    "DataError", "ImageDataset", "ImageError", "Split", "Treatment", "TreatedSplit", "data_root", "decode_image",
    "evaluation_images", "grid", "list_datasets", "load_dataset", "load_recorded", "polarity_looks_inverted",
    "read_uploads", "to_picture", "to_stored", "treatment_for",
]  # fmt: skip

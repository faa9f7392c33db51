"""Sample quality on a feature network of our own: Fréchet distance, class coverage, precision and recall."""

from gdm_core.quality.coverage import class_counts, class_coverage, precision_and_recall
from gdm_core.quality.features import FeatureNetwork, train_feature_network
from gdm_core.quality.frechet import frechet_between, frechet_distance
from gdm_core.quality.record import Quality

__all__ = [
    "FeatureNetwork", "Quality", "class_counts", "class_coverage", "frechet_between", "frechet_distance",
    "precision_and_recall", "train_feature_network",
]  # fmt: skip

"""What of the data a set of samples covers: its classes, and its manifold of features.

Precision and recall: "Improved Precision and Recall Metric for Assessing Generative Models", Kynkäänniemi et al., 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gdm_core.quality.features import FeatureNetwork
from gdm_core.quality.record import Quality


def class_counts(samples: Tensor, network: FeatureNetwork) -> Tensor:
    """How many samples (N, C, H, W) the classifier sees as each class, (classes,)."""
    return network.class_probabilities(samples).argmax(1).bincount(minlength=network.classes)


def class_coverage(samples: Tensor, network: FeatureNetwork) -> Quality:
    """How many classes are hit by at least one sample; the counts are in the settings."""
    counts = class_counts(samples, network)
    return Quality("class coverage", float((counts > 0).sum()), f"of {network.classes} classes", 0, len(samples),
                   {"counts": counts.tolist()})  # fmt: skip


def precision_and_recall(
    reference: Tensor, samples: Tensor, network: FeatureNetwork, neighbours: int = 3
) -> tuple[Quality, Quality]:
    """Precision: the share of samples within the reference's manifold; recall: the share of the reference within the
    samples'. A manifold is the union of balls around its points that reach their `neighbours`-th nearest neighbour.
    """
    if min(len(reference), len(samples)) <= neighbours:
        raise ValueError(f"more than {neighbours} images are needed on each side, "
                         f"got {len(reference)} and {len(samples)}")  # fmt: skip
    real, made = network.features(reference), network.features(samples)
    settings = {"neighbours": neighbours, "features": network.feature_units}
    return (
        Quality("precision", share_inside(made, real, neighbours), "share", len(reference), len(samples), settings),
        Quality("recall", share_inside(real, made, neighbours), "share", len(reference), len(samples), settings),
    )


def share_inside(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    """The share of points (N, D) within the manifold spanned by other points (M, D)."""
    radii = torch.cdist(manifold, manifold).kthvalue(neighbours + 1, dim=1).values  # the nearest is the point itself
    inside = (torch.cdist(points, manifold) <= radii).any(1)
    return float(inside.double().mean())

"""The Fréchet distance between two sets of images: how far the normals fitted to their features lie apart.

    d^2 = |mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1^1/2 S_2 S_1^1/2)^1/2)

Paper: "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", Heusel et al., 2017 (there
on Inception features). It falls with the number of images on either side, so both numbers belong to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gdm_core.quality.features import FeatureNetwork
from gdm_core.quality.record import Quality


def frechet_distance(reference: Tensor, samples: Tensor, network: FeatureNetwork) -> Quality:
    """The squared Fréchet distance between images (N, C, H, W) and (M, C, H, W) on the network's features."""
    value = frechet_between(network.features(reference), network.features(samples))
    return Quality("frechet distance", value, "squared feature units", len(reference), len(samples),
                   {"features": network.feature_units})  # fmt: skip


def frechet_between(first: Tensor, second: Tensor) -> float:
    """The squared Fréchet distance of the normals fitted to features (N, D) and (M, D), in float64."""
    if len(first) < 2 or len(second) < 2:
        raise ValueError(f"a covariance needs at least 2 images on each side, got {len(first)} and {len(second)}")
    first, second = first.double(), second.double()
    return frechet_of_normals(first.mean(0), first.T.cov(), second.mean(0), second.T.cov())


def frechet_of_normals(first_mean: Tensor, first_covariance: Tensor, second_mean: Tensor, second_covariance: Tensor
                       ) -> float:  # fmt: skip
    """The squared distance between N(mean, covariance) twice; covariances (D, D) may be singular."""
    root = _square_root(torch.atleast_2d(first_covariance))
    shared = _square_root(root @ torch.atleast_2d(second_covariance) @ root).trace()
    traces = torch.atleast_2d(first_covariance).trace() + torch.atleast_2d(second_covariance).trace()
    distance = (first_mean - second_mean).square().sum() + traces - 2 * shared
    return max(0.0, float(distance))  # rounding can leave -1e-12 where the two are equal


def _square_root(matrix: Tensor) -> Tensor:
    """Of a symmetric, positive semi-definite matrix, whose eigenvalues rounding may have made a little negative."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T

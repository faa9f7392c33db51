"""Sample quality against known answers: distances of normals in closed form, manifolds one can draw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gdm_core.quality import (
    FeatureNetwork,
    class_counts,
    class_coverage,
    frechet_between,
    frechet_distance,
    precision_and_recall,
    train_feature_network,
)
from gdm_core.quality.coverage import share_inside
from gdm_core.quality.frechet import frechet_of_normals


def stripes(n: int = 240, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes of noisy 8x8 images: a bright column, a bright row, a bright corner."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = 0.3 * torch.rand(n, 1, 8, 8, generator=draws)
    images[labels == 0, :, :, 3] += 0.7
    images[labels == 1, :, 4, :] += 0.7
    images[labels == 2, :, :3, :3] += 0.7
    return images, labels


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return train_feature_network(*stripes(), steps=60)


def test_distance_of_normals_with_diagonal_covariances_is_the_sum_over_axes() -> None:
    first, second = torch.tensor([1.0, 4.0, 0.0]).double(), torch.tensor([9.0, 4.0, 0.25]).double()
    mean = torch.tensor([1.0, -2.0, 0.5]).double()
    expected = mean.square().sum() + (first.sqrt() - second.sqrt()).square().sum()
    found = frechet_of_normals(mean, first.diag(), torch.zeros(3).double(), second.diag())
    assert found == pytest.approx(float(expected), rel=1e-12)


def test_distance_of_normals_agrees_with_the_eigenvalues_of_the_product() -> None:
    roots = torch.randn(2, 5, 5, dtype=torch.float64)
    first, second = roots @ roots.transpose(1, 2)
    mean = torch.randn(5, dtype=torch.float64)
    cross = torch.linalg.eigvals(first @ second).sqrt().real.sum()
    expected = mean.square().sum() + first.trace() + second.trace() - 2 * cross
    found = frechet_of_normals(mean, first, torch.zeros_like(mean), second)
    assert found == pytest.approx(float(expected), rel=1e-9)
    assert frechet_of_normals(torch.zeros_like(mean), second, mean, first) == pytest.approx(found, rel=1e-9)


def test_distance_of_drawn_features_approaches_the_closed_form() -> None:
    draws = torch.randn(2, 100_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = 3 * draws[1] + torch.tensor([2.0, -1.0]).double()
    assert frechet_between(draws[0], second) == pytest.approx(5 + 2 * (3 - 1) ** 2, rel=0.02)


def test_distance_is_zero_to_itself_also_where_features_never_vary() -> None:
    features = torch.randn(10, 30)  # fewer images than features: a singular covariance
    features[:, 3] = 0
    assert frechet_between(features, features) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="2 images"):
        frechet_between(features, features[:1])


def test_distance_between_images_tells_classes_and_shuffled_pixels_apart(network: FeatureNetwork) -> None:
    real, labels = stripes(seed=1)
    fresh, _ = stripes(seed=2)
    shuffled = real.flatten(1)[:, torch.randperm(64)].view_as(real)
    near, far = frechet_distance(real, fresh, network), frechet_distance(real, shuffled, network)
    assert frechet_distance(real, real, network).value == pytest.approx(0, abs=1e-4)
    assert far.value > 10 * near.value
    assert frechet_distance(real, fresh[labels == 0], network).value > 10 * near.value
    assert (near.kind, near.reference_count, near.sample_count) == ("frechet distance", 240, 240)
    assert near.to_dict()["settings"] == {"features": 32}


def test_the_classifier_learns_repeats_and_leaves_the_random_state_alone(network: FeatureNetwork) -> None:
    before = torch.get_rng_state()
    again = train_feature_network(*stripes(), steps=60)
    assert torch.equal(before, torch.get_rng_state())
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    images, labels = stripes(seed=3)
    assert network.accuracy(images, labels) > 0.99
    assert torch.allclose(network.class_probabilities(images).sum(1), torch.ones(240))
    assert network.features(images).dtype == torch.float64 and not network.training


@pytest.mark.parametrize("data_shape", [(1, 8, 8), (3, 9, 20), (1, 28, 28), (3, 64, 64)])
def test_the_network_takes_any_shape_from_8x8(data_shape: tuple[int, int, int]) -> None:
    network = FeatureNetwork(data_shape, classes=4)
    assert network.features(torch.rand(3, *data_shape), batch_size=2).shape == (3, 32)


def test_what_the_network_cannot_take_is_refused(network: FeatureNetwork) -> None:
    with pytest.raises(ValueError, match="8x8"):
        FeatureNetwork((1, 7, 8), classes=4)
    with pytest.raises(ValueError, match="2 classes"):
        FeatureNetwork((1, 8, 8), classes=1)
    with pytest.raises(ValueError, match="shape"):
        network.features(torch.rand(2, 1, 9, 9))
    with pytest.raises(ValueError, match="labels"):
        train_feature_network(torch.rand(3, 1, 8, 8), torch.tensor([0, 1]))


def test_class_coverage_counts_what_the_classifier_sees(network: FeatureNetwork) -> None:
    images, labels = stripes(seed=4)
    assert class_counts(images, network).tolist() == [80, 80, 80]
    record = class_coverage(images[labels != 1], network)
    assert (record.value, record.unit, record.settings["counts"]) == (2.0, "of 3 classes", [80, 0, 80])


def test_shares_inside_a_drawn_manifold() -> None:
    line = torch.arange(10.0).unsqueeze(1)  # radius to the first neighbour: 1 everywhere
    points = torch.tensor([[-0.9], [-1.1], [4.5], [10.1], [30.0]])
    assert share_inside(points, line, neighbours=1) == pytest.approx(2 / 5)


def test_dropping_classes_costs_recall_and_noise_costs_precision(network: FeatureNetwork) -> None:
    (real, _), (fresh, labels) = stripes(seed=5), stripes(seed=6)
    precision, recall = precision_and_recall(real, fresh, network)
    _, dropped = precision_and_recall(real, fresh[labels == 0], network)
    noisy, _ = precision_and_recall(real, torch.cat([fresh, torch.rand_like(fresh)]), network)
    assert precision.value > 0.7 and recall.value > 0.7
    assert dropped.value < 0.5 * recall.value and noisy.value < 0.7 * precision.value
    with pytest.raises(ValueError, match="more than 3"):
        precision_and_recall(real[:3], fresh, network)

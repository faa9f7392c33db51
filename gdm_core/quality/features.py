"""A feature network of our own: a small classifier, trained on a labelled data set's training split.

Networks trained on photographs say little about 8x8 digits, so sample quality is measured in the last hidden layer of
a classifier trained on the very data, in seconds, from a fixed seed. Numbers are comparable only under one network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdm_core.randomness import seeded, seeded_generator

SMALLEST_SIDE = 8


class FeatureNetwork(nn.Module):
    """Two convolutions, one hidden layer (the features) and a linear classifier. Images (N, C, H, W) in [0, 1]."""

    def __init__(self, data_shape: Sequence[int], classes: int, features: int = 32) -> None:
        super().__init__()
        channels, height, width = (int(size) for size in data_shape)
        if min(height, width) < SMALLEST_SIDE:
            raise ValueError(f"the feature network needs images of at least 8x8 pixels, got {height}x{width}")
        if classes < 2:
            raise ValueError(f"the feature network needs at least 2 classes, got {classes}")
        self.data_shape, self.classes, self.feature_units = (channels, height, width), classes, features
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(min(4, height // 2, width // 2)),
        )  # fmt: skip
        places = min(4, height // 2, width // 2) ** 2
        self.hidden = nn.Linear(32 * places, features)
        self.output = nn.Linear(features, classes)

    def hidden_layer(self, x: Tensor) -> Tensor:
        """The features before any detaching or batching, (N, features), all at least 0."""
        return F.relu(self.hidden(self.convolutions(2 * x - 1).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Class logits, (N, classes)."""
        return self.output(self.hidden_layer(x))

    @torch.no_grad()
    def features(self, x: Tensor, batch_size: int = 512) -> Tensor:
        """Features in float64 on the processor, (N, features)."""
        return torch.cat([self.hidden_layer(part) for part in self._parts(x, batch_size)]).double().cpu()

    @torch.no_grad()
    def class_probabilities(self, x: Tensor, batch_size: int = 512) -> Tensor:
        """p(class | x), (N, classes), on the processor."""
        return torch.cat([self(part).softmax(1) for part in self._parts(x, batch_size)]).cpu()

    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """The share of images whose likeliest class is their label."""
        return float((self.class_probabilities(x).argmax(1) == labels.cpu()).double().mean())

    def _parts(self, x: Tensor, batch_size: int) -> list[Tensor]:
        if tuple(x.shape[1:]) != self.data_shape:
            raise ValueError(f"images must have shape (N, *{self.data_shape}), got {tuple(x.shape)}")
        return [part.to(self.output.weight.device) for part in x.split(batch_size)]


def train_feature_network(
    images: Tensor,
    labels: Tensor,
    classes: int | None = None,
    *,
    features: int = 32,
    steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> FeatureNetwork:
    """Train the classifier on the *training* split: images float (N, C, H, W) in [0, 1], labels int (N,).

    The same images, seed and machine give the same network; the global random state is left as it was.
    """
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"as many images as labels are needed, at least one: got {len(images)} and {len(labels)}")
    with seeded(seed):
        network = FeatureNetwork(images.shape[1:], classes or int(labels.max()) + 1, features)
    network.to(images.device)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    draws = seeded_generator(seed, "feature network")
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(images), (batch_size,), generator=draws)
            loss = F.cross_entropy(network(images[rows]), labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return network.eval().requires_grad_(False)

"""Digit classifiers, that coherence is measured with, and whose features a Frechet distance can use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["ARCHITECTURES", "DigitClassifier", "digit_classifier"]


class DigitClassifier(nn.Module):
    """Convolutions, a hidden layer whose activations are the features, and ten logits.

    Arguments:
        channels: Channels of the 28 x 28 images.
        body: Module from images to features.
        feature_dim: Number of features.
    """

    def __init__(self, channels: int, body: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.shape = (channels, 28, 28)
        self.body = body
        self.head = nn.Linear(feature_dim, 10)
        self.feature_dim = feature_dim

    def features(self, x: Tensor) -> Tensor:
        """Activations of the hidden layer, ``(batch, feature_dim)``, of images ``(batch, *shape)`` in [0, 1].

        Raises:
            ValueError: If the images have another shape; padded images have to be cropped back first.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"images of shape {tuple(x.shape)}, the classifier needs (batch, {self.shape[0]}, 28, 28)")
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, 10)`` of images ``(batch, *shape)``."""
        return self.head(self.features(x))


def _mnist() -> DigitClassifier:
    """Two 3 x 3 convolutions with max-pooling, 128 features with dropout: this package's own."""
    body = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
    )
    return DigitClassifier(1, body, 128)


def _polymnist() -> DigitClassifier:
    """The layers of the classifiers that come with PolyMNIST (MoPoE-VAE's code): two 4 x 4 convolutions, dropout."""
    body = nn.Sequential(
        nn.Conv2d(3, 10, 4, stride=2, padding=1),
        nn.Dropout2d(0.5),
        nn.ReLU(),
        nn.Conv2d(10, 20, 4, stride=2, padding=1),
        nn.Dropout2d(0.5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20 * 7 * 7, 128),
        nn.Dropout(0.5),
        nn.ReLU(),
    )
    return DigitClassifier(3, body, 128)


def _extended_polymnist() -> DigitClassifier:
    """SBM-VAE, appendix A.2: three convolutions with ReLU and two fully connected layers; 1,147,466 parameters."""
    body = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * 4 * 4, 512),
        nn.ReLU(),
    )
    return DigitClassifier(3, body, 512)


ARCHITECTURES: Mapping[str, Any] = {
    "mnist": _mnist,
    "polymnist": _polymnist,
    "extended_polymnist": _extended_polymnist,
}


def digit_classifier(name: str) -> DigitClassifier:
    """An untrained classifier of one of ``ARCHITECTURES``.

    Raises:
        ValueError: If there is no such architecture.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown classifier {name!r}; one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]()

"""What the latents of an image run hold: reconstructions, nearest training samples, the aggregate posterior."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from repro.datasets.base import ModalitySpec
from repro.networks.classifiers import DigitClassifier
from repro.papers.gmrf_mcvae.images.latents import aggregate_posterior, digits_in_latents, digits_in_reconstructions
from repro.papers.gmrf_mcvae.model import GMRFMCVAE

SHAPE = (1, 4, 4)
NAMES = ("a", "b", "c")


class Brightest(DigitClassifier):
    """Sees the place of the brightest pixel of the upper two rows."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :8]


@pytest.fixture
def model() -> GMRFMCVAE:
    torch.manual_seed(0)
    made = GMRFMCVAE({m: ModalitySpec(SHAPE, "image") for m in NAMES}, latent_dim=3)
    for encoder in made.encoders.values():  # encodings without scatter
        torch.nn.init.zeros_(encoder.log_variance.weight)
        torch.nn.init.constant_(encoder.log_variance.bias, -40.0)
    return made.eval()


@pytest.fixture
def images() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {m: torch.rand((60, *SHAPE), generator=g) for m in NAMES}


CLASSIFIERS = {m: Brightest().eval() for m in NAMES}


def values(metrics: list) -> dict[str, float]:
    return {m.name: m.value for m in metrics}


@torch.no_grad()
def test_aggregate_posterior_has_the_moments_of_the_encodings() -> None:
    g = torch.Generator().manual_seed(2)
    factor = torch.randn(4, 4, generator=g, dtype=torch.float64)
    mean = torch.randn(500, 4, generator=g, dtype=torch.float64) @ factor
    inner = torch.diag(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64))
    found = aggregate_posterior(mean, inner, {"a": 1, "b": 3})
    torch.testing.assert_close(found.mean, mean.mean(0))
    torch.testing.assert_close(found.covariance_matrix, torch.cov(mean.T) + inner, rtol=0, atol=2e-5)
    assert list(found.split(mean)) == ["a", "b"]


@torch.no_grad()
def test_nearest_training_sample_of_a_training_image_is_itself(model: GMRFMCVAE, images: dict[str, Tensor]) -> None:
    """Without scatter the observed latents are a training sample's own, so the others are its encodings."""
    decoded = {m: d.flatten(1)[:, :8].argmax(1) for m, d in model.decode(encoded(model, images)).items()}
    labels = decoded["a"]
    g = torch.Generator().manual_seed(3)
    found = values(digits_in_latents(model, CLASSIFIERS, images, images, labels, g, chunk=25))
    pairs = [float((decoded[k] == labels).double().mean()) for m in NAMES for k in NAMES if k != m]
    assert found["test/latents-nearest/coherence"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-9)
    assert {round(pairs[0], 3), round(pairs[2], 3)} != {1.0}  # the modalities do differ


def encoded(model: GMRFMCVAE, images: dict[str, Tensor]) -> dict[str, Tensor]:
    return {m: model.unary_posterior(m, x).mean for m, x in images.items()}


@torch.no_grad()
def test_mean_of_the_conditional_is_linear_regression(model: GMRFMCVAE, images: dict[str, Tensor]) -> None:
    z = encoded(model, images)
    covariance = model.posterior(images).covariance_matrix.mean(0)
    labels = torch.arange(60) % 8
    found = values(digits_in_latents(model, CLASSIFIERS, images, images, labels, torch.Generator().manual_seed(4)))
    shares = []
    for m in NAMES:
        own = covariance[sl(m), sl(m)] + torch.cov(z[m].T) + 1e-5 * torch.eye(3)
        for k in (k for k in NAMES if k != m):
            centred = z[m] - z[m].mean(0)
            cross = centred.T @ (z[k] - z[k].mean(0)) / 59 + covariance[sl(m), sl(k)]
            mean = z[k].mean(0) + centred @ torch.linalg.solve(own, cross)
            seen = model.decode({k: mean})[k].flatten(1)[:, :8].argmax(1)
            shares.append(float((seen == labels).double().mean()))
    assert found["test/latents-mean/coherence"] == pytest.approx(sum(shares) / len(shares), abs=0.01)


def sl(m: str) -> slice:
    i = NAMES.index(m)
    return slice(3 * i, 3 * i + 3)


@torch.no_grad()
def test_reconstructions_are_judged_against_the_labels(model: GMRFMCVAE, images: dict[str, Tensor]) -> None:
    for parameter in model.global_encoder.parameters():
        parameter.zero_()  # no scatter from the joint posterior's dependence either
    decoded = {m: d.flatten(1).clamp(0, 1)[:, :8].argmax(1) for m, d in model.decode(encoded(model, images)).items()}
    g = torch.Generator().manual_seed(5)
    found = values(digits_in_reconstructions(model, CLASSIFIERS, images, decoded["b"], g, chunk=7))
    expected = sum(float((x == decoded["b"]).double().mean()) for x in decoded.values()) / 3
    assert found["test/reconstruction/coherence"] == pytest.approx(expected, abs=1e-9)

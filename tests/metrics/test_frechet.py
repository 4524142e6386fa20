"""Frechet distances against closed forms, matrix square roots and torch-fidelity; Inception's loading."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from repro.metrics import inception
from repro.metrics.frechet import (
    FID_FEATURE,
    PIXEL_SCALES,
    FeatureStatistics,
    FrechetDistance,
    batch_statistics,
    feature_statistics,
    frechet_distance,
    noise_floor,
    pixel_feature_name,
    pixel_features,
)


def normal(n: int, d: int, seed: int, *, shift: float = 0.0, mix: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64) if mix else torch.eye(d, dtype=torch.float64)
    return x @ root + shift


def exact(mean: list[float], std: list[float], n: int = 50) -> FeatureStatistics:
    """A sample whose mean and standard deviations are the given ones, uncorrelated, up to rounding."""
    x = normal(n, len(mean), 3)
    x = x - x.mean(0)
    x = torch.linalg.qr(x).Q * math.sqrt(n - 1)
    return feature_statistics(x * torch.tensor(std) + torch.tensor(mean), "exact")


def of(x: torch.Tensor) -> FeatureStatistics:
    return feature_statistics(x, "test")


def fidelity(x: torch.Tensor, y: torch.Tensor) -> float:
    """torch-fidelity's distance between two samples of features."""
    statistics = [fid_features_to_statistics(v) for v in (x, y)]
    return fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]


@pytest.mark.parametrize(("n", "d"), [(200, 7), (9, 30), (29, 30), (30, 30), (70, 30)])
def test_statistics_are_those_of_numpy_whole_and_in_chunks(n: int, d: int) -> None:
    x = normal(n, d, 0, shift=5.0)
    whole = of(x.float())
    assert whole.mean.dtype is torch.float64
    chunked = batch_statistics(lambda v: v, x.split(4), "test")
    for statistics, tolerance in ((whole, 1e-5), (chunked, 1e-12)):
        expected = np.cov(x.numpy(), rowvar=False)
        assert statistics.num_samples == n
        assert np.allclose(statistics.mean.numpy(), x.mean(0).numpy(), rtol=tolerance, atol=tolerance)
        assert np.abs(statistics.covariance.numpy() - expected).max() < tolerance * np.abs(expected).max()
        assert statistics.variance == pytest.approx(np.trace(expected), rel=tolerance)
    assert (whole.rows is None) == (n >= d)


def test_distance_of_uncorrelated_features_has_a_closed_form() -> None:
    a, b = exact([1.0, -2.0, 0.0], [1.0, 0.5, 3.0]), exact([0.0, 1.0, 0.5], [2.0, 0.5, 1.0])
    result = frechet_distance(a, b)
    assert result.value == pytest.approx((1.0 + 9.0 + 0.25) + (1.0 + 0.0 + 4.0), rel=1e-12)
    assert (result.dim, result.num_true, result.num_generated, result.full_rank) == (3, 50, 50, True)


# Thin sides have fewer samples than features.
@pytest.mark.parametrize(("n", "m"), [(400, 300), (30, 300), (300, 20), (25, 35)], ids=str)
def test_distance_is_that_of_matrix_roots_and_of_torch_fidelity(n: int, m: int) -> None:
    x, y = normal(n, 40, 1), normal(m, 40, 2, shift=0.3)
    value = frechet_distance(of(x), of(y), allow_low_rank=True).value
    s, t = (np.cov(v.numpy(), rowvar=False) for v in (x, y))
    assert value == pytest.approx(fidelity(x, y), rel=1e-6)
    # The inner root by eigenvalues, since sqrtm of a singular matrix is inexact.
    w, v = np.linalg.eigh(s)
    root = (v * np.sqrt(w.clip(0.0))) @ v.T
    inner = root @ t @ root
    if min(n, m) > 40:
        cross = np.trace(sqrtm(inner)).real
    else:
        cross = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(0.0)).sum()
    means = float((x.mean(0) - y.mean(0)).square().sum())
    assert value == pytest.approx(means + np.trace(s) + np.trace(t) - 2.0 * cross, rel=1e-6)


def test_chunks_of_a_thin_sample_give_the_distance_of_the_whole() -> None:
    x, y = normal(35, 60, 1), normal(90, 60, 2)
    pieces = [batch_statistics(lambda v: v, v.split(8), "test") for v in (x, y)]
    assert pieces[0].rows is not None
    whole = frechet_distance(of(x), of(y), allow_low_rank=True).value
    assert frechet_distance(*pieces, allow_low_rank=True).value == pytest.approx(whole, rel=1e-10)


def test_features_without_variance_add_their_means_only() -> None:
    # Constant pixels, as the border of MNIST, make the covariance singular however many samples there are.
    x, y = normal(300, 12, 1), normal(200, 12, 2)
    plain = frechet_distance(of(x), of(y)).value
    pad = [torch.full((len(v), 5), c, dtype=torch.float64) for v, c in ((x, 0.0), (y, 2.0))]
    padded = [of(torch.cat([v, p], 1)) for v, p in zip((x, y), pad, strict=True)]
    assert frechet_distance(*padded).value == pytest.approx(plain + 5 * 4.0, rel=1e-9)
    constant = [of(torch.full((30, 4), c)) for c in (1.0, 2.0)]
    assert frechet_distance(*constant).value == pytest.approx(4.0)


def test_distance_is_a_symmetric_invariant_one() -> None:
    x, y = normal(150, 10, 1), normal(120, 10, 2, shift=0.5)
    value = frechet_distance(of(x), of(y)).value
    assert frechet_distance(of(y), of(x)).value == pytest.approx(value, rel=1e-10)
    rotation = torch.linalg.qr(normal(10, 10, 5)).Q
    assert frechet_distance(of(x @ rotation + 7.0), of(y @ rotation + 7.0)).value == pytest.approx(value, rel=1e-9)
    for sample in (x, x[:8]):
        itself = frechet_distance(of(sample), of(sample), allow_low_rank=True).value
        assert 0.0 <= itself < 1e-6 * of(sample).variance


def test_noise_floor_is_the_one_of_large_samples() -> None:
    # With identity covariance the mean of the floor is 2 d / N + (d^2 + d) / (2 N), to first order in 1 / N.
    d, n, repeats = 5, 1_000, 200
    values = np.array(
        [
            noise_floor(of(normal(n, d, 2 * s, mix=False)), of(normal(n, d, 2 * s + 1, mix=False))).value
            for s in range(repeats)
        ]
    )
    error = values.std(ddof=1) / math.sqrt(repeats)
    assert values.mean() == pytest.approx((2 * d + (d * d + d) / 2) / n, abs=4.0 * error)
    assert error < 0.001


def test_noise_floor_refuses_one_sample_twice() -> None:
    x = normal(20, 3, 0)
    with pytest.raises(ValueError, match="two independent samples"):
        noise_floor(of(x), of(x.clone()))


def test_only_inception_features_are_called_fid() -> None:
    names = ["MNIST classifier", *(pixel_feature_name(s) for s in PIXEL_SCALES), "Inception v3, layer 64", FID_FEATURE]
    called = [FrechetDistance(1.0, feature, 2, 3, 3).name for feature in names]
    assert [c == "FID" for c in called] == [False] * 5 + [True]
    assert called[1] == "Frechet distance (pixels in [0, 1])"
    assert not any("FID" in c for c in called[:-1])


def test_pixel_scales_square_in_the_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 1, 4, 3, generator=generator), torch.rand(50, 1, 4, 3, generator=generator) * 0.5
    values = {
        s: frechet_distance(*(feature_statistics(pixel_features(v, s), pixel_feature_name(s)) for v in (x, y))).value
        for s in PIXEL_SCALES
    }
    assert values["symmetric"] == pytest.approx(4.0 * values["unit"], rel=1e-9)
    assert values["byte"] == pytest.approx(255.0**2 * values["unit"], rel=1e-9)
    assert values["unit"] == pytest.approx(fidelity(x.flatten(1).double(), y.flatten(1).double()), rel=1e-6)


def test_bad_features_are_refused() -> None:
    x = normal(10, 4, 0)
    with pytest.raises(ValueError, match=r"'test' have shape \(10,\)"):
        of(x[:, 0])
    for bad in (math.nan, math.inf):
        broken = x.clone()
        broken[3, 2] = bad
        with pytest.raises(ValueError, match="'test' have values that are not finite"):
            of(broken)
    with pytest.raises(ValueError, match="need a name"):
        feature_statistics(x, "")
    with pytest.raises(ValueError, match="'test' of 4 dimensions, 'other' of 4"):
        frechet_distance(of(x), feature_statistics(x, "other"))
    with pytest.raises(ValueError, match="'test' of 4 dimensions, 'test' of 3"):
        of(x).merge(of(x[:, :3]))
    with pytest.raises(ValueError, match="4 dimensions: the generated sample needs at least 5 samples, got 4"):
        frechet_distance(of(x), of(x[:4]))
    with pytest.raises(ValueError, match="the true sample needs at least 2 samples, got 1"):
        frechet_distance(of(x[:1]), of(x), allow_low_rank=True)
    with pytest.raises(ValueError, match="needs at least 2 samples, got 1"):
        _ = of(x[:1]).covariance
    with pytest.raises(ValueError, match="no batches"):
        batch_statistics(lambda v: v, [], "test")
    assert not frechet_distance(of(x), of(x[:4]), allow_low_rank=True).full_rank


def test_bad_pixels_and_networks_in_training_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown pixel scale 'bytes'; one of unit, symmetric, byte"):
        pixel_features(torch.rand(2, 1, 3, 3), "bytes")
    for bad in (torch.full((2, 4), 1.5), torch.full((2, 4), math.nan), torch.zeros(2, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"need floating-point values in \[0, 1\]"):
            pixel_features(bad)
    with pytest.raises(ValueError, match="expected"):
        pixel_features(torch.rand(3))
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5))
    for extract in (network, network.forward):
        network.train()
        with pytest.raises(ValueError, match="'test' is in training mode"):
            batch_statistics(extract, [torch.rand(5, 4)], "test")
        network.eval()
        assert batch_statistics(extract, [torch.rand(5, 4)], "test").dim == 3


class Untrained(FeatureExtractorInceptionV3):
    """torch-fidelity's network with the random weights of its constructor."""

    def load_state_dict(self, *args: object, **kwargs: object) -> None:
        """Keeps the random weights."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the Inception network in the published file's format."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Untrained("untrained", ["2048"], feature_extractor_weights_path=nothing)
    torch.save(network.state_dict(), path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pictures(n: int, seed: int, channels: int = 3) -> torch.Tensor:
    """Random images in [0, 1] that are whole bytes."""
    generator = torch.Generator().manual_seed(seed)
    top = 256 - 40 * seed
    return torch.randint(0, top, (n, channels, 16, 16), generator=generator).float() / 255.0


def test_torch_fidelity_gives_the_same_distance_on_the_same_weights(weights: Path) -> None:
    extract = inception.load_inception(weights, layer="64", sha256=digest(weights))
    samples = [pictures(8, 0), pictures(8, 1)]
    ours = [batch_statistics(extract, x.split(4), extract.name) for x in samples]
    data = [torch.utils.data.TensorDataset((x * 255).round().to(torch.uint8)) for x in samples]
    theirs = calculate_metrics(
        input1=Bare(data[0]),
        input2=Bare(data[1]),
        fid=True,
        feature_layer_fid="64",
        feature_extractor_weights_path=str(weights),
        batch_size=4,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )["frechet_inception_distance"]
    assert frechet_distance(*ours, allow_low_rank=True).value == pytest.approx(theirs, rel=1e-6)


class Bare(torch.utils.data.Dataset):
    """Images without the tuple around them, as torch-fidelity wants them."""

    def __init__(self, data: torch.utils.data.TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.data[index][0]


def test_the_loaded_network_is_the_one_torch_fidelity_loads(weights: Path) -> None:
    before = torch.random.get_rng_state()
    extract = inception.load_inception(weights, sha256=digest(weights))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not extract.network.training
    reference = FeatureExtractorInceptionV3("reference", ["2048"], feature_extractor_weights_path=str(weights))
    grey = pictures(1, 0, channels=1)
    expected = reference((grey * 255).round().to(torch.uint8).repeat(1, 3, 1, 1))[0]
    assert expected.shape == (1, 2048)
    assert torch.equal(extract(grey), expected)
    assert extract.name == f"{FID_FEATURE}, other weights {digest(weights)[:8]}"


def test_weights_of_the_published_hash_alone_give_the_fid(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=f"sha256 {digest(weights)}, expected {inception.WEIGHTS_SHA256}"):
        inception.load_inception(weights)
    monkeypatch.setattr(inception, "WEIGHTS_SHA256", digest(weights))
    assert inception.load_inception(weights, sha256=digest(weights)).name == FID_FEATURE


def test_the_published_file_name_carries_the_start_of_the_hash() -> None:
    # torch's convention: the last part of the name is a prefix of the sha256.
    assert inception.weights_path().stem.rsplit("-", 1)[-1] == inception.WEIGHTS_SHA256[:8]


def test_missing_weights_say_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home" / "cache"))
    with pytest.raises(inception.InceptionUnavailableError, match="curl -fL --create-dirs -o ~/cache/hub/checkpoints/"):
        inception.load_inception()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    place = inception.weights_path()
    assert place.parent.parent.parent == tmp_path / "torch"
    with pytest.raises(inception.InceptionUnavailableError) as caught:
        inception.load_inception()
    message = str(caught.value)
    assert message.startswith("Inception weights not available: curl -fL --create-dirs -o ")
    assert f"{place} https://" in message
    assert message.endswith(place.name)
    assert inception.optional_inception("cpu") == ({}, message)
    # What is there under that name is read, and checked.
    place.parent.mkdir(parents=True)
    place.write_bytes(b"not the weights")
    with pytest.raises(ValueError, match="Inception weights have sha256"):
        inception.load_inception()


class Trap:
    """Unpickles by writing a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.write_text, (self.path, "sprung")


def test_nothing_in_the_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bad = {"trap": {"w": Trap(mark)}, "numbers": {"fc.bias": torch.zeros(3)}, "empty": {}, "list": [torch.zeros(2)]}
    expected = {"trap": "not a file of tensors", "numbers": "do not fit the network"}
    for name, value in bad.items():
        content = io.BytesIO()
        torch.save(value, content)
        hashed = hashlib.sha256(content.getvalue()).hexdigest()
        with pytest.raises(ValueError, match=expected.get(name, "no tensors by name")):
            inception.inception_features(content.getvalue(), sha256=hashed)
    assert not mark.exists()
    with pytest.raises(ValueError, match="not a file of tensors"):
        inception.inception_features(b"cut short", sha256=hashlib.sha256(b"cut short").hexdigest())


def test_a_wrong_input_range_is_what_the_mistake_feeds_the_network(weights: Path) -> None:
    content = weights.read_bytes()
    right = inception.inception_features(content, layer="64", sha256=digest(weights))
    value = torch.linspace(0.0, 1.0, 3 * 81).reshape(1, 3, 9, 9).double()
    seen = (255.0 * value - 128.0) / 128.0
    # The mistakes by their meaning: bytes mapped as if they were in [0, 1], and [0, 1] mapped as if it were bytes.
    mistakes = {"bytes as unit": 2.0 * (255.0 * value) - 1.0, "unit as bytes": (value - 128.0) / 128.0}
    for name, mistaken in mistakes.items():
        wrong = inception.inception_features(content, layer="64", sha256=digest(weights), input_range=name)
        assert wrong.name.startswith(f"Inception v3, layer 64, input {name}, other weights")
        first, other = (x.network.Conv2d_1a_3x3.double() for x in (right, wrong))
        assert torch.allclose(other(seen), first(mistaken), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(other(seen), first(seen), rtol=1e-2, atol=1e-2)


def test_bad_inception_options_and_images_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown Inception layer '100'"):
        inception.inception_features(b"", layer="100")
    with pytest.raises(ValueError, match="unknown Inception input range 'wrong'"):
        inception.inception_features(b"", input_range="wrong")
    extract = inception.InceptionFeatures(torch.nn.Identity(), "test")
    with pytest.raises(ValueError, match=r"test: images have shape \(2, 2, 8, 8\)"):
        extract(torch.zeros(2, 2, 8, 8))
    for bad in (torch.full((1, 3, 8, 8), 1.01), torch.full((1, 3, 8, 8), math.nan)):
        with pytest.raises(ValueError, match=r"test: images need floating-point values in \[0, 1\]"):
            extract(bad)

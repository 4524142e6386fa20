"""Correlated MNIST of three modalities: the latents' law, the bytes, bad correlations, and CoVAE's prior over three."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from repro.datasets import correlated_mnist, load_card, load_dataset
from repro.datasets.base import Dataset, ModalitySpec, fingerprint
from repro.datasets.correlated_mnist import STEP, covariance, decode, gaussians
from repro.datasets.exact import normals
from repro.distributions.block_gaussian import BlockGaussian
from repro.metrics.correlation import canonical_correlations
from repro.model import isolated_rng
from repro.networks.vaegan import Decoder
from repro.papers.covae.building import build
from repro.papers.covae.deep_cca import align
from repro.training import TrainingSettings, train

NAME = "correlated_mnist3"
CARD = Path(__file__).parents[3] / "data_cards" / f"{NAME}.md"
COUNT = 12
PAIRS = list(combinations(range(3), 2))


# The latents' law


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9, (0.8, 0.5, 0.3)])
def test_latents_follow_the_covariance(rho: float | tuple[float, ...]) -> None:
    count = 20_000
    z = np.concatenate(gaussians(count, 0, "train", rho=rho, latent_dim=4, modalities=3, name=NAME), axis=1)
    each = rho if isinstance(rho, tuple) else (rho,) * 3
    expected = np.eye(12)
    for (i, j), r in zip(PAIRS, each, strict=True):
        block = r * np.eye(4)
        expected[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = expected[4 * j : 4 * j + 4, 4 * i : 4 * i + 4] = block
    assert np.array_equal(covariance(rho, 4, 3), expected)
    # A product of two unit normals of correlation r has variance 1 + r^2.
    error = np.sqrt((1.0 + expected**2) / count)
    assert (np.abs(z.T @ z / count - expected) / error).max() < 5.0
    assert np.abs(z.mean(0)).max() < 5.0 / np.sqrt(count)


def test_mean_canonical_correlation_is_rho_for_every_pair() -> None:
    z = [torch.from_numpy(x) for x in gaussians(20_000, 0, "train", rho=0.6, modalities=3, name=NAME)]
    for i, j in PAIRS:  # the standard error of the mean of ten
        error = (1 - 0.6**2) / np.sqrt(10 * 20_000)
        assert abs(float(canonical_correlations(z[i], z[j]).mean()) - 0.6) < 5 * error


def test_pairs_are_drawn_as_before() -> None:
    """Two modalities have the bits of the formula with two terms; so the committed hashes of pairs stand."""
    for rho in (0.05, 0.7, 0.99):
        drawn = normals(2 * 50 * 10, 0, "correlated_mnist", "train")
        g, e = drawn.reshape(50, 2, 10).transpose(1, 0, 2)
        z0, z1 = gaussians(50, 0, "train", rho=rho)
        assert z0.tobytes() == np.ascontiguousarray(g).tobytes()
        assert z1.tobytes() == (rho * g + sqrt(1.0 - rho * rho) * e).tobytes()


def test_streams_of_pairs_and_triples_differ_and_longer_draws_begin_with_shorter() -> None:
    pairs = gaussians(2000, 0, "train", rho=0.0)
    low, high = (gaussians(2000, 0, "train", rho=r, modalities=3, name=NAME) for r in (0.0, 0.9))
    assert np.array_equal(low[0], high[0])
    assert not np.array_equal(low[2], high[2])
    flat = [z.ravel() for z in (*pairs, *low)]
    assert np.abs(np.corrcoef(flat) - np.eye(5)).max() < 5.0 / np.sqrt(20_000)
    short = gaussians(700, 0, "train", rho=0.9, modalities=3, name=NAME)
    assert all(np.array_equal(a[:700], b) for a, b in zip(high, short, strict=True))


def test_two_observed_latents_say_more_than_one() -> None:
    """The least error variance of the card: from 1 - rho^2 to (1 - rho)(1 + 2 rho) / (1 + rho)."""
    rho = 0.7
    scale_tril = torch.linalg.cholesky(torch.from_numpy(covariance(rho, 1, 3)))
    prior = BlockGaussian(torch.zeros(3, dtype=torch.float64), scale_tril, {"a": 1, "b": 1, "c": 1})
    one = {"a": torch.zeros(1, dtype=torch.float64)}
    found = [prior.condition(given).marginal(["c"]).covariance_matrix for given in (one, one | {"b": one["a"]})]
    assert float(found[0]) == pytest.approx(1 - rho**2)
    assert float(found[1]) == pytest.approx((1 - rho) * (1 + 2 * rho) / (1 + rho))


# The dataset


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, cards: Callable[..., None], cache: Path) -> Decoder:
    """An untrained decoder instead of the shipped one, and the card with small splits."""
    with isolated_rng(0):
        decoder = Decoder()
    monkeypatch.setattr(correlated_mnist, "load_tensors", lambda _: decoder.state_dict())
    monkeypatch.setattr(correlated_mnist, "load_config", lambda _: {"latent_dim": 10})
    digests = {"vaegan-decoder": {"sha256": {"weights.safetensors": "its digest"}}}
    monkeypatch.setattr(correlated_mnist, "manifest", lambda: digests)
    _, front, body = CARD.read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(front)
    fields["repro"]["splits"] = {s: {"count": COUNT} for s in ("train", "test")}
    cards(**{NAME: f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n{body}"})
    return decoder


def test_splits_are_images_of_the_stored_latents(untrained: Decoder) -> None:
    plain, whole = (load_dataset(NAME, "test", latents=latents) for latents in (False, True))
    assert list(plain.modalities) == ["m0", "m1", "m2"]
    assert list(whole.modalities) == ["m0", "m1", "m2", "z0", "z1", "z2"]
    assert whole.provenance["sha256"] == fingerprint(whole.data) != plain.provenance["sha256"]
    assert plain.provenance["sha256"] == fingerprint(plain.data)
    drawn = gaussians(COUNT, 0, "test", rho=0.9, modalities=3, name=NAME)
    for k in range(3):
        z = whole.data[f"z{k}"].double()
        assert np.abs(z.numpy() - drawn[k]).max() <= STEP / 2
        assert torch.equal(decode(untrained.double(), z)[0], whole.data[f"m{k}"])
        assert torch.equal(plain.data[f"m{k}"], whole.data[f"m{k}"])
    other = load_dataset(NAME, "test", rho=(0.9, 0.8, 0.7))
    assert torch.equal(other.data["m1"], plain.data["m1"])  # the first pair's correlation is the same
    assert not torch.equal(other.data["m2"], plain.data["m2"])
    assert other.provenance["options"]["rho"] == [0.9, 0.8, 0.7]
    assert "matches_card" not in other.provenance


def test_card_states_sizes_and_hashes() -> None:
    card = load_card(NAME)
    assert card.loader == "correlated_mnist"
    assert {name: stated.count for name, stated in card.splits.items()} == {"train": 20_000, "test": 5_000}
    assert {m: s.shape for m, s in card.modalities.items()} == {
        **dict.fromkeys(("m0", "m1", "m2"), (1, 28, 28)),
        **dict.fromkeys(("z0", "z1", "z2"), (10,)),
    }
    hashes = [h for s in card.splits.values() for h in (s.sha256, *s.sha256_of.values())]
    assert None not in hashes
    assert len(set(hashes)) == len(hashes) >= 4


@pytest.mark.parametrize(
    ("rho", "message"),
    [
        (1.0, r"correlated_mnist3: rho is 1.0, must be a number in \[0, 1\)"),
        (-0.2, "rho is -0.2"),
        (float("nan"), "rho is nan"),
        ("0.9", "rho is '0.9'"),
        ((0.5, 0.5, 1.0), "rho is 1.0"),
        ((0.5, 0.5), "2 correlations for the 3 pairs of 3 modalities"),
        ((0.9, 0.9, 0.1), r"correlations \(0.9, 0.9, 0.1\) of 3 modalities are not positive definite"),
    ],
)
def test_wrong_correlations_are_named(rho: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(NAME, "train", rho=rho)
    assert "\n" not in str(caught.value)


def test_one_modality_is_named() -> None:
    with pytest.raises(ValueError, match="1 modality has nothing to correlate with"):
        covariance(0.5, 2, 1)


# CoVAE on three modalities


def test_alignment_of_three_modalities_finds_their_correlations() -> None:
    """Latents behind invertible linear maps: the prior's canonical correlations are those of the data."""
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(4, 4, generator=g, dtype=torch.float64) + 3 * torch.eye(4) for _ in range(3)]
    count, rho = 20_000, (0.8, 0.5, 0.3)
    z = gaussians(2 * count, 0, "train", rho=rho, latent_dim=4, modalities=3, name=NAME)
    seen = {f"m{k}": torch.from_numpy(x) @ maps[k] for k, x in enumerate(z)}
    fit, held_out = ({m: x[rows] for m, x in seen.items()} for rows in (slice(count), slice(count, None)))
    sizes = dict.fromkeys(seen, 4)
    found = align(fit, held_out, sizes)
    assert float(torch.linalg.eigvalsh(found.covariance)[0]) > 0
    for (i, j), r in zip(PAIRS, rho, strict=True):
        block = found.covariance[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        # Standard error of one correlation (1 - r^2) / sqrt(N), and the shrinkage by 1e-3.
        error = (1 - r**2) / np.sqrt(count)
        assert np.abs(torch.linalg.svdvals(block).numpy() - r).max() < 5 * error + 1e-3 + 4 / (2 * r * count)


def test_training_on_three_modalities_fills_a_prior_that_two_observations_narrow() -> None:
    g = torch.Generator().manual_seed(0)
    z = gaussians(1500, 0, "train", rho=0.8, latent_dim=2, modalities=3, name=NAME)
    weight = torch.randn(2, 6, generator=g)
    noise = 0.05 * torch.randn(3, 1500, 6, generator=g)
    data = {f"m{k}": torch.from_numpy(x).float() @ weight + noise[k] for k, x in enumerate(z)}
    specs = {m: ModalitySpec((6,)) for m in data}
    settings = {"networks": "mlp", "widths": (32,), "joint_hidden": 16, "posterior": "cholesky"}
    with isolated_rng(0):
        model = build("covae", specs, settings | {"latent_dims": dict.fromkeys(data, 2), "held_out": 0.3})
    stages = {"deep_cca": {"epochs": 8, "batch_size": 250}}
    train(model, Dataset("toy", "train", specs, data), TrainingSettings(2, 250, 3e-3, stages=stages), seed=0)
    assert bool(model.aligned)
    prior = model.prior()
    names = list(data)
    held_out = model.held_out_correlations
    assert float(held_out.mean()) == pytest.approx(0.8, abs=0.1)
    for a, b in combinations(names, 2):
        i, j = (2 * names.index(m) for m in (a, b))
        block = prior.covariance_matrix[i : i + 2, j : j + 2]
        assert float(torch.linalg.svdvals(block).mean()) == pytest.approx(0.8, abs=0.1)
    one = {m: torch.zeros(2) for m in names[:1]}
    two = {m: torch.zeros(2) for m in names[:2]}
    wide, narrow = (prior.condition(given).marginal(["m2"]).covariance_matrix for given in (one, two))
    assert float(narrow.trace()) < float(wide.trace()) < 2
    out = model.generate(4, given={m: data[m][:5] for m in names[:2]}, generator=g)
    assert {m: tuple(x.shape) for m, x in out.items()} == dict.fromkeys(names, (4, 5, 6))

"""Correlated MNIST: the latents' law, the bytes and how surely they are the same anywhere, options and hashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from repro.datasets import correlated_mnist, load_card, load_dataset
from repro.datasets.base import fingerprint
from repro.datasets.cache import Writer
from repro.datasets.correlated_mnist import STEP, covariance, decode, fill, gaussians
from repro.datasets.registry import options_of
from repro.datasets.sheet import contact_sheet
from repro.model import isolated_rng
from repro.networks.flow import LatentFlow
from repro.networks.vaegan import Decoder
from repro.weights import shipped

CARDS = Path(__file__).parents[2] / "data_cards"
COUNTS = {"train": 40, "test": 20}


def decoder() -> Decoder:
    """A decoder with weights large enough that its pictures use all grey values."""
    with isolated_rng(0):
        built = Decoder()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(1.6)
    return built


def flow() -> LatentFlow:
    with isolated_rng(1):
        return LatentFlow(10, 3, (32,))


def split(folder: Path, count: int, **options) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a split, and its provenance."""
    folder.mkdir()
    writer = Writer(folder)
    settings = {"seed": 0, "stream": "train", "rho": 0.9, "decoder": decoder().double()} | options
    fill(writer, count, **settings)
    shapes = {name: (a["dtype"], tuple(a["shape"])) for name, a in writer.arrays.items()}
    return {n: np.fromfile(folder / f"{n}.bin", d).reshape(s) for n, (d, s) in shapes.items()}, writer.provenance


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, cards: Callable[..., None], cache: Path) -> dict:
    """Untrained weights instead of the shipped ones, and a card of small splits, by name."""
    ships = {"vaegan-decoder": (decoder(), {"latent_dim": 10}), "vaegan-flow": (flow(), flow().config)}
    digests = {name: {"sha256": {"weights.safetensors": f"digest of {name}"}} for name in ships}
    monkeypatch.setattr(correlated_mnist, "load_tensors", lambda name: ships[name][0].state_dict())
    monkeypatch.setattr(correlated_mnist, "load_config", lambda name: ships[name][1])
    monkeypatch.setattr(correlated_mnist, "manifest", lambda: digests)
    cards(correlated_mnist=card_text())
    return ships | {"digests": digests}


def card_text(train: str = "", test: str = "") -> str:
    """The card with small splits, and their hashes where they are given."""
    _, front, body = (CARDS / "correlated_mnist.md").read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(front)
    for name, more in (("train", train), ("test", test)):
        fields["repro"]["splits"][name] = yaml.safe_load(f"{{count: {COUNTS[name]}{more}}}")
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n{body}"


def test_covariance_is_equation_5() -> None:
    expected = np.eye(20)
    for i in range(10):
        expected[i, 10 + i] = expected[10 + i, i] = 0.6
    assert np.array_equal(covariance(0.6), expected)
    assert np.array_equal(covariance(0.0, 3), np.eye(6))
    assert np.linalg.eigvalsh(covariance(0.99)).min() == pytest.approx(0.01)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.99])
def test_latents_follow_it(rho: float) -> None:
    count = 20_000
    z = np.concatenate(gaussians(count, 0, "train", rho=rho), axis=1)
    expected = covariance(rho)
    # A product of two unit normals of correlation r has variance 1 + r^2.
    error = np.sqrt((1.0 + expected**2) / count)
    assert (np.abs(z.T @ z / count - expected) / error).max() < 5.0
    assert np.abs(z.mean(0)).max() < 5.0 / np.sqrt(count)
    measured = np.array([np.corrcoef(z[:, i], z[:, 10 + i])[0, 1] for i in range(10)])
    assert np.abs(measured - rho).max() < 5.0 * (1.0 - rho**2) / np.sqrt(count)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_mean_canonical_correlation_is_rho(rho: float) -> None:
    z0, z1 = gaussians(20_000, 0, "train", rho=rho)
    bases = [np.linalg.qr(z - z.mean(0))[0] for z in (z0, z1)]
    canonical = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    # The standard error of the mean of ten; their upward bias is of the order 10 / (2 rho N), a fifth of it.
    assert abs(canonical.mean() - rho) < 5.0 * (1.0 - rho**2) / np.sqrt(10 * 20_000)


def test_first_latents_are_shared_and_streams_are_not() -> None:
    low, high = (gaussians(2000, 0, "train", rho=rho) for rho in (0.1, 0.9))
    assert np.array_equal(low[0], high[0])
    assert not np.array_equal(low[1], high[1])
    drawn = [gaussians(2000, seed, stream, rho=0.0) for seed, stream in ((0, "train"), (0, "test"), (1, "train"))]
    flat = [z.ravel() for pair in drawn for z in pair]
    assert np.abs(np.corrcoef(flat) - np.eye(6)).max() < 5.0 / np.sqrt(20_000)


def test_bytes_are_the_rounded_decoder() -> None:
    g, z = decoder().double(), torch.from_numpy(gaussians(20, 0, "test", rho=0.3)[0])
    images, margin = decode(g, z)
    with torch.no_grad():
        exact = 255.0 * torch.cat([g(row[None]) for row in z]).numpy()
    assert images.dtype is torch.uint8
    assert np.array_equal(images.numpy(), np.floor(exact + 0.5).astype(np.uint8))
    assert int(images.min()) < 50
    assert int(images.max()) > 200
    assert margin == pytest.approx(np.abs(exact - np.floor(exact) - 0.5).min(), abs=1e-10)


def test_a_decoder_in_float32_is_refused() -> None:
    with pytest.raises(ValueError, match="must be in float64"):
        decode(decoder(), torch.zeros(1, 10, dtype=torch.float64))


@pytest.mark.parametrize("with_flow", [False, True])
def test_one_and_two_threads_give_one_hash(tmp_path: Path, with_flow: bool) -> None:
    options = {"flow": flow().double()} if with_flow else {}
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(split(tmp_path / str(threads), 70, **options))
    finally:
        torch.set_num_threads(before)
    (one, provenance), (two, _) = found
    assert list(one) == ["m0", "m1", "z0", "z1"]
    assert all(np.array_equal(one[m], two[m]) for m in one)
    hashes = {fingerprint({m: torch.from_numpy(x) for m, x in arrays.items()}) for arrays in (one, two)}
    assert len(hashes) == 1
    assert 0.0 < provenance["rounding_margins"]["images"] < 0.01
    assert 0.0 < provenance["rounding_margins"]["latents"] < 0.01


@pytest.mark.parametrize("with_flow", [False, True])
def test_errors_of_float64_are_far_under_the_margins(tmp_path: Path, with_flow: bool) -> None:
    # The order of sums is what machines differ in: here the latents, channels and units in another order.
    f, g = flow().double(), decoder().double()
    z = torch.from_numpy(gaussians(40, 0, "train", rho=0.9)[0])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    other = decoder().double()
    with torch.no_grad():
        other.linear.weight.copy_(g.linear.weight[:, order])
        channels = torch.randperm(128, generator=torch.Generator().manual_seed(1))
        rows = (channels[:, None] * 16 + torch.arange(16)).flatten()
        other.linear.weight.copy_(other.linear.weight[rows])
        other.linear.bias.copy_(g.linear.bias[rows])
        other.body[0].weight.copy_(g.body[0].weight[channels])
        if with_flow:
            z = f.from_normal(z)
            one_by_one = torch.cat(
                [f.from_normal(row[None]) for row in torch.from_numpy(gaussians(40, 0, "train", rho=0.9)[0])]
            )
            assert float((one_by_one - z).abs().max()) < 1e-12
        difference = 255.0 * float((g(z) - other(z[:, order])).abs().max())
    assert 0.0 < difference < 1e-11
    _, provenance = split(tmp_path / "split", 40, **({"flow": f} if with_flow else {}))
    assert provenance["rounding_margins"]["images"] > 1000.0 * difference


def test_images_are_of_the_stored_latents(tmp_path: Path) -> None:
    arrays, _ = split(tmp_path / "plain", 40, rho=0.5)
    drawn = gaussians(40, 0, "train", rho=0.5)
    for k in (0, 1):
        z = torch.from_numpy(arrays[f"z{k}"]).double()
        assert np.abs(z.numpy() - drawn[k]).max() <= STEP / 2
        assert torch.equal(z / STEP, (z / STEP).round())
        assert np.array_equal(decode(decoder().double(), z)[0].numpy(), arrays[f"m{k}"])


def test_the_flow_maps_the_gaussian_latents(tmp_path: Path) -> None:
    f = flow().double()
    arrays, _ = split(tmp_path / "flow", 40, rho=0.5, flow=f)
    for k, drawn in enumerate(gaussians(40, 0, "train", rho=0.5)):
        with torch.no_grad():
            mapped = f.from_normal(torch.from_numpy(drawn))
        assert float((mapped - torch.from_numpy(drawn)).abs().max()) > 0.1
        z = torch.from_numpy(arrays[f"z{k}"]).double()
        assert float((z - mapped).abs().max()) <= STEP / 2 + 1e-12
        assert np.array_equal(decode(decoder().double(), z)[0].numpy(), arrays[f"m{k}"])


def test_longer_draw_begins_with_the_shorter(tmp_path: Path) -> None:
    long, short = (split(tmp_path / str(n), n)[0] for n in (70, 33))
    assert all(np.array_equal(long[m][:33], short[m]) for m in short)


@pytest.mark.parametrize("name", ["train", "test"])
def test_default_is_what_the_card_says(weights: dict, name: str) -> None:
    card = load_card("correlated_mnist")
    dataset = load_dataset("correlated_mnist", name)
    assert options_of("correlated_mnist") == {
        "rho": card.generation["rho"], "flow": False, "latents": False, "seed": card.generation["seed"],
        "num_samples": None,
    }  # fmt: skip
    assert len(dataset) == COUNTS[name]
    assert dataset.labels is None
    assert list(dataset.modalities) == ["m0", "m1"]
    for m, x in dataset.data.items():
        assert x.dtype is torch.uint8
        assert dataset.modalities[m].shape == tuple(x.shape[1:]) == (1, 28, 28)
        assert (dataset.modalities[m].kind, dataset.modalities[m].range) == ("image", (0.0, 1.0))
        assert 0.0 <= float(dataset[3][m].min()) < float(dataset[3][m].max()) <= 1.0
    assert dataset.provenance["sha256"] == fingerprint(dataset.data)
    assert (dataset.provenance["source"], dataset.provenance["stream"]) == ("generated", name)
    assert dataset.provenance["options"]["weights"] == {"vaegan-decoder": "digest of vaegan-decoder"}
    assert contact_sheet(dataset, columns=2).size[0] > 100


def test_card_states_the_papers_counts_and_modalities() -> None:
    card = load_card("correlated_mnist")
    assert {name: stated.count for name, stated in card.splits.items()} == {"train": 20_000, "test": 5_000}
    assert list(card.modalities) == ["m0", "m1", "z0", "z1"]
    assert card.modalities["z0"].shape == card.modalities["z1"].shape == (10,)


@pytest.mark.parametrize("with_flow", [False, True])
def test_latents_are_modalities_on_demand(weights: dict, with_flow: bool) -> None:
    plain = load_dataset("correlated_mnist", "test", flow=with_flow)
    dataset = load_dataset("correlated_mnist", "test", flow=with_flow, latents=True)
    assert list(dataset.modalities) == ["m0", "m1", "z0", "z1"]
    assert all(torch.equal(dataset.data[m], plain.data[m]) for m in plain.data)
    for m in ("z0", "z1"):
        assert dataset.data[m].dtype is torch.float32
        assert dataset.data[m].shape == (20, 10)
    assert dataset.provenance["sha256"] == fingerprint(dataset.data) != plain.provenance["sha256"]
    assert ("vaegan-flow" in dataset.provenance["options"]["weights"]) is with_flow
    row = dataset.to_hf().with_format("torch")[2]
    assert torch.equal(row["z1"], dataset[2]["z1"])


def test_options_change_what_they_say(weights: dict) -> None:
    base = load_dataset("correlated_mnist", "test", latents=True)
    other = load_dataset("correlated_mnist", "test", rho=0.2, latents=True)
    assert torch.equal(base.data["m0"], other.data["m0"])
    assert not torch.equal(base.data["m1"], other.data["m1"])
    for options in ({"seed": 1}, {"flow": True}):
        assert not torch.equal(base.data["m0"], load_dataset("correlated_mnist", "test", **options).data["m0"])
    more = load_dataset("correlated_mnist", "test", num_samples=23)
    assert torch.equal(more.data["m1"][:20], base.data["m1"])
    assert torch.equal(load_dataset("correlated_mnist", "test", rho=0).data["m0"], base.data["m0"])


def test_other_weights_are_another_split(weights: dict) -> None:
    before = load_dataset("correlated_mnist", "test")
    with torch.no_grad():
        weights["vaegan-decoder"][0].linear.weight.mul_(1.5)
    assert torch.equal(load_dataset("correlated_mnist", "test").data["m0"], before.data["m0"])
    weights["digests"]["vaegan-decoder"] = {"sha256": {"weights.safetensors": "other"}}
    after = load_dataset("correlated_mnist", "test")
    assert not torch.equal(after.data["m0"], before.data["m0"])
    assert after.provenance["options"]["weights"] == {"vaegan-decoder": "other"}


def test_hashes_are_held_against_the_card(weights: dict, cards: Callable[..., None]) -> None:
    variants = {"": {}, "latents": {"latents": True}, "rho=0.6": {"rho": 0.6}}
    variants["rho=0.6,flow,latents"] = {"rho": 0.6, "flow": True, "latents": True}
    hashes = {v: load_dataset("correlated_mnist", "test", **o).provenance["sha256"] for v, o in variants.items()}
    assert len(set(hashes.values())) == len(variants)
    stated = ", ".join(f'"{v}": {h}' for v, h in hashes.items() if v)
    for own, matches in ((hashes[""], True), ("0" * 64, False)):
        cards(correlated_mnist=card_text(test=f", sha256: {own}, sha256_of: {{{stated}}}"))
        for v, options in variants.items():
            known = load_dataset("correlated_mnist", "test", **options).provenance
            assert known["matches_card"] is (matches or v != "")
        for options in ({"seed": 1}, {"num_samples": 19}, {"rho": 0.3}, {"flow": True}):
            assert "matches_card" not in load_dataset("correlated_mnist", "test", **options).provenance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 1.0}, r"rho is 1.0, must be a number in \[0, 1\)"),
        ({"rho": -0.1}, "rho is -0.1"),
        ({"rho": float("nan")}, "rho is nan"),
        ({"rho": "0.9"}, "rho is '0.9'"),
        ({"rho": True}, "rho is True"),
        ({"num_samples": 0}, "num_samples is 0, must be an integer of at least 1"),
        ({"num_samples": 2.5}, "num_samples is 2.5"),
        ({"seed": -1}, "seed is -1, must be an integer of at least 0"),
        ({"sed": 1}, "did you mean seed"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset("correlated_mnist", "train", **options)
    assert "\n" not in str(caught.value)


def test_wrong_correlation_of_the_parts() -> None:
    for function in (covariance, lambda rho: gaussians(3, 0, "train", rho=rho)):
        with pytest.raises(ValueError, match=r"rho is 1\.5"):
            function(1.5)


def test_weights_that_do_not_ship_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "manifest", dict)
    with pytest.raises(ValueError, match="no weights named 'vaegan-decoder' ship with the package"):
        load_dataset("correlated_mnist", "train")

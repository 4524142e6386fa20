"""`load_model`: from the package, the cache and the Hub, verified, strict, and nothing but this package's classes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save

import repro
from repro.errors import HubError
from repro.hub.config import FILES, PICTURE, Config
from repro.hub.load import build, load_model, load_weights
from repro.hub.manifest import read_manifest, write_manifest
from repro.weights import shipped
from tests.support.models import make, same_tensors
from tests.support.weights import NAME, REPO, pinned, untrained

if TYPE_CHECKING:
    from tests.support.hub import ModelHub
    from tests.support.models import make, same_tensors
from tests.support.weights import Shelf

pytest_plugins = ["tests.support.hub"]

WEIGHTS = "weights.safetensors"
COLD = """
import sys
import repro
before = set(sys.modules)
model = repro.load_model("vaegan-decoder")
assert model(__import__("torch").zeros(2, 10)).shape == (2, 1, 28, 28)
print([m for m in ("huggingface_hub", "multivae", "datasets", "matplotlib", "ot", "pooch") if m in sys.modules])
"""


def repack(shelf: Shelf, **files: bytes) -> None:
    """Other files in the package, with the manifest's hashes as if they had been shipped so."""
    entry = read_manifest()[NAME]
    sizes, hashes = dict(entry.bytes), dict(entry.sha256)
    for key, content in files.items():
        file = {"config": "config.json", "weights": WEIGHTS}[key]
        (shelf.weights / NAME / file).write_bytes(content)
        sizes[file], hashes[file] = len(content), hashlib.sha256(content).hexdigest()
    write_manifest({NAME: replace(entry, bytes=sizes, sha256=hashes)})


def test_from_the_package(shelf: Shelf) -> None:
    record = shelf.record()
    shelf.ship()
    before = torch.get_rng_state()
    model = repro.load_model(NAME)
    assert torch.equal(torch.get_rng_state(), before)
    expected = untrained()
    assert type(model) is type(expected)
    assert (model.modalities, model.beta, model.likelihood) == (expected.modalities, expected.beta, expected.likelihood)
    assert repr(model) == repr(expected)
    stored = load_file(shelf.store.directory(record.spec) / WEIGHTS)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in stored.items()}
    assert all(torch.equal(v, stored[k]) for k, v in model.state_dict().items())
    assert not model.training
    drawn = model.generate(3, generator=torch.Generator().manual_seed(0))
    assert {m: tuple(x.shape) for m, x in drawn.items()} == dict.fromkeys(("m0", "m1", "m2", "m3"), (3, 2))


@pytest.mark.parametrize("method", ["mvae", "mmvae-plus"])
def test_baselines_are_rebuilt_as_their_room_builds_them(shelf: Shelf, method: str) -> None:
    name = f"{NAME}-{method}"
    shelf.ship(name)
    model, expected = load_model(name), untrained(name)
    assert model.settings == expected.settings
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in expected.state_dict().items()}
    assert model.generate(2, generator=torch.Generator().manual_seed(0))["m0"].shape == (2, 2)


def test_building_blocks_that_ship() -> None:
    decoder = load_model("vaegan-decoder")
    tensors = shipped.load_tensors("vaegan-decoder")
    assert all(torch.equal(v, tensors[k]) for k, v in decoder.state_dict().items())
    classifiers = load_model("classifier-mnist")
    own = shipped.load_classifier("mnist")
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(classifiers.network("image")(x), own(x))
    flow = load_model("vaegan-flow")
    tensors = shipped.load_tensors("vaegan-flow")
    assert all(torch.equal(v, tensors[k].to(v.dtype)) for k, v in flow.state_dict().items())


@pytest.mark.slow
def test_a_cold_start_imports_little() -> None:
    """What `load_model` needs of a model inside the package: neither the Hub's client nor the baselines' library."""
    answer = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"


def test_from_the_hub_then_the_cache(model_hub: ModelHub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pinned(shelf, model_hub)
    model = load_model(NAME)
    assert len(model_hub.calls) == 4
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    again = load_model(NAME)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    assert len(model_hub.calls) == 4
    with pytest.raises(HubError, match="at revision v1 of user/models is not in the cache and REPRO_OFFLINE is 1"):
        load_model(NAME, revision="v1")
    monkeypatch.setenv("REPRO_OFFLINE", "0")
    model_hub.repos[REPO].tags["v1"] = entry.revision
    for revision in ("v1", entry.revision, "main"):
        found = load_model(NAME, revision=revision)
        assert all(torch.equal(v, found.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_changed_cache_is_never_loaded(model_hub: ModelHub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(shelf, model_hub)
    model = load_model(NAME)
    (path,) = (shelf.root / "cache").rglob(WEIGHTS)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    again = load_model(NAME)  # fetched once more
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    path.write_bytes(content)
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    with pytest.raises(HubError, match=r"not whole in the cache \(weights.safetensors has hash"):
        load_model(NAME)


def test_a_changed_package_is_refused(shelf: Shelf) -> None:
    shelf.ship()
    for file in ("config.json", WEIGHTS):
        path = shelf.weights / NAME / file
        content = bytearray(path.read_bytes())
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ValueError, match=rf"weights/{NAME}/{file} has sha256 \w+, the manifest says"):
            load_model(NAME)
        path.write_bytes(content)
    (shelf.weights / NAME / "config.json").unlink()
    with pytest.raises(HubError, match="cannot be read"):
        load_model(NAME)


def test_names_and_devices(shelf: Shelf) -> None:
    shelf.ship()
    with pytest.raises(ValueError, match="unknown weights 'gmrf_mcvae/copla'; did you mean gmrf_mcvae/copula"):
        load_model("gmrf_mcvae/copla")
    for device in ("warp", "cpu:x"):
        with pytest.raises(ValueError, match=f"device '{device}'"):
            load_model(NAME, device=device)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda'"):
            load_model(NAME, device="cuda")
    assert next(load_model(NAME, device="cpu").parameters()).device.type == "cpu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "repro.papers.gmrf_mcvae.model.GMRFMCVAEX"}, "is no model of this package"),
        ({"class": "repro.papers.gmrf_mcvae.model.Stage"}, "is no model of this package"),
        ({"class": "repro.papers.gmrf_mcvae.model.MultimodalModel"}, "is no model of this package"),
        ({"class": "repro.papers.gmrf_mcvae.nowhere.Model"}, "is no model of this package"),
        ({"class": "repro.engine.store.RunStore"}, "is no model of this package"),
        ({"class": "repro.networks.mlp.nn"}, "is no model of this package"),
        ({"arguments": {"latent_dim": 2, "path": "x"}}, r"GMRFMCVAE has no arguments \['path'\]"),
        ({"arguments": {"latent_dim": -2}}, "latent_dim is -2, must be positive"),
        ({"arguments": {"hidden_dtype": "object"}}, "hidden_dtype is 'object', must be one of"),
        ({"arguments": {"beta": "x"}}, "GMRFMCVAE cannot be built"),
        ({"arguments": {"encoders": {"m0": 1}}}, "GMRFMCVAE cannot be built"),
        ({"modalities": {"m0": {"kind": "image"}, "m1": {"shape": [2]}}}, "must have a shape"),
        ({"modalities": {"m0": {"shape": [2]}}}, "at least two modalities"),
        ({"modalities": {f"m{i}": {"shape": [3]} for i in range(4)}}, "needs torch.float32 of shape"),
        ({"modalities": {f"m{i}": {"shape": [2]} for i in range(3)}}, "the weights have unknown"),
    ],
)
def test_configurations_that_are_refused(shelf: Shelf, change: dict[str, object], message: str) -> None:
    shelf.ship()
    value = json.loads((shelf.weights / NAME / "config.json").read_text())
    repack(shelf, config=json.dumps(value | change).encode())
    with pytest.raises(ValueError, match=message) as caught:
        load_model(NAME)
    assert "\n" not in str(caught.value)
    assert NAME in str(caught.value)


def test_a_run_builds_what_its_configuration_names() -> None:
    from repro.papers.pretrained.digits.experiment import classifier_spec, flow_spec

    spec = classifier_spec("mnist", "smoke")
    module = "repro.papers.pretrained.classifiers"
    assert type(build(Config(module, "DigitClassifiers", spec=spec), "x")).__name__ == "DigitClassifiers"
    with pytest.raises(ValueError, match="names DigitClassifiers, its run builds EncodingFlow"):
        build(Config(module, "DigitClassifiers", spec=flow_spec("smoke")), "x")
    with pytest.raises(ValueError, match="unknown paper 'os'"):
        build(Config(module, "DigitClassifiers", spec=replace(spec, paper="os")), "x")


def test_extra_missing_and_other_tensors(shelf: Shelf) -> None:
    shelf.ship()
    path = shelf.weights / NAME / WEIGHTS
    tensors = load_file(path)
    first, *rest = sorted(tensors)
    cases = {
        "the weights lack": {k: tensors[k] for k in rest},
        "the weights have unknown other": tensors | {"other": torch.zeros(1)},
        r"the weights lack .* and have unknown": {k: tensors[k] for k in rest} | {"other": torch.zeros(1)},
        "of shape": tensors | {first: tensors[first][:1].clone()},
        r"is torch.int64 of shape .* needs torch.float32": tensors | {first: tensors[first].long()},
    }
    for message, changed in cases.items():
        repack(shelf, weights=save(changed))
        with pytest.raises(ValueError, match=message):
            load_model(NAME)
    for content in (b"\x80\x04}.", b"", b"\xff" * 100, save(tensors)[:-10]):
        repack(shelf, weights=content or b" ")
        with pytest.raises(ValueError, match="is no safetensors file"):
            load_model(NAME)


def test_half_precision_becomes_the_model_s_own() -> None:
    model = torch.nn.Linear(2, 1)
    load_weights(model, save({k: v.half() for k, v in model.state_dict().items()}), "x")
    assert model.weight.dtype == torch.float32
    model.register_buffer("mask", torch.tensor([True, False]))
    state = model.state_dict()
    load_weights(model, save({**state, "mask": torch.tensor([0.0, 1.0])}), "x")
    assert model.mask.tolist() == [False, True]
    with pytest.raises(ValueError, match=r"x: mask is torch.float32 of shape \(2,\), Linear needs torch.bool"):
        load_weights(model, save({**state, "mask": torch.tensor([0.0, 0.5])}), "x")


def test_a_pickle_is_never_read(shelf: Shelf) -> None:
    shelf.ship()
    target = shelf.root / "opened"
    (shelf.weights / NAME / "pytorch_model.bin").write_bytes(b"cbuiltins\nopen\n(V%b\nVw\ntR." % str(target).encode())
    load_model(NAME)
    assert not target.exists()
    assert {p.name for p in (shelf.weights / NAME).iterdir()} == {*FILES, PICTURE, "pytorch_model.bin"}


def test_a_folder_of_a_published_model(shelf: Shelf, tmp_path: Path) -> None:
    shelf.ship()
    folder = shutil.copytree(shelf.weights / NAME, tmp_path / "copy")
    model = load_model(NAME)
    for where in (folder, str(folder)):
        again = load_model(where)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    path = folder / WEIGHTS
    content = path.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-5], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"weights.safetensors has sha256 .*, its record says"):
            load_model(folder)
    path.write_bytes(content)
    (folder / "record.json").unlink()
    with pytest.raises(ValueError, match=r"record.json cannot be read"):
        load_model(folder)
    (folder / "extra.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="may hold a pickle"):
        load_model(folder)


def test_a_user_s_model_by_folder_and_by_repository(
    model_hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model_hub.cards_of_users = True
    model = make("sbm")
    model.save_pretrained(tmp_path / "saved")
    model.push_to_hub("somebody/sbm")
    before = model.generate(3, generator=torch.Generator().manual_seed(0))
    for name in (tmp_path / "saved", str(tmp_path / "saved"), "somebody/sbm"):
        again = repro.load_model(name)
        assert type(again) is type(model)
        assert same_tensors(again.generate(3, generator=torch.Generator().manual_seed(0)), before)
    with pytest.raises(HubError, match="somebody/none at revision main cannot be fetched"):
        load_model("somebody/none")
    for name in ("no-such-folder", str(tmp_path / "none"), "mrf_mvae/none", "a/b/c"):
        with pytest.raises(ValueError, match="unknown weights"):
            load_model(name)

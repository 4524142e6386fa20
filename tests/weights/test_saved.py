"""A saved model is the same model again; what was changed, cut, or is of another kind is refused in one line."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import repro
from repro.datasets.base import ModalitySpec
from repro.model import MultimodalModel, isolated_rng
from repro.networks.construction import CLASSES, construction_of, decode, encode
from repro.networks.mlp import MLP, GaussianMLPEncoder
from repro.papers.compare.building import build as build_compared
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.papers.sbm_vae.celeba.models import build_face_baseline
from repro.training import TrainingSettings, train
from repro.weights.folder import read
from tests.support.models import NAMES, SPECS, dataset, make, same_tensors

FILES = ["README.md", "config.json", "model.safetensors"]
IMAGES = {"a": ModalitySpec((1, 28, 28), "image", (0.0, 1.0)), "b": ModalitySpec((1, 28, 28), "image", (0.0, 1.0))}
MIXED = {"face": ModalitySpec((3, 16, 16), "image", (0.0, 1.0)), "tags": ModalitySpec((5,), "binary")}


def draws(model: MultimodalModel) -> dict[str, Tensor]:
    return model.generate(5, generator=torch.Generator().manual_seed(3))


def compared(method: str) -> MultimodalModel:
    settings: dict[str, Any] = {"networks": "mlp", "widths": [8]}
    if method == "covae":
        settings |= {"latent_dims": dict.fromkeys(SPECS, 2), "posterior": "cholesky"}
    else:
        settings |= {"latent_dim": 4, "beta": 0.3}
    if method == "sbm_vae":
        settings |= {"sde": [0.1, 5.0], "score": {"width": 8, "multipliers": [1], "blocks": 1}, "latents": "mean"}
    return build_compared(method, SPECS, settings, {"sampler": "dpm_solver", "num_steps": 3})


def image_covae() -> MultimodalModel:
    settings = {"networks": "resnet", "latent_dims": {"a": 2, "b": 3}, "posterior": "cross_diagonal"}
    return build_compared("covae", IMAGES, settings)


def faces(method: str) -> MultimodalModel:
    private = {"specific_dim": 2} if method == "mmvae_plus" else {}
    return build_face_baseline(
        method, MIXED, widths=(4, 4), hidden=(8,), latent_dim=2, beta=0.5, bernoulli=["tags"], **private
    )


OTHERS = {
    **{f"compare {m}": lambda m=m: compared(m) for m in ("covae", "gmrf_mcvae", "sbm_vae")},
    "covae of images": image_covae,
    **{f"faces {m}": lambda m=m: faces(m) for m in ("mopoe", "mmvae_plus", "mvtcae")},
}


def check_same(model: MultimodalModel, folder: Path) -> MultimodalModel:
    before = draws(model)
    model.save_pretrained(folder)
    state = torch.get_rng_state()
    again = MultimodalModel.from_pretrained(folder)
    assert torch.equal(state, torch.get_rng_state())
    assert type(again) is type(model)
    assert not again.training
    assert again.modalities == model.modalities
    assert list(again.modalities) == list(model.modalities)
    assert same_tensors(draws(again), before)
    assert same_tensors(dict(again.state_dict()), dict(model.state_dict()))
    assert sorted(p.name for p in folder.iterdir()) == FILES
    return again


@pytest.mark.parametrize("name", NAMES)
def test_every_model_draws_the_same_again(name: str, tmp_path: Path) -> None:
    check_same(make(name), tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_way_to_build_a_model(name: str, tmp_path: Path) -> None:
    with isolated_rng(0):
        model = OTHERS[name]().eval()
    check_same(model, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_model_continues_as_the_one_that_was_saved(name: str, tmp_path: Path) -> None:
    model, data = make(name), dataset(64)
    settings = TrainingSettings(epochs=1, batch_size=16, learning_rate=1e-3)
    train(model, data, settings, seed=0)
    again = check_same(model.eval(), tmp_path)
    for one in (model, again):
        train(one, data, settings, seed=1)
    assert same_tensors(draws(model), draws(again))


def test_copies_and_pickles_of_a_model_are_saved_too(tmp_path: Path) -> None:
    model = make("covae")
    for i, other in enumerate((copy.deepcopy(model), pickle.loads(pickle.dumps(model)))):
        assert same_tensors(draws(check_same(other, tmp_path / str(i))), draws(model))


def test_types_of_numbers_are_kept(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        model = make("mvae").to(dtype)
        model.save_pretrained(tmp_path / str(dtype))
        again = MultimodalModel.from_pretrained(tmp_path / str(dtype))
        assert {t.dtype for t in again.parameters()} == {dtype}
        assert same_tensors(dict(model.state_dict()), dict(again.state_dict()))


def test_odd_arguments(tmp_path: Path) -> None:
    specs = {"class": ModalitySpec((2,), range=(0.0, 1e300), unit="m"), "arguments": ModalitySpec((3,))}
    model = GMRFMCVAE(specs, ramp=[0.1, 0.2], hidden_dtype=torch.bfloat16, kept=0.5, mask_seed=3).eval()
    again = check_same(model, tmp_path)
    assert again.ramp == model.ramp
    assert torch.equal(again.mask, model.mask)


def test_layers_of_torch_are_known(tmp_path: Path) -> None:
    heads = {m: nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 3, bias=False)) for m in "ab"}
    specs = dict.fromkeys("ab", ModalitySpec((3,)))
    model = GMRFMCVAE(specs, decoders=heads).eval()
    assert check_same(model, tmp_path).decoders["a"][3].bias is None


def test_what_two_parts_share_is_shared_again(tmp_path: Path) -> None:
    specs = dict.fromkeys("ab", ModalitySpec((3,)))
    encoder, decoder = GaussianMLPEncoder(3, 2, widths=(4,)), MLP(2, (4,), 3, activation=nn.Tanh)
    model = GMRFMCVAE(specs, encoders=dict.fromkeys("ab", encoder), decoders=dict.fromkeys("ab", decoder)).eval()
    again = check_same(model, tmp_path)
    assert again.encoders["a"] is again.encoders["b"]
    assert again.decoders["a"] is again.decoders["b"]


def test_every_name_of_the_registry_is_a_class_of_the_package() -> None:
    from importlib import import_module

    found = {name: vars(import_module(module))[leaf] for name, (module, leaf) in CLASSES.items()}
    for name, cls in found.items():
        assert (cls.__module__, cls.__qualname__) == CLASSES[name]
        assert getattr(cls.__init__, "records", False) is issubclass(cls, nn.Module), name
    assert len(set(found.values())) == len(found)


def test_default_arguments_are_written_down() -> None:
    value = encode(make("gmrf"))
    assert value["class"] == "GMRFMCVAE"
    assert value["arguments"]["epsilon"] == 0.9
    assert value["arguments"]["modalities"]["mapping"]["a"]["class"] == "ModalitySpec"


class Own(nn.Module):
    """A decoder of one's own, which keeps its arguments."""

    built = 0

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        type(self).built += 1
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z)


class Kept(Own):
    pass


Kept = repro.rebuildable(Kept)


@repro.rebuildable
class Further(Kept):
    def __init__(self, scale: float) -> None:
        super().__init__(2, 3)
        self.scale = scale


def with_decoders(cls: type[nn.Module], *arguments: Any) -> GMRFMCVAE:
    specs = dict.fromkeys("ab", ModalitySpec((3,)))
    return GMRFMCVAE(specs, latent_dim=2, decoders={m: cls(*arguments) for m in specs}).eval()


def line(folder: Path | str, **options: Any) -> str:
    """The one line that loading ends with."""
    with pytest.raises(ValueError, match=r".") as caught:
        MultimodalModel.from_pretrained(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def test_networks_of_one_s_own_need_consent(tmp_path: Path) -> None:
    model = with_decoders(Kept, 2, 3)
    model.save_pretrained(tmp_path)
    built = Kept.built
    assert f"{__name__}:Kept is a class from outside this package; give the network" in line(tmp_path)
    assert Kept.built == built
    again = MultimodalModel.from_pretrained(tmp_path, trust_classes=True)
    assert type(again.decoders["a"]) is Kept
    assert same_tensors(draws(again), draws(model))
    given = MultimodalModel.from_pretrained(tmp_path, decoders={m: Own(2, 3) for m in "ab"})
    assert same_tensors(draws(given), draws(model))


def test_networks_of_one_s_own_that_keep_nothing(tmp_path: Path) -> None:
    model = with_decoders(Own, 2, 3)
    model.save_pretrained(tmp_path)
    for trusted in (False, True):
        text = line(tmp_path, trust_classes=trusted)
        assert f"the arguments of {__name__}:Own, a class from outside this package, are not in the file" in text
    given = MultimodalModel.from_pretrained(tmp_path, decoders={m: Own(2, 3) for m in "ab"})
    assert same_tensors(draws(given), draws(model))
    assert "the weights lack" in line(tmp_path, decoders={m: MLP(2, (4,), 3) for m in "ab"})


def test_a_class_with_another_init_keeps_its_own_arguments() -> None:
    assert construction_of(Further(0.5)).arguments == {"scale": 0.5}
    assert construction_of(Own(2, 3)).arguments is None

    class Local(Kept):
        def __init__(self) -> None:
            super().__init__(2, 3)

    assert construction_of(Local()).arguments is None  # not those of the class that it adds to


class OwnModel(GMRFMCVAE):
    """A model of one's own."""

    def __init__(self, modalities: Mapping[str, ModalitySpec], *, factor: float = 2.0) -> None:
        super().__init__(modalities, latent_dim=2)
        self.factor = factor


def test_a_model_of_one_s_own_is_loaded_by_its_class(tmp_path: Path) -> None:
    model = OwnModel(SPECS, factor=3.0).eval()
    model.save_pretrained(tmp_path)
    assert "OwnModel is a class from outside" in line(tmp_path)
    again = OwnModel.from_pretrained(tmp_path)
    assert again.factor == 3.0
    assert same_tensors(draws(again), draws(model))


def test_another_class_than_asked_for(tmp_path: Path) -> None:
    make("mvae").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is of class Baseline, not GMRFMCVAE"):
        GMRFMCVAE.from_pretrained(tmp_path)


def test_what_cannot_be_written_down_is_not_saved(tmp_path: Path) -> None:
    @repro.rebuildable
    class Function(nn.Module):
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 3)

    with pytest.raises(ValueError, match=r"GMRFMCVAE.decoders\['a'\].function is a function, which no file can"):
        with_decoders(Function, lambda x: x).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "beta", 0.7), "beta is 0.7, its arguments give 0.3"),
        (lambda m: m.decoders.update({"a": nn.Linear(2, 3)}), "decoders.a"),
        (lambda m: m.decoders["a"].__setattr__("linear", nn.Linear(256, 4)), "decoders.a.linear"),
    ],
)
def test_a_model_that_was_changed_after_it_was_built(tmp_path: Path, change: Any, message: str) -> None:
    model = make("gmrf")
    change(model)
    with pytest.raises(ValueError, match=f"GMRFMCVAE was changed after it was built: {message}"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def changed(folder: Path, **fields: Any) -> None:
    """A configuration with other content, signed as the package would sign it."""
    from repro.weights.saved import _digest

    value = json.loads((folder / "config.json").read_text()) | fields
    value["digest"] = _digest(value)
    (folder / "config.json").write_text(json.dumps(value))


def test_a_folder_that_was_changed(tmp_path: Path) -> None:
    model = make("gmrf")
    model.save_pretrained(tmp_path)
    for name in ("config.json", "model.safetensors"):
        path = tmp_path / name
        content = path.read_bytes()
        for damaged in (content[:-9], content[:-1] + bytes([content[-1] ^ 1]), b"", content.replace(b"2", b"3", 1)):
            path.write_bytes(damaged)
            assert line(tmp_path).count(name) >= 1
        path.unlink()
        assert f"{name} cannot be read" in line(tmp_path)
        path.write_bytes(content)
    assert same_tensors(draws(MultimodalModel.from_pretrained(tmp_path)), draws(model))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "describes no class"),
        ([1], "describes no class"),
        ({"class": "GMRFMCVAE"}, "describes no class"),
        ({"class": "os:system", "arguments": {"command": "touch /tmp/x"}}, "os:system is a class from outside"),
        ({"class": "os.system", "arguments": {}}, "there is no class 'os.system' in this package"),
        ({"class": "repro.engine.store:RunStore", "arguments": {}}, "there is no class"),
        ({"class": "torch.nn.Module", "arguments": {}}, "there is no class"),
        ({"class": "torch.nn.Linear", "arguments": {"in_features": -1, "out_features": 2}}, "cannot be built"),
        ({"class": "torch.nn.Linear", "arguments": {"in_features": 2, "out_features": 2}}, "the weights lack"),
        ({"class": "GMRFMCVAE", "arguments": {"modalities": {"eval": "1"}}}, "describes nothing"),
        ({"class": "GMRFMCVAE", "arguments": {"modalities": {"mapping": {}}}}, "needs at least one modality"),
        ({"class": "GMRFMCVAE", "arguments": {"path": 1}}, r"GMRFMCVAE has no arguments \['path'\]"),
        ({"class": "GMRFMCVAE", "arguments": {"modalities": {"same": 7}}}, "describes nothing"),
        ({"class": "GMRFMCVAE", "arguments": {"hidden_dtype": {"dtype": "object"}}}, "describes nothing"),
        ({"class": "MLP", "arguments": {"activation": {"layer": "Module"}}}, "describes nothing"),
        ({"class": "ModalitySpec", "arguments": {"shape": {"tuple": [2]}}}, "describes no model"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, model: Any, message: str) -> None:
    make("gmrf").save_pretrained(tmp_path)
    changed(tmp_path, model=model)
    with pytest.raises(ValueError, match=message) as caught:
        MultimodalModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_consent_is_for_networks_alone(tmp_path: Path) -> None:
    make("gmrf").save_pretrained(tmp_path)
    target = tmp_path / "made"
    for name in ("os:mkdir", "pathlib:Path", "nowhere_at_all:Net", f"{__name__}:Own", "torch.nn:Linear"):
        changed(tmp_path, model={"class": name, "arguments": {"path": str(target)}})
        assert name in line(tmp_path, trust_classes=True)
    assert not target.exists()


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    make("gmrf").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    assert "config.json is not" in line(tmp_path)


def test_weights_of_another_model(tmp_path: Path) -> None:
    make("gmrf").save_pretrained(tmp_path / "one")
    make("almrf").save_pretrained(tmp_path / "other")
    contents = read(tmp_path / "other")["model.safetensors"]
    (tmp_path / "one" / "model.safetensors").write_bytes(contents)
    assert "config.json says" in line(tmp_path / "one")
    tensors = load_file(tmp_path / "other" / "model.safetensors")
    save_file(tensors, tmp_path / "one" / "model.safetensors")
    from hashlib import sha256

    blob = (tmp_path / "one" / "model.safetensors").read_bytes()
    changed(tmp_path / "one", weights={"bytes": len(blob), "sha256": sha256(blob).hexdigest()})
    assert "they are not those of GMRFMCVAE" in line(tmp_path / "one")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    make("gmrf").save_pretrained(tmp_path)
    target = tmp_path.parent / "opened"
    evil = b"cbuiltins\nopen\n(V%b\nVw\ntR." % str(target).encode()
    for name in ("pytorch_model.bin", "model.pt", "x.pkl", "extra.ckpt"):
        (tmp_path / name).write_bytes(evil)
        assert f"{name!r} may hold a pickle, which is never opened" in line(tmp_path)
        (tmp_path / name).unlink()
    content = (tmp_path / "model.safetensors").read_bytes()
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes(evil)
        line(tmp_path, trust_classes=True)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert not target.exists()


def test_folders_that_are_none(tmp_path: Path) -> None:
    assert "there is no folder" in line(tmp_path / "none")
    assert "config.json cannot be read" in line(tmp_path)
    make("gmrf").save_pretrained(tmp_path)
    assert "is a folder, which has no revision 'main'" in line(tmp_path, revision="main")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*file"):
        make("gmrf").save_pretrained(tmp_path / "file")


def test_saving_again_keeps_the_reader_s_card(tmp_path: Path) -> None:
    make("gmrf").save_pretrained(tmp_path, license="mit")
    assert "license: mit" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine")
    other = make("almrf", seed=1)
    other.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert same_tensors(draws(MultimodalModel.from_pretrained(tmp_path)), draws(other))


def test_a_description_alone_builds_an_untrained_model() -> None:
    first, again = make("sbm"), decode(json.loads(json.dumps(encode(make("sbm")))))
    assert {k: v.shape for k, v in first.state_dict().items()} == {k: v.shape for k, v in again.state_dict().items()}


def test_the_card_is_one_of_the_hub(tmp_path: Path) -> None:
    make("gmrf").save_pretrained(tmp_path, license="mit")
    card = ModelCard((tmp_path / "README.md").read_text(), ignore_metadata_errors=False)
    assert (card.data.license, card.data.library_name) == ("mit", "repro")
    assert "multimodal" in card.data.tags
    assert "| a | 3 | continuous |" in card.text


@pytest.mark.parametrize("place", ["", " ", None, 3])
def test_a_folder_needs_a_name(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^a model is saved in a folder, not in "):
        make("gmrf").save_pretrained(place)
    with pytest.raises(ValueError, match=r"^a model is loaded from a folder or a repository, not from "):
        GMRFMCVAE.from_pretrained(place)
    with pytest.raises(ValueError, match=r"^a model is loaded by its name, a folder or a repository, not by "):
        repro.load_model(place)
    assert not list(tmp_path.iterdir())


def test_devices_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    make("gmrf").save_pretrained(tmp_path)
    for load in (GMRFMCVAE.from_pretrained, repro.load_model):
        with pytest.raises(ValueError, match=r"^device 'gpu': ") as caught:
            load(tmp_path, device="gpu")  # type: ignore[operator]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("licence", ["", "a\nb", 3])
def test_a_licence_is_one_line(licence: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^license is .*, must be a name such as 'mit', or None$"):
        make("gmrf").save_pretrained(tmp_path / "x", license=licence)
    assert not (tmp_path / "x").exists()


def test_a_card_of_odd_names_is_a_table_and_runs(tmp_path: Path) -> None:
    specs = {'a "b" \\ | c': ModalitySpec((3,)), "d": ModalitySpec((4,))}
    GMRFMCVAE(specs, latent_dim=2).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    (row,) = [line for line in card.splitlines() if line.startswith("| a ")]
    assert len(row.replace("\\\\", "").replace("\\|", "").split("|")) == 7
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(tmp_path))
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert tuple(scope["rest"]["d"].shape) == (5, 10, 4)

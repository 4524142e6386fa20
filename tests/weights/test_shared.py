"""A user's model on a local Hub by the real client: pushed, fetched, refused where it is not what the Hub states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import constants

from repro.errors import HubError
from repro.model import MultimodalModel
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from tests.support.models import make, same_tensors

if TYPE_CHECKING:
    from tests.support.hub import ModelHub

pytest_plugins = ["tests.support.hub"]

REPO = "somebody/a-model"
WEIGHTS = "model.safetensors"


@pytest.fixture
def users(model_hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelHub:
    """The Hub, and an empty cache of its client."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model_hub.cards_of_users = True
    return model_hub


def draws(model: MultimodalModel) -> dict[str, torch.Tensor]:
    return model.generate(5, generator=torch.Generator().manual_seed(3))


def line(kind: type[Exception] = HubError, **options: Any) -> str:
    """The one line that loading ends with."""
    with pytest.raises(kind) as caught:
        MultimodalModel.from_pretrained(REPO, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "hf_not_to_be_printed" not in text
    assert REPO in text
    return text


def replaced(hub: ModelHub, **files: bytes | None) -> str:
    """A commit with some files changed or taken away."""
    repo = hub.repos[REPO]
    changed = repo.commits[-1][1] | {k.replace("__", "."): v for k, v in files.items()}
    return repo.add({k: v for k, v in changed.items() if v is not None})


def test_push_and_load(users: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("covae")
    address = model.push_to_hub(REPO, license="mit")
    assert address.startswith(f"{users.url}/{REPO}/commit/")
    assert set(users.repos[REPO].commits[-1][1]) == {".gitattributes", "README.md", "config.json", WEIGHTS}
    assert users.repos[REPO].messages[-1] == "Upload CoVAE"
    again = MultimodalModel.from_pretrained(REPO)
    assert same_tensors(draws(again), draws(model))
    sent = users.sent[WEIGHTS]
    users.calls.clear()
    assert same_tensors(draws(MultimodalModel.from_pretrained(REPO)), draws(model))
    assert users.sent[WEIGHTS] == sent
    users.close()
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    for revision in (None, "main", users.repos[REPO].commits[-1][0]):
        assert same_tensors(draws(MultimodalModel.from_pretrained(REPO, revision=revision)), draws(model))


def test_revisions(users: ModelHub) -> None:
    old, new = make("gmrf"), make("gmrf", seed=1)
    old.push_to_hub(REPO)
    first = users.repos[REPO].commits[-1][0]
    users.repos[REPO].tags["v1"] = first
    new.push_to_hub(REPO)
    for revision, model in {None: new, "main": new, "v1": old, first: old}.items():
        assert same_tensors(draws(GMRFMCVAE.from_pretrained(REPO, revision=revision)), draws(model))
    assert "at revision v9 cannot be fetched" in line(revision="v9")


def test_nothing_is_uploaded_twice_and_a_card_stays(users: ModelHub) -> None:
    model = make("gmrf")
    model.push_to_hub(REPO)
    replaced(users, README__md=b"mine")
    number, stored = len(users.repos[REPO].commits), users.count("PUT /store")
    model.push_to_hub(REPO)
    assert len(users.repos[REPO].commits) == number
    assert users.count("PUT /store") == stored == 1
    make("gmrf", seed=1).push_to_hub(REPO)
    assert users.repos[REPO].commits[-1][1]["README.md"] == b"mine"
    assert users.count("PUT /store") == 2


def test_a_push_that_was_cut_commits_nothing_and_continues(users: ModelHub) -> None:
    model = make("gmrf")
    users.faults["POST .*/commit/"] = ["500", "ok"]
    with pytest.raises(HubError, match=f"push to {REPO} at .* failed: .*nothing was committed"):
        model.push_to_hub(REPO)
    assert len(users.repos[REPO].commits) == 1
    model.push_to_hub(REPO)
    assert users.count("PUT /store") == 1
    assert same_tensors(draws(MultimodalModel.from_pretrained(REPO)), draws(model))


def test_somebody_else_s_push_in_between_is_not_overwritten(users: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("gmrf")
    model.push_to_hub(REPO)
    upload = users.store

    def meanwhile(path: str, body: bytes) -> tuple[int, Any]:
        replaced(users, config__json=b"theirs")
        return upload(path, body)

    monkeypatch.setattr(users, "store", meanwhile)
    with pytest.raises(HubError, match="A commit has happened since"):
        make("gmrf", seed=1).push_to_hub(REPO)
    assert users.repos[REPO].commits[-1][1]["config.json"] == b"theirs"


def test_no_token_and_no_name(users: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="push: the repository is 'copula', must be such as user/name"):
        make("gmrf").push_to_hub("copula")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="Invalid username or password"):
        make("gmrf").push_to_hub(REPO)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(HubError, match="no token for the Hub"):
        make("gmrf").push_to_hub(REPO)
    assert users.repos == {}
    assert "Repository Not Found" in line() or "Invalid" in line()


def test_a_flipped_byte_is_fetched_once_more_or_refused(users: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("gmrf")
    model.push_to_hub(REPO)
    users.faults[f"GET .*/{WEIGHTS}"] = ["flip", "ok"]
    assert same_tensors(draws(MultimodalModel.from_pretrained(REPO)), draws(model))
    (blob,) = {p.resolve() for p in Path(constants.HF_HUB_CACHE).rglob(WEIGHTS)}
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    users.faults[f"GET .*/{WEIGHTS}"] = ["flip"]
    assert f"{WEIGHTS} has hash" in line()
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        blob.write_bytes(content)
        assert f"{WEIGHTS} in the Hub's cache is damaged" in line()
    users.faults.clear()
    assert same_tensors(draws(MultimodalModel.from_pretrained(REPO)), draws(model))


def test_repositories_that_are_refused(users: ModelHub, tmp_path: Path) -> None:
    model = make("gmrf")
    model.push_to_hub(REPO)
    sound = users.repos[REPO].commits[-1][1]
    target = tmp_path / "opened"
    evil = b"cbuiltins\nopen\n(V%b\nVw\ntR." % str(target).encode()
    cases = {
        "'pytorch_model.bin' may hold a pickle": {"pytorch_model__bin": evil},
        "'sub/x.pkl' may hold a pickle": {"sub/x__pkl": evil},
        "it has no model.safetensors": {"model__safetensors": None},
        "it has no config.json": {"config__json": None},
        "config.json is not JSON": {"config__json": evil},
        "config.json is not of a model that this package saved": {"config__json": b"{}"},
        "config.json is not as it was saved": {"config__json": sound["config.json"].replace(b"0.3", b"0.4", 1)},
        "model.safetensors has sha256": {"model__safetensors": sound[WEIGHTS][:-1] + b"?"},
        "model.safetensors has 99 bytes": {"model__safetensors": sound[WEIGHTS][:99]},
        "bytes, config.json says": {"model__safetensors": evil},
    }
    for message, files in cases.items():
        fetched = users.count("GET .*/resolve/")
        replaced(users, **files)
        assert message in line(ValueError, trust_classes=True)
        if "pickle" in message or "has no" in message:
            assert users.count("GET .*/resolve/") == fetched
        users.repos[REPO].add(sound)
    assert not target.exists()
    assert same_tensors(draws(MultimodalModel.from_pretrained(REPO)), draws(model))


def test_what_is_not_there(users: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be fetched" in line()
    monkeypatch.setenv("REPRO_OFFLINE", "1")
    assert "is not in the Hub's cache" in line()
    with pytest.raises(HubError, match="the network is forbidden"):
        make("gmrf").push_to_hub(REPO)
    with pytest.raises(ValueError, match="there is no folder"):
        MultimodalModel.from_pretrained("../a/b")

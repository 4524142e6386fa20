"""Pushing to a local Hub by the real client: what goes up, what is refused, and what a cut leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import constants

from repro import __version__
from repro.cli.main import main
from repro.errors import HubError, RunError
from repro.hub import package as hub_package
from repro.hub import push as hub_push
from repro.hub import registry as hub_models
from repro.hub.config import FILES, PICTURE
from repro.hub.load import load_model
from repro.hub.manifest import entries, read_manifest
from repro.hub.package import ship
from repro.hub.push import collect, push
from repro.hub.registry import models
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.records import Record
from repro.weights.folder import package_folder
from tests.support import weights as helpers_weights
from tests.support.weights import NAME, REPO

if TYPE_CHECKING:
    from tests.support.hub import ModelHub
    from tests.support.weights import Shelf

pytest_plugins = ["tests.support.hub"]

Capture = pytest.CaptureFixture[str]
PACKAGE = package_folder()
TAG = f"v{__version__}"
OTHER = "gmrf_mcvae/copula-mvae"


def pushed(shelf: Shelf, *names: str) -> None:
    push(REPO, collect(names, shelf.store, shelf.figures), upload=True)


def test_a_dry_run_lists_files_and_cards(model_hub: ModelHub, shelf: Shelf, capsys: Capture) -> None:
    entry = shelf.ship()
    assert main(["weights", "push", REPO]) == 0
    printed = capsys.readouterr().out
    for file in FILES:
        assert f"sha256 {entry.sha256[file]}" in printed
        assert f"{entry.bytes[file] / 1e6:.3f} MB" in printed
    assert f"\n{NAME}/README.md:\n    ---\n    datasets:" in printed
    assert "\nREADME.md:\n" in printed
    assert f"nothing was uploaded; with --yes it goes to the model repository {REPO}" in printed
    assert model_hub.calls == []


def test_a_push_a_tag_and_pinned_revisions(model_hub: ModelHub, shelf: Shelf, capsys: Capture) -> None:
    shelf.ship()
    shelf.record(OTHER)  # lies in its run directory alone
    assert main(["weights", "push", REPO, "--yes"]) == 0
    printed = capsys.readouterr()
    repo = model_hub.repos[REPO]
    assert repo.messages == ["", f"Weights of repro {__version__}"]
    commit, files = repo.commits[-1]
    assert set(files) == {
        ".gitattributes",
        "README.md",
        *(f"{n}/{f}" for n in (NAME, OTHER) for f in (*FILES, PICTURE)),
    }
    assert repo.tags == {TAG: commit}
    found = read_manifest()
    assert {(e.repo, e.revision) for e in found.values()} == {(REPO, commit)}
    assert set(found) == {NAME, OTHER}
    assert model_hub.token not in printed.out + printed.err
    # What went up is what is pulled, of the commit and of the tag.
    for file in FILES:
        (shelf.weights / NAME / file).unlink()
    for name in (NAME, OTHER):
        assert load_model(name).generate(1)["m0"].shape == (1, 2)
        load_model(name, revision=TAG)


def test_building_blocks_go_up_in_the_form_of_the_hub(model_hub: ModelHub, shelf: Shelf) -> None:
    name = "vaegan-decoder"
    shutil.copytree(PACKAGE / name, shelf.weights / name)
    lines = (PACKAGE / "manifest.toml").read_text().split("\n\n")
    (shelf.weights / "manifest.toml").write_text(next(part for part in lines if part.startswith(f"[{name}]")) + "\n")
    assert set(entries()) == {name}
    packaged = load_model(name)
    pushed(shelf)
    config = json.loads(model_hub.repos[REPO].commits[-1][1][f"{name}/config.json"])
    assert (config["class"], config["arguments"]) == ("repro.networks.vaegan.Decoder", {"latent_dim": 10})
    assert load_model(name).latent_dim == 10  # still from the package
    assert model_hub.count("^GET .*/resolve/") == 0
    shutil.rmtree(shelf.weights / name)
    pulled = load_model(name)
    assert model_hub.count("^GET .*/resolve/") == 4
    assert all(torch.equal(v, packaged.state_dict()[k]) for k, v in pulled.state_dict().items())


def test_a_push_without_changes_makes_no_commit(model_hub: ModelHub, shelf: Shelf, capsys: Capture) -> None:
    shelf.ship()
    pushed(shelf)
    manifest, repo = shelf.manifest.read_bytes(), model_hub.repos[REPO]
    repo.add(repo.commits[-1][1] | {"notes.txt": b"by hand"})
    pushed(shelf)
    assert "unchanged" in capsys.readouterr().out
    assert len(repo.commits) == 3
    assert shelf.manifest.read_bytes() == manifest
    assert model_hub.count("^PUT /store/") == 1


def test_a_later_model_joins_and_the_tag_follows(model_hub: ModelHub, shelf: Shelf) -> None:
    shelf.ship()
    pushed(shelf)
    first = read_manifest()[NAME]
    shelf.record(OTHER)
    pushed(shelf, OTHER)
    repo = model_hub.repos[REPO]
    assert repo.tags == {TAG: repo.commits[-1][0]}
    assert read_manifest()[NAME] == first
    assert read_manifest()[OTHER].revision == repo.commits[-1][0]
    readme = repo.commits[-1][1]["README.md"].decode()
    assert all(f"[{name}]" in readme for name in (NAME, OTHER))
    # Another training of the same run ships in its place; what was pinned before is no longer it.
    record = shelf.record()
    (shelf.store.directory(record.spec) / "record.json").write_text(replace(record, training_seconds=2.0).to_json())
    ship(NAME, shelf.store, figures=shelf.figures)
    assert read_manifest()[NAME].revision == ""


def test_large_files_and_small_ones(model_hub: ModelHub, shelf: Shelf, tmp_path: Path) -> None:
    shelf.ship()
    (bundle,) = collect([], shelf.store, shelf.figures)
    large, text = tmp_path / "large", b"long " * 2_200_000
    large.write_bytes(bytes(range(256)) * 50_000)
    contents = {**bundle.contents, "weights.safetensors": large, "record.json": text}
    sizes = {**bundle.entry.bytes, "weights.safetensors": 12_800_000, "record.json": len(text)}
    push(REPO, [replace(bundle, contents=contents, entry=replace(bundle.entry, bytes=sizes))], upload=True)
    files = model_hub.repos[REPO].commits[-1][1]
    assert files[f"{NAME}/weights.safetensors"] == large.read_bytes()
    assert files[f"{NAME}/record.json"] == text
    assert sorted(map(len, model_hub.objects.values())) == [11_000_000, 12_800_000]


def test_a_cut_push_continues(model_hub: ModelHub, shelf: Shelf) -> None:
    for name in (NAME, OTHER):
        shelf.ship(name)
    manifest = shelf.manifest.read_bytes()
    model_hub.faults = {"^PUT /store/": ["ok", "403"]}
    with pytest.raises(HubError, match=r"push to user/models at .* failed: .*; what was sent is kept; the same"):
        pushed(shelf)
    repo = model_hub.repos[REPO]
    assert len(repo.commits) == 1  # of its creation
    assert repo.tags == {}
    assert shelf.manifest.read_bytes() == manifest
    model_hub.faults = {"^POST .*/commit/": ["drop", "ok"]}
    with pytest.raises(HubError, match="failed"):
        pushed(shelf)
    model_hub.faults = {"^POST .*/tag/": ["500", "ok"]}
    with pytest.raises(HubError, match="500"):
        pushed(shelf)
    assert len(repo.commits) == 2
    assert shelf.manifest.read_bytes() == manifest
    model_hub.faults = {}
    pushed(shelf)
    assert len(repo.commits) == 2
    assert repo.tags == {TAG: repo.commits[-1][0]}
    assert {e.revision for e in read_manifest().values()} == {repo.commits[-1][0]}
    assert model_hub.count("^PUT /store/") == 3  # each once, and the refused one again


@pytest.mark.slow
def test_many_models_go_up_in_one_commit_and_none_twice(model_hub: ModelHub, shelf: Shelf) -> None:
    names = [name for name in models() if name.startswith(("gmrf_mcvae/copula", "covae/tcga_brca"))]
    assert len(names) == 21
    for i, name in enumerate(names):
        shelf.record(name)  # in run directories; some ship in the package too
        if i < 3:
            ship(name, shelf.store, figures=shelf.figures)
    weights = {shelf.store.record(models()[name].spec()).weights_sha256 for name in names}
    model_hub.faults = {"^PUT /store/": [*["ok"] * 6, "drop", "403"]}
    with pytest.raises(HubError, match="what was sent is kept; the same command continues"):
        pushed(shelf)
    stored = set(model_hub.objects)
    assert 0 < len(stored) < len(weights)
    model_hub.faults, model_hub.calls = {}, []
    pushed(shelf)
    repo = model_hub.repos[REPO]
    assert {c.rpartition("/")[2] for c in model_hub.calls if c.startswith("PUT /store/")} == weights - stored
    assert len(repo.commits) == 2
    assert set(repo.commits[-1][1]) == {
        ".gitattributes",
        "README.md",
        *(f"{n}/{f}" for n in names for f in (*FILES, PICTURE)),
    }
    assert repo.tags == {TAG: repo.commits[-1][0]}
    assert {n: e.revision for n, e in read_manifest().items()} == dict.fromkeys(names, repo.commits[-1][0])
    readme = repo.commits[-1][1]["README.md"].decode()
    assert all(f"[{name}]({name}/README.md)" in readme for name in names)
    model_hub.calls = []
    pushed(shelf)
    assert model_hub.count("^PUT /store/") == 0
    assert len(repo.commits) == 2


def test_another_maintainer_s_push_in_between_is_refused(
    model_hub: ModelHub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.ship()
    pushed(shelf)
    shelf.ship(OTHER)
    manifest, repo, store = shelf.manifest.read_bytes(), model_hub.repos[REPO], model_hub.store

    def meanwhile(path: str, body: bytes) -> tuple[int, object]:
        if len(repo.commits) == 2:
            repo.add(repo.commits[-1][1] | {f"{OTHER}/README.md": b"theirs"})
        return store(path, body)

    monkeypatch.setattr(model_hub, "store", meanwhile)
    with pytest.raises(HubError, match=r"failed: .*A commit has happened since .*the same command continues"):
        pushed(shelf)
    assert repo.commits[-1][1][f"{OTHER}/README.md"] == b"theirs"
    assert len(repo.commits) == 3
    assert repo.tags == {TAG: repo.commits[1][0]}
    assert shelf.manifest.read_bytes() == manifest


def theirs(hub: ModelHub, **files: bytes | None) -> str:
    """A commit of another maintainer, made while nobody pushed here."""
    repo = hub.repos[REPO]
    changed = repo.commits[-1][1] | files
    return repo.add({k: v for k, v in changed.items() if v is not None}, "theirs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({f"{NAME}/weights.safetensors": b"theirs"}, f"has pushed {NAME}/weights.safetensors since"),
        ({f"{NAME}/README.md": b"theirs"}, f"has pushed {NAME}/README.md since"),
        ({f"{NAME}/record.json": None}, f"has pushed {NAME}/record.json since"),
        ({f"{OTHER}/{f}": b"theirs" for f in FILES} | {"README.md": b"theirs"}, "has pushed README.md since"),
        ({"README.md": b"theirs"}, "has pushed README.md since"),
        ({f"{NAME}/{f}": b"theirs" for f in FILES} | {"README.md": b"theirs"}, "README.md and 4 more since"),
    ],
)
def test_another_maintainer_s_push_before_ours_is_refused(
    model_hub: ModelHub, shelf: Shelf, files: dict[str, bytes | None], message: str, capsys: Capture
) -> None:
    shelf.ship()
    pushed(shelf)
    repo, manifest = model_hub.repos[REPO], shelf.manifest.read_bytes()
    first = repo.commits[-1][0]
    head = theirs(model_hub, **files)
    held = repo.commits[-1][1]
    for _ in range(2):  # and it stays so
        model_hub.calls.clear()
        line = failed(capsys, REPO, "--yes")
        assert message in line
        assert f"--onto {head[:12]}" in line
        assert (repo.commits[-1], repo.tags) == ((head, held), {TAG: first})
        assert shelf.manifest.read_bytes() == manifest
        assert model_hub.count("^PUT /store/") == 0
    assert message in failed(capsys, REPO, "--yes", "--onto", first[:12])
    assert main(["weights", "push", REPO, "--yes", "--onto", head[:12]]) == 0
    now = repo.commits[-1][1]
    assert all(now[f"{NAME}/{f}"] == (shelf.weights / NAME / f).read_bytes() for f in FILES)
    assert now["README.md"] != b"theirs"
    assert repo.tags == {TAG: repo.commits[-1][0]}
    capsys.readouterr()
    assert main(["weights", "push", REPO, "--yes"]) == 0
    assert "unchanged" in capsys.readouterr().out


def test_a_repository_that_somebody_else_filled_is_not_replaced(
    model_hub: ModelHub, shelf: Shelf, capsys: Capture
) -> None:
    shelf.ship()
    pushed(shelf)
    shelf.manifest.write_text("")
    shelf.ship(OTHER)
    for file in FILES:
        (shelf.weights / NAME / file).unlink()
    head = model_hub.repos[REPO].commits[-1][0]
    assert "somebody else has pushed README.md since" in failed(capsys, REPO, "--yes")
    assert model_hub.repos[REPO].commits[-1][0] == head


def failed(capsys: Capture, *arguments: str, code: int = 1) -> str:
    """The one line of a failed command."""
    capsys.readouterr()
    assert main(["weights", "push", *arguments]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_the_server_refuses(
    model_hub: ModelHub, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shelf.ship()
    model_hub.faults = {"validate-yaml": ["400"]}
    assert f"push to {REPO} at {model_hub.url} failed: " in failed(capsys, REPO, "--yes")
    assert len(model_hub.repos[REPO].commits) == 1
    model_hub.faults = {}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_one")
    line = failed(capsys, REPO, "--yes")
    assert "401" in line
    assert "hf_wrong_one" not in line
    model_hub.close()
    assert f"push to {REPO} at {model_hub.url} failed: " in failed(capsys, REPO, "--yes")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "no token for the Hub; set HF_TOKEN" in failed(capsys, REPO, "--yes")


def test_wrong_calls(shelf: Shelf, capsys: Capture) -> None:
    assert "the repository is 'name', must be such as user/name" in failed(capsys, "name", code=2)
    assert "unknown weights 'copula'" in failed(capsys, REPO, "copula", code=2)
    said = failed(capsys, REPO, "zzz", code=2)
    assert "unknown weights 'zzz'; `repro weights list` and `repro weights missing` show all" in said
    assert "nothing to push" in failed(capsys, REPO)
    assert "has no record" in failed(capsys, REPO, NAME)
    assert "does not lie in the package" in failed(capsys, REPO, "classifier-mnist")


@pytest.mark.parametrize("packaged", [False, True])
def test_what_is_not_sound_stays_here(model_hub: ModelHub, shelf: Shelf, packaged: bool) -> None:
    record = shelf.record()
    if packaged:
        shelf.ship()
    directory = shelf.weights / NAME if packaged else shelf.store.directory(record.spec)

    def refused(message: str) -> None:
        for names in ([], [NAME]):
            with pytest.raises((RunError, ValueError), match=message):
                push(REPO, collect(names, shelf.store, shelf.figures), upload=True)

    def note(changed: Record) -> None:
        (directory / "record.json").write_text(changed.to_json())
        if packaged:  # as if it had been shipped so
            text = shelf.manifest.read_text()
            old = read_manifest()[NAME]
            digest = hashlib.sha256((directory / "record.json").read_bytes()).hexdigest()
            shelf.manifest.write_text(text.replace(old.sha256["record.json"], digest))

    for place in ("environment", "training"):
        environment = json.loads(json.dumps(dict(record.environment)))
        (environment if place == "environment" else environment["training"])["dirty"] = True
        note(replace(record, environment=environment))
        refused("from a checkout with changes")
    note(replace(record, weights_sha256="0" * 64))
    refused("not what (its record|the record of .*) was measured with")
    note(record)
    weights = directory / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused("not what the (manifest states|record of)")
    weights.write_bytes(content)
    assert collect([], shelf.store, shelf.figures)
    assert model_hub.calls == []


def test_smoke_runs_and_invalid_cards_stay_here(
    model_hub: ModelHub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.record()
    with monkeypatch.context() as patch:
        good = hub_package.model_card
        patch.setattr(hub_package, "model_card", lambda *a: good(*a).replace("license: mit\n", ""))
        with pytest.raises(ValueError, match=f"{NAME}: README.md: license is None"):
            collect([], shelf.store, shelf.figures)
    smoke = {NAME: replace(models()[NAME], spec=lambda: copula_spec("gmrf_mcvae", 0, "smoke"))}
    for module in (hub_models, hub_package, hub_push, helpers_weights):
        monkeypatch.setattr(module, "models", lambda: smoke)
    assert shelf.record().spec.profile == "smoke"
    with pytest.raises(RunError, match="is of the smoke profile"):
        collect([], shelf.store, shelf.figures)
    assert model_hub.calls == []


def test_shipping_compares_with_the_committed_record(shelf: Shelf) -> None:
    record = shelf.record()
    beside = shelf.figures / "gmrf_mcvae" / "records" / f"{record.spec.key}.json"
    beside.parent.mkdir(parents=True)
    beside.write_text(record.to_json())
    assert shelf.ship().committed == {"weights": "same", "value": 0.5}
    metrics = [replace(record.metrics[0], value=0.6), *record.metrics[1:]]
    beside.write_text(replace(record, weights_sha256="1" * 64, metrics=metrics).to_json())
    entry = shelf.ship()
    assert entry.committed == {"weights": "other", "value": 0.6}
    assert entry.value == 0.5
    assert "with other weights" in (shelf.weights / NAME / "README.md").read_text()
    beside.write_text(replace(record, data={"copula/train": "1" * 64}).to_json())
    with pytest.raises(RunError, match="trained or measured on other data than its record"):
        shelf.ship()


def test_large_models_do_not_ship(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro.hub.package.MOST_BYTES", 1000)
    with pytest.raises(RunError, match=r"ship inside the package; `repro weights push` takes it from its run"):
        shelf.ship()
    assert not (shelf.weights / NAME).exists()

"""Names, files, configurations, the manifest and the cards of weights, and what is refused."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from repro import __version__
from repro.artifacts.inventory import find
from repro.engine.store import file_sha256, read_record
from repro.errors import UsageError
from repro.hub.card import check_card, collection_card, model_card
from repro.hub.config import FILES, Config, check_files, check_name, parse_config
from repro.hub.load import build
from repro.hub.manifest import Entry, entries, manifest_path, packaged_files, read_manifest, write_manifest
from repro.hub.registry import find_entry, model_of, models, published_value
from repro.papers import experiment_of
from repro.records import Record
from repro.weights.folder import check_repo, package_folder

ROOT = Path(__file__).resolve().parents[2]
ENTRY = Entry(
    "gmrf_mcvae/copula",
    "0123456789abcdef",
    "test/a",
    0.74,
    dict.fromkeys(FILES, 10),
    dict.fromkeys(FILES, "0" * 64),
    "user/models",
    "a" * 40,
    {"weights": "other", "value": 0.75},
)


@pytest.mark.parametrize("name", ["gmrf_mcvae/copula", "gmrf_mcvae/copula-mmvae-plus", "vaegan-decoder"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "../x", "a/../b", "/a", "a/b/c", "a/", "A/b", "a b", "a//b", "a\\b", ".", 3, None]
)
def test_what_is_no_name(name: object) -> None:
    with pytest.raises(ValueError, match="is no name of weights"):
        check_name(name)


@pytest.mark.parametrize("repo", ["name", "a/b/c", "a/", "../b", "a/..", "a b/c", "", None, "a/b..c"])
def test_what_is_no_repository(repo: object) -> None:
    assert check_repo("User-1/my.models_2") == "User-1/my.models_2"
    with pytest.raises(ValueError, match="must be such as user/name"):
        check_repo(repo)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("../weights.safetensors", "leaves the model's folder"),
        ("/etc/passwd", "leaves the model's folder"),
        ("a/../../b", "leaves the model's folder"),
        ("..\\b", "leaves the model's folder"),
        ("pytorch_model.bin", "may hold a pickle, which is never opened"),
        ("model.PKL", "may hold a pickle"),
        ("modeling.py", "unknown file 'modeling.py'; a model has config.json"),
        ("sub/config.json", "unknown file 'sub/config.json'"),
    ],
)
def test_files(extra: str, message: str) -> None:
    check_files(FILES, "x")
    with pytest.raises(ValueError, match=message):
        check_files([*FILES, extra], "x")
    with pytest.raises(ValueError, match=r"x: no config.json, README.md"):
        check_files(FILES[1:3], "x")


def test_configurations_are_read_as_written() -> None:
    for name, model in models().items():
        config = model.config(model.spec())
        assert parse_config(config.to_json(), name) == config
        if not model.block:
            built = {k: v.shape for k, v in build(config, name).state_dict().items()}
            spec = model.spec()
            expected = experiment_of(spec).build(spec).state_dict()
            assert built == {k: v.shape for k, v in expected.items()}, name
    spec = models()["gmrf_mcvae/copula"].spec()
    config = Config("repro.papers.gmrf_mcvae.model", "GMRFMCVAE", spec=spec)
    assert parse_config(config.to_json(), "x") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "torch.nn.Linear"}, "class 'torch.nn.Linear' is none of this package"),
        ({"class": "os.system"}, "is none of this package"),
        ({"class": "repro.model.nn.Linear.__init__"}, "is none of this package"),
        ({"class": "repro..model.Loss"}, "is none of this package"),
        ({"class": "reproduction.model.Loss"}, "is none of this package"),
        ({"class": 3}, "class 3 is none of this package"),
        ({"format": "repro-weights/9"}, "not a repro-weights/1 configuration"),
        ({"auto_map": {}}, r"unknown fields \['auto_map'\]"),
        ({"arguments": [1]}, r"arguments are \[1\], must be a mapping"),
        ({"modalities": {"m0": 2}}, "must map each name to its shape"),
        ({"spec": {"paper": "x"}}, "a spec and arguments"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, object], message: str) -> None:
    value = {"format": "repro-weights/1", "class": "repro.networks.vaegan.Decoder", "arguments": {}} | change
    with pytest.raises(ValueError, match=message):
        parse_config(json.dumps(value), "x")


def test_configurations_that_are_no_json() -> None:
    for text in ("{", "[]", b"\x80\x04."):
        with pytest.raises(ValueError, match=r"^x: not"):
            parse_config(text, "x")
    value = {"format": "repro-weights/1", "class": "repro.networks.vaegan.Decoder", "spec": {"paper": "x"}}
    with pytest.raises(ValueError, match="fields"):
        parse_config(json.dumps(value), "x")


def test_the_manifest_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    assert read_manifest(path) == {}
    other = replace(ENTRY, name="vaegan-decoder", repo="", revision="", committed={})
    write_manifest({e.name: e for e in (other, ENTRY)}, path)
    assert read_manifest(path) == {e.name: e for e in (ENTRY, other)}
    before = path.read_bytes()
    write_manifest(read_manifest(path), path)
    assert path.read_bytes() == before
    assert "repo" not in tomllib.loads(before.decode())["vaegan-decoder"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["gmrf_mcvae/copula"]', '["../copula"]', "'../copula' is no name of weights"),
        ('"config.json" = 10', '"../config.json" = 10', "the path '../config.json' leaves the model's folder"),
        ('"config.json" = "0', '"model.pkl" = "0', "'model.pkl' may hold a pickle"),
        ('"user/models"', '"user/models/../x"', "the repository is 'user/models/../x'"),
        (f'"{"a" * 40}"', '"main"', "revision is 'main'"),
        (f'revision = "{"a" * 40}"\n', "", "a repository and its pinned revision go together"),
        ('"0123456789abcdef"', '"x"', "record is 'x'"),
        ("value = 0.74", 'value = "best"', "value is 'best', must be a number"),
        ("value = 0.74", "value = nan", "value is nan"),
        ('"README.md" = 10', '"README.md" = -1', "README.md has -1 bytes"),
        ('"record.json" = "' + "0" * 64, '"record.json" = "' + "0" * 63, "sha256 of record.json is"),
        ("metric =", "meteric =", "fields"),
        ("[", "[[", "not TOML"),
    ],
)
def test_manifests_that_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "manifest.toml"
    write_manifest({ENTRY.name: ENTRY}, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"manifest\.toml") as caught:
        read_manifest(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_weights_name_near_ones() -> None:
    with pytest.raises(UsageError, match="unknown weights 'vaegan-decodr'; did you mean vaegan-decoder"):
        find_entry("vaegan-decodr")
    with pytest.raises(UsageError, match="unknown weights 'zzz'; one of classifier-"):
        find_entry("zzz")


# Cards.


def committed(name: str = "gmrf_mcvae/copula") -> Record:
    spec = models()[name].spec()
    record = read_record(ROOT / "figures" / spec.paper / "records" / f"{spec.key}.json", spec)
    assert record is not None
    return record


def test_a_card_says_what_was_obtained_beside_what_was_published() -> None:
    model, record = models()["gmrf_mcvae/copula"], committed()
    text = model_card(model, record)
    check_card(text, "card")
    card = ModelCard(text, ignore_metadata_errors=False)
    assert (card.data.license, card.data.library_name, card.data.datasets) == ("mit", "repro", ["copula"])
    results = {r.metric_name: r.metric_value for r in card.data.eval_results}
    label = model.results[model.headline]
    assert results[f"{label} (obtained)"] == record.metric(model.headline).value
    assert results[f"{label} (published)"] == 0.86
    assert [
        r.metric_name for r in card.data.eval_results if "transport" in r.metric_name and "published" in r.metric_name
    ] == []
    assert 'repro.load_model("gmrf_mcvae/copula")' in text
    assert "repro run gmrf_mcvae/table1 --seeds 1" in text
    assert record.environment["training"]["commit"] in text
    assert "@article{oubari2025multicomponent" in text
    assert f"version {__version__}, commit" in text
    assert "another training" not in text


def test_a_card_says_where_the_tables_rest_on_other_weights() -> None:
    text = model_card(models()["gmrf_mcvae/copula"], committed(), {"weights": "other", "value": 0.7123})
    assert "with other weights" in text
    assert "0.7123" in text
    assert "other weights" not in model_card(
        models()["gmrf_mcvae/copula"], committed(), {"weights": "same", "value": 1}
    )


def test_the_collection_lists_every_model() -> None:
    headlines = {name: 0.5 + i for i, name in enumerate(models())}
    text = collection_card(headlines)
    check_card(text, "README.md")
    header = yaml.safe_load(text.split("---\n")[1])
    assert {m["value"] for r in header["model-index"][0]["results"] for m in r["metrics"]} >= set(headlines.values())
    for name in models():
        assert f"[{name}]({name}/README.md)" in text
        assert (f"]({name}/samples.png)" in text) is not models()[name].block


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("---\n", "", "no YAML front matter"),
        ("license: mit\n", "", "license is None, must be a non-empty str"),
        ("license: mit", "license: [mit]", "must be a non-empty str"),
        ("license: mit", "license: other", "licence 'other' needs a license_name"),
        ("library_name: repro", "library_name: ", "library_name is None"),
        ("- copula\n", "", "datasets is None"),
        ("- copula\n", "- imagenet\n", r"datasets ['imagenet'] have no card"),
        ("- wasserstein-distance\n", "- 3\n", "metrics are [3], must be names"),
        ("model-index:", "model_index:", "model-index is None"),
        ("    dataset:", "    data:", "the results are no model-index"),
        ("      value: 0.86", "      value: good", "must have results that are numbers"),
        ("datasets:", "datasets: {", "the front matter is not YAML"),
    ],
)
def test_cards_that_are_refused(old: str, new: str, message: str) -> None:
    text = model_card(models()["gmrf_mcvae/copula"], committed())
    assert old in text
    with pytest.raises(ValueError, match=r"^card: ") as caught:
        check_card(text.replace(old, new, 1), "card")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# What is published now.


def test_every_model_is_of_an_artifact_and_measured_by_it() -> None:
    for name, model in models().items():
        assert find(model.artifact).built
        assert check_name(name) == name
        if not model.block:
            assert model_of(model.spec()) is model
            for metric in model.columns:
                assert math.isfinite(published_value(model, metric) or math.nan), name
    assert model_of(replace(models()["gmrf_mcvae/copula"].spec(), seed=1)) is None


@pytest.mark.parametrize("name", [n for n, m in models().items() if not m.block])
def test_committed_records_carry_what_cards_show(name: str) -> None:
    record = committed(name)
    check_card(model_card(models()[name], record), name)


def test_what_the_manifest_states_of_the_package_is_there() -> None:
    assert set(read_manifest()) <= set(models())
    assert manifest_path().is_file() or read_manifest() == {}
    for name, entry in entries().items():
        hashes = packaged_files(entry)
        assert hashes is not None or entry.repo, f"{name} is neither in the package nor on the Hub"
        for file, expected in (hashes or {}).items():
            assert file_sha256(package_folder() / name / file) == expected
            assert (package_folder() / name / file).stat().st_size == entry.bytes[file]
        if not models()[name].block and hashes is not None:
            record = read_record(package_folder() / name / "record.json", models()[name].spec())
            assert record is not None
            assert (record.spec.key, record.metric(entry.metric).value) == (entry.record, entry.value)
            known = committed(name)
            same = known.weights_sha256 == record.weights_sha256
            assert entry.profile in ("", record.spec.profile)
            assert entry.committed == {
                "weights": "same" if same else entry.committed["weights"] if entry.rounded else "other",
                "value": known.metric(entry.metric).value,
            }

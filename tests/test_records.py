"""Specifications, keys and records: canonical, stable, and refused where they were altered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from repro.errors import NoProfileError, RecordError
from repro.records import Divergence, Metric, Record, RunSpec, canonical_json, digest, of_profile

SPEC = RunSpec(
    "gmrf_mcvae", "copula", "mvae", 3, "smoke", {"model": {"output": "linear", "beta": 0.001}, "list": (1, 2.5, None)}
)
TEXT = (
    '{"dataset":"copula","method":"mvae","paper":"gmrf_mcvae","params":{"list":[1,2.5,null],"model":{"beta":0.001,'
    '"output":"linear"}},"profile":"smoke","seed":3}'
)


def record(**changes: Any) -> Record:
    options: dict[str, Any] = {
        "spec": SPEC,
        "metrics": [Metric("a", 0.1, "1", 10, "measured"), Metric("b", 1 / 3, "1e-3", 20, "measured, too")],
        "environment": {"commit": "0" * 40, "dirty": False, "versions": {"torch": "2.11.0"}, "threads": 1},
        "data": {"copula/train": "1" * 64},
        "weights_sha256": "2" * 64,
        "training_seconds": 1.25,
        "evaluation_seconds": 0.5,
        "history": [{"stage": "train", "epoch": 1, "epochs": 1, "loss": 0.1 + 0.2}],
    }
    return Record(**options | changes)


def refused(text: str, match: str) -> None:
    with pytest.raises(RecordError, match=match) as caught:
        Record.from_json(text, "file.json")
    assert "\n" not in str(caught.value)
    assert "file.json" in str(caught.value)


def signed(**changes: Any) -> str:
    """A record's text with fields changed (or, for None, left out) and a digest that fits."""
    body = record().to_dict()
    del body["digest"]
    body = {k: v for k, v in (body | changes).items() if v is not None}
    return json.dumps(body | {"digest": digest(body)})


def test_key_is_the_hash_of_the_canonical_json_and_stays_what_it_is() -> None:
    assert canonical_json(SPEC.to_dict()) == TEXT
    assert SPEC.key == hashlib.sha256(TEXT.encode()).hexdigest()[:16] == "b72a2e3d55a913fa"


def test_key_does_not_depend_on_the_order_of_settings_but_on_every_field() -> None:
    again = RunSpec.from_dict(json.loads(TEXT))
    assert again == SPEC
    assert again.key == SPEC.key
    assert hash(again) == hash(SPEC)
    changes = {"paper": "mrf_mvae", "dataset": "x", "method": "mmvae", "seed": 4, "profile": "quick", "params": {}}
    keys = {dataclasses.replace(SPEC, **{name: value}).key for name, value in changes.items()}
    assert len(keys | {SPEC.key}) == 7


def test_converged_is_what_every_stage_with_a_rule_ended_by() -> None:
    def after(*entries: dict[str, Any]) -> bool | None:
        text = record(history=[{"stage": "a", "epoch": 1, "loss": 0.5}, *entries]).to_json()
        return Record.from_json(text).converged

    a, b = ({"stage": s, "epoch": 2, "validation_loss": 0.25, "converged": True} for s in "ab")
    assert after() is None
    assert record(history=[]).converged is None
    assert record(history=[{"epoch": 1, "loss": 0.5}]).converged is None  # as some old records are
    assert after(a) is True
    assert after(a, b) is True
    assert after(a, b | {"converged": False}) is False
    assert after(a | {"converged": False}, b) is False
    assert after(a, {"stage": "b", "epoch": 1, "loss": 0.1}) is True  # a stage of a fixed number of epochs
    assert after(a | {"converged": False}, a | {"epoch": 3}) is True  # it went on


def test_settings_of_a_profile() -> None:
    assert of_profile({"paper": 1, "quick": 2}, "quick") == 2
    with pytest.raises(NoProfileError, match=r"^has no profile 'overnight'; it has paper, quick$"):
        of_profile({"paper": 1, "quick": 2}, "overnight")


def test_specification_holds_a_copy_of_its_settings() -> None:
    params = {"model": {"beta": 0.1}}
    spec = RunSpec("gmrf_mcvae", "copula", "mvae", 0, "smoke", params)
    key = spec.key
    params["model"]["beta"] = 0.2
    spec.to_dict()["params"]["model"]["beta"] = 0.3
    assert spec.key == key


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"profile": "papr"}, "unknown profile 'papr'; one of paper, overnight, quick, smoke"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": True}, "seed is True"),
        ({"seed": 1.0}, "seed is 1.0"),
        ({"params": {"model": {"beta": float("nan")}}}, r"params\.model\.beta is nan"),
        ({"params": {"model": [float("inf")]}}, r"params\.model is inf"),
        ({"params": {"model": object()}}, r"params\.model has type object"),
    ],
)
def test_bad_specifications(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(RecordError, match=match):
        dataclasses.replace(SPEC, **changes)


@pytest.mark.parametrize("value", [[], {}, SPEC.to_dict() | {"extra": 1}])
def test_specification_with_missing_or_unknown_fields(value: Any) -> None:
    with pytest.raises(RecordError, match=r"spec\.json: fields .* expected \['dataset'"):
        RunSpec.from_dict(value, "spec.json")


def test_round_trip() -> None:
    one = record()
    text = one.to_json()
    again = Record.from_json(text)
    assert again == one
    assert again.to_json() == text
    assert again.history[0]["loss"] == 0.1 + 0.2
    assert again.metric("b").value == 1 / 3
    value = json.loads(text)
    claimed = value.pop("digest")
    assert claimed == hashlib.sha256(canonical_json(value).encode()).hexdigest()


def test_text_has_one_metric_a_line() -> None:
    lines = record().to_json().splitlines()
    assert [line for line in lines if '"name": "b"' in line and '"protocol": "measured, too"' in line]
    assert Record.from_json(record(metrics=[], history=[]).to_json()).metrics == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"value": 0.1', '"value": 0.2'),
        ('"num_samples": 20', '"num_samples": 21'),
        ('"dirty": false', '"dirty": true'),
        ("1" * 64, "3" * 64),
        ("2" * 64, "3" * 64),
        ('"training_seconds": 1.25', '"training_seconds": 1.5'),
        ('"loss": 0.3', '"loss": 0.4'),
    ],
)
def test_altered_content_is_refused(old: str, new: str) -> None:
    text = record().to_json()
    assert text.count(old) == 1
    refused(text.replace(old, new), "does not match its digest; the file was altered")


def test_altered_digest_key_and_specification_are_refused() -> None:
    value = record().to_dict()
    refused(json.dumps(value | {"digest": "0" * 64}), "does not match its digest")
    refused(json.dumps({k: v for k, v in value.items() if k != "digest"}), "does not match its digest")
    refused(json.dumps(value | {"key": "0" * 16}), f"key {'0' * 16} does not match .*{SPEC.key}")
    other = dataclasses.replace(SPEC, seed=4)
    refused(json.dumps(value | {"spec": other.to_dict()}), f"key {SPEC.key} does not match .*{other.key}")
    refused(signed(spec=other.to_dict()), f"key {SPEC.key} does not match .*{other.key}")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "repro-record/2"}', record().to_json()[:-40]])
def test_what_is_no_record_is_refused(text: str) -> None:
    refused(text, "not JSON|not a repro-record/1 file")


def test_malformed_records_are_refused_under_a_digest_that_fits() -> None:
    assert Record.from_json(signed()) == record()
    refused(signed(metrics=None), "malformed")
    refused(signed(metrics=[{"name": "a"}]), "malformed")
    metric = record().to_dict()["metrics"][0]
    refused(signed(metrics=[metric | {"value": "much"}]), "malformed")
    refused(signed(metrics=[metric, metric]), r"metrics given twice: \['a'\]")


def test_numbers_that_are_not_finite_are_refused() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(RecordError, match="metric 'a' is"):
            Metric("a", value, "1", 1, "")
    with pytest.raises(RecordError, match=r"history\.loss is nan"):
        record(history=[{"loss": float("nan")}]).to_json()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
    for constant in ("NaN", "Infinity", "-Infinity"):
        refused(record().to_json().replace('"value": 0.1', f'"value": {constant}'), constant)


def test_metrics_have_one_value_each() -> None:
    twice = [Metric("a", 1.0, "1", 1, ""), Metric("b", 1.0, "1", 1, ""), Metric("a", 2.0, "1", 1, "")]
    with pytest.raises(RecordError, match=r"metrics given twice: \['a'\]"):
        record(metrics=twice)
    with pytest.raises(KeyError, match="has no metric 'c'"):
        record().metric("c")


def test_a_divergence_is_read_as_it_was_written_and_refused_where_altered() -> None:
    found = Divergence(SPEC, "epoch 3 of 6: the loss is not finite ({'kl': nan})", {"commit": "a" * 40, "dirty": False})
    text = found.to_json()
    assert Divergence.from_json(text) == found
    for old, new, message in (
        ("epoch 3", "epoch 4", "does not match its digest; the file was altered"),
        ("repro-divergence/1", "repro-record/1", "not a repro-divergence/1 file"),
        (SPEC.key, "0" * 16, "does not match its specification"),
        ('"seed": 3', '"seed": 5', "does not match its specification"),
    ):
        assert old in text
        with pytest.raises(RecordError, match=message):
            Divergence.from_json(text.replace(old, new))
    with pytest.raises(RecordError, match=r"^here: not JSON"):
        Divergence.from_json(text[:-10], "here")
    with pytest.raises(RecordError, match="malformed"):
        Divergence.from_json(dataclasses.replace(found, reason="").to_json())
    with pytest.raises(RecordError, match="not a repro-record/1 file"):
        Record.from_json(text)

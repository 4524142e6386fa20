"""Validation splits held out of training splits, and runs that stop by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.datasets.base import Dataset, ModalitySpec, fingerprint
from repro.datasets.held_out import hold_out, hold_out_stratified
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.papers.compare.correlated.settings import compare_spec
from repro.papers.covae.correlated_mnist.experiment import image_spec
from repro.records import Record, RunSpec
from tests.support.experiments import load_data


def changed(spec: RunSpec, part: str, **changes: Any) -> RunSpec:
    return replace(spec, params={**spec.params, part: {**spec.params[part], **changes}})


def test_the_last_samples_are_held_out() -> None:
    values = {"a": torch.arange(20.0).reshape(10, 2), "b": torch.arange(10, dtype=torch.uint8).reshape(10, 1)}
    modalities = {"a": ModalitySpec((2,)), "b": ModalitySpec((1,), "image", (0.0, 1.0))}
    data = Dataset("toy", "train", modalities, values, torch.arange(10), {"sha256": fingerprint(values), "seed": 3})
    train, held_out = hold_out(data, 3)
    assert (len(train), train.split, len(held_out), held_out.split) == (7, "train", 3, "validation")
    for m, x in values.items():
        assert torch.equal(torch.cat([train.data[m], held_out.data[m]]), x)
    assert held_out.labels is not None
    assert held_out.labels.tolist() == [7, 8, 9]
    assert held_out.provenance["sha256"] == fingerprint(held_out.data, held_out.labels)
    assert held_out.provenance["seed"] == 3
    for count in (0, -1, 10, 11):
        with pytest.raises(ValueError, match=f"has 10 samples, of which {count} cannot be held out"):
            hold_out(data, count)


def test_the_same_part_of_each_class_is_held_out() -> None:
    labels = torch.tensor([2] * 10 + [0] * 20 + [1] * 5)  # sorted by class
    values = {"a": torch.arange(70.0).reshape(35, 2)}
    known = {"sha256": fingerprint(values), "seed": 3, "samples": [f"S{n}" for n in range(35)]}
    data = Dataset("toy", "train", {"a": ModalitySpec((2,))}, values, labels, known)
    train, held_out = hold_out_stratified(data, 0.2)
    assert (train.split, held_out.split) == ("train", "validation")
    assert train.labels.bincount().tolist() == [16, 4, 8]
    assert held_out.labels.bincount().tolist() == [4, 1, 2]
    rows = torch.cat([train.data["a"], held_out.data["a"]])[:, 0] / 2
    assert sorted(rows.tolist()) == list(range(35))
    assert torch.equal(torch.cat([train.labels, held_out.labels]), labels[rows.long()])
    for part in (train, held_out):
        assert part.provenance["sha256"] == fingerprint(part.data, part.labels)
        assert bool((part.data["a"][1:, 0] > part.data["a"][:-1, 0]).all())  # in order
        assert part.provenance["samples"] == [f"S{n:.0f}" for n in part.data["a"][:, 0] / 2]
    again, other = (hold_out_stratified(data, 0.2, seed)[1].data["a"] for seed in (0, 1))
    assert torch.equal(again, held_out.data["a"])
    assert not torch.equal(other, again)
    for fraction, number in ((0.001, 1), (0.999, 4)):  # one at least of each class on either side
        assert int((hold_out_stratified(data, fraction)[1].labels == 1).sum()) == number
    assert "samples" not in hold_out_stratified(data.first(30), 0.2)[0].provenance
    with pytest.raises(ValueError, match=r"fraction is 1, must be in \(0, 1\)"):
        hold_out_stratified(data, 1)
    with pytest.raises(ValueError, match="toy train has no class for each sample"):
        hold_out_stratified(replace(data, labels=None), 0.2)
    with pytest.raises(ValueError, match="class 7 has one sample"):
        hold_out_stratified(replace(data, labels=torch.tensor([7] + [0] * 34)), 0.2)


@pytest.mark.parametrize("paper_experiments", ["covae", "compare"])
def test_correlated_images_are_held_out_with_their_latents(paper_experiments: str) -> None:
    if paper_experiments == "covae":
        load, key, spec = load_data, "held_out", image_spec("covae", 0, "overnight", 0.6)
    else:
        load, key, spec = load_data, "validation_samples", compare_spec("covae", 0, "overnight", 0.6)
    small = changed(spec, "data", train_samples=12, test_samples=4, **{key: 5})
    found: Mapping[str, Dataset] = load(small)
    without = replace(
        small, params={**small.params, "data": {k: v for k, v in small.params["data"].items() if k != key}}
    )
    whole: Mapping[str, Dataset] = load(without)
    assert set(found) == {*whole, "validation"}
    assert {s: len(d) for s, d in found.items() if s in ("train", "validation", "test")} == {
        "train": 7,
        "validation": 5,
        "test": 4,
    }
    for m, x in whole["train"].data.items():
        assert torch.equal(torch.cat([found["train"].data[m], found["validation"].data[m]]), x)
        assert torch.equal(found["test"].data[m], whole["test"].data[m])
    if paper_experiments == "compare":  # the latents are those of the images beside them
        for m, x in found["train_truth"].data.items():
            assert torch.equal(x, whole["train_truth"].data[m][:7])


def test_validation_is_never_the_test_split() -> None:
    for name in ("gmrf_mcvae/table2", "covae/fig5", "compare/correlated"):
        for spec in unique(plan(find(name), "overnight")):
            data = spec.params["data"]
            assert data.get("held_out") or data.get("validation_samples"), spec.label


def test_a_run_stops_by_its_validation_split_and_its_record_says_so(tmp_path: Path) -> None:
    base = unique(plan(find("gmrf_mcvae/table1"), "smoke", 1))[0]
    records: dict[str, Record] = {}
    for name, rule in {"capped": {"epochs": 13, "patience": 13}, "stopped": {"epochs": 40, "patience": 1}}.items():
        store = RunStore(tmp_path / name)
        records[name] = record = execute(changed(base, "training", learning_rate=0.002, **rule), store)
        log = [json.loads(line) for line in (store.directory(record.spec) / "log.jsonl").read_text().splitlines()]
        losses = [entry["validation_loss"] for entry in log]
        if name == "stopped":
            assert len(log) < 40
            assert losses[-1] >= min(losses[:-1])
            assert all(b < a for a, b in pairwise(losses[:-1]))
        else:
            assert len(log) == 13
        assert record.history[-1]["epoch"] == len(log)
        assert len(record.history) <= 11
        assert Record.from_json(record.to_json()).converged == (name == "stopped")
    assert execute(base, RunStore(tmp_path / "plain")).converged is None


def test_history_of_a_record_holds_the_end_of_every_stage() -> None:
    from repro.engine.execute import _thin

    history: list[dict[str, Any]] = [{"stage": "a", "epoch": i + 1, "seconds": 1.0} for i in range(37)]
    history[-1]["converged"] = True
    history += [{"stage": "b", "epoch": i + 1, "seconds": 1.0} for i in range(50)]
    history[-1]["converged"] = False
    kept = _thin(history)
    assert [(e["stage"], e["epoch"]) for e in kept if "converged" in e] == [("a", 37), ("b", 50)]
    assert len(kept) <= 11
    assert not any("seconds" in e for e in kept)
    plain = [{"epoch": i + 1} for i in range(87)]
    assert [e["epoch"] for e in _thin(plain)] == [15, 23, 31, 39, 47, 55, 63, 71, 79, 87]  # as it was before

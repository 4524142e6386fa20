"""How long runs train, beside the length that a paper states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from repro.artifacts.inventory import find
from repro.artifacts.render import plan
from repro.artifacts.training_length import Length, no_shorter, planned_length
from repro.papers.covae.correlated_mnist.experiment import image_spec
from repro.records import Record, RunSpec

PLACE = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "a machine", "versions": {"torch": "2"}}


def ended(spec: RunSpec, **converged: bool) -> Record:
    """A record of a run whose stages' rules ended them or did not."""
    history = [{"stage": s, "epoch": 1, "epochs": 1, "converged": c} for s, c in converged.items()]
    return Record(spec, [], PLACE, {}, "0" * 64, 1.0, 1.0, history)


def changed(spec: RunSpec, **training: Any) -> RunSpec:
    return replace(spec, params=spec.params | {"training": spec.params["training"] | training})


def test_a_stage_s_length_is_of_the_samples_that_are_trained_on() -> None:
    night = image_spec("covae", 0, "overnight", 0.3)  # 2,000 of 20,000 pairs are held out
    assert planned_length(night, "train") == Length(60, 60 * 18_000, 60 * 71)  # 70.3 batches of 256
    assert planned_length(night, "deep_cca") == Length(5, 5 * 18_000, 5 * 18)
    assert planned_length(image_spec("covae", 0, "paper", 0.3), "train") == Length(30, 600_000, 30 * 79)


@pytest.mark.parametrize(
    ("training", "long"),
    [
        ({}, True),
        ({"epochs": 34}, True),
        ({"epochs": 33}, False),  # fewer samples in all
        ({"epochs": 29, "batch_size": 16}, False),  # more steps, but fewer epochs
        ({"batch_size": 512}, False),  # 2,160 steps, fewer than 2,370
    ],
)
def test_no_shorter_is_in_epochs_and_samples_and_steps(training: dict[str, Any], long: bool) -> None:
    night, paper = image_spec("mvae", 0, "overnight", 0.3), image_spec("mvae", 0, "paper", 0.3)
    assert no_shorter(ended(changed(night, **training), train=False), [paper]) == long
    assert no_shorter(ended(changed(night, **training), train=True), [paper])  # its rule ended it


def test_only_stages_that_no_rule_ended_are_asked() -> None:
    (night, *_), (paper, *_) = (plan(find("sbm_vae/table5"), p)["SBM-VAE"] for p in ("overnight", "paper"))
    assert planned_length(night, "energy") == Length(100, 100 * 50_000, 100 * 782)
    assert no_shorter(ended(night, autoencoders=True, score=True, energy=True), [paper])
    assert not no_shorter(ended(night, autoencoders=True, score=False, energy=True), [paper])  # 29 epochs of 300


def test_stages_without_a_rule_are_asked_too() -> None:
    night, paper = image_spec("covae", 0, "overnight", 0.3), image_spec("covae", 0, "paper", 0.3)
    stages = night.params["training"]["stages"]
    assert not no_shorter(ended(night, train=False), [paper])  # Deep CCA: 5 epochs of 10
    assert not no_shorter(ended(night, train=True), [paper])
    for epochs, long in ((11, False), (12, True)):  # of 18,000 pairs, where the paper profile has 20,000
        longer = changed(night, stages=stages | {"deep_cca": stages["deep_cca"] | {"epochs": epochs}})
        assert no_shorter(ended(longer, train=False), [paper]) == long


def test_nothing_of_the_paper_in_its_place_is_no_length() -> None:
    assert not no_shorter(ended(image_spec("mvae", 0, "overnight", 0.3), train=False), [])

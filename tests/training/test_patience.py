"""Stages that end when the validation loss stops improving: the rule, its independence of training, interruptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec
from repro.model import Loss, Stage, TrainableModel
from repro.training import NonFiniteLossError, TrainingSettings, TrainingStopped, train
from repro.training.distributed import Parallel

MODALITIES = {"a": ModalitySpec((2,)), "b": ModalitySpec((3,))}


class Encodings(TrainableModel):
    """A noisy autoencoder, then a map fitted to its noisy encodings, whose scale a buffer holds.

    In training mode the loss counts its calls in a buffer, in evaluation mode too; dropout and NumPy's noise are drawn.
    """

    def __init__(self) -> None:
        super().__init__(MODALITIES)
        self.encoder, self.decoder, self.map = nn.Linear(5, 2), nn.Linear(2, 5), nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.2)
        self.calls: Tensor
        self.scale: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("scale", torch.zeros(()))
        self.modes: list[tuple[str, bool]] = []
        self.encoded: list[str] = []

    def stages(self) -> tuple[Stage, ...]:
        return Stage("encode", ("encoder.", "decoder.")), Stage("map", ("map.",))

    def stage_data(self, stage: Stage, data: Dataset) -> Dataset:
        self.encoded.append(f"{stage.name} {data.split}")
        if stage.name == "encode":
            return data
        z = self.encoder(torch.cat([data.data["a"], data.data["b"]], 1))
        z = z + 0.1 * torch.randn_like(z)
        self.scale.copy_(z.std())
        return Dataset("encodings", data.split, {"z": ModalitySpec((2,))}, {"z": z}, data.labels)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        name = "encode" if stage is None else stage.name
        self.modes.append((name, self.training))
        self.calls += 1
        if name == "map":
            return Loss((self.map(batch["z"]) - batch["z"].flip(1) / self.scale).square().mean())
        x = torch.cat([batch["a"], batch["b"]], 1)
        z = self.dropout(self.encoder(x))
        noise = torch.randn_like(z) + float(np.random.standard_normal())
        return Loss((self.decoder(z + 0.1 * noise) - x).square().mean())


def split(name: str, size: int) -> Dataset:
    generator = torch.Generator().manual_seed(size)
    values = {m: torch.randn(size, *s.shape, generator=generator) for m, s in MODALITIES.items()}
    return Dataset("toy", name, MODALITIES, values, torch.zeros(size, dtype=torch.int64))


TRAIN, VALIDATION = split("train", 20), split("validation", 14)
PLAIN = TrainingSettings(epochs=9, batch_size=8, learning_rate=0.1, stages={"map": {"epochs": 9}})
PATIENT = replace(PLAIN, patience=2, min_improvement=0.1)


def model() -> Encodings:
    torch.manual_seed(5)
    np.random.seed(5)
    return Encodings()


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


def last_entries(history: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {e["stage"]: e for e in history}


class Scripted(TrainableModel):
    """A model whose validation loss at each epoch is written down; training has no effect on it."""

    def __init__(self, values: list[float]) -> None:
        super().__init__({"a": MODALITIES["a"]})
        self.w, self.values, self.epoch = nn.Parameter(torch.zeros(())), values, 0

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        if self.training:
            return Loss(self.w.square())
        self.epoch += 1
        return Loss(torch.tensor(self.values[self.epoch - 1]))


def epochs_of(values: list[float], **rule: Any) -> tuple[int, bool]:
    """How many epochs are trained, and whether training had converged."""
    one = Dataset("toy", "train", {"a": MODALITIES["a"]}, {"a": torch.zeros(4, 2)})
    settings = TrainingSettings(epochs=len(values), batch_size=4, learning_rate=0.1, **rule)
    history = train(Scripted(values), one, settings, seed=0, validation=one)
    assert [e["validation_loss"] for e in history] == pytest.approx(values[: len(history)])
    assert ["converged" in e for e in history] == [False] * (len(history) - 1) + [True]
    return len(history), history[-1]["converged"]


@pytest.mark.parametrize(
    ("values", "rule", "expected"),
    [
        ([5.0, 4.0, 3.0, 2.0, 1.0], {"patience": 1}, (5, False)),  # the cap ends it
        ([5.0, 5.0, 1.0, 1.0, 1.0], {"patience": 1}, (2, True)),  # an equal loss is none that improves
        ([5.0, 6.0, 4.0, 6.0, 6.0, 1.0], {"patience": 2}, (5, True)),  # an improvement starts the count anew
        ([5.0, 6.0, 7.0, 8.0], {"patience": 3}, (4, True)),  # the rule and the cap at once: the rule held
        ([5.0, 6.0, 7.0], {"patience": 3}, (3, False)),
        # Small improvements add up against the last one that counted.
        ([100.0, 99.5, 98.9, 98.5, 98.0, 90.0], {"patience": 2, "min_improvement": 0.01}, (5, True)),
        ([100.0, 99.5, 98.9, 98.5, 97.8, 97.7], {"patience": 2, "min_improvement": 0.01}, (6, False)),
        ([-100.0, -100.5, -101.5, -102.0, -102.4, -200.0], {"patience": 2, "min_improvement": 0.01}, (5, True)),
        ([0.0, -1e-9, -1e-8, 0.0, 0.0], {"patience": 2, "min_improvement": 0.5}, (5, True)),
    ],
)
def test_rule(values: list[float], rule: dict[str, Any], expected: tuple[int, bool]) -> None:
    assert epochs_of(values, **rule) == expected


def test_each_stage_ends_by_the_rule_and_says_whether_it_had_converged() -> None:
    patient = model()
    history = train(patient, TRAIN, PATIENT, seed=1, validation=VALIDATION)
    ends = last_entries(history)
    assert ends["encode"]["converged"]
    assert ends["encode"]["epoch"] < 9  # else nothing here has tested an early end
    assert ends["map"]["converged"]
    assert ends["map"]["epoch"] < 9
    assert sum("converged" in e for e in history) == 2
    capped = train(model(), TRAIN, replace(PATIENT, epochs=2), seed=1, validation=VALIDATION)
    assert last_entries(capped)["encode"]["converged"] is False
    assert patient.encoded == ["encode train", "map train"]  # of validation data a copy is asked, see below
    assert not any(m.training for m in patient.modules())


def test_a_stage_may_have_its_own_patience_or_none() -> None:
    settings = replace(PATIENT, stages={"map": {"epochs": 3, "patience": None}})
    history = train(model(), TRAIN, settings, seed=1, validation=VALIDATION)
    assert [set(e) & {"validation_loss", "converged"} for e in history if e["stage"] == "map"] == [set()] * 3
    assert last_entries(history)["encode"]["converged"]
    with pytest.raises(ValueError, match="stage 'map': patience is 0"):
        replace(PATIENT, stages={"map": {"patience": 0}})


def test_what_is_trained_is_what_is_trained_without_the_rule() -> None:
    """Measuring moves neither parameters, buffers, modes, nor any random stream; the last epoch's weights are kept."""
    patient, plain = model(), model()
    history = train(patient, TRAIN, PATIENT, seed=1, validation=VALIDATION)
    ends = {stage: {"epochs": e["epoch"]} for stage, e in last_entries(history).items()}
    shorter = replace(PLAIN, stages=ends)
    before = torch.get_rng_state(), repr(np.random.get_state())
    reference = train(plain, TRAIN, shorter, seed=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]
    assert same(patient, plain)
    assert [e["loss"] for e in history] == [e["loss"] for e in reference]
    trained = [m for m, training in patient.modes if training]
    assert trained == [m for m, _ in plain.modes]
    # Without patience a validation split is not even looked at.
    unused = model()
    assert train(unused, TRAIN, shorter, seed=1, validation=VALIDATION) == reference
    assert unused.modes == plain.modes


def test_validation_loss_is_of_encodings_in_evaluation_mode_with_the_same_noise() -> None:
    settings = replace(PATIENT, epochs=3, learning_rate=1e-30, stages={"map": {"epochs": 3}}, patience=9)
    still = model()  # steps so small that nothing changes: every epoch's validation loss is the same number
    history = train(still, TRAIN, settings, seed=1, validation=VALIDATION)
    for stage in ("encode", "map"):
        assert len({e["validation_loss"] for e in history if e["stage"] == stage}) == 1
    with torch.no_grad():  # the map's, on the validation split's encodings, with the training split's scale
        torch.manual_seed(0)
        z = still.encoder(torch.cat([VALIDATION.data["a"], VALIDATION.data["b"]], 1))
        expected = (still.map(z) - z.flip(1) / still.scale).square().mean()
    assert history[-1]["validation_loss"] == pytest.approx(float(expected), rel=0.3)  # up to the encodings' noise
    other = train(model(), TRAIN, settings, seed=1, validation=split("validation", 15))
    assert other[0]["validation_loss"] != history[0]["validation_loss"]
    assert [e["loss"] for e in other] == [e["loss"] for e in history]


class Interrupt(Exception):
    """An interruption on purpose."""


def stopping_at(question: int) -> Callable[[], bool]:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == question

    return stop


@pytest.mark.slow
def test_interrupted_at_any_step_ends_as_if_it_was_not(tmp_path: Path) -> None:
    whole, path = model(), tmp_path / "checkpoint.safetensors"
    history = train(whole, TRAIN, PATIENT, seed=1, validation=VALIDATION)
    ends = last_entries(history)
    steps = 3 * (ends["encode"]["epoch"] + ends["map"]["epoch"])
    boundary = 3 * ends["encode"]["epoch"]
    for question in range(1, steps):
        path.unlink(missing_ok=True)
        path.with_name("checkpoint.previous.safetensors").unlink(missing_ok=True)
        with pytest.raises(TrainingStopped) as stopped:
            train(model(), TRAIN, PATIENT, seed=1, validation=VALIDATION, checkpoint=path, stop=stopping_at(question))
        if question == boundary:
            assert str(stopped.value).startswith("stopped after stage 'encode'")
        resumed = model()
        assert train(resumed, TRAIN, PATIENT, seed=1, validation=VALIDATION, checkpoint=path) == history, question
        assert same(resumed, whole), question


def test_killed_after_any_epoch_ends_as_if_it_was_not(tmp_path: Path) -> None:
    """Also where the entry of the epoch that ended a stage is lost with its checkpoint."""
    whole = model()
    history = train(whole, TRAIN, PATIENT, seed=1, validation=VALIDATION)
    for number in range(len(history)):
        path = tmp_path / str(number) / "checkpoint.safetensors"
        path.parent.mkdir()
        seen: list[Mapping[str, Any]] = []

        def kill(found: dict[str, Any], number: int = number, seen: list[Mapping[str, Any]] = seen) -> None:
            seen.append(found)
            if len(seen) > number:
                raise Interrupt

        with pytest.raises(Interrupt):
            train(model(), TRAIN, PATIENT, seed=1, validation=VALIDATION, checkpoint=path, on_epoch=kill)
        resumed = model()
        assert train(resumed, TRAIN, PATIENT, seed=1, validation=VALIDATION, checkpoint=path) == history
        assert same(resumed, whole)


def test_converged_training_is_not_repeated(tmp_path: Path) -> None:
    path, calls = tmp_path / "checkpoint.safetensors", []
    whole, again = model(), model()
    history = train(whole, TRAIN, PATIENT, seed=1, validation=VALIDATION, checkpoint=path)
    assert (
        train(again, TRAIN, PATIENT, seed=1, validation=VALIDATION, checkpoint=path, on_epoch=calls.append) == history
    )
    assert calls == []
    assert same(whole, again)


def test_shards_end_by_the_rule_too(tmp_path: Path) -> None:
    whole, path = model(), tmp_path / "checkpoint.safetensors"
    options: dict[str, Any] = {"seed": 1, "validation": VALIDATION, "parallel": Parallel(shards=2)}
    history = train(whole, TRAIN, PATIENT, **options)
    assert last_entries(history)["encode"]["converged"]
    with pytest.raises(TrainingStopped):
        train(model(), TRAIN, PATIENT, checkpoint=path, stop=stopping_at(7), **options)
    resumed = model()
    assert train(resumed, TRAIN, PATIENT, checkpoint=path, **options) == history
    assert same(resumed, whole)


def test_bad_settings() -> None:
    for patience in (0, -1):
        with pytest.raises(ValueError, match=f"patience is {patience}, must be at least 1"):
            replace(PLAIN, patience=patience)
    for improvement in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"min_improvement is .*, must be from 0 to below 1"):
            replace(PATIENT, min_improvement=improvement)
    with pytest.raises(ValueError, match=r"^stage 'encode' has patience 2, which needs a validation split$"):
        train(model(), TRAIN, PATIENT, seed=1)
    with pytest.raises(ValueError, match=r"^stage 'map' has patience 2, which needs a validation split$"):
        train(model(), TRAIN, replace(PLAIN, stages={"map": {"patience": 2}}), seed=1)
    one = Dataset("toy", "validation", {"a": MODALITIES["a"]}, {"a": torch.zeros(4, 2)})
    with pytest.raises(ValueError, match="the data has modalities"):
        train(model(), TRAIN, PATIENT, seed=1, validation=one)


def test_a_loss_in_parts_has_no_validation_loss() -> None:
    class Adversarial(Scripted):
        def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
            return Loss(self.w.square(), parts={"w": (self.w - 1).square()})

    one = Dataset("toy", "train", {"a": MODALITIES["a"]}, {"a": torch.zeros(4, 2)})
    settings = TrainingSettings(epochs=2, batch_size=4, learning_rate=0.1, patience=1)
    with pytest.raises(ValueError, match=r"patience is 1, but the loss of Adversarial has a part for each of \['w'\]"):
        train(Adversarial([]), one, settings, seed=0, validation=one)


def test_a_validation_loss_that_is_not_finite_is_refused() -> None:
    one = Dataset("toy", "train", {"a": MODALITIES["a"]}, {"a": torch.zeros(4, 2)})
    settings = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.1, patience=1)
    with pytest.raises(NonFiniteLossError, match=r"epoch 2 of 3: the validation loss is nan; the last good checkpoint"):
        train(Scripted([1.0, float("nan"), 1.0]), one, settings, seed=0, validation=one)

"""Training: interruptions that change nothing, checkpoints that are whole or refused, losses that are finite."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import repro.training.checkpoints as checkpoints
from repro.datasets.base import Dataset, ModalitySpec
from repro.model import Loss, MultimodalModel, Stage, isolated_rng
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.training import NonFiniteLossError, TrainingSettings, TrainingStopped, default_key, epoch_seed, train
from repro.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    discard_checkpoints,
    load_checkpoint,
    load_latest_checkpoint,
    previous_path,
    save_checkpoint,
)

MODALITIES = {"a": ModalitySpec((2,)), "b": ModalitySpec((3,))}
SETTINGS = TrainingSettings(epochs=3, batch_size=8, learning_rate=1e-2)


class TwoStages(MultimodalModel):
    """A noisy autoencoder trained in two stages; ``poison`` is called with the number of the step."""

    def __init__(self) -> None:
        super().__init__(MODALITIES)
        self.first = nn.Linear(5, 4)
        self.second = nn.Linear(4, 5)
        self.dropout = nn.Dropout(0.2)
        self.step = 0
        self.poison = lambda step, term: term

    def stages(self) -> tuple[Stage, ...]:
        return Stage("encode", ("first.",)), Stage("decode", ("second.",))

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        self.step += 1
        x = torch.cat([batch["a"], batch["b"]], 1)
        z = self.dropout(self.first(x))
        z = z + 0.1 * torch.randn_like(z)
        error = self.poison(self.step, (self.second(z) - x).square().mean())
        size = z.square().mean()
        return Loss(error + 0.1 * size, {"error": error.detach(), "size": size.detach()})

    def generate(self, num_samples: int = 1, **options: object) -> dict[str, Tensor]:
        return {m: torch.zeros(num_samples, *s.shape) for m, s in self.modalities.items()}

    def log_likelihood(self, batch: Mapping[str, Tensor], **options: object) -> Tensor:
        return torch.zeros(self.check_batch(batch))


def data(size: int = 20) -> Dataset:
    g = torch.Generator().manual_seed(0)
    return Dataset(
        "toy", "train", MODALITIES, {m: torch.rand(size, *s.shape, generator=g) for m, s in MODALITIES.items()}
    )


def toy() -> TwoStages:
    with isolated_rng(1):
        return TwoStages()


def gmrf() -> GMRFMCVAE:
    with isolated_rng(1):
        return GMRFMCVAE(MODALITIES, latent_dim=2)


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


class Interrupt(Exception):
    pass


def stop_after(epochs: int) -> Any:
    """An on_epoch that raises as the given epoch ends, before its checkpoint is written."""
    seen: list[dict[str, Any]] = []

    def on_epoch(entry: dict[str, Any]) -> None:
        seen.append(entry)
        if len(seen) == epochs:
            raise Interrupt

    return on_epoch


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 6])
def test_two_stages_interrupted_anywhere_end_as_if_they_were_not(epochs: int, tmp_path: Path) -> None:
    whole, path = toy(), tmp_path / "checkpoint.safetensors"
    history = train(whole, data(), SETTINGS, seed=5)
    with pytest.raises(Interrupt):
        train(toy(), data(), SETTINGS, seed=5, key="k", checkpoint=path, on_epoch=stop_after(epochs))
    assert path.exists() == (epochs > 1)
    resumed, calls = toy(), []
    again = train(resumed, data(), SETTINGS, seed=5, key="k", checkpoint=path, on_epoch=calls.append)
    assert again == history
    assert same(resumed, whole)
    assert len(calls) == 7 - epochs  # no more than the interrupted epoch is repeated


def test_gmrf_mcvae_interrupted_twice_ends_as_if_it_was_not(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=5, batch_size=8, learning_rate=1e-3)
    whole, path = gmrf(), tmp_path / "checkpoint.safetensors"
    history = train(whole, data(), settings, seed=5)
    for epochs in (2, 3):
        with pytest.raises(Interrupt):
            train(gmrf(), data(), settings, seed=5, key="k", checkpoint=path, on_epoch=stop_after(epochs))
    assert load_checkpoint(path, "k").epoch == 3
    resumed = gmrf()
    assert train(resumed, data(), settings, seed=5, key="k", checkpoint=path) == history
    assert same(resumed, whole)
    assert not same(whole, gmrf())


def stop_at(step: int) -> Any:
    """A ``stop`` that says yes when it is asked for the given time, which is once a step and once an epoch."""
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == step

    return stop


# 20 samples in batches of 8 are 3 steps an epoch; 2 stages of 3 epochs ask 18 times, but for the very last.
@pytest.mark.parametrize("question", range(1, 18))
def test_stopped_at_any_step_ends_as_if_it_was_not(question: int, tmp_path: Path) -> None:
    whole, path, model = toy(), tmp_path / "checkpoint.safetensors", toy()
    history = train(whole, data(), SETTINGS, seed=5)
    numpy_state = repr(np.random.get_state())
    with pytest.raises(TrainingStopped, match=r"^stopped (in|after) stage '"):
        train(model, data(), SETTINGS, seed=5, key="k", checkpoint=path, stop=stop_at(question))
    assert model.step == question  # no step more than was asked for
    kept = load_checkpoint(path, "k")
    assert (3 * kept.stage + kept.epoch) * 3 + kept.step == question
    resumed = toy()
    assert train(resumed, data(), SETTINGS, seed=5, key="k", checkpoint=path) == history
    assert same(resumed, whole)
    assert resumed.step + question == whole.step == 18  # and none is repeated
    assert repr(np.random.get_state()) == numpy_state


def test_stopped_after_every_single_step(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=2, batch_size=6, learning_rate=1e-3)
    whole, path, resumed = gmrf(), tmp_path / "checkpoint.safetensors", gmrf()
    history, stops = train(whole, data(), settings, seed=5), 0
    while True:
        resumed = gmrf()
        try:
            found = train(resumed, data(), settings, seed=5, key="k", checkpoint=path, stop=lambda: True)
        except TrainingStopped:
            stops += 1
        else:
            break
    assert stops == 7  # 4 steps an epoch, and after the last one nothing is left to stop
    assert found == history
    assert same(resumed, whole)


def test_noise_of_numpy_and_of_a_stopped_epoch_is_the_uninterrupted_one_s(tmp_path: Path) -> None:
    class Noisy(TwoStages):
        def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
            found = super().loss(batch, stage)
            noise = float(np.random.standard_normal(3)[0])  # an odd number, so that one normal is left over
            return Loss(found.total * (1 + noise), found.terms)

    def model() -> Noisy:
        with isolated_rng(1):
            return Noisy()

    whole, path = model(), tmp_path / "c.safetensors"
    history = train(whole, data(), SETTINGS, seed=5)
    for question in (2, 3):
        with pytest.raises(TrainingStopped):
            train(model(), data(), SETTINGS, seed=5, checkpoint=path, stop=stop_at(question))
    resumed = model()
    assert train(resumed, data(), SETTINGS, seed=5, checkpoint=path) == history
    assert same(resumed, whole)


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    whole, path = toy(), tmp_path / "checkpoint.safetensors"
    history = train(whole, data(), SETTINGS, seed=5)
    for damage in (b"", b"\0" * 64, None, b"repro"):
        discard_checkpoints(path)
        with pytest.raises(Interrupt):
            train(toy(), data(), SETTINGS, seed=5, key="key", checkpoint=path, on_epoch=stop_after(4))
        content = bytearray(path.read_bytes())
        if damage == b"repro":
            content = content.replace(b"repro-checkpoint/1", b"repro-checkpoimt/1")
        content[-2] ^= 8
        path.write_bytes(content if damage in (None, b"repro") else damage)
        resumed, epochs = toy(), []
        with pytest.warns(UserWarning, match=r"checkpoint.safetensors is .*; going on from the one before"):
            again = train(resumed, data(), SETTINGS, seed=5, key="key", checkpoint=path, on_epoch=epochs.append)
        assert again == history
        assert same(resumed, whole)
        assert len(epochs) == 4  # the one that the damaged checkpoint had is repeated
        assert load_latest_checkpoint(path, "key") is not None
    previous_path(path).write_bytes(b"")
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"truncated .*checkpoint.previous.safetensors, the one before, cannot"):
        train(toy(), data(), SETTINGS, seed=5, key="key", checkpoint=path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint.previous.safetensors is truncated"):
        train(toy(), data(), SETTINGS, seed=5, key="key", checkpoint=path)


def test_the_one_before_is_there_when_a_kill_comes_between_the_two(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Interrupt):
        train(toy(), data(), SETTINGS, seed=5, key="key", checkpoint=path, on_epoch=stop_after(4))
    kept = path.read_bytes()
    path.rename(previous_path(path))
    found = load_latest_checkpoint(path, "key")
    assert found is not None
    assert (found.stage, found.epoch) == (0, 3)
    assert previous_path(path).read_bytes() == kept
    assert load_latest_checkpoint(tmp_path / "none.safetensors", "key") is None


def test_full_disk_gives_up_the_one_before_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tensors = tmp_path / "checkpoint.safetensors", {"w": torch.rand(10)}
    for epoch in (1, 2):
        save_checkpoint(path, Checkpoint(0, epoch, [], tensors), "key")
    save, calls = save_file, []

    def full_at_first(*arguments: Any, **options: Any) -> None:
        calls.append(previous_path(path).exists())
        if len(calls) == 1:
            raise no_space(path)
        save(*arguments, **options)

    monkeypatch.setattr(checkpoints, "save_file", full_at_first)
    save_checkpoint(path, Checkpoint(0, 3, [], tensors), "key")
    assert calls == [True, False]
    assert load_checkpoint(path, "key").epoch == 3
    assert load_checkpoint(previous_path(path), "key").epoch == 2


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    path, model, again = tmp_path / "c.safetensors", toy(), toy()
    history = train(model, data(), SETTINGS, seed=5, checkpoint=path)
    content, calls = path.read_bytes(), []
    assert train(again, data(), SETTINGS, seed=5, checkpoint=path, on_epoch=calls.append) == history
    assert calls == []
    assert same(model, again)
    assert path.read_bytes() == content


def test_history_holds_stage_epoch_terms_and_what_is_added() -> None:
    model = toy()
    history = train(model, data(), SETTINGS, seed=5, on_epoch=lambda entry: {"seconds": entry["epoch"] / 2})
    assert [(e["stage"], e["epoch"], e["seconds"]) for e in history] == [
        (stage, epoch, epoch / 2) for stage in ("encode", "decode") for epoch in (1, 2, 3)
    ]
    assert set(history[0]) == {"stage", "epoch", "epochs", "loss", "error", "size", "seconds"}
    for entry in history:
        assert entry["loss"] == pytest.approx(entry["error"] + 0.1 * entry["size"], rel=1e-5)
    assert not model.training


def test_parameters_that_are_not_finite_are_named_where_a_distribution_meets_them() -> None:
    """Not the distribution's own error, which prints the whole tensor."""
    model, steps, loss = toy(), [], TwoStages.loss

    def poisoned(batch: Any, stage: Any = None) -> Any:
        steps.append(1)
        found = loss(model, batch, stage)
        torch.distributions.Normal(found.total, 1.0, validate_args=True)
        return dataclasses.replace(found, total=found.total * float("inf" if len(steps) == 2 else 1))

    model.loss = poisoned  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match=r"^stage 'encode', epoch 1 of 3, step 3: parameters not finite: \['"):
        train(model, data(), SETTINGS, seed=5)
    model = toy()
    model.loss = lambda batch, stage=None: torch.distributions.Normal(torch.nan, 1.0, validate_args=True)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="to satisfy the constraint"):  # of another cause: as it is
        train(model, data(), SETTINGS, seed=5)


def test_each_stage_trains_its_own_parameters() -> None:
    model, start = toy(), toy()
    seen: list[tuple[bool, bool]] = []

    def on_epoch(entry: dict[str, Any]) -> None:
        seen.append((same(model.first, start.first), same(model.second, start.second)))

    train(model, data(), SETTINGS, seed=5, on_epoch=on_epoch)
    assert seen == [(False, True)] * 3 + [(False, False)] * 3
    model.stages = lambda: (Stage("third", ("third.",)),)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="stage 'third' names no parameter of TwoStages"):
        train(model, data(), SETTINGS, seed=5)


def test_global_random_state_is_neither_used_nor_moved() -> None:
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), repr(np.random.get_state())
        models.append(toy())
        train(models[-1], data(), SETTINGS, seed=5)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert repr(np.random.get_state()) == before[1]
    assert same(*models)
    other = toy()
    train(other, data(), SETTINGS, seed=6)
    assert not same(other, models[0])


def test_epochs_have_seeds_of_their_own() -> None:
    seeds = {epoch_seed(s, stage, e) for s in range(5) for stage in ("encode", "decode") for e in range(50)}
    assert len(seeds) == 500
    assert all(0 <= s < 2**62 for s in seeds)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    tensors = {"w": torch.rand(3, 2), "half": torch.rand(4).to(torch.bfloat16), "n": torch.tensor(3)}
    history = [{"stage": "encode", "epoch": 1, "loss": 0.1 + 0.2}]
    save_checkpoint(path, Checkpoint(1, 2, history, tensors, {"0.step": torch.tensor(7.0)}), "key")
    found = load_checkpoint(path, "key")
    assert (found.stage, found.epoch, found.history) == (1, 2, history)
    assert {k: v.dtype for k, v in found.model.items()} == {k: v.dtype for k, v in tensors.items()}
    assert all(torch.equal(found.model[k], v) for k, v in tensors.items())
    assert found.optimizer == {"0.step": torch.tensor(7.0)}
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A checkpoint of run "key" after two epochs of the first stage."""
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Interrupt):
        train(toy(), data(), SETTINGS, seed=5, key="key", checkpoint=path, on_epoch=stop_after(3))
    assert load_checkpoint(previous_path(path), "key").epoch == 1
    previous_path(path).unlink()
    return path


def refused(path: Path, match: str, key: str = "key") -> None:
    """Training does not start from the file, says so in one line, and leaves it as it is."""
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match=match) as caught:
        train(toy(), data(), SETTINGS, seed=5, key=key, checkpoint=path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_truncated_checkpoint(written: Path) -> None:
    content = written.read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        written.write_bytes(content[:length])
        refused(written, "truncated or no safetensors file")


def test_any_flipped_bit_is_noticed(written: Path) -> None:
    content = written.read_bytes()
    unnoticed = []
    for index in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[index] ^= 1 << index % 7
        written.write_bytes(flipped)
        with contextlib.suppress(CheckpointError):
            load_checkpoint(written, "key")
            unnoticed.append(index)
    assert unnoticed == []


def test_altered_state_is_noticed(written: Path) -> None:
    content = written.read_bytes()
    assert content.count(rb"\"epoch\": 2,") == 2  # of the state, and of the history's last entry
    written.write_bytes(content.replace(rb"\"epoch\": 2,", rb"\"epoch\": 1,", 1))
    refused(written, "damaged")


def test_damaged_tensor(written: Path) -> None:
    content = bytearray(written.read_bytes())
    content[-3] ^= 4
    written.write_bytes(content)
    refused(written, "damaged .its hash does not match")


def test_foreign_files(written: Path) -> None:
    refused(written, "belongs to run key, not to other", key="other")
    save_file({"w": torch.zeros(2)}, written)
    refused(written, "is not a repro-checkpoint/1 file")
    written.write_text("not a checkpoint")
    refused(written, "truncated or no safetensors file")


def test_checkpoint_of_another_model(written: Path) -> None:
    state = load_checkpoint(written, "key")
    state.model["first.weight"] = torch.zeros(2, 2)
    save_checkpoint(written, state, "key")
    previous_path(written).unlink()
    refused(written, "does not fit the model: .*first.weight")


def no_space(path: Any) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", str(path))


@pytest.mark.parametrize("where", ["save_file", "replace"])
def test_full_disk_keeps_the_former_checkpoint(where: str, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, uninterrupted = written.read_bytes(), toy()
    history = train(uninterrupted, data(), SETTINGS, seed=5)

    def cut_short(tensors: Any, path: Path, metadata: Any = None) -> None:
        Path(path).write_bytes(b"\0" * 100)
        raise no_space(path)

    def refuse(source: Path, target: Path) -> None:
        raise no_space(target)

    with monkeypatch.context() as patch:
        patch.setattr(
            *((checkpoints, "save_file", cut_short) if where == "save_file" else (checkpoints.os, "replace", refuse))
        )
        with pytest.raises(CheckpointError, match=r"No space left on device.*the former one is kept") as caught:
            train(toy(), data(), SETTINGS, seed=5, key="key", checkpoint=written)
    assert "\n" not in str(caught.value)
    assert written.read_bytes() == before
    assert {p.name for p in written.parent.iterdir()} <= {written.name, previous_path(written).name}
    resumed = toy()
    assert train(resumed, data(), SETTINGS, seed=5, key="key", checkpoint=written) == history
    assert same(resumed, uninterrupted)


@pytest.mark.parametrize("folder", ["absent", "file"])
def test_folder_that_cannot_be_written_to(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write checkpoint") as caught:
        save_checkpoint(tmp_path / folder / "c.safetensors", Checkpoint(0, 1, [], {"w": torch.zeros(2)}), "key")
    assert "\n" not in str(caught.value)


def test_nan_loss_stops_at_once_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    settings, path, model = TrainingSettings(5, 10, 1e-2), tmp_path / "c.safetensors", toy()
    model.poison = lambda step, term: term * float("nan") if step == 6 else term  # two steps an epoch
    with pytest.raises(NonFiniteLossError) as caught:
        train(model, data(), settings, seed=5, key="key", checkpoint=path)
    message = str(caught.value)
    assert message.startswith("stage 'encode', epoch 3 of 5: ")
    assert "'error': nan" in message
    assert "'size'" not in message
    assert "\n" not in message
    kept = load_checkpoint(path, "key")
    assert (kept.stage, kept.epoch, len(kept.history)) == (0, 2, 2)
    assert all(bool(x.isfinite().all()) for x in (*kept.model.values(), *kept.optimizer.values()))
    json.dumps(kept.history, allow_nan=False)


def test_infinite_loss_and_parameters(tmp_path: Path) -> None:
    settings, path, model = TrainingSettings(4, 20, 1e-2), tmp_path / "c.safetensors", toy()
    model.poison = lambda step, term: term + float("inf") if step == 2 else term
    with pytest.raises(NonFiniteLossError, match=r"epoch 2 of 4: .*'error': inf"):
        train(model, data(), settings, seed=5, key="key", checkpoint=path)
    model = toy()
    # A finite value whose gradient is not: the square root at zero.
    model.poison = lambda step, term: term + ((0 * term).sqrt() if step == 3 else 0)
    path.unlink()
    with pytest.raises(NonFiniteLossError, match=r"epoch 3 of 4: parameters not finite: \['first\.weight'"):
        train(model, data(), settings, seed=5, key="key", checkpoint=path)
    assert load_checkpoint(path, "key").epoch == 2


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_term_for_the_log_alone_that_is_not_finite_ends_nothing(value: float, tmp_path: Path) -> None:
    class Overflowing(TwoStages):
        """Its loss is finite; a term for the log, at the second of three steps, is not."""

        def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
            found = super().loss(batch, stage)
            kl = torch.full_like(found.total.detach(), value if self.step == 2 else 1.0)
            return Loss(found.total, {**found.terms, "kl_a": kl})

    def overflowing() -> Overflowing:
        with isolated_rng(1):
            return Overflowing()

    whole, plain, path = overflowing(), toy(), tmp_path / "c.safetensors"
    history = train(whole, data(), SETTINGS, seed=5)
    assert [entry.get("not_finite") for entry in history] == [["kl_a"], *[None] * 5]
    assert ["kl_a" in entry for entry in history] == [False, *[True] * 5]
    json.dumps(history, allow_nan=False)
    expected = train(plain, data(), SETTINGS, seed=5)
    assert [entry["loss"] for entry in history] == [entry["loss"] for entry in expected]
    assert same(plain, whole)
    first = overflowing()  # left after the step that overflowed, within its epoch
    with pytest.raises(TrainingStopped):
        train(first, data(), SETTINGS, seed=5, key="k", checkpoint=path, stop=lambda: first.step == 2)
    resumed = overflowing()
    resumed.step = 2
    assert train(resumed, data(), SETTINGS, seed=5, key="k", checkpoint=path) == history
    assert same(resumed, whole)


def test_wrong_calls() -> None:
    for changes in ({"epochs": 0}, {"batch_size": -1}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}):
        options = {"epochs": 1, "batch_size": 1, "learning_rate": 1e-3, **changes}
        with pytest.raises(ValueError, match=f"{next(iter(changes))} is .*must be positive"):
            TrainingSettings(**options)
    other = Dataset("toy", "train", {"a": ModalitySpec((2,))}, {"a": torch.zeros(4, 2)})
    with pytest.raises(ValueError, match=r"the data has modalities .*'a'.*, the model .*'b'"):
        train(toy(), other, SETTINGS, seed=0)


def test_checkpoint_holds_tensors_and_json_only(written: Path) -> None:
    names = set(load_file(written))
    assert {"model.first.weight", "model.second.bias", "optimizer.0.exp_avg"} <= names
    assert all(name.startswith(("model.", "optimizer.")) for name in names)


def test_unknown_optimizer() -> None:
    with pytest.raises(ValueError, match="optimizer is 'sgd'; one of adam, adamw"):
        TrainingSettings(1, 1, 1e-3, optimizer="sgd")


def test_what_callbacks_return_is_plain_or_refused_by_name(tmp_path: Path) -> None:
    found = {"tensor": torch.tensor(0.5), "array": np.array([2]), "scalar": np.float32(0.25), "text": "x", "n": 3}
    path = tmp_path / "c.safetensors"
    history = train(toy(), data(), SETTINGS, seed=5, checkpoint=path, on_epoch=lambda entry: found)
    assert {k: history[0][k] for k in found} == {"tensor": 0.5, "array": 2, "scalar": 0.25, "text": "x", "n": 3}
    assert train(toy(), data(), SETTINGS, seed=5, checkpoint=path) == history
    for value, message in (
        ({"rows": torch.zeros(3)}, "on_epoch returned 'rows' of type Tensor, which a checkpoint cannot hold"),
        ({"object": object()}, "on_epoch returned 'object' of type object"),
        ({"epoch": 7}, "on_epoch returned 'epoch', which every entry has of its own"),
        ({1: 2.0}, "on_epoch returned 1, which is no name"),
        (torch.zeros(2), "on_epoch returned a Tensor, must return a mapping or None"),
    ):
        with pytest.raises(ValueError, match=message):
            train(toy(), data(), SETTINGS, seed=5, on_epoch=lambda entry, value=value: value)


def test_a_missing_folder_is_noticed_before_the_first_step(tmp_path: Path) -> None:
    model = toy()
    with pytest.raises(CheckpointError, match="there is no folder"):
        train(model, data(), SETTINGS, seed=5, checkpoint=tmp_path / "none" / "c.safetensors")
    for path in (tmp_path, str(tmp_path), ""):
        with pytest.raises(CheckpointError, match="it is a folder; name a file in it"):
            train(model, data(), SETTINGS, seed=5, checkpoint=path)
    assert model.step == 0


@pytest.mark.parametrize(
    "changes", [{"epochs": 1.5}, {"batch_size": "32"}, {"batch_size": 16.0}, {"learning_rate": float("inf")}]
)
def test_settings_of_another_type_are_refused_at_once(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(changes))} is .*, must be "):
        dataclasses.replace(SETTINGS, **changes)


def test_a_checkpoint_of_other_validation_is_refused_where_it_ends_a_stage(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    patient = dataclasses.replace(SETTINGS, patience=1)
    train(toy(), data(), patient, seed=5, checkpoint=path, validation=data(12))
    with pytest.raises(CheckpointError, match="belongs to another run, of validation "):
        train(toy(), data(), patient, seed=5, checkpoint=path, validation=data(13))
    other = tmp_path / "d.safetensors"
    history = train(toy(), data(), SETTINGS, seed=5, checkpoint=other, validation=data(12))
    assert train(toy(), data(), SETTINGS, seed=5, checkpoint=other) == history


def test_an_epoch_left_within_is_not_continued_with_other_batches(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(TrainingStopped):
        train(toy(), data(), SETTINGS, seed=5, key="k", checkpoint=path, stop=stop_at(2))
    other = dataclasses.replace(SETTINGS, batch_size=5)
    with pytest.raises(CheckpointError, match="left within an epoch of batch size 8, now it is 5"):
        train(toy(), data(), other, seed=5, key="k", checkpoint=path)
    with pytest.raises(CheckpointError, match="left within an epoch of samples 20, now it is 16"):
        train(toy(), data(16), SETTINGS, seed=5, key="k", checkpoint=path)


def test_a_default_key_tells_models_apart_by_their_options(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    settings = TrainingSettings(epochs=1, batch_size=8, learning_rate=1e-3)
    train(GMRFMCVAE(MODALITIES, beta=0.1), data(), settings, seed=0, checkpoint=path)
    for changes in ({"beta": 0.2}, {"beta": 0.1, "likelihood": "laplace"}, {"beta": 0.1, "latent_dim": 3}):
        with pytest.raises(CheckpointError, match="of model's options "):
            train(GMRFMCVAE(MODALITIES, **changes), data(), settings, seed=0, checkpoint=path)
    longer = dataclasses.replace(settings, epochs=2)
    assert len(train(GMRFMCVAE(MODALITIES, beta=0.1), data(), longer, seed=0, checkpoint=path)) == 2


def test_a_default_key_names_a_decay_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    constant = TrainingSettings(epochs=1, batch_size=8, learning_rate=1e-3)
    assert "decay" not in default_key(toy(), data(), constant, 0)  # checkpoints of before there was one go on
    train(toy(), data(), constant, seed=0, checkpoint=path)
    falling = dataclasses.replace(constant, epochs=2, decay=0.5)
    with pytest.raises(CheckpointError, match="decay"):
        train(toy(), data(), falling, seed=0, checkpoint=path)


def test_numbers_of_numpy_are_numbers_in_keys_and_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    own = TrainingSettings(np.int64(1), np.int32(8), np.float64(1e-3), patience=np.int64(3), plateau=np.int8(0))  # type: ignore[arg-type]
    assert own == TrainingSettings(1, 8, 1e-3, patience=3)
    assert {type(getattr(own, n)) for n in ("epochs", "batch_size", "patience", "plateau")} == {int}
    stages = {"score": {"batch_size": np.int64(8), "learning_rate": np.float64(0.1)}}
    staged = TrainingSettings(1, 8, 1e-3, stages=stages)
    assert {type(v) for v in staged.stages["score"].values()} == {int, float}
    settings = TrainingSettings(np.int64(1), 8, 1e-3)  # type: ignore[arg-type]
    history = train(toy(), data(), settings, seed=np.int64(1), checkpoint=path)  # type: ignore[arg-type]
    assert train(toy(), data(), TrainingSettings(1, 8, 1e-3), seed=1, checkpoint=path) == history


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": None}, "seed is None, must be a whole number"),
        ({"seed": "0"}, "seed is '0', must be a whole number"),
        ({"settings": {"epochs": 1}}, "the settings are a dict, must be TrainingSettings"),
        ({"data": {"train": 1}}, "data is a dict, must be one split, a Dataset"),
        ({"validation": 3}, "validation is a int, must be one split, a Dataset"),
        ({"settings": TrainingSettings(1, 8, 1e-3, device="gpu")}, "device 'gpu': "),
    ],
)
def test_arguments_of_another_type_are_refused_before_the_first_step(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arguments = {"data": data(), "settings": TrainingSettings(1, 8, 1e-3), "seed": 0, **changes}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        train(toy(), checkpoint=tmp_path / "x.safetensors", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_model_whose_parameters_are_all_frozen_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"^stage '.*': all parameters of .* are frozen \(requires_grad\)$"):
        train(toy().requires_grad_(False), data(), TrainingSettings(1, 8, 1e-3), seed=0)

"""A step operation by operation and as a graph: the same numbers, the choice between them, and what falls back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec
from repro.model import Loss, Stage, TrainableModel, isolated_rng
from repro.training import TrainingSettings, TrainingStopped, train
from repro.training.checkpoints import load_checkpoint
from repro.training.steps import CapturedStep, EagerStep, chosen_step, obstacle
from tests.engine.test_devices import LONG, MODELS, dataset, trainable
from tests.support.graphs import capturing
from tests.support.pretend import devices, pretend, pretending

# What a graph cannot hold of these models' losses; all others are captured.
OBSTACLES = dict.fromkeys(("gmrf block-dominant", "variant nnmrf", "variant nnmrf per sample"), "looks at a value")
OBSTACLES |= {m: "looks at a value" for m in MODELS if m.startswith("covae")}
OBSTACLES |= dict.fromkeys(("mmvae", "mopoe", "mmvae_plus", "mvtcae"), "copies from one device to another")


@pytest.fixture(params=[pytest.param(d, marks=pytest.mark.cuda) if d == "cuda" else d for d in devices()])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The pretended device with graphs of its own, and a GPU where there is one."""
    if request.param == "cuda":
        yield "cuda"
        return
    with pretending(), capturing():
        yield request.param


def trained(model: TrainableModel, place: str, step: str, path: Path | None = None, **options: Any) -> list[Any]:
    data = dataset(model)
    settings = TrainingSettings(2, 40, 1e-3, device=place, step=step)  # the last batch of an epoch is smaller
    return train(model, data, settings, seed=0, key="k", checkpoint=path, **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x.cpu(), b.state_dict()[k].cpu()) for k, x in a.state_dict().items())


@pytest.mark.parametrize("name", [pytest.param(m, marks=pytest.mark.slow) if m.startswith(LONG) else m for m in MODELS])
def test_a_captured_step_trains_as_the_step_itself(name: str, device: str) -> None:
    eager, captured = trainable(name), trainable(name)
    history = trained(eager, device, "eager")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = trained(captured, device, "captured")
    reasons = [str(w.message) for w in said if "operation by operation" in str(w.message)]
    if device == pretend():
        assert same(eager, captured)
        assert [OBSTACLES.get(name, "") in r for r in reasons] == [True] * len(reasons)
        assert bool(reasons) == (name in OBSTACLES)
    else:
        least = 1e-3
        for k, x in eager.state_dict().items():
            torch.testing.assert_close(captured.state_dict()[k], x, rtol=least, atol=least)
    ways = {e["stage"]: e["step"] for e in found}
    assert set(ways.values()) <= {"captured", "eager"}
    assert reasons or set(ways.values()) == {"captured"}
    assert all("step" not in e for e in history)


@pytest.mark.parametrize("name", ["gmrf", "mvae", "covae"])
def test_captured_training_is_continued_bit_for_bit(name: str, device: str, tmp_path: Path) -> None:
    once, again = trainable(name), trainable(name)
    trained(once, device, "captured", tmp_path / "once.safetensors")
    asked = iter(range(1000))
    with pytest.raises(TrainingStopped):
        trained(again, device, "captured", tmp_path / "again.safetensors", stop=lambda: next(asked) >= 3)
    again = trainable(name)
    trained(again, device, "captured", tmp_path / "again.safetensors")
    assert same(once, again)


class Toy(TrainableModel):
    """A linear map with noise, whose loss does what it is told to besides."""

    def __init__(self, also: Callable[[Toy, Tensor], Tensor] | None = None) -> None:
        super().__init__({"x": ModalitySpec((3,))})
        self.also, self.calls = also, 0
        with isolated_rng(0):
            self.layer = nn.Linear(3, 2)

    def loss(self, batch: Any, stage: Stage | None = None) -> Loss:
        """The mean square of the map."""
        self.calls += 1
        y = self.layer(batch["x"] + 0.1 * torch.randn_like(batch["x"]))
        return Loss(y.square().mean() + (0.0 if self.also is None else self.also(self, y)))


def data(number: int = 60) -> Dataset:
    x = torch.rand(number, 3, generator=torch.Generator().manual_seed(1))
    return Dataset("toy", "train", {"x": ModalitySpec((3,))}, {"x": x})


def branch(model: Toy, y: Tensor) -> Tensor:
    return y.sum() if float(y.detach().mean()) > 0 else -y.sum()


REFUSED: dict[str, tuple[Callable[[Toy, Tensor], Tensor], str]] = {
    "a branch on a value": (branch, "looks at a value"),
    "a copy from the CPU": (lambda m, y: (y * torch.ones(2).to(y.device)).sum(), "copies from one device to another"),
    "a draw on the CPU": (lambda m, y: y.sum() * float(torch.rand(())), "draws on the CPU"),
    "rows by a mask": (lambda m, y: y[y > 0].sum(), "takes a mask"),
    "so many as there are": (lambda m, y: y.sum() * len(y.nonzero()), "gives so many values as it finds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_hold_is_said_in_one_line(name: str, device: str) -> None:
    also, reason = REFUSED[name]
    with pytest.warns(UserWarning, match=reason) as said:
        history = train(Toy(also), data(), TrainingSettings(1, 20, 1e-3, device=device, step="captured"), seed=0)
    texts = [str(w.message) for w in said if "operation by operation" in str(w.message)]
    assert len(texts) == 1
    assert texts[0].startswith("stage 'train' of Toy is trained operation by operation: ")
    assert "\n" not in texts[0]
    assert history[0]["step"] == "eager"


def counting(model: Toy, y: Tensor) -> Tensor:
    return model.calls * y.square().mean()


def test_a_replay_is_of_the_recorded_operations_alone(device: str) -> None:
    """So that the tests above see a loss that depends on what Python counts."""
    found = []
    for step in ("eager", "captured"):
        model = Toy(counting)
        train(model, data(), TrainingSettings(1, 20, 1e-3, device=device, step=step), seed=0)
        found.append(model)
    assert not same(*found)


@pytest.mark.parametrize("falling", [{"plateau": 1}, {"decay": 0.5}], ids=lambda f: next(iter(f)))
def test_a_falling_rate_is_followed(device: str, falling: dict[str, float]) -> None:
    found = []
    for step in ("eager", "captured"):
        model = Toy()
        settings = TrainingSettings(6, 20, 1.0, device=device, step=step, **falling)
        train(model, data(), settings, seed=0)
        found.append(model)
    if device == pretend():
        assert same(*found)
    else:
        torch.testing.assert_close(found[0].layer.weight, found[1].layer.weight)


def steps_of(device: str) -> tuple[EagerStep, dict[str, Tensor]]:
    model = Toy().to(device).train()
    eager = EagerStep(model, model.stages()[0], torch.optim.Adam(model.parameters(), fused=True))
    return eager, next(data().to(device).batches(20))


@pytest.mark.parametrize(("times", "name"), [([2.0, 1.0], "captured"), ([1.0, 2.0], "eager"), ([1.0, 1.0], "eager")])
def test_the_faster_way_is_taken(times: list[float], name: str, device: str) -> None:
    eager, batch = steps_of(device)
    before = {k: v.clone() for k, v in eager.model.state_dict().items()}
    streams = torch.get_rng_state()
    left, measured = iter(times), []

    def seconds(step: Callable[[], object]) -> float:
        measured.append(step())
        return next(left)

    assert chosen_step("auto", eager, batch, seconds=seconds).name == name
    assert len(measured) == 2
    assert all(torch.equal(before[k], v) for k, v in eager.model.state_dict().items())  # a trial leaves no trace
    assert all(not x.any() for s in eager.optimizer.state.values() for x in s.values())
    assert torch.equal(torch.get_rng_state(), streams)


def test_on_the_cpu_nothing_is_measured_and_nothing_is_captured() -> None:
    eager, batch = steps_of("cpu")
    assert chosen_step("auto", eager, batch, seconds=lambda step: pytest.fail("measured")) is eager
    with pytest.warns(UserWarning, match="captured on cuda, not on cpu"):
        assert chosen_step("captured", eager, batch) is eager


def test_a_capture_that_fails_falls_back(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(step: Any) -> Any:
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nCompile with ...")

    monkeypatch.setitem(__import__("repro.training.steps", fromlist=["GRAPHS"]).GRAPHS, device, refusing)
    found = []
    for step in ("eager", "captured"):
        model = Toy()
        with pytest.warns(UserWarning, match="stream is capturing") if step == "captured" else nullcontext():
            train(model, data(), TrainingSettings(1, 20, 1e-3, device=device, step=step), seed=0)
        found.append(model)
    assert device == "cuda" or same(*found)


def test_a_run_goes_on_in_the_way_that_it_began_in(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repro.training.steps.step_seconds", lambda step: next(times))
    path, asked = tmp_path / "a.safetensors", iter(range(1000))
    settings = TrainingSettings(2, 20, 1e-3, device=device, step="auto")
    times = iter([2.0, 1.0])
    with pytest.raises(TrainingStopped):
        train(Toy(), data(), settings, seed=0, key="k", checkpoint=path, stop=lambda: next(asked) >= 1)
    assert load_checkpoint(path, "k").way == "captured"
    times = iter([])  # whatever is faster now, it is not asked
    history = train(Toy(), data(), settings, seed=0, key="k", checkpoint=path)
    assert {e["step"] for e in history} == {"captured"}


def test_by_default_checkpoints_and_history_say_nothing_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    history = train(Toy(), data(), TrainingSettings(1, 20, 1e-3), seed=0, key="k", checkpoint=path)
    assert all("step" not in e for e in history)
    assert b'"way"' not in path.read_bytes()
    assert load_checkpoint(path, "k").way == ""


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="step is 'fast'; one of eager, captured, auto"):
        TrainingSettings(1, 1, 1.0, step="fast")
    with pytest.raises(ValueError, match="step is 'fast'"):
        chosen_step("fast", *steps_of("cpu"))


def test_an_obstacle_is_looked_for_without_a_trace(device: str) -> None:
    eager, batch = steps_of(device)
    streams = torch.get_rng_state()
    assert obstacle(eager, batch) == ""
    assert torch.equal(torch.get_rng_state(), streams)
    assert isinstance(chosen_step("captured", eager, batch), CapturedStep)

"""Several processes and shards: one loss curve, one set of metrics, and runs that change their number of processes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec
from repro.engine.execute import execute
from repro.engine.processes import joined
from repro.engine.store import RunStore
from repro.engine.torchrun import command, launch, process_environment
from repro.errors import RunError
from repro.model import Loss, Stage, TrainableModel, isolated_rng
from repro.records import Record, RunSpec
from repro.training import TrainingSettings, TrainingStopped, train
from repro.training.checkpoints import CheckpointError
from repro.training.distributed import ALONE, Parallel, ShardedLoss, gathered, shard_seed
from tests.support.toy import lines_of_log, same_result, toy_spec

pytestmark = pytest.mark.slow

pytest_plugins = ["tests.support.cluster"]

MODALITIES = {"a": ModalitySpec((3,))}


class Linear(TrainableModel):
    """A mean squared error without noise; ``calls`` are the batches that the loss saw."""

    def __init__(self) -> None:
        super().__init__(MODALITIES)
        self.map = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(()))
        self.calls: list[int] = []

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        self.calls.append(len(batch["a"]))
        self.seen += 1
        error = self.map(batch["a"]).square().sum(1).mean()
        return Loss(error, {"error": error.detach()})


def linear() -> Linear:
    with isolated_rng(3):
        return Linear()


def data(size: int = 20) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return Dataset("toy", "train", MODALITIES, {"a": torch.rand(size, 3, generator=generator)})


# One process


@pytest.mark.parametrize("size", [1, 2, 5, 12, 13])
@pytest.mark.parametrize("shards", [1, 2, 4, 12])
def test_shards_are_a_partition_in_order(size: int, shards: int) -> None:
    rows = [list(range(size))[s] for s in Parallel(shards=shards).slices(size)]
    assert len(rows) == shards
    assert [i for part in rows for i in part] == list(range(size))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_processes_share_the_shards_out() -> None:
    assert [list(Parallel(r, 3, 6).own) for r in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert list(ALONE.own) == [0]
    with pytest.raises(ValueError, match=r"4 shards cannot be shared out evenly among 3 processes; --shards must"):
        Parallel(0, 3, 4)
    with pytest.raises(ValueError, match=r"rank is 2, must be from 0 to 1"):
        Parallel(2, 2, 2)
    assert len({shard_seed(s, i) for s in range(50) for i in range(8)}) == 400


@pytest.mark.parametrize("size", [2, 3, 16, 17])
def test_gradients_of_shards_add_up_to_those_of_the_batch(size: int) -> None:
    model, whole = linear(), linear()
    batch = {"a": torch.rand(size, 3, generator=torch.Generator().manual_seed(size))}
    loss = whole.loss(batch)
    loss.total.backward()
    sums = ShardedLoss(model, Stage(), Parallel(shards=4)).backward(batch, 0)
    for ours, expected in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours.grad, expected.grad, rtol=1e-5, atol=1e-7)
    assert set(sums) == {"loss", "error"}
    assert float(sums["loss"]) / size == pytest.approx(loss.total.item(), rel=1e-5)
    assert model.calls == [max(1, n.stop - n.start) for n in Parallel(shards=4).slices(size)]
    assert float(model.seen) == 1.0  # as if the loss had been asked once


def test_one_loss_curve_for_any_number_of_shards() -> None:
    curves = []
    for shards in (1, 2, 3, 8):
        history = train(linear(), data(), TrainingSettings(4, 8, 1e-2), seed=1, parallel=Parallel(shards=shards))
        curves.append([e["loss"] for e in history])
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-5)
    assert curves[0][-1] < curves[0][0]


def test_each_shard_has_noise_of_its_own(tmp_path: Path) -> None:
    class Noisy(Linear):
        def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
            drawn.append(float(torch.randn(())))
            return super().loss(batch, stage)

    drawn: list[float] = []
    settings, path = TrainingSettings(2, 8, 1e-2), tmp_path / "c.safetensors"
    train(Noisy(), data(), settings, seed=1, parallel=Parallel(shards=2))
    assert len(set(drawn)) == len(drawn) == 12
    whole, drawn[:] = list(drawn), []
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(TrainingStopped):
        train(Noisy(), data(), settings, seed=1, checkpoint=path, stop=stop, parallel=Parallel(shards=2))
    train(Noisy(), data(), settings, seed=1, checkpoint=path, parallel=Parallel(shards=2))
    assert drawn == whole


def test_checkpoint_of_other_shards_is_refused(tmp_path: Path) -> None:
    settings, path = TrainingSettings(1, 8, 1e-2), tmp_path / "c.safetensors"
    train(linear(), data(), settings, seed=1, checkpoint=path, parallel=Parallel(shards=2))
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"divides batches into 2, now 1 shards .*; continue with --shards 2, or"):
        train(linear(), data(), settings, seed=1, checkpoint=path)
    assert path.read_bytes() == content


def test_losses_with_parts_are_refused() -> None:
    class Adversarial(Linear):
        def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
            total = super().loss(batch, stage).total
            return Loss(total, parts={"map.": total})

    with pytest.raises(
        ValueError, match=r"the loss of Adversarial has a part for each of \['map.'\].*; it is trained by"
    ):
        train(Adversarial(), data(), TrainingSettings(1, 8, 1e-2), seed=1, parallel=Parallel(shards=2))


class Sampler(nn.Module):
    """Samples that are their generator's, and values that are their points'."""

    def generate(
        self, num_samples: int = 1, *, given: Mapping[str, Tensor] | None = None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if given is None:
            return {"a": torch.randn(num_samples, 3, generator=generator)}
        return {"a": given["a"] + torch.randn(num_samples, 1, 3, generator=generator)}

    def log_likelihood(
        self, batch: Mapping[str, Tensor], *, given: Mapping[str, Tensor] | None = None, generator: torch.Generator
    ) -> Tensor:
        return batch["a"].sum(1) + (0 if given is None else given["b"])


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_samples_and_likelihoods_are_gathered_in_order(shards: int) -> None:
    model, parallel = Sampler(), Parallel(shards=shards)
    points = {"a": torch.rand(7, 3)}
    with gathered(model, parallel):
        joint = model.generate(11, generator=torch.Generator().manual_seed(2))["a"]
        again = model.generate(11, generator=torch.Generator().manual_seed(2))["a"]
        conditional = model.generate(4, given=points, generator=torch.Generator().manual_seed(2))["a"]
        few = model.generate(1, generator=torch.Generator().manual_seed(2))["a"]
        values = model.log_likelihood(points, given={"b": torch.ones(7)}, generator=torch.Generator())
    assert joint.shape == (11, 3)
    assert torch.equal(joint, again)
    assert len(joint.unique(dim=0)) == 11  # no two shards draw the same
    assert conditional.shape == (4, 7, 3)
    assert few.shape == (1, 3)
    assert torch.equal(values, points["a"].sum(1) + 1)
    noise = conditional - points["a"]
    for rows in parallel.slices(7):
        assert torch.allclose(noise[:, rows], noise[:, rows][:, :1].expand_as(noise[:, rows]), atol=1e-6)
    assert "generate" not in vars(model)


def test_one_shard_leaves_the_model_as_it_is() -> None:
    model = Sampler()
    with gathered(model, ALONE):
        assert "generate" not in vars(model)


# Several processes


SPEC = {"epochs": 6, "pause": 0.3}
TERMS = {"autoencoder": ("error",), "gmrf": ("reconstruction", "kl")}


@pytest.fixture(scope="module")
def hurry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """While this file is there, no run pauses."""
    path = tmp_path_factory.mktemp("hurry") / "hurry"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_HURRY", str(path))
        yield path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, hurry: Path) -> dict[str, Record]:
    """The runs by one process, with two shards."""
    store = RunStore(tmp_path_factory.mktemp("alone"))
    specs = {"toy": toy_spec(**SPEC), "gmrf": toy_spec(method="gmrf", epochs=3)}
    found = {name: execute(spec, store, parallel=Parallel(shards=2)) for name, spec in specs.items()}
    return found


def assert_close(record: Record | None, expected: Record) -> None:
    """The same loss curve and metrics, up to the order of floating-point sums."""
    assert record is not None
    assert len(record.history) == len(expected.history)
    for ours, theirs in zip(record.history, expected.history, strict=True):
        assert {ours[k] == theirs[k] for k in ("stage", "epoch", "epochs")} == {True}
        assert [ours[k] for k in ("loss", *TERMS[expected.spec.method])] == pytest.approx(
            [theirs[k] for k in ("loss", *TERMS[expected.spec.method])], rel=1e-5
        )
    for metric, other in zip(record.metrics, expected.metrics, strict=True):
        assert metric.name == other.name
        assert metric.value == pytest.approx(other.value, rel=1e-4, abs=1e-5)
        assert metric.num_samples == other.num_samples


@pytest.mark.parametrize("name", ["toy", "gmrf"])
def test_two_processes_train_and_measure_as_one(
    name: str, alone: dict[str, Record], tmp_path: Path, toy_paper: None
) -> None:
    store, spec = RunStore(tmp_path), alone[name].spec
    launch(spec, store, device="cpu", processes=2, shards=2)
    record = store.record(spec)
    assert_close(record, alone[name])
    assert record is not None
    assert (record.environment["processes"], record.environment["shards"]) == (2, 2)
    assert record.environment["training"]["processes"] == 2
    assert alone[name].environment["processes"] == 1
    assert lines_of_log(spec, store) == (12 if name == "toy" else 3)  # the first process alone writes
    launch(spec, store, device="cpu", processes=2, shards=2)  # and again changes nothing
    assert store.record(spec) == record


def test_the_number_of_processes_may_change_on_the_way(
    alone: dict[str, Record], tmp_path: Path, toy_paper: None, hurry: Path
) -> None:
    store, spec, parallel = RunStore(tmp_path), alone["toy"].spec, Parallel(shards=2)
    with pytest.raises(TrainingStopped):
        execute(spec, store, parallel=parallel, stop=lambda: lines_of_log(spec, store) >= 2)
    hurry.unlink()  # so that it is not over before it is asked to stop
    with pytest.raises(TrainingStopped):
        launch(spec, store, device="cpu", processes=2, shards=2, stop=lambda: lines_of_log(spec, store) >= 5)
    hurry.touch()
    assert 5 <= lines_of_log(spec, store) < 12
    assert_close(execute(spec, store, parallel=parallel), alone["toy"])


def test_the_reason_of_a_failure_is_that_of_the_processes(tmp_path: Path, toy_paper: None) -> None:
    spec = toy_spec(batch_size=-1)
    with pytest.raises(RunError, match=r"batch_size is -1, must be positive \(see .*processes.log\)$"):
        launch(spec, RunStore(tmp_path), device="cpu", processes=2, shards=2)


def test_commands_and_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, store = toy_spec(), RunStore(tmp_path)
    one = " ".join(command(spec, store, device="cpu"))
    assert re.search(rf"-m repro.cli run --key {spec.key} --runs {tmp_path} --device cpu --shards 1$", one)
    two = " ".join(command(spec, store, device="cuda", processes=2, shards=4))
    assert "-m torch.distributed.run --standalone --nproc-per-node=2 -m repro.cli run --key" in two
    assert two.endswith("--device cuda --shards 4")
    for name in ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    assert process_environment("cpu", 2)["GLOO_SOCKET_IFNAME"] in ("lo", "lo0")
    assert process_environment("cuda", 1)["OMP_NUM_THREADS"] == "1"
    assert "GLOO_SOCKET_IFNAME" not in process_environment("cuda", 2)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert process_environment("cpu", 2)["GLOO_SOCKET_IFNAME"] == "eth7"


def test_without_torchrun_this_process_is_alone() -> None:
    with joined("cpu", 3, {}) as (device, parallel):
        assert (device, parallel) == ("cpu", Parallel(0, 1, 3))


def test_same_result_tells_records_apart(alone: dict[str, Record]) -> None:
    assert same_result(alone["toy"], alone["toy"])
    assert not same_result(alone["toy"], alone["gmrf"])
    assert isinstance(alone["toy"].spec, RunSpec)

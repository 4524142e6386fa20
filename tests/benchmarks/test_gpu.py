"""The command for a stretch on a GPU, in tiny sizes on a CPU: what it measures, packs, and continues from."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from repro.datasets.base import ModalitySpec
from repro.engine.store import RunStore
from repro.model import Loss, Stage, TrainableModel, isolated_rng


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", Path(__file__).parent / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_dry_run_measures_runs_packs_and_is_continued(gpu: ModuleType, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    arguments = ["--dry-run", "--minutes", "1", "--out", str(out), "--work", str(work)]
    assert gpu.main(arguments) == 0
    found = json.loads((out / "measured.json").read_text())
    assert all(0 < v["share_of_peak"] < 1.5 and v["seconds"] > 0 for v in found["steps"].values())
    assert found["table1_stacked"]["gmrf_mcvae"]["stacked"] > 0
    assert list(found["runs"].values()) == ["recorded"]
    assert found["left_out"] == []
    files = sorted(out.iterdir())
    assert len(files) <= 8
    assert all(f.stat().st_size <= 16_000_000 for f in files)
    record = next(work.rglob("record.json")).read_bytes()
    shutil.rmtree(work)  # another machine: all that is left is what was packed
    assert gpu.main(arguments) == 0
    assert next(work.rglob("record.json")).read_bytes() == record


def test_time_that_is_over_leaves_a_run_to_the_next_call(gpu: ModuleType, tmp_path: Path) -> None:
    states = gpu.run_queue(RunStore(tmp_path), "cpu", 0.0, dry=True)
    assert list(states.values()) == ["not begun: the time is over"]


def test_small_files_are_packed_first_and_what_does_not_fit_is_named(gpu: ModuleType, tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    out.mkdir()
    for run, size in (("a", 900_000), ("b", 100_000)):
        (runs / run).mkdir(parents=True)
        (runs / run / "record.json").write_text(run)
        (runs / run / "checkpoint.safetensors").write_bytes(bytes(size))
    assert gpu.pack(runs, out, files=2, size=300_000) == ["a/checkpoint.safetensors (1 MB)"]
    assert all(f.stat().st_size <= 300_000 for f in out.iterdir())
    gpu.unpack(tmp_path / "back", out)
    assert [p.read_text() for p in sorted((tmp_path / "back").rglob("record.json"))] == ["a", "b"]
    assert (tmp_path / "back" / "b" / "checkpoint.safetensors").stat().st_size == 100_000


class Quadratic(TrainableModel):
    """Without noise, so that models one by one can be compared with."""

    def __init__(self, seed: int) -> None:
        super().__init__({"x": ModalitySpec((3,))})
        with isolated_rng(seed):
            self.layer = torch.nn.Linear(3, 2)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The mean square of a linear map."""
        return Loss(self.layer(batch["x"]).square().mean())


def test_stacked_models_have_the_losses_and_gradients_of_each(gpu: ModuleType) -> None:
    models = [Quadratic(seed) for seed in range(3)]
    batches = [gpu.noise_batch(m, 4, "cpu") for m in models]
    parameters, buffers = gpu.stack_module_state(models)
    stacked = {"x": torch.stack([b["x"] for b in batches])}
    gradients, losses = gpu.stacked_losses(models)(parameters, buffers, stacked)
    for k, (model, batch) in enumerate(zip(models, batches, strict=True)):
        total = model.loss(batch).total
        total.backward()
        torch.testing.assert_close(losses[k], total)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad)

"""The command for a stretch on a GPU, in tiny sizes on a CPU: what it measures, packs, and continues from."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from repro.engine.store import RunStore
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec

STAGES = [("polymnist gmrf_mcvae", "train"), ("extended_polymnist sbm_rae", "autoencoders")]
STAGES += [("extended_polymnist sbm_rae", "score"), ("extended_polymnist sbm_rae", "energy")]


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", Path(__file__).parent / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_dry_run_measures_runs_packs_and_is_continued(gpu: ModuleType, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    arguments = ["--dry-run", "--minutes", "60", "--out", str(out), "--work", str(work)]
    assert gpu.main(arguments) == 0
    found = json.loads((out / "measured.json").read_text())
    assert set(found["steps"]) == {f"{name} {stage}" for name, stage in STAGES}
    # No upper limit: the peak is measured too, on a processor that others may be keeping busy just then.
    assert all(v["share_of_peak"] > 0 and v["seconds"] > 0 for v in found["steps"].values())
    assert found["whole_runs"]["table1 in_turn"] > 0
    assert found["table1_stacked"]["gmrf_mcvae"]["stacked"] > 0
    assert list(found["runs"].values()) == ["recorded"]
    assert found["left_out"] == []
    assert found["seconds"] > 0
    files = sorted(out.iterdir())
    assert len(files) <= 8
    assert all(f.stat().st_size <= 16_000_000 for f in files)
    record = next(work.rglob("record.json")).read_bytes()
    shutil.rmtree(work)  # another machine: all that is left is what was packed
    assert gpu.main(arguments) == 0
    assert next(work.rglob("record.json")).read_bytes() == record


def test_time_that_is_over_leaves_a_run_to_the_next_call(gpu: ModuleType, tmp_path: Path) -> None:
    states = gpu.run_queue(RunStore(tmp_path), "cpu", gpu.Stop(0.0, lambda: None), dry=True)
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


class Killed(BaseException):
    """What a kill leaves: nothing after it happens."""


@pytest.mark.slow
def test_a_kill_costs_what_was_done_since_the_last_pack(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = tmp_path / "out", []
    arguments = ["--dry-run", "--minutes", "60", "--out", str(out)]
    monkeypatch.setattr(gpu, "measured", lambda dry: [])
    monkeypatch.setattr(gpu, "queue", lambda dry: [copula_spec("gmrf_mcvae", 0, "smoke", epochs=20)])
    monkeypatch.setattr(gpu, "PACK_SECONDS", 0.0)
    execute = gpu.execute

    def killed(spec: Any, store: RunStore, *, stop: Any, **options: Any) -> Any:
        def after_some_steps() -> bool:
            asked.append(stop())
            if len(asked) > 10:
                raise Killed
            return asked[-1]

        return execute(spec, store, stop=after_some_steps, **options)

    monkeypatch.setattr(gpu, "execute", killed)
    with pytest.raises(Killed):
        gpu.main([*arguments, "--work", str(tmp_path / "first")])
    found = json.loads((out / "measured.json").read_text())
    assert found["table1_stacked"]["gmrf_mcvae"]["in_turn"] > 0
    monkeypatch.setattr(gpu, "execute", execute)
    assert gpu.unpack(tmp_path / "back", out) == ""
    assert next((tmp_path / "back").rglob("checkpoint.safetensors")).stat().st_size > 0
    assert gpu.main([*arguments, "--work", str(tmp_path / "second")]) == 0
    again = json.loads((out / "measured.json").read_text())
    assert again["table1_stacked"] == found["table1_stacked"]  # what was measured is not measured again
    assert list(again["runs"].values()) == ["recorded"]


def test_what_is_cut_off_is_not_unpacked(gpu: ModuleType, tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    out.mkdir()
    (runs / "a").mkdir(parents=True)
    (runs / "a" / "record.json").write_text("a")
    (runs / "a" / "weights.safetensors").write_bytes(os.urandom(500_000))
    assert gpu.pack(runs, out, size=300_000) == []
    assert len(list(out.iterdir())) == 2
    (out / "runs.tar.2.partial").write_bytes(b"left by a kill")
    part = out / "runs.tar.1"
    part.write_bytes(part.read_bytes()[:-1])
    assert "not whole" in gpu.unpack(tmp_path / "back", out)
    part.unlink()
    assert "not whole" in gpu.unpack(tmp_path / "back", out)
    assert not list(tmp_path.glob("back/*"))
    assert not list(out.glob("*.partial"))


def test_sigterm_ends_at_the_next_step(gpu: ModuleType) -> None:
    former = signal.getsignal(signal.SIGTERM)
    try:
        stop = gpu.Stop(time.monotonic() + 100, lambda: None)
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
    finally:
        signal.signal(signal.SIGTERM, former)


@pytest.mark.slow
def test_tests_that_take_too_long_are_stopped_with_what_they_found(gpu: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "test_some.py"
    path.write_text(
        "import time, pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "@pytest.mark.slow\ndef test_long(): time.sleep(600)\n"
    )
    assert gpu.device_tests(300, [str(path)], "not slow") == "1 passed, 1 failed"
    path.write_text("import time\ndef test_good(): pass\ndef test_long(): time.sleep(600)\n")
    assert gpu.device_tests(5, [str(path)], "not slow").startswith("stopped after 5 s: ")
    assert gpu.device_tests(300, [str(tmp_path / "none.py")]).startswith("failed: exit code ")


def test_what_a_bare_machine_lacks_is_named_with_its_version(gpu: ModuleType) -> None:
    assert gpu.missing() == ""
    said = gpu.missing(("numpy", "no-such-distribution"))
    assert said.startswith("not installed here: no-such-distribution; ")
    assert "pip install --no-index --no-deps wheels/*.whl" in said


def test_estimates_are_steps_times_seconds(gpu: ModuleType) -> None:
    (spec,) = (s for s in gpu.measured(False) if (s.dataset, s.method) == ("polymnist", "gmrf_mcvae"))
    steps = {"polymnist gmrf_mcvae train": {"seconds": 0.01}}
    stacks = {"a": {"steps": 10, "in_turn": 0.3, "stacked": 0.1}, "b": {"steps": 10, "in_turn": 0.3, "captured": 0.2}}
    found = gpu.whole_runs({"steps": steps, "table1_stacked": stacks}, [spec])
    assert found["polymnist gmrf_mcvae"] == pytest.approx(0.01 * gpu.steps_of(spec))
    assert found["table1 in_turn"] == pytest.approx(6.0)
    assert found["table1 stacked"] == pytest.approx(4.0)
    assert found["table1 each in the fastest way"] == pytest.approx(3.0)


@pytest.mark.slow
def test_all_that_a_bare_machine_needs_is_listed(gpu: ModuleType, tmp_path: Path) -> None:
    code = (
        "import sys; from importlib import metadata\n"
        f"sys.argv = ['gpu.py']; sys.path.insert(0, {str(Path(gpu.__file__).parent)!r})\n"
        f"import gpu; gpu.main(['--dry-run', '--minutes', '1', '--out', {str(tmp_path / 'out')!r},"
        f" '--work', {str(tmp_path / 'work')!r}])\n"
        "known = metadata.packages_distributions()\n"
        "print('imported', *sorted({d for m in sys.modules for d in known.get(m.split('.')[0], [])}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=gpu.ROOT)
    imported = {n.lower().replace("_", "-") for n in done.stdout.splitlines()[-1].split()[1:]}
    listed = {n.lower().replace("_", "-") for n in gpu.NEEDED}
    # What these bring along, and what torch does.
    of_torch = {"torch", "torchvision", "triton", "networkx", "mpmath", "sympy", "setuptools", "typing-extensions"}
    brought = {"cloudpickle", "cycler", "dataclasses", "defusedxml", "fonttools", "joblib"}
    brought |= {"kiwisolver", "narwhals", "packaging", "pyparsing", "python-dateutil", "regex", "threadpoolctl"}
    assert imported - listed - of_torch - brought <= {"repro"}

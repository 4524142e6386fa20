"""What the engine costs on this machine: overhead of a run, status of 1,000 runs, submission of 500; `make bench`.

The overhead is the time that a run spends outside data, model, training steps and evaluation (lock, specification, log,
checkpoints, hashes, record), as a share of a run of 60 seconds with epochs as long as the measured ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import repro.training.loop
from repro.engine import execute as runs
from repro.engine.execute import execute
from repro.engine.slurm import Cluster, submit
from repro.engine.store import RunStore
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.records import Metric, Record
from tests.support.slurm import Slurm, missing_programs
from tests.support.toy import environment, toy_spec

EPOCHS, RUNS, TASKS, SECONDS = 30, 1_000, 500, 60.0


class Timed:
    """Adds up the seconds that functions take.

    Arguments:
        where: Pairs of a module and the name of a function in it, which is replaced by one that is timed.
    """

    def __init__(self, *where: tuple[Any, str]) -> None:
        self.seconds = {name: 0.0 for _, name in where}
        self.depth = 0
        for module, name in where:
            setattr(module, name, self._timed(getattr(module, name), name))

    def _timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start, self.depth = time.perf_counter(), self.depth + 1
            try:
                return call(*arguments, **options)
            finally:
                self.depth -= 1
                if not self.depth:  # what one of them spends in another is counted once
                    self.seconds[name] += time.perf_counter() - start

        return timed


def overhead(folder: Path) -> None:
    """The engine's share of a run of GMRF MCVAE on the copula dataset."""
    torch.set_num_threads(1)
    execute(copula_spec("gmrf_mcvae", 1, "smoke", epochs=1, splits=("validation",)), RunStore(folder / "first"))
    each_epoch = Timed((repro.training.loop, "save_checkpoint"), (runs._Log, "add"))
    once = Timed(
        (runs, "_acquire"),
        (runs, "check_spec_file"),
        (runs, "_read_trained"),
        (runs, "save_tensors"),
        (runs, "file_sha256"),
        (runs, "environment"),
        (runs, "write_atomically"),
    )
    record = execute(copula_spec("gmrf_mcvae", 0, "quick", epochs=EPOCHS), RunStore(folder / "runs"))
    epoch = sum(each_epoch.seconds.values()) / EPOCHS
    fixed = sum(once.seconds.values())
    length = record.training_seconds / EPOCHS
    share = (fixed + epoch * SECONDS / length) / SECONDS
    print(
        f"  engine: {1000 * epoch:.1f} ms an epoch of {length:.2f} s and {1000 * fixed:.0f} ms a run, "
        f"{100 * share:.2f} % of a run of {SECONDS:.0f} s (the target is 2 %)",
        flush=True,
    )


def status(folder: Path) -> None:
    """The state of finished runs, from the start of a process."""
    store, specs = RunStore(folder / "many"), [toy_spec(s) for s in range(RUNS)]
    example = execute(specs[0], RunStore(folder / "example"))
    known = [(i, m) for m in example.metrics for i in range(40)]
    metrics = [Metric(f"{i}/{m.name}", m.value, m.unit, m.num_samples, m.protocol) for i, m in known]
    for spec in specs:
        record = Record(spec, metrics, example.environment, example.data, "0" * 64, 1.0, 1.0, example.history)
        store.directory(spec).mkdir(parents=True)
        (store.directory(spec) / "record.json").write_text(record.to_json())
    code = (
        "import json, sys; from pathlib import Path; from repro.records import RunSpec\n"
        "from repro.engine.store import RunStore; from repro.engine.status import states, summary\n"
        "specs = [RunSpec.from_dict(s) for s in json.load(open(sys.argv[2]))]\n"
        "print(summary(states(specs, RunStore(Path(sys.argv[1])))))"
    )
    listed = folder / "specs.json"
    listed.write_text(json.dumps([s.to_dict() for s in specs]))
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root), str(listed)], capture_output=True, text=True, check=True
    )
    seconds, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    print(
        f"  status: {done.stdout.strip()}, in {seconds:.2f} s, {used:.2f} of a processor (the target is 2 s)",
        flush=True,
    )


def submission(folder: Path) -> None:
    """One array of many tasks, to a partition that starts none."""
    if missing := missing_programs():
        print(f"  submission: not measured, {', '.join(missing)} not installed (slurm-wlm, munge)")
        return
    cluster = Slurm(Path(tempfile.mkdtemp(prefix="slurm")))
    os.environ |= environment(SLURM_CONF=str(cluster.configuration))
    try:
        cluster.start()
        cluster.call("scontrol", "update", "PartitionName=gpu", "State=DOWN")
        specs, store = [toy_spec(s) for s in range(TASKS)], RunStore(folder / "array")
        start, before = time.perf_counter(), sum(os.times()[:4])
        found, _ = submit(specs, store, Cluster(partition="gpu"))
        seconds, used = time.perf_counter() - start, sum(os.times()[:4]) - before
        assert found is not None
        said = f"{seconds:.2f} s, {used:.2f} of a processor (the target is 10 s)"
        print(f"  submission: {len(found.tasks)} runs in {said}", flush=True)
        start = time.perf_counter()
        again, queued = submit(specs, store, Cluster(partition="gpu"))
        assert again is None
        print(f"    again: {len(queued)} found in the queue in {time.perf_counter() - start:.2f} s", flush=True)
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder, ignore_errors=True)


def main() -> None:
    """Runs every figure."""
    with tempfile.TemporaryDirectory() as folder:
        status(Path(folder))
        submission(Path(folder))
        overhead(Path(folder))


if __name__ == "__main__":
    main()

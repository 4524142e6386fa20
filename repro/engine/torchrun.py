"""One run in several processes: torchrun starts them, each calls ``repro run --key``, the first one writes.

What these processes do themselves is in :mod:`repro.engine.processes`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from repro.engine.store import RunStore, check_spec_file
from repro.errors import RunError, TrainingStopped
from repro.records import RunSpec

__all__ = ["command", "launch", "process_environment"]

SECONDS_BETWEEN_QUESTIONS = 0.2


def command(spec: RunSpec, store: RunStore, *, device: str, processes: int = 1, shards: int | None = None) -> list[str]:
    """The command that executes one run and can be repeated until it is recorded.

    Arguments:
        spec: The run; its specification must stand in its directory, see :func:`repro.engine.store.check_spec_file`.
        store: Where run directories live.
        device: ``"cpu"`` or ``"cuda"``.
        processes: Processes that train it together.
        shards: Parts that every batch is divided into; ``processes`` of them if None.
    """
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    call = ["-m", "repro.cli", "run", "--key", spec.key, "--runs", str(store.root.resolve()), "--device", device]
    return [*start, *call, "--shards", str(processes if shards is None else shards)]


def process_environment(device: str, processes: int = 1) -> dict[str, str]:
    """The environment of :func:`command`: one thread a process, and loopback where all are on one machine's CPU."""
    added = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if processes > 1 and device == "cpu":
        added["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    return dict(os.environ) | {k: v for k, v in added.items() if k not in os.environ}


def _ignore_cluster_signal() -> None:
    """SLURM sends its warning to all processes of a task; torchrun would end by it before its processes can save."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def launch(
    spec: RunSpec,
    store: RunStore,
    *,
    device: str,
    processes: int,
    shards: int,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Executes a run in several processes of this machine.

    Raises:
        TrainingStopped: If ``stop`` asked for it; the run continues from there.
        RunError: If the processes failed; with the reason that one of them gave.
    """
    check_spec_file(store.directory(spec), spec)
    log = store.directory(spec) / "processes.log"
    asked = False
    with open(log, "wb") as handle:
        arguments = command(spec, store, device=device, processes=processes, shards=shards)
        environment = process_environment(device, processes)
        # Of their own session, so that a signal from the keyboard reaches this process alone, which passes it on.
        options: dict[str, Any] = {"start_new_session": True, "preexec_fn": _ignore_cluster_signal}
        child = subprocess.Popen(arguments, stdout=handle, stderr=handle, env=environment, **options)
        try:
            while child.poll() is None:
                if not asked and stop is not None and stop():
                    asked = True
                    child.send_signal(signal.SIGTERM)
                time.sleep(SECONDS_BETWEEN_QUESTIONS)
        except BaseException:
            child.send_signal(signal.SIGTERM)
            child.wait()
            raise
    if store.current(spec) is not None:
        return
    if asked:
        raise TrainingStopped("stopped on request")
    said = [
        line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("repro: ")
    ]
    reason = said[-1].removeprefix("repro: ") if said else f"its processes ended with code {child.returncode}"
    raise RunError(f"{reason} (see {log})")

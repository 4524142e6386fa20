"""Speed on this machine, figure by figure: `make bench`, and with `ARGS=--long` what takes more than five minutes.

Each part runs in a process of its own and prints a figure as soon as it is measured. What is left out is named with the
reason. The longer form adds the networks of the paper profiles, the largest datasets and more repetitions.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PARTS = {
    "training": "a training step against the machine's peak and against multivae's trainer",
    "distributions": "the asymmetric Laplace mathematics and Metropolis-Hastings",
    "sampling": "SBM-VAE's sampling",
    "engine": "what the engine adds to a run",
    "estimates": "what runs take against what is estimated before their start",
    "datasets": "datasets built and iterated",
    "weights": "models that ship, from a cold start to 100 samples",
}
SECONDS = 285.0  # of all parts together, where the longer form is not asked for


def main() -> int:
    """Runs the parts in turn; returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--long", action="store_true", help="everything, without a limit of time")
    options = parser.parse_args()
    if unknown := [p for p in options.parts if p not in PARTS]:
        parser.error(f"unknown part {', '.join(unknown)}; one of {', '.join(PARTS)}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    path = os.pathsep.join([str(FOLDER.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}
    environment |= {"KINETO_LOG_LEVEL": "5"}  # the profiler logs that there is no GPU
    start, failed = time.monotonic(), False
    for name in options.parts or PARTS:
        left = SECONDS - (time.monotonic() - start)
        print(f"\n{name}: {PARTS[name]}", flush=True)
        if not options.long and left < 5:
            print("  not measured: five minutes are over; ARGS=--long measures it", flush=True)
            continue
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *(["--long"] if options.long else [])]
        part = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            code = part.wait(None if options.long else left)
        except subprocess.TimeoutExpired:
            os.killpg(part.pid, signal.SIGKILL)  # with what it started
            part.wait()
            print("  stopped: five minutes are over; ARGS=--long measures the rest", flush=True)
            continue
        if code:
            failed = True
            print(f"  failed with exit code {code}", flush=True)
    print(f"\n{time.monotonic() - start:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

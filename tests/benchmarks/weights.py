"""From a cold start to 100 samples: each model that ships in a process of its own, with its peak memory.

Asked of each on two cores: at most 3 s from the start of the process, and at most 600 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from repro.hub.manifest import entries, packaged_files

SECONDS, MEGABYTES = 3.0, 600.0
REPETITIONS = 3
# A building block takes latents or images instead of drawing both; its 100 samples are what it makes of 100 of them.
CHILD = """
import resource, sys, time
start = time.perf_counter()
import torch
import repro
imported = time.perf_counter() - start
model = repro.load_model(sys.argv[1])
if hasattr(model, "generate"):
    model.generate(100, generator=torch.Generator().manual_seed(0))
else:
    with torch.no_grad():
        name = type(model).__name__
        if name == "Decoder":
            model(torch.zeros(100, model.latent_dim))
        elif name == "LatentFlow":
            model.sample(100, generator=torch.Generator().manual_seed(0))
        elif name == "Encoder":
            model(torch.zeros(100, 1, 28, 28))
        else:
            model.network(next(iter(model.modalities)))(torch.zeros(100, *next(iter(model.modalities.values())).shape))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
print(imported, peak * 1.048576)
"""


def measured(name: str) -> tuple[float, float, float]:
    """Seconds of the whole process and of its imports, and megabytes at its peak.

    Raises:
        CalledProcessError: If the model cannot be loaded or drawn from.
    """
    start = time.perf_counter()
    answer = subprocess.run([sys.executable, "-c", CHILD, name], check=True, capture_output=True, text=True)
    total = time.perf_counter() - start
    imported, peak = map(float, answer.stdout.split())
    return total, imported, peak


def main() -> int:
    """Prints a line for each model, the best of some repetitions; returns 1 if one is over a limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true", help="three repetitions of each instead of one")
    options = parser.parse_args()
    over = []
    print(f"  {'model':42s} {'seconds':>8s} {'importing':>10s} {'peak MB':>8s}", flush=True)
    for name in (n for n, e in entries().items() if packaged_files(e)):
        runs = [measured(name) for _ in range(REPETITIONS if options.long else 1)]
        seconds, imported, peak = min(runs)[0], min(r[1] for r in runs), max(r[2] for r in runs)
        print(f"  {name:42s} {seconds:8.2f} {imported:10.2f} {peak:8.0f}", flush=True)
        if seconds > SECONDS or peak > MEGABYTES:
            over.append(name)
    limits = f"{SECONDS:g} s and {MEGABYTES:g} MB"
    print(f"  all within {limits}" if not over else f"  over {limits}: {', '.join(over)}", flush=True)
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())

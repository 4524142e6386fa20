"""What runs take against what is estimated before their start; ``make bench ARGS=estimates``.

Real runs of quick plans, one of each model, in a folder that is removed again: on one core, as a worker computes them.
The shorter form takes the shortest, the longer one every model whose run is estimated at five minutes at most.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from repro.artifacts.planning import all_runs
from repro.artifacts.render import resolved
from repro.engine.cost import cost, expected, kind_of
from repro.engine.execute import execute
from repro.engine.speed import Speed, speed
from repro.engine.store import RunStore
from repro.papers import experiment_of
from repro.records import RunSpec, precision_of
from tests.benchmarks.support import seconds

SHORTEST, LIMIT, LONG_LIMIT, NUMBER = 3.0, 12.0, 300.0, 6


def runs(machine: Speed, limit: float) -> Iterator[tuple[float, RunSpec]]:
    """Estimated seconds and a run of each kind that takes neither a blink nor longer than a limit."""
    seen = set()
    for specs in all_runs("quick").values():
        for spec in (resolved(s, "cpu") for s in specs):
            kind = spec.paper, spec.dataset, spec.method
            if kind not in seen and cost(spec) is not None and SHORTEST < expected(spec, machine)[0] < limit:
                seen.add(kind)
                yield expected(spec, machine)[0], spec


def main() -> int:
    """Prints a line for each run, and how many lie within 1.5 times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true", help="every model whose run takes five minutes at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = speed()
    chosen = sorted(runs(machine, LONG_LIMIT if options.long else LIMIT), key=lambda run: (run[0], kind_of(run[1])))
    ratios = []
    for estimated, spec in chosen if options.long else chosen[:: max(1, len(chosen) // NUMBER)]:
        what = f"{spec.paper}/{spec.dataset}/{spec.method}"
        try:
            experiment_of(spec).load(spec)  # fetched and prepared before, as data of a second run are
        except OSError as error:
            print(f"  {what:48s} not measured: {' '.join(str(error).split())[:100]}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            took = seconds(lambda spec=spec, folder=folder: execute(spec, RunStore(Path(folder))))
        ratios.append(took / estimated)
        precision = precision_of(spec) or "float32"
        times = f"{estimated:7.1f} s estimated {took:7.1f} s {took / estimated:5.2f}"
        print(f"  {what:48s} {precision:8s} {times}", flush=True)
    if not ratios:
        print("  no run was measured", flush=True)
        return 1
    within = sum(1 / 1.5 <= r <= 1.5 for r in ratios)
    print(f"  {within} of {len(ratios)} within a factor of 1.5, median {statistics.median(ratios):.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

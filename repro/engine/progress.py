"""Progress of many runs: the share of the work that is done, the time that is left, and what each worker does."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from repro.records import RunSpec

__all__ = ["Progress", "count_epochs", "duration", "makespan"]

# Of a run's cost, what is left to its start, its evaluation and its record, however many epochs it has.
EVALUATION_SHARE = 0.05


def count_epochs(spec: RunSpec) -> int:
    """Epochs of all stages of a run, as far as its specification tells."""
    training = spec.params["training"]
    own = training.get("stages", {})
    return sum(s.get("epochs", training["epochs"]) for s in own.values()) if own else training["epochs"]


def duration(seconds: float) -> str:
    """Seconds for people, in the largest unit that leaves two digits: ``"85 s"``, ``"40 min"``, ``"5.3 h"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of so many workers is done, the longest runs being started first."""
    loads = [0.0] * max(1, workers)
    for value in sorted(seconds, reverse=True):
        heapq.heapreplace(loads, loads[0] + value)
    return max(loads)


class _Run:
    """How far one run is."""

    def __init__(self, spec: RunSpec, cost: float) -> None:
        self.spec, self.cost = spec, cost
        self.epochs: dict[str, tuple[int, int]] = {}  # stage to epochs that are done and that it has
        self.first: float | None = None  # share that was done when it was first heard of, by an earlier process
        self.says = "starts"

    def note(self, entry: Mapping[str, Any]) -> None:
        stage, done = str(entry.get("stage", "")), int(entry["epoch"])
        before = self.epochs.get(stage, (done - 1, 0))[0]
        if self.first is None:
            self.epochs[stage] = (done - 1, int(entry.get("epochs", 0)))
            self.first = self.share
        self.epochs[stage] = (max(before, done), max(int(entry.get("epochs", 0)), done))
        where = f"{stage}, " if stage else ""
        self.says = f"{where}epoch {done} of {self.epochs[stage][1]}, loss {entry['loss']:.4g}"

    @property
    def share(self) -> float:
        """The part of its cost that is done, with further stages than its specification tells of counted too."""
        total = max(count_epochs(self.spec), sum(n for _, n in self.epochs.values()))
        done = sum(n for n, _ in self.epochs.values())
        return (1 - EVALUATION_SHARE) * min(1.0, done / total) if total else 0.0


class Progress:
    """Progress of many runs, on a terminal in place, elsewhere in plain lines.

    The share of a run that is done is that of its epochs, and every run weighs by its cost. The time left is what the
    workers still need for the rest at the speed that was measured since the start, before that at the estimated one.

    Arguments:
        specs: All runs.
        cost: A run's cost, in estimated seconds on one worker.
        workers: How many runs there are at once.
        every: Seconds between plain lines.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        cost: Callable[[RunSpec], float] = count_epochs,
        *,
        workers: int = 1,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runs = {spec: _Run(spec, max(1e-9, float(cost(spec)))) for spec in specs}
        self.workers, self.every, self.clock = max(1, workers), every, clock
        self.active: dict[RunSpec, _Run] = {}
        self.ended: set[RunSpec] = set()
        self.elsewhere: set[RunSpec] = set()
        self.start = self.last = clock()
        self.before = 0.0  # cost that earlier processes had done of what is continued here
        self.bars: list[Any] = []
        if sys.stderr.isatty():
            whole = tqdm(total=1.0, bar_format="{l_bar}{bar}| {postfix}", dynamic_ncols=True, position=0)
            rows = range(1, min(self.workers, len(specs)) + 1)
            self.bars = [whole, *(tqdm(total=0, bar_format="{desc}", position=i, leave=False) for i in rows)]

    @property
    def share(self) -> float:
        """The part of all cost that is done, from 0 to 1."""
        total = sum(run.cost for run in self.runs.values())
        return self._done() / total if total else 1.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.start

    @property
    def remaining(self) -> float:
        """Seconds that are left."""
        left = [run.cost * (1 - run.share) for spec, run in self.runs.items() if spec not in self.ended]
        estimated, here = makespan(left, self.workers), self._done() - self.before
        if here <= 0:
            return estimated
        return estimated * min(self.workers, len(self.runs)) * self.elapsed / here

    def began(self, spec: RunSpec) -> None:
        """Notes that a worker has taken up a run."""
        self.active[spec] = self._run(spec)
        self.tick()

    def epoch(self, spec: RunSpec, entry: Mapping[str, Any]) -> None:
        """Notes a finished epoch."""
        run = self.active.setdefault(spec, self._run(spec))
        fresh = run.first is None
        run.note(entry)
        if fresh:
            self.before += run.cost * (run.first or 0.0)
        self.tick()

    def finished(self, spec: RunSpec, reason: str | None) -> None:
        """Notes the end of a run; ``reason`` says why it failed."""
        self.active.pop(spec, None)
        self.ended.add(spec)
        self._say(f"[{len(self.ended)}/{len(self.runs)}] {spec.label}: {reason or 'recorded'}")
        self.tick()

    def retried(self, spec: RunSpec, reason: str) -> None:
        """Notes that a run failed once and is tried again."""
        self.active.pop(spec, None)
        self._say(f"{spec.label}: {reason}; it is tried once more")

    def waits(self, spec: RunSpec, reason: str) -> None:
        """Notes that another process executes a run, which is said once; ``reason`` says which process."""
        self.active.pop(spec, None)
        if spec not in self.elsewhere:
            self.elsewhere.add(spec)
            self._say(f"{reason}; waiting for its record")

    def tick(self) -> None:
        """Shows where things stand: at once on a terminal, elsewhere if the last plain lines are old enough."""
        now, lines = self.clock(), [f"{r.spec.label}: {r.says}" for r in self.active.values()]
        if self.bars:
            whole, *rows = self.bars
            whole.n = min(1.0, self.share)
            whole.set_postfix_str(self._summary(), refresh=False)
            whole.refresh()
            for i, bar in enumerate(rows):
                bar.set_description_str(lines[i] if i < len(lines) else "", refresh=True)
        elif now - self.last >= self.every:
            self.last = now
            self._say(f"{self.share:.0%} of the work, {self._summary()}")
            for line in lines:
                print(f"{'':9s}  {line}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the display."""
        for bar in reversed(self.bars):
            bar.close()

    def _run(self, spec: RunSpec) -> _Run:
        return self.runs.setdefault(spec, _Run(spec, 1.0))

    def _done(self) -> float:
        return sum(r.cost * (1.0 if s in self.ended else r.share) for s, r in self.runs.items())

    def _summary(self) -> str:
        runs = f"{len(self.ended)} of {len(self.runs)} runs done"
        return f"{duration(self.elapsed)} elapsed, {duration(self.remaining)} left, {runs}"

    def _say(self, text: str) -> None:
        if self.bars:
            self.bars[0].write(text, file=sys.stderr)
        else:
            print(f"{self.elapsed:7.0f} s  {text}", file=sys.stderr, flush=True)

"""Progress of many runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from repro.records import RunSpec

__all__ = ["Progress", "count_epochs"]


def count_epochs(spec: RunSpec) -> int:
    """Epochs of all stages of a run, as far as its specification tells."""
    training = spec.params["training"]
    own = training.get("stages", {})
    return sum(s.get("epochs", training["epochs"]) for s in own.values()) if own else training["epochs"]


class Progress:
    """Progress of many runs: a bar on a terminal, plain lines elsewhere.

    Arguments:
        total_epochs: Sum of the epochs of all runs, of :func:`count_epochs`; it grows when a run has further stages.
        total_runs: Number of runs.
        every: Seconds between plain lines.
    """

    def __init__(self, total_epochs: int, total_runs: int, *, every: float = 30.0) -> None:
        self.total_epochs, self.total_runs, self.every = total_epochs, total_runs, every
        self.epochs: dict[tuple[str, str], int] = {}
        self.stages: dict[str, dict[str, int]] = {}
        self.runs = 0
        self.start = self.last = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total_epochs, unit="epoch", dynamic_ncols=True)

    def epoch(self, spec: RunSpec, entry: dict[str, Any]) -> None:
        """Notes a finished epoch."""
        which = spec.key, entry.get("stage", "")
        done = self.epochs.get(which, 0)
        self.epochs[which] = max(done, int(entry["epoch"]))
        self._expect(spec, which[1], int(entry.get("epochs", 0)))
        if self.bar is not None:
            self.bar.update(self.epochs[which] - done)
            self.bar.set_postfix_str(f"{spec.method} seed {spec.seed} loss {entry['loss']:.4g}")
        elif time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            done = f"{sum(self.epochs.values())} of {self.total_epochs} epochs, {self.runs} of {self.total_runs} runs"
            text = f"{done}; {spec.label}: epoch {entry['epoch']}, loss {entry['loss']:.4g}"
            print(f"{self.last - self.start:7.0f} s  {text}", file=sys.stderr, flush=True)

    def _expect(self, spec: RunSpec, stage: str, epochs: int) -> None:
        """Raises the total by the epochs of a stage that the specification does not tell of."""
        known = self.stages.setdefault(spec.key, {})
        before = max(count_epochs(spec), sum(known.values()))
        known[stage] = epochs
        more = max(count_epochs(spec), sum(known.values())) - before
        self.total_epochs += more
        if more and self.bar is not None:
            self.bar.total = self.total_epochs
            self.bar.refresh()

    def finished(self, spec: RunSpec, reason: str | None) -> None:
        """Notes the end of a run; ``reason`` says why it failed."""
        self.runs += 1
        self._say(f"[{self.runs}/{self.total_runs}] {spec.label}: {reason or 'recorded'}")

    def retried(self, spec: RunSpec, reason: str) -> None:
        """Notes that a run failed once and is tried again."""
        self._say(f"{spec.label}: {reason}; it is tried once more")

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(f"{time.monotonic() - self.start:7.0f} s  {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        if self.bar is not None:
            self.bar.close()

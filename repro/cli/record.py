"""The commands ``repro record`` and ``repro report``, for maintainers: recorded material, and what is drawn from it."""

from __future__ import annotations

import argparse

from repro.artifacts.gallery import report
from repro.artifacts.recording import record
from repro.artifacts.results import refusing_damaged_records
from repro.engine.store import RunStore, default_runs_root, figures_root, in_checkout
from repro.errors import UsageError

__all__ = ["record_runs", "redraw"]


@refusing_damaged_records()
def record_runs(options: argparse.Namespace) -> None:
    """Puts runs on record: the command ``repro record``.

    Raises:
        UsageError, RunError, RecordError: As :func:`repro.artifacts.recording.record`.
    """
    store = RunStore(options.runs or default_runs_root())
    for line in record(options.id, options.profile, store, options.figures or figures_root()):
        print(line, flush=True)


def redraw(options: argparse.Namespace) -> None:
    """Redraws every artifact from the recorded runs: the command ``repro report``.

    Raises:
        UsageError: If the folder lies inside an installed package.
    """
    figures = options.figures or figures_root()
    if not in_checkout(figures):
        raise UsageError(f"{figures} is inside an installed package; --figures names a copy of it to redraw")
    for line in report(figures):
        print(line)

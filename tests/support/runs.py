"""Table I's smoke runs, executed once for all test files that need records."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.cli.main import main
from repro.engine.store import RunStore
from repro.records import Record, RunSpec

__all__ = ["COMMAND", "Smoke", "smoke"]

COMMAND = ["run", "gmrf-table1", "--profile", "smoke", "--seeds", "1", "--executor", "inline", "--device", "cpu"]


@dataclass(frozen=True)
class Smoke:
    """What ``command`` left, and what it printed."""

    command: list[str]
    runs: Path
    results: Path
    code: int
    printed: str

    @property
    def store(self) -> RunStore:
        return RunStore(self.runs)

    @property
    def specs(self) -> list[RunSpec]:
        return unique(plan(find("gmrf_mcvae/table1"), "smoke", 1))

    def record(self, method: str) -> Record:
        record = self.store.record(next(s for s in self.specs if s.method == method))
        assert record is not None
        return record


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """The five smoke runs; parallel test processes share one folder, and the first of them trains."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke"
    root.mkdir(exist_ok=True)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, FileLock(root / "lock"):
        patch.setenv("REPRO_RUNS", str(root / "runs"))
        patch.setenv("REPRO_RESULTS", str(root / "results"))
        with redirect_stdout(printed):
            code = main(COMMAND)
    return Smoke(COMMAND, root / "runs", root / "results", code, printed.getvalue())

"""What the tests of the comparisons share: their smoke runs, a model that knows its data, and made-up records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Generator, Tensor

from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.cli.main import main
from repro.engine.store import RunStore
from repro.model import Loss, MultimodalModel, Stage
from repro.records import Metric, Record, RunSpec

__all__ = ["Copies", "MadeUp", "made_record", "named_by", "own_row", "run_smoke", "smoke_records"]

PLACE = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "a machine", "versions": {"torch": "2"}}


def run_smoke(name: str, root: Path, *words: str) -> int:
    """Runs an artifact's smoke profile in this process, its runs and results in ``root``; returns the exit code."""
    command = ["run", name, "--profile", "smoke", "--executor", "inline", "--device", "cpu"]
    return main([*command, "--runs", str(root / "runs"), "--results", str(root / "results"), *words])


def smoke_records(name: str, root: Path) -> dict[str, Record]:
    """The records that :func:`run_smoke` left, by method."""
    store = RunStore(root / "runs")
    found = {s.method: store.record(s) for s in unique(plan(find(name), "smoke", 1))}
    return {m: r for m, r in found.items() if r is not None}


def own_row(name: str, root: Path, headings: Iterable[str], *words: str) -> dict[str, str]:
    """The cells, by metric, of a reader's method ``mine``: written into the working directory and run."""
    assert main(["new", "method", "mine"]) == 0
    assert run_smoke(name, root, "--method", "mine=mine.py:build", *words) == 0
    paper, _, artifact = name.partition("/")
    text = (root / "results" / "own" / "mine" / paper / "smoke" / f"{artifact}.md").read_text()
    line = next(x for x in text.splitlines() if x.startswith("| mine") and "| obtained |" in x)
    cells = [c.strip() for c in line.split("| obtained |")[1].strip(" |").split("|")]
    return dict(zip(headings, cells, strict=True))


class Copies(MultimodalModel):
    """Knows the test split: joint samples are its points, and given some modalities it finds the point of those.

    Arguments:
        points: The images of each modality, ``(N, C, H, W)``.
        specs: Of the modalities.
        shift: What is not given is taken from the point so many rows before.
    """

    def __init__(self, points: Mapping[str, Tensor], specs: Mapping, shift: int = 0) -> None:
        super().__init__(specs)
        self.points, self.shift = points, shift

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        raise NotImplementedError

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        found = {m: x if m in (given or {"m0": x}) else x.roll(self.shift, 0) for m, x in self.points.items()}
        return found if given is None else {m: x[None] for m, x in found.items()}


def made_record(spec: RunSpec, values: Mapping[str, float]) -> Record:
    """A record of a run that was never made, with these metrics."""
    metrics = [Metric(name, v, "1", 100, "as the test says") for name, v in sorted(values.items())]
    return Record(spec, metrics, PLACE, {}, "0" * 64, 1.0, 1.0, [])


def named_by(headings: Iterable[str], floors: Mapping[str, Mapping[str, str]]) -> frozenset[str]:
    """The metrics that a table's columns and floors show."""
    return frozenset({*headings, *(name for floor in floors.values() for name in floor.values())})


@dataclass(frozen=True)
class MadeUp:
    """Records of all runs of a profile on the test split: one method's values are so many times those of the others.

    Arguments:
        profile: The profile.
        names: The metrics.
        factor: How many times.
        method: The method.
        fixed: Metrics whose value is this of every method.
        collapsed: The method, if any, whose joint samples show three digits only; all others show ten.
    """

    profile: str
    names: frozenset[str]
    factor: float = 1.0
    method: str = "gmrf_mcvae"
    fixed: Mapping[str, float] = field(default_factory=dict)
    collapsed: str = ""

    def record(self, spec: RunSpec) -> Record | None:
        if spec.profile != self.profile or spec.params["evaluation"]["split"] != "test":
            return None
        value = (0.5 + 0.001 * spec.seed) * (self.factor if spec.method == self.method else 1.0)
        values = dict.fromkeys(self.names, value) | dict(self.fixed)
        if "test/unconditional/digits" in values:
            values["test/unconditional/digits"] = 3 if spec.method == self.collapsed else 10
        values |= {"test/unconditional/r_hat": 1.0} if spec.method == "nnmrf" else {}
        return made_record(spec, values)

    def diverged(self, spec: RunSpec) -> str:
        return ""

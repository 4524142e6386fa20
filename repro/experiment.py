"""The one contract between paper packages and the harness: experiments, and tables and figures of their results.

A paper package states what is run (:class:`Experiment`, one per dataset or protocol) and what is shown of it (functions
under :func:`artifact`, of :class:`Results`). The harness runs, records, renders and writes files, and knows no paper.
Importing this module needs no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from repro import training
from repro.records import Metric, Record, RunSpec, provenance

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy import ndarray
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import TrainableModel
    from repro.report.plain_tables import PlainTable
    from repro.report.tables import Table
    from repro.training import TrainingSettings

__all__ = ["Cost", "Experiment", "Rendering", "Results", "Rows", "artifact", "not_diverged"]

Rows: TypeAlias = Mapping[str, Sequence[RunSpec]]  # row of a table, or curve of a figure, to its runs, one a seed
Planner: TypeAlias = Callable[[str, int | None], Rows]  # profile, number of seeds (None for the profile's)
Drawing: TypeAlias = "Table | PlainTable | Figure"
F = TypeVar("F", bound=Callable[..., Any])


class Cost(NamedTuple):
    """What a run takes beside the training steps that :mod:`repro.engine.cost` counts.

    Arguments:
        seconds: On one core of the reference machine: of the evaluation alone for a specification without epochs.
        megabytes: Peak memory.
    """

    seconds: float
    megabytes: float


class Experiment(ABC):
    """What one paper runs on one dataset or by one protocol, and how each run is built, trained and measured.

    A subclass lies in ``papers/<paper>/<experiment>/experiment.py``, which needs no torch to be imported, and is found
    there. It takes no arguments. ``no_methods`` says why no model of a reader's own can stand beside its runs; it
    is empty where one can. ``foreign`` says whether its models are a reader's own, whose code may raise anything.
    """

    datasets: ClassVar[tuple[str, ...]]
    no_methods: ClassVar[str] = ""
    foreign: ClassVar[bool] = False

    @property
    def code(self) -> ModuleType:
        """The module ``evaluation`` beside the experiment's own: what loads, builds and measures.

        It needs torch, which a plan does not, and is imported when it is first asked for.
        """
        return import_module(type(self).__module__.rpartition(".")[0] + ".evaluation")

    def owns(self, spec: RunSpec) -> bool:
        """Whether a run of the paper is this experiment's; by its dataset, unless a subclass knows better."""
        return spec.dataset in self.datasets

    @abstractmethod
    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """The specification of a run, every hyper-parameter resolved.

        Arguments:
            method: The model's name in this package.
            seed: Of initialisation and training.
            profile: ``"paper"``, ``"overnight"``, ``"quick"`` or ``"smoke"``.
            changes: Settings that differ from the experiment's own.

        Raises:
            ValueError: If the method or a setting is unknown.
            NoProfileError: If the experiment has no settings of the profile.
        """

    @abstractmethod
    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The splits that a run uses, ``"train"`` among them, and ``"validation"`` where training asks for one."""

    @abstractmethod
    def build(self, spec: RunSpec) -> TrainableModel:
        """The untrained model of a run."""

    def training(self, spec: RunSpec, device: str = "cpu") -> TrainingSettings:
        """How a run is trained: what its specification says."""
        return training.TrainingSettings(**spec.params["training"], device=device)

    @abstractmethod
    def evaluate(self, model: Any, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu") -> Sequence[Metric]:
        """All metrics of a run.

        Arguments:
            model: Trained, in evaluation mode.
            data: As :meth:`load` gave it.
            spec: The run.
            device: Where the model is.
        """

    def figure_samples(self, model: Any, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        """Samples that figures are drawn from, kept beside the record; none unless a subclass draws some."""
        return {}

    @abstractmethod
    def cost(self, spec: RunSpec) -> Cost:
        """Seconds on one core of the reference machine, and peak memory, from what was measured of its parts."""


def not_diverged(spec: RunSpec) -> str:
    """What results answer of a divergence where nothing is known of any."""
    return ""


@dataclass(frozen=True)
class Results:
    """The records that an artifact is made of, by row, and what was published.

    Arguments:
        id: The artifact's id within its paper.
        profile: Of the runs.
        seeds: How many seeds were asked for; None for the profile's number.
        runs: Row to its runs.
        lookup: A run's record, None if there is none.
        stored: A run's figure samples; raises RunError if there are none.
        published: The published table of this artifact, empty where the paper prints none.
        rename: Label of a row to the label that the paper which repeats the artifact gives it.
        diverged: Where and by what a run's training diverged, in one line; empty if it did not.
    """

    id: str
    profile: str
    seeds: int | None
    runs: Rows
    lookup: Callable[[RunSpec], Record | None] = field(repr=False)
    stored: Callable[[RunSpec], Mapping[str, ndarray]] = field(repr=False)
    published: Mapping[str, Any] = field(default_factory=dict, repr=False)
    rename: Mapping[str, str] = field(default_factory=dict)
    diverged: Callable[[RunSpec], str] = field(default=not_diverged, repr=False)

    def record(self, spec: RunSpec) -> Record | None:
        """A run's record, None if there is none; of runs outside the artifact's rows too."""
        return self.lookup(spec)

    def records(self, row: str) -> list[Record]:
        """A row's records, in the order of its seeds, without the runs that have none."""
        return [r for spec in self.runs[row] if (r := self.lookup(spec)) is not None]

    def all_records(self) -> list[Record]:
        """The records of all rows, those that serve several rows once."""
        specs = dict.fromkeys(s for found in self.runs.values() for s in found)
        return [r for s in specs if (r := self.lookup(s)) is not None]

    def __iter__(self) -> Iterator[tuple[str, list[Record]]]:
        """Every row with its records."""
        return ((row, self.records(row)) for row in self.runs)

    def values(self, row: str, metric: str) -> list[float]:
        """A metric's value in each of a row's records that has it."""
        return [m.value for r in self.records(row) for m in r.metrics if m.name == metric]

    def divergences(self) -> str:
        """One sentence on the runs of all rows that diverged, which have no values; empty if none did."""
        found: dict[RunSpec, str] = {}
        for row, specs in self.runs.items():
            found |= {s: f"{row}, seed {s.seed} ({why})" for s in specs if (why := self.diverged(s))}
        if not found:
            return ""
        return f"Training diverged, so that there are no values: {'; '.join(found.values())}."

    def samples(self, row: str) -> Mapping[str, ndarray]:
        """The figure samples of a row's first run.

        Raises:
            RunError: If there are none.
        """
        return self.stored(self.runs[row][0])

    def provenance(self) -> str:
        """One sentence on commit, devices and precision of all records, each counted once.

        Raises:
            ValueError: If there is no record.
        """
        return provenance(self.all_records())


@dataclass(frozen=True)
class Rendering:
    """How an artifact is made.

    Arguments:
        id: Within its paper.
        runs: What it needs.
        draw: Its tables and figures from results.
        short: Its short form in Markdown, for the README; None where it has none.
    """

    id: str
    runs: Planner
    draw: Callable[[Results], Drawing | Sequence[Drawing]]
    short: Callable[[Results], str] | None = None


def _nothing(profile: str, seeds: int | None) -> Rows:
    return {}


def artifact(
    id: str, *, runs: Planner | None = None, short: Callable[[Results], str] | None = None
) -> Callable[[F], F]:
    """Declares that a function makes an artifact of the paper whose package it lies in.

    The function takes :class:`Results` and returns a table, a figure, or a list of them; the harness writes the files.
    Decorators stack where one function makes several artifacts, each told apart by ``results.id``. The id is a literal:
    the harness finds the module by it before importing anything.

    Arguments:
        id: As in the paper's paper.toml.
        runs: ``runs(profile, seeds)``, the runs that it needs, by row; none if left out.
        short: Its short form in Markdown, for the README, which shows it where the paper.toml says ``readme = true``.
    """

    def declare(function: F) -> F:
        known: dict[str, Rendering] = getattr(function, "renderings", {})
        function.renderings = known | {id: Rendering(id, runs or _nothing, function, short)}  # type: ignore[attr-defined]
        return function

    return declare

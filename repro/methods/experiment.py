"""A method in a table: the table's experiment with another model, trained and measured as the table's own rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from repro import baselines, training
from repro.errors import UsageError
from repro.experiment import Cost, Experiment
from repro.methods.runs import MEASURED_AS, is_method, measured_as
from repro.methods.source import MULTIVAE, Source, load
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel
    from repro.training import TrainingSettings
__all__ = ["MethodExperiment", "check_names", "derived"]


def _of_training(changes: Mapping[str, Any]) -> set[str]:
    """Which of the names are settings of training."""
    return changes.keys() & ({f.name for f in fields(training.TrainingSettings)} - {"device", "stages", "labels"})


def check_names(source: Source, changes: Mapping[str, Any]) -> None:
    """Refuses to change what is a setting of training and an argument of the method's function alike.

    Arguments:
        source: What builds the method.
        changes: What differs, by name.

    Raises:
        UsageError: If one of the names is both, or the function cannot be loaded.
    """
    if source.module == MULTIVAE:
        return
    if shared := sorted(_of_training(changes) & set(signature(load(source)).parameters)):
        raise UsageError(f"{source.label} has an argument {shared[0]!r}, a setting of training too: rename it")


def derived(spec: RunSpec, name: str, source: Source, changes: Mapping[str, Any]) -> RunSpec:
    """The run of a method under the data, seed, training and evaluation of a table's own run.

    Stages of training that are the own run's model's are left out; the method's have the settings of all stages.

    Arguments:
        spec: The table's own run.
        name: The method's name.
        source: What builds it.
        changes: What differs: settings of training, such as ``epochs``, and keyword arguments of the function.
    """
    stated = {"method": spec.method, "model": spec.params.get("model", {}), "training": spec.params["training"]}
    plain = {k: v for k, v in spec.params["training"].items() if k != "stages"}
    possible = _of_training(changes)
    changed = plain | {k: v for k, v in changes.items() if k in possible}
    settings = {k: v for k, v in changes.items() if k not in possible}
    model = source.to_dict() | {"settings": settings}
    params = {**spec.params, "model": model, "training": changed, MEASURED_AS: stated}
    return replace(spec, method=name, params=params)


class MethodExperiment(Experiment):
    """A reader's own method in a table: the table's experiment in everything but the model.

    Arguments:
        table: The experiment of the table's own rows.
    """

    foreign = True

    def __init__(self, table: Experiment) -> None:
        self.table = table

    @property
    def datasets(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the table's."""
        return self.table.datasets

    def owns(self, spec: RunSpec) -> bool:
        """Whether it is a method's run and the table's experiment owns the one it is measured as."""
        return is_method(spec) and self.table.owns(measured_as(spec))

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        """No method by name alone: :func:`derived` makes its specifications from the table's.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{method!r} is planned from a table's own runs, by `repro run ID --method`")

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """As the table's own run."""
        return self.table.load(measured_as(spec))

    def build(self, spec: RunSpec) -> MultimodalModel:
        """The model that the method's function builds for the modalities of the table.

        Raises:
            UsageError: If the source differs from the specification's, or the function raises, takes no such setting,
                or returns anything but a model of these modalities.
        """
        from repro.methods.models import built

        own = self.table.build(measured_as(spec))
        model = dict(spec.params["model"])
        settings = model.pop("settings")
        source = Source(**model)
        if source.module == MULTIVAE:
            options = {**settings, "name": source.function, "like": own}
            if taken := sorted(settings.keys() & {"name", "like"}):
                raise UsageError(f"{source.label} has no setting {taken}")
            return built(spec.method, baselines.build_named, own.modalities, options)
        function = load(source)
        known = signature(function).parameters.values()
        if not any(p.kind is Parameter.VAR_KEYWORD for p in known):
            names = [p.name for p in known][1:]
            if unknown := sorted(set(settings) - set(names)):
                raise UsageError(f"{source.label} has no setting {unknown}; it has {names or 'none'}")
        return built(spec.method, function, own.modalities, settings)

    def training(self, spec: RunSpec, device: str = "cpu") -> TrainingSettings:
        """As the table's own run, with what was set to differ."""
        return self.table.training(measured_as(spec), device)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        """As the table's own run."""
        return self.table.evaluate(model, data, measured_as(spec), device)

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        """As the table's own run."""
        return self.table.figure_samples(model, measured_as(spec), device)

    def cost(self, spec: RunSpec) -> Cost:
        """That of the table's own run: what a reader's model takes is not known before it was run."""
        stated, own = spec.params[MEASURED_AS]["training"], measured_as(spec)
        if "stages" in stated:  # each of them has epochs of its own, by which some experiments reckon
            own = replace(own, params={**own.params, "training": stated})
        return self.table.cost(own)

"""A method in a table: the table's experiment with another model, trained and measured as the table's own rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from repro import baselines, training
from repro.errors import UsageError
from repro.experiment import Cost, Experiment
from repro.methods.source import MULTIVAE, Source, load
from repro.records import Metric, RunSpec

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel
    from repro.training import TrainingSettings
__all__ = [
    "BASELINES",
    "MethodExperiment",
    "derived",
    "differences",
    "is_method",
    "measured_as",
    "protocol",
    "protocol_rows",
]

# Whose data, training and evaluation a method takes where a table has one of them: nothing in these is only theirs.
BASELINES = ("mvae", "mmvae", "mopoe", "mmvae_plus", "mvtcae", "jmvae", "dmvae")
MEASURED_AS = "measured_as"


def is_method(spec: RunSpec) -> bool:
    """Whether a run is one of a reader's own method in a table."""
    return MEASURED_AS in spec.params


def measured_as(spec: RunSpec) -> RunSpec:
    """The table's own run whose data, protocol and seed a method's run has, with the method's training; else itself."""
    if not is_method(spec):
        return spec
    stated = spec.params[MEASURED_AS]
    params = {k: v for k, v in spec.params.items() if k != MEASURED_AS} | {"model": stated["model"]}
    return replace(spec, method=stated["method"], params=params)


def protocol(spec: RunSpec) -> RunSpec:
    """What a run has besides its model: two runs of equal protocol differ in settings of the model alone.

    A method's run has the protocol of the table's run that it was derived from, whatever was set to differ.
    """
    own = measured_as(spec)
    stated = spec.params[MEASURED_AS]["training"] if is_method(spec) else own.params.get("training", {})
    plain = {k: v for k, v in stated.items() if k != "stages"}
    return replace(own, params={**own.params, "training": plain, "model": {}})


def protocol_rows(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The runs of a table that a method's runs are derived from: those of its first baseline, else its first method.

    Of runs that differ in settings of that model alone, the first.
    """
    methods = list(dict.fromkeys(s.method for s in specs))
    chosen = next((m for m in methods if m in BASELINES), methods[0] if methods else "")
    found: dict[RunSpec, RunSpec] = {}
    for spec in specs:
        if spec.method == chosen:
            found.setdefault(protocol(spec), spec)
    return list(found.values())


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
    possible = {f.name for f in fields(training.TrainingSettings)} - {"device", "stages", "labels"}
    changed = plain | {k: v for k, v in changes.items() if k in possible}
    settings = {k: v for k, v in changes.items() if k not in possible}
    model = source.to_dict() | {"settings": settings}
    params = {**spec.params, "model": model, "training": changed, MEASURED_AS: stated}
    return replace(spec, method=name, params=params)


def differences(spec: RunSpec) -> dict[str, tuple[Any, Any]]:
    """Settings of training in which a method's run differs from the table's: name to the table's and its own."""
    before, after = spec.params[MEASURED_AS]["training"], spec.params["training"]
    names = [k for k in {**before, **after} if k != "stages" and before.get(k) != after.get(k)]
    return {k: (before.get(k), after.get(k)) for k in names}


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

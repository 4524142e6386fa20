"""The run of a reader's own method: which of a table's own runs it stands beside; importing this needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from repro.records import RunSpec
from repro.report.evidence import CHAINED

__all__ = ["BASELINES", "MEASURED_AS", "differences", "is_method", "measured_as", "protocol", "protocol_rows"]

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

    A method whose chains have to mix before its values count comes last. Of runs that differ in settings of that model
    alone, the first.
    """
    methods = sorted(dict.fromkeys(s.method for s in specs), key=lambda m: (m not in BASELINES, m in CHAINED))
    chosen = methods[0] if methods else ""
    found: dict[RunSpec, RunSpec] = {}
    for spec in specs:
        if spec.method == chosen:
            found.setdefault(protocol(spec), spec)
    return list(found.values())


def differences(spec: RunSpec) -> dict[str, tuple[Any, Any]]:
    """Settings of training in which a method's run differs from the table's: name to the table's and its own."""
    before, after = spec.params[MEASURED_AS]["training"], spec.params["training"]
    names = [k for k in {**before, **after} if k != "stages" and before.get(k) != after.get(k)]
    return {k: (before.get(k), after.get(k)) for k in names}

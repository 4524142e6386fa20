"""What a run takes, in operations and memory, and how long that takes on a machine whose speed was measured.

A training step is counted once for each model (:mod:`repro.artifacts.counting`), without training anything: floating
point operations of matrix products and of convolutions (whose channels are computed in blocks of 16), bytes that all
else moves, and operations, each of which costs some microseconds however small it is. A run is so many steps of so many
samples. Its seconds on one core are

.. math:: T = c_p \\frac{F_p}{r_p} + c_c \\frac{F_c}{r_c} + c_b \\frac{B}{b} + c_n N t + T_0 s

with what :class:`repro.engine.speed.Speed` measured of this machine (r_p and r_c in the precision of the hidden
layers), T_0 the seconds of evaluation on the reference machine (the median of committed records, else what the
experiment states), times how much slower this one is, and factors c that say how far from the measured rates training
comes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from repro.datasets.card import load_card
from repro.engine.speed import REFERENCE, Speed
from repro.papers import experiment_of
from repro.records import RunSpec, digest, precision_of

__all__ = ["Cost", "cost", "expected", "kind_of", "read_table", "training_seconds", "write_table"]

TABLE = Path(__file__).resolve().parent / "costs.json"
COUNTED = ("products", "convolutions", "bytes", "operations")
# How many times longer than at the measured rates: fitted to the training seconds of 92 kinds of run on CPUs of Intel
# and AMD. Of the committed records' 256 kinds, whose machines were often busy otherwise, 62% lie within a factor of 1.5
# and 82% within 2. Convolutions of few channels, as the reduced image networks have, are slowest for their size.
FACTORS = {"products": 1.2, "convolutions": 1.86, "bytes": 1.37, "operations": 2.34}
# How many times float32's rate convolutions of few channels come to in bfloat16, whatever is measured of 64 channels:
# units for tiles of matrices, which are 4 times as fast there, find too little to fill them.
MOST_BY_HALF = 2.0
# What of a specification decides a step's operations besides the model's settings that are no real numbers.
SHAPING = ("modalities", "components", "size")


@dataclass(frozen=True)
class Cost:
    """What one run takes, on whatever machine.

    Arguments:
        steps: Training steps.
        products: Floating point operations of matrix products, a multiplication and an addition counted as two.
        convolutions: The same of convolutions.
        bytes: Traffic to and from memory of all other operations.
        operations: Operations called, of whatever size.
        megabytes: Peak memory.
        reduced: Whether hidden layers compute in bfloat16.
        evaluation: Seconds of all but the training steps on one core of the reference machine.
    """

    steps: float
    products: float
    convolutions: float
    bytes: float
    operations: float
    megabytes: float
    reduced: bool = False
    evaluation: float = 0.0

    @property
    def flops(self) -> float:
        """Floating point operations of training."""
        return self.products + self.convolutions


def _structure(value: Any) -> Any:
    """Settings without real numbers (weights, rates, scales) and precisions, which change no count."""
    if isinstance(value, Mapping):
        kept = {k: _structure(v) for k, v in value.items() if not isinstance(v, float)}
        return {k: v for k, v in kept.items() if k not in ("hidden_dtype", "compute_dtype", "compile", "mask_seed")}
    return [_structure(v) for v in value] if isinstance(value, list) else value


def kind_of(spec: RunSpec) -> str:
    """The name of a run's entry in the table: runs whose steps take the same share it."""
    data = spec.params.get("data", {})
    what = [_structure(spec.params.get("model", {})), {k: data[k] for k in SHAPING if k in data}]
    return f"{spec.paper}/{spec.dataset}/{spec.method}/{digest(what)[:8]}"


@cache
def _parsed(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_table() -> Mapping[str, Any]:
    """Entry to what its steps and its evaluation take.

    ``"steps"`` has, by stage and by what is counted, ``[for the step, for each sample]``; ``"evaluation"`` has the
    median seconds of committed records by profile, where there are any.
    """
    return _parsed(TABLE)


def write_table(table: Mapping[str, Any]) -> None:
    """Writes the table, a line an entry."""
    rows = [f"{json.dumps(k)}: {json.dumps(table[k], separators=(',', ':'))}" for k in sorted(table)]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    _parsed.cache_clear()


def _train_samples(spec: RunSpec) -> int | None:
    data = spec.params.get("data", {})
    number = data.get("train_samples") or data.get("samples")
    if number is None:
        splits = load_card(spec.dataset).splits
        number = splits["train"].count if "train" in splits else None
    return None if number is None else number - (data.get("held_out") or 0)


def _without_training(spec: RunSpec) -> RunSpec:
    """The same run with no epoch to train."""
    training = dict(spec.params["training"])
    training["epochs"] = 0
    if "stages" in training:
        training["stages"] = {name: {**own, "epochs": 0} for name, own in training["stages"].items()}
    return replace(spec, params={**spec.params, "training": training})


def cost(spec: RunSpec) -> Cost | None:
    """What a run takes; None if its model is not in the table, or nothing here tells how many samples there are."""
    stages = read_table().get(kind_of(spec))
    training = spec.params.get("training", {})
    samples = _train_samples(spec) if stages else None
    if not stages or not samples:
        return None
    total = dict.fromkeys(COUNTED, 0.0)
    steps = 0.0
    for name, counted in stages["steps"].items():
        own = {**training, **training.get("stages", {}).get(name, {})}
        batches = -(-samples // own["batch_size"]) * own["epochs"]
        steps += batches
        for what in COUNTED:
            fixed, each = counted[what]
            total[what] += batches * fixed + own["epochs"] * samples * each
    evaluation, megabytes = experiment_of(spec).cost(_without_training(spec))
    evaluation = stages.get("evaluation", {}).get(spec.profile, evaluation)
    reduced = precision_of(spec) == "bfloat16"
    return Cost(steps=steps, megabytes=megabytes, reduced=reduced, evaluation=evaluation, **total)


def training_seconds(found: Cost, machine: Speed) -> float:
    """Seconds of a run's training steps on one core of a machine."""
    half = found.reduced
    convolutions = machine.convolutions
    if half:
        convolutions = min(machine.convolutions_bfloat16, MOST_BY_HALF * machine.convolutions)
    at_rates = {
        "products": found.products / (1e9 * (machine.products_bfloat16 if half else machine.products)),
        "convolutions": found.convolutions / (1e9 * convolutions),
        "bytes": found.bytes * (0.5 if half else 1.0) / (1e9 * machine.bandwidth),  # counted in float32
        "operations": found.operations * machine.operation,
    }
    return sum(FACTORS[name] * value for name, value in at_rates.items())


def expected(spec: RunSpec, machine: Speed) -> tuple[float, float]:
    """Seconds that a run takes on one core of a machine, and peak megabytes.

    A run that is not in the table takes the seconds that its experiment states for the reference machine, times how
    much slower this one multiplies in the run's precision.

    Arguments:
        spec: The run.
        machine: What was measured of the machine.
    """
    if (found := cost(spec)) is not None:
        trained = training_seconds(found, machine)
        slower = trained / training_seconds(found, REFERENCE)
        return trained + slower * found.evaluation, found.megabytes
    stated, megabytes = experiment_of(spec).cost(spec)
    if precision_of(spec) == "bfloat16":
        return stated * REFERENCE.products_bfloat16 / machine.products_bfloat16, megabytes
    return stated * REFERENCE.products / machine.products, megabytes

"""What a run takes, in operations and memory, and how long that takes on a machine whose speed was measured.

A training step is counted once for each model (:mod:`repro.artifacts.counting`): floating point operations of matrix
products and of convolutions (whose channels are computed in blocks of 16), bytes that all else moves, and operations,
each of which costs some microseconds however small it is. A run is so many steps of so many samples. Its seconds on one
core are

.. math:: T = l \\sum_k a_k \\left(c_p \\frac{F_{p,k}}{r_p} + c_c \\frac{F_{c,k}}{r_c} + c_b \\frac{B_k}{b}
    + c_n N_k t\\right) + T_0 s

over the stages k of training, with what :class:`repro.engine.speed.Speed` measured of this machine (r_p and r_c in the
precision of the hidden layers), and factors c that say how far from the measured rates training comes. What a stage's
steps took on one machine, over what these rates give there, is a_k: it depends on the shapes of a model's layers, and
little on the machine. Batches, validation and logs are l. T_0 are the seconds of evaluation on the reference machine
(of committed records with the same settings, else what the experiment states), times how much slower this one is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from repro.datasets.card import load_card
from repro.engine.speed import REFERENCE, Speed
from repro.engine.store import write_atomically
from repro.papers import experiment_of
from repro.records import RunSpec, digest, precision_of

__all__ = [
    "Cost",
    "Steps",
    "at_rates",
    "cost",
    "expected",
    "kind_of",
    "measured_as",
    "read_table",
    "train_samples",
    "training_seconds",
    "write_table",
]

TABLE = Path(__file__).resolve().parent / "costs.json"
COUNTED = ("products", "convolutions", "bytes", "operations")
# How many times longer than at the measured rates: fitted to the training seconds of 92 kinds of run on CPUs of Intel
# and AMD. Convolutions of few channels, as the reduced image networks have, are slowest for their size.
FACTORS = {"products": 1.2, "convolutions": 1.86, "bytes": 1.37, "operations": 2.34}
# How many times float32's rate convolutions of few channels come to in bfloat16, whatever is measured of 64 channels:
# units for tiles of matrices, which are 4 times as fast there, find too little to fill them.
MOST_BY_HALF = 2.0
# How many times its steps' time training takes: batches, validation and logs too.
LOOP = 1.1
# What of a specification decides a step's operations besides the model's settings that are no real numbers.
SHAPING = ("modalities", "components", "size")


@dataclass(frozen=True)
class Steps:
    """What the training steps of a stage take, all of them.

    Arguments:
        number: Training steps.
        products: Floating point operations of matrix products, a multiplication and an addition counted as two.
        convolutions: The same of convolutions.
        bytes: Traffic to and from memory of all other operations.
        operations: Operations called, of whatever size.
        timed: Precision to how many times what the rates give a step took where it was timed.
    """

    number: float
    products: float
    convolutions: float
    bytes: float
    operations: float
    timed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What one run takes, on whatever machine.

    Arguments:
        stages: Stage of training to what its steps take.
        megabytes: Peak memory.
        reduced: Whether hidden layers compute in bfloat16.
        evaluation: Seconds of all but the training steps on one core of the reference machine.
    """

    stages: Mapping[str, Steps]
    megabytes: float
    reduced: bool = False
    evaluation: float = 0.0

    @property
    def steps(self) -> float:
        """Training steps."""
        return sum(s.number for s in self.stages.values())

    @property
    def flops(self) -> float:
        """Floating point operations of training."""
        return sum(s.products + s.convolutions for s in self.stages.values())


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


def measured_as(spec: RunSpec) -> str:
    """The name of what a run does besides training: runs of one kind and one name are measured on the same."""
    return digest({k: v for k, v in spec.params.items() if k not in ("model", "training")})[:8]


@cache
def _parsed(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_table() -> Mapping[str, Any]:
    """Entry to what its steps and its evaluation take.

    ``"steps"`` has, by stage and by what is counted, ``[for the step, for each sample]``; ``"timed"`` has, by precision
    and stage, how many times what the rates give a step took; ``"evaluation"`` has the seconds of committed records by
    what they measured (:func:`measured_as`), where there are any.
    """
    return _parsed(TABLE)


def write_table(table: Mapping[str, Any]) -> None:
    """Writes the table, a line an entry, whole or not at all.

    Raises:
        RunError: If it cannot be written.
    """
    rows = [f"{json.dumps(k)}: {json.dumps(table[k], separators=(',', ':'))}" for k in sorted(table)]
    write_atomically(TABLE, "{\n" + ",\n".join(rows) + "\n}\n")
    _parsed.cache_clear()


def train_samples(spec: RunSpec) -> int | None:
    """How many samples a run trains on, without those that it holds out; None where nothing tells."""
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
    samples = train_samples(spec) if stages else None
    if not stages or not samples:
        return None
    found = {}
    for name, counted in stages["steps"].items():
        own = {**training, **training.get("stages", {}).get(name, {})}
        batches = -(-samples // own["batch_size"]) * own["epochs"]
        total = {}
        for what in COUNTED:
            fixed, each = counted[what]
            total[what] = batches * fixed + own["epochs"] * samples * each
        timed = {p: by_stage[name] for p, by_stage in stages.get("timed", {}).items() if name in by_stage}
        found[name] = Steps(number=batches, timed=timed, **total)
    evaluation, megabytes = experiment_of(spec).cost(_without_training(spec))
    evaluation = stages.get("evaluation", {}).get(measured_as(spec), evaluation)
    reduced = precision_of(spec) == "bfloat16"
    return Cost(found, megabytes=megabytes, reduced=reduced, evaluation=evaluation)


def at_rates(steps: Steps, machine: Speed, *, reduced: bool) -> float:
    """Seconds that steps take at the rates of a machine's core.

    Arguments:
        steps: What they take.
        machine: What was measured of the machine.
        reduced: Whether hidden layers compute in bfloat16.
    """
    convolutions = machine.convolutions
    if reduced:
        convolutions = min(machine.convolutions_bfloat16, MOST_BY_HALF * machine.convolutions)
    seconds = {
        "products": steps.products / (1e9 * (machine.products_bfloat16 if reduced else machine.products)),
        "convolutions": steps.convolutions / (1e9 * convolutions),
        "bytes": steps.bytes * (0.5 if reduced else 1.0) / (1e9 * machine.bandwidth),  # counted in float32
        "operations": steps.operations * machine.operation,
    }
    return sum(FACTORS[name] * value for name, value in seconds.items())


def training_seconds(found: Cost, machine: Speed) -> float:
    """Seconds of a run's training on one core of a machine."""
    precision = "bfloat16" if found.reduced else "float32"
    return LOOP * sum(
        steps.timed.get(precision, 1.0) * at_rates(steps, machine, reduced=found.reduced)
        for steps in found.stages.values()
    )


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

"""Counts what training steps of the plans' models take, and writes the table that :mod:`repro.engine.cost` reads.

``python -m repro.artifacts.counting`` counts every model of every plan that the table lacks; with ``--anew`` all of
them; with ``--timed`` it also takes some steps of those whose steps were not timed, on one core that nothing else
should use: a few seconds a model."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from math import prod
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop, conv_flop

from repro.artifacts.planning import all_runs
from repro.datasets.base import Dataset
from repro.engine.cost import TABLE, Steps, at_rates, kind_of, measured_as, read_table, write_table
from repro.engine.speed import Speed, measure_speed
from repro.engine.store import figures_root, read_record
from repro.model import TrainableModel, isolated_rng
from repro.papers import experiment_of
from repro.records import PROFILES, RunSpec, precision_of, with_precision
from repro.training.loop import OPTIMIZERS, stage_parameters
from repro.training.steps import backward_pass

__all__ = ["count_run", "time_run"]

# Samples that a stage's data are made of, and of the two steps whose difference is what one sample costs: few, and as
# many as canonical correlations need where those do not do.
SIZES = ((8, (4, 8)), (400, (48, 96)))
BLOCK = 16
# Of each stage: steps that come first, least and most steps that are timed, and the seconds after which no more are.
FIRST, LEAST, MOST, ENOUGH = 2, 3, 50, 0.5
# A step that the rates give more seconds than this is not timed.
LONGEST = 2.0


class _Traffic(TorchDispatchMode):
    """Operations, and the bytes that all but products and convolutions move, whose rates include their own."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        name = func.name()
        if not func.is_view and not any(word in name for word in ("mm", "convolution", "detach", "empty")):
            tensors = [t for t in tree_leaves((args, out)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def _samples(model: TrainableModel, number: int, labels: str) -> Dataset:
    """Noise of the modalities' shapes: what a step costs does not depend on values."""
    data = {}
    for name, spec in model.modalities.items():
        x = torch.rand(number, *spec.shape)
        data[name] = x.round() if spec.kind == "binary" else x
    classes = torch.arange(number) % 2
    found = Dataset("counted", "train", model.modalities, data, labels=classes)
    return found.labelled(labels) if labels else found


def _in_blocks(formula: Callable[..., int], weight: int) -> Callable[..., int]:
    """A count of a convolution whose channels are computed in blocks of 16, of which fewer take as long.

    Those of images, at most three, have kernels of their own.

    Arguments:
        formula: The count without.
        weight: Which of its arguments the weight is.
    """

    def count(*args: Any, out_shape: Any = None, **options: Any) -> int:
        more = prod(BLOCK / c if 3 < c < BLOCK else 1.0 for c in args[weight][:2])
        return round(more * formula(*args, out_val=out_shape, **options))

    return count


CONVOLUTIONS = {
    torch.ops.aten.convolution: _in_blocks(conv_flop, 1),
    torch.ops.aten.convolution_backward: _in_blocks(conv_backward_flop, 2),
}


def _step(
    model: TrainableModel, stage: Any, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]
) -> dict[str, float]:
    optimizer.zero_grad(set_to_none=True)
    with FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as flops, _Traffic() as traffic:
        backward_pass(model, model.loss(batch, stage))
        optimizer.step()
    by_kind = {str(k): v for k, v in flops.get_flop_counts().get("Global", {}).items()}
    convolved = sum(v for k, v in by_kind.items() if "convolution" in k)
    return {
        "products": float(flops.get_total_flops() - convolved),
        "convolutions": float(convolved),
        "bytes": float(traffic.bytes),
        "operations": float(traffic.operations),
    }


def count_run(spec: RunSpec) -> dict[str, dict[str, list[float]]]:
    """Stage to what a training step takes, as ``[for the step, for each sample]``, of a run's model.

    Raises:
        ValueError: If the model cannot be built or trained on noise; it says why.
    """
    with suppress(ValueError):  # some models have no precision to choose
        spec = with_precision(spec, "float32")
    for pool, samples in SIZES:
        try:
            with isolated_rng(0), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _counted(spec, pool, samples)
        except Exception as error:  # models of any paper, some of which need more samples, or data of their own
            why = " ".join(str(error).split())[:100]
    raise ValueError(f"{spec.label}: {why}")


def _counted(spec: RunSpec, pool: int, samples: tuple[int, int]) -> dict[str, dict[str, list[float]]]:
    model = experiment_of(spec).build(spec).train()
    settings = experiment_of(spec).training(spec)
    data = _samples(model, pool, settings.labels)
    found: dict[str, dict[str, list[float]]] = {}
    for stage in model.stages():
        with torch.no_grad():
            split = model.stage_data(stage, data)
        optimizer = OPTIMIZERS["adam"](stage_parameters(model, stage), lr=1e-6, fused=True)
        sizes = (samples[0], *samples)  # the first makes what is made once, and is not counted
        _, few, more = (_step(model, stage, optimizer, next(iter(split.batches(n, shuffle=False)))) for n in sizes)
        found[stage.name] = {}
        for name in few:
            each = (more[name] - few[name]) / (samples[1] - samples[0])
            found[stage.name][name] = [round(max(0.0, few[name] - each * samples[0])), round(max(0.0, each))]
    return found


def time_run(spec: RunSpec, counted: dict[str, dict[str, list[float]]], machine: Speed) -> dict[str, float]:
    """Stage to how many times as long as the rates give a training step of a run takes on this machine's core.

    Arguments:
        spec: The run; its precision is the one that is timed.
        counted: What its steps take, of :func:`count_run`.
        machine: What was measured of this machine.

    Raises:
        ValueError: If the model cannot be built or trained on noise, or a step takes too long; it says why.
    """
    try:
        with isolated_rng(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _timed(spec, counted, machine)
    except Exception as error:  # as where they are counted
        raise ValueError(f"{spec.label}: {' '.join(str(error).split())[:100]}") from error


def _timed(spec: RunSpec, counted: dict[str, dict[str, list[float]]], machine: Speed) -> dict[str, float]:
    model = experiment_of(spec).build(spec).train()
    settings, training = experiment_of(spec).training(spec), spec.params["training"]
    sizes = {name: {**training, **training.get("stages", {}).get(name, {})}["batch_size"] for name in counted}

    def expected(name: str, size: int) -> float:
        took = {what: fixed + size * each for what, (fixed, each) in counted[name].items()}
        return at_rates(Steps(number=1, **took), machine, reduced=precision_of(spec) == "bfloat16")

    if (longest := max(expected(name, size) for name, size in sizes.items())) > LONGEST:
        raise ValueError(f"a step takes about {longest:.0f} s")
    data = _samples(model, max(sizes.values()), settings.labels)
    found = {}
    for stage in model.stages():
        with torch.no_grad():
            split = model.stage_data(stage, data)
        batch = next(iter(split.batches(sizes[stage.name], shuffle=False)))
        optimizer = OPTIMIZERS["adam"](stage_parameters(model, stage), lr=1e-6, fused=True)
        seconds: list[float] = []
        while len(seconds) < FIRST + LEAST or (len(seconds) < FIRST + MOST and sum(seconds[FIRST:]) < ENOUGH):
            start = time.thread_time()
            optimizer.zero_grad(set_to_none=True)
            backward_pass(model, model.loss(batch, stage))
            optimizer.step()
            seconds.append(time.thread_time() - start)
        ratio = median(seconds[FIRST:]) / expected(stage.name, len(next(iter(batch.values()))))
        found[stage.name] = float(f"{ratio:.3g}")
    return found


def _in_precisions(spec: RunSpec) -> dict[str, RunSpec]:
    """The run in its own precision and in float32, which machines without units for the other take."""
    found = {precision_of(spec) or "float32": spec}
    with suppress(ValueError):  # some models have no precision to choose
        found.setdefault("float32", with_precision(spec, "float32"))
    return found


def _wanted(profiles: Sequence[str]) -> Iterator[RunSpec]:
    """A run of every entry that the plans of some profiles have."""
    seen = set()
    for profile in profiles:
        for specs in all_runs(profile).values():
            for spec in specs:
                if (kind := kind_of(spec)) not in seen:
                    seen.add(kind)
                    yield spec


def _evaluations(figures: Path) -> dict[str, dict[str, float]]:
    """Entry and what is measured to the seconds of evaluation of the records on CPUs beside the figures.

    Work beside them makes runs longer, never shorter: of many it is the lower quartile.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for path in sorted(figures.glob("*/records/*.json")):
        record = read_record(path)
        if record is not None and not str(record.environment.get("device", "")).startswith("cuda"):
            own = found.setdefault(kind_of(record.spec), {})
            own.setdefault(measured_as(record.spec), []).append(record.evaluation_seconds)
    return {kind: {name: round(_lower_quartile(v), 1) for name, v in own.items()} for kind, own in found.items()}


def _lower_quartile(values: list[float]) -> float:
    return quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]


@contextmanager
def _said(what: str) -> Iterator[None]:
    """A block whose failure is a line on stderr."""
    try:
        yield
    except (ValueError, MemoryError, RuntimeError) as error:
        print(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", file=sys.stderr)


def main() -> int:
    """Writes the table; says what could not be counted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=PROFILES, help="only these plans (all)")
    parser.add_argument("--anew", action="store_true", help="count what the table has, too, to be timed anew")
    parser.add_argument("--timed", action="store_true", help="take some steps of what was not timed, too")
    parser.add_argument("--memory", type=int, default=14, metavar="GB", help="most that a count may take (%(default)s)")
    options = parser.parse_args()
    with suppress(ImportError):  # which Windows has no such limits in
        import resource

        # An allocation beyond it fails, and its model is named; without, it is the machine that has none left.
        asked, most = options.memory << 30, resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (asked if most == resource.RLIM_INFINITY else min(asked, most), most))
    torch.set_num_threads(1)
    speeds = [measure_speed() for _ in range(5)] if options.timed else []
    machine = Speed(**{f.name: median(getattr(s, f.name) for s in speeds) for f in fields(Speed)}) if speeds else None
    before, found, last = read_table(), {}, time.monotonic()
    for spec in _wanted(options.profiles):
        kind = kind_of(spec)
        known = {} if options.anew else before.get(kind, {})
        with _said(f"{spec.label}: not counted"):
            steps = known["steps"] if known else count_run(spec)
            found[kind] = {**known, "steps": steps, "timed": dict(known.get("timed", {}))}
        if kind not in found:  # what is known of it stays
            if kind in before:
                found[kind] = before[kind]
            continue
        for precision, run in _in_precisions(spec).items() if machine else ():
            if precision not in found[kind]["timed"]:
                with _said(f"{spec.label}: not timed in {precision}"):
                    found[kind]["timed"][precision] = time_run(run, steps, machine)
        if time.monotonic() - last > 20:
            last = time.monotonic()
            write_table({**before, **found})
            print(f"{len(found)} models", file=sys.stderr, flush=True)
    if set(options.profiles) != set(PROFILES):  # what the other plans have stays
        found = {**before, **found}
    for kind, seconds in _evaluations(figures_root()).items():
        if kind in found:
            found[kind]["evaluation"] = seconds
    write_table({kind: {name: v for name, v in entry.items() if v} for kind, entry in found.items()})
    print(f"{TABLE.name}: {len(found)} models")
    return 0


if __name__ == "__main__":
    sys.exit(main())

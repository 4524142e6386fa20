"""Counts what training steps of the plans' models take, and writes the table that :mod:`repro.engine.cost` reads.

``python -m repro.artifacts.counting`` counts every model of every plan that the table lacks; with ``--anew`` all of
them."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_backward_flop, conv_flop

from repro.artifacts.planning import all_runs
from repro.datasets.base import Dataset
from repro.engine.cost import TABLE, kind_of, read_table, write_table
from repro.engine.store import figures_root, read_record
from repro.model import TrainableModel, isolated_rng
from repro.papers import experiment_of
from repro.records import PROFILES, RunSpec, with_precision
from repro.training.loop import OPTIMIZERS, stage_parameters
from repro.training.steps import backward_pass

__all__ = ["count_run"]

# Samples that a stage's data are made of, and of the two steps whose difference is what one sample costs: few, and as
# many as canonical correlations need where those do not do.
SIZES = ((8, (4, 8)), (400, (48, 96)))
BLOCK = 16


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


def _step(model: TrainableModel, stage: Any, batch: dict[str, Tensor]) -> dict[str, float]:
    chosen = stage_parameters(model, stage)
    optimizer = OPTIMIZERS["adam"](chosen, lr=1e-6, fused=True)
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
        few, more = (_step(model, stage, next(iter(split.batches(n, shuffle=False)))) for n in samples)
        found[stage.name] = {}
        for name in few:
            each = (more[name] - few[name]) / (samples[1] - samples[0])
            found[stage.name][name] = [round(max(0.0, few[name] - each * samples[0])), round(max(0.0, each))]
    return found


def _wanted() -> Iterator[RunSpec]:
    """A run of every entry that the plans have."""
    seen = set()
    for profile in PROFILES:
        for specs in all_runs(profile).values():
            for spec in specs:
                if (kind := kind_of(spec)) not in seen:
                    seen.add(kind)
                    yield spec


def _evaluations(figures: Path) -> dict[str, dict[str, float]]:
    """Entry and profile to the median evaluation seconds of the records on CPUs beside the figures."""
    found: dict[str, dict[str, list[float]]] = {}
    for path in sorted(figures.glob("*/records/*.json")):
        record = read_record(path)
        if record is not None and not str(record.environment.get("device", "")).startswith("cuda"):
            own = found.setdefault(kind_of(record.spec), {})
            own.setdefault(record.spec.profile, []).append(record.evaluation_seconds)
    return {kind: {p: round(median(v), 1) for p, v in own.items()} for kind, own in found.items()}


def main() -> int:
    """Writes the table; says what could not be counted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--anew", action="store_true", help="count what the table has already, too")
    parser.add_argument("--memory", type=int, default=14, metavar="GB", help="most that a count may take (%(default)s)")
    options = parser.parse_args()
    with suppress(ImportError):  # which Windows has no such limits in
        import resource

        # An allocation beyond it fails, and its model is named; without, it is the machine that has none left.
        asked, most = options.memory << 30, resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (asked if most == resource.RLIM_INFINITY else min(asked, most), most))
    table = {} if options.anew else dict(read_table())
    torch.set_num_threads(1)
    kept, last = {}, time.monotonic()
    for spec in _wanted():
        kind = kind_of(spec)
        try:
            kept[kind] = {"steps": table[kind]["steps"] if kind in table else count_run(spec)}
        except (ValueError, MemoryError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            print(f"not counted: {spec.label}: {reason}", file=sys.stderr)
        if time.monotonic() - last > 20:
            last = time.monotonic()
            write_table({**table, **kept})
            print(f"{len(kept)} models", file=sys.stderr, flush=True)
    for kind, found in _evaluations(figures_root()).items():
        if kind in kept:
            kept[kind]["evaluation"] = found
    write_table(kept)
    print(f"{TABLE.name}: {len(kept)} models")
    return 0


if __name__ == "__main__":
    sys.exit(main())

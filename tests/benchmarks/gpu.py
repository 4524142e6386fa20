"""What a short stretch on a GPU settles, in one command: `python tests/benchmarks/gpu.py --minutes 9 --out DIR`.

In order: (a) the tests marked `cuda`, at most 90 s; (b) for every stage of every image model of the paper profile the
seconds of a training step, operation by operation and as a CUDA graph, its share of the card's peak (a bfloat16
product, measured in the same run) and its memory, two seconds each; SBM-VAE's sampling; Table I's 15 runs with each
model's seeds stacked against one after another; and what follows from these for whole runs; (c) until the time is over,
the runs of :func:`queue`, in order, each step taken in the faster way; (d) records, logs, samples, weights and
checkpoints packed into at most 8 files of 16 MB with `measured.json`, which names what did not fit.

Everything is packed once a minute too, and after every measurement, so that a kill costs no more; SIGTERM ends at the
next step. Another call with the same DIR continues every run from what the one before packed. `--dry-run` is the same
on a CPU in tiny sizes.

A bare machine needs Python 3.12, torch 2.11 and the packages of :data:`NEEDED`; the command says which of them are
missing and how to carry their wheels where there is no network. Data come from REPRO_MIRROR: carry `mnist/` (11 MB) and
the backgrounds of PolyMNIST (4 MB). Nothing is downloaded; a run whose data are missing is named as such.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("REPRO_OFFLINE", "1")
# Distributions besides torch's that what is run here imports; all are in requirements.lock.
NEEDED = ("annotated-types", "certifi", "charset-normalizer", "dill", "filelock", "idna", "matplotlib", "multivae")
NEEDED += ("nltk", "numpy", "pandas", "pillow", "platformdirs", "pooch", "pot", "pyarrow", "pydantic", "pydantic_core")
NEEDED += ("pythae", "pytest", "pyyaml", "requests", "safetensors", "scikit-learn", "scipy", "torch-fidelity")
NEEDED += ("torchmetrics", "tqdm", "typing-inspection", "urllib3", "xxhash", "zuko")


def missing(names: Sequence[str] = NEEDED) -> str:
    """What is not installed of some distributions and how to carry it; nothing if all are."""
    locked = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        name, _, version = line.split(";")[0].strip().partition("==")
        locked[name.lower().replace("_", "-")] = version
    absent = []
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            continue
        key = name.lower().replace("_", "-")
        absent.append(f"{name}=={locked[key]}" if locked.get(key) else name)
    if not absent:
        return ""
    wanted = " ".join(absent)
    fetch = f"pip download --no-deps --only-binary=:all: --python-version 3.12 -d wheels {wanted}"
    install = "pip install --no-index --no-deps wheels/*.whl"
    return f"not installed here: {wanted}; where there is a network, `{fetch}`, carry wheels/, and here `{install}`"


if __name__ == "__main__" and (lacking := missing()):
    print(f"gpu.py: {lacking}", file=sys.stderr)
    sys.exit(2)

import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from repro.datasets.base import Dataset  # noqa: E402
from repro.engine.cost import cost  # noqa: E402
from repro.engine.execute import execute  # noqa: E402
from repro.engine.store import RunStore  # noqa: E402
from repro.model import Stage, TrainableModel, isolated_rng  # noqa: E402
from repro.papers import experiment_of  # noqa: E402
from repro.papers.covae.correlated_mnist.experiment import image_spec as covae_spec  # noqa: E402
from repro.papers.covae.settings import METHODS as COVAE_METHODS  # noqa: E402
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec  # noqa: E402
from repro.papers.gmrf_mcvae.images.experiment import image_spec  # noqa: E402
from repro.papers.mrf_mvae.triples import experiment as triples  # noqa: E402
from repro.papers.pretrained.digits.experiment import vaegan_spec  # noqa: E402
from repro.papers.sbm_vae.sampling import SamplingSettings  # noqa: E402
from repro.papers.sbm_vae.settings import sbm_spec  # noqa: E402
from repro.records import RunSpec  # noqa: E402
from repro.training import TrainingStopped  # noqa: E402
from repro.training.loop import OPTIMIZERS, stage_parameters  # noqa: E402
from repro.training.stacked import Stack  # noqa: E402
from repro.training.steps import GRAPHS, CapturedStep, EagerStep, obstacle  # noqa: E402

FILES, FILE_BYTES = 7, 16_000_000  # beside measured.json
HEADER = 96  # of every packed file: which pack it is of, as ASCII
TEST_SECONDS, EVALUATIONS, SAMPLES, PACK_SECONDS = 90, 20, 256, 60.0
TESTS = [f"tests/{t}.py" for t in ("engine/test_devices", "metrics/test_devices", "training/test_steps")]
TESTS += ["tests/training/test_stacked.py"]
METHODS = ("mvae", "mmvae", "mopoe", "mmvae_plus", "gmrf_mcvae")
VARIANTS = ("gmrf", "almrf", "nnmrf")
# What is kept of a run, the most useful first.
KEPT = ("spec.json", "record.json", "log.jsonl", "training.json", "samples.safetensors")
LARGE = ("checkpoint.safetensors", "weights.safetensors")


def queue(dry: bool) -> list[RunSpec]:
    """The runs that the rest of the time goes to, in order."""
    if dry:
        return [copula_spec("gmrf_mcvae", 0, "smoke")]
    return [
        image_spec("polymnist", "gmrf_mcvae", 0, "paper"),
        image_spec("polymnist", "mmvae_plus", 0, "paper"),
        *(triples.spec(v, 0, "paper") for v in VARIANTS),
        sbm_spec("sbm_rae", 0, "paper"),
        vaegan_spec("paper"),
    ]


def measured(dry: bool) -> list[RunSpec]:
    """A run of each image model whose step is measured."""
    if dry:
        return [image_spec("polymnist", "gmrf_mcvae", 0, "smoke"), sbm_spec("sbm_rae", 0, "smoke")]
    return [
        *(image_spec(d, m, 0, "paper") for d in ("polymnist", "biked_rendered") for m in METHODS),
        *(triples.spec(v, 0, "paper") for v in VARIANTS),
        *(sbm_spec(m, 0, "paper") for m in ("sbm_vae", "sbm_rae", "mld")),
        vaegan_spec("paper"),
        *(covae_spec(m, 0, "paper", 0.5) for m in COVAE_METHODS),
    ]


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def rate(call: Callable[[], object], device: str, limit: float) -> float:
    """Seconds a call, after three that are not counted, over as many as the limit allows."""
    for _ in range(3):
        call()
    synchronise(device)
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < limit:
        call()
        count += 1
        if count % 10 == 0:
            synchronise(device)
    synchronise(device)
    return (time.perf_counter() - start) / count


def peak(device: str, dry: bool) -> float:
    """Operations a second of a product of two matrices in bfloat16."""
    n = 256 if dry else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / rate(lambda: a @ b, device, 0.02 if dry else 1.0)


def built(spec: RunSpec, device: str) -> TrainableModel:
    with isolated_rng(spec.seed):
        return experiment_of(spec).build(spec).to(device).train()


def noise(model: TrainableModel, number: int, device: str) -> Dataset:
    """Values in [0, 1] in the shapes of a split: a step takes as long on them."""
    with isolated_rng(0):
        data = {m: torch.rand(number, *s.shape).to(device) for m, s in model.modalities.items()}
    return Dataset("noise", "train", dict(model.modalities), data)


def eager_step(model: TrainableModel, stage: Stage, optimizer: str = "adam") -> EagerStep:
    """A stage's step operation by operation."""
    return EagerStep(model, stage, OPTIMIZERS[optimizer](stage_parameters(model, stage), lr=1e-4, fused=True))


def measure_step(spec: RunSpec, stage: Stage, device: str, limit: float, most: float) -> dict[str, Any]:
    """Seconds of a stage's step at the run's batch size in both ways, share of the peak and memory."""
    model, settings = built(spec, device), experiment_of(spec).training(spec, device).for_stage(stage.name)
    size = settings.batch_size
    with torch.no_grad(), isolated_rng(0):
        split = model.stage_data(stage, noise(model, max(2 * size, 64), device))
    batch, step = next(split.batches(size)), eager_step(model, stage, settings.optimizer)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with FlopCounterMode(display=False) as counter:
        step(batch)
    found: dict[str, Any] = {"batch_size": size, "flops": counter.get_total_flops()}
    found["eager"] = found["seconds"] = rate(lambda: step(batch), device, limit)
    if device == "cuda":
        found["peak_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
    reason = obstacle(step, batch) if device in GRAPHS else f"a step is not captured on {device}"
    if not reason:
        try:
            captured = CapturedStep(step, GRAPHS[device])
            found["captured"] = rate(lambda: captured(batch), device, limit / 2)
            found["seconds"] = min(found["eager"], found["captured"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
    if reason:
        found["captured_not_possible"] = reason
    return found | {"share_of_peak": found["flops"] / found["seconds"] / most}


def measure_sampling(device: str, dry: bool) -> dict[str, float]:
    """Seconds of joint samples of all modalities of SBM-RAE, decoded."""
    model = built(sbm_spec("sbm_rae", 0, "smoke" if dry else "paper"), device).eval()
    number, evaluations = (2, 2) if dry else (SAMPLES, EVALUATIONS)
    generator = torch.Generator(device).manual_seed(0)
    sampling = SamplingSettings("dpm_solver", num_steps=evaluations)
    call = lambda: model.generate(number, generator=generator, sampling=sampling)  # noqa: E731
    return {"samples": number, "steps": evaluations, "seconds": rate(call, device, 0.02 if dry else 2.0)}


def steps_of(spec: RunSpec) -> int:
    """Steps of all stages of a run, as they are counted for its estimate."""
    return round(cost(spec).steps)


def measure_stack(method: str, device: str, limit: float, seeds: int = 3) -> dict[str, Any]:
    """Seconds of a step of all seeds of a copula model: stacked, one after another, and each as a CUDA graph."""
    specs = [copula_spec(method, s, "paper") for s in range(seeds)]
    models = [built(s, device) for s in specs]
    steps = [eager_step(m, m.stages()[0]) for m in models]
    batches = [next(noise(m, specs[0].params["training"]["batch_size"], device).batches(10**6)) for m in models]
    found: dict[str, Any] = {"steps": steps_of(specs[0])}
    found["in_turn"] = rate(lambda: [s(b) for s, b in zip(steps, batches, strict=True)], device, limit)
    reason = obstacle(steps[0], batches[0]) if device in GRAPHS else f"a step is not captured on {device}"
    if reason:
        found["captured_not_possible"] = reason
    else:
        try:
            captured = CapturedStep(steps[0], GRAPHS[device])
            found["captured"] = seeds * rate(lambda: captured(batches[0]), device, limit)
        except RuntimeError as error:
            found["captured_not_possible"] = " ".join(str(error).split())[:200]
    try:
        # Of models as they begin: after as many steps as there was time for, rounding would decide for another sample
        # at a kink, and now and then the trial, which compares entry by entry, would refuse the stack.
        models = [built(s, device) for s in specs]
        with isolated_rng(0):
            stack = Stack([eager_step(m, m.stages()[0]) for m in models], batches)
        drawn = lambda: [[draw() for draw in stack.draws(b)] for b in batches]  # noqa: E731
        found["stacked"] = rate(lambda: stack(batches, drawn()), device, limit)
    except ValueError as error:  # of a library's model that cannot be vectorised: said, not hidden
        found["stacked_not_possible"] = str(error)
    return found


def whole_runs(report: Mapping[str, Any], specs: Sequence[RunSpec]) -> dict[str, Any]:
    """What follows for whole runs: seconds of all steps of models of one stage, and of Table I in each way."""
    found: dict[str, Any] = {}
    for spec in specs:
        own = {k: v for k, v in report["steps"].items() if k.startswith(f"{spec.dataset} {spec.method} ")}
        if len(own) == 1 and "seconds" in next(iter(own.values())):  # of several stages each has steps of its own
            found[f"{spec.dataset} {spec.method}"] = steps_of(spec) * next(iter(own.values()))["seconds"]
    table = [v for v in report["table1_stacked"].values() if "in_turn" in v]
    for way in ("in_turn", "stacked", "captured"):
        found[f"table1 {way}"] = sum(v["steps"] * v.get(way, v["in_turn"]) for v in table)
    found["table1 each in the fastest way"] = sum(
        v["steps"] * min(v[w] for w in ("in_turn", "stacked", "captured") if w in v) for v in table
    )
    return found


def guarded(found: dict[str, Any], name: str, call: Callable[[], Any]) -> None:
    """Adds what a measurement gives, or why it gives nothing, and prints it."""
    try:
        found[name] = call()
    except Exception as error:  # one model's failure must not cost the others their figures
        found[name] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(f"  {name}: {json.dumps(found[name])}", flush=True)


class Stop:
    """Whether to stop: when the time is over or SIGTERM came; packs on the way, so that a kill costs a minute at most.

    Arguments:
        deadline: By the monotonic clock.
        keep: What packs.
    """

    def __init__(self, deadline: float, keep: Callable[[], object]) -> None:
        self.deadline, self.keep, self.asked, self.packed = deadline, keep, False, time.monotonic()
        with suppress(ValueError):  # not the main thread, which alone can take signals
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self.asked = True

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.packed > PACK_SECONDS:
            self.keep()
            self.packed = time.monotonic()
        return self.asked or now > self.deadline


def run_queue(store: RunStore, device: str, stop: Callable[[], bool], dry: bool) -> dict[str, str]:
    """Runs in their order until the end; what became of each."""
    states = {}
    for spec in queue(dry):
        if stop():
            states[spec.label] = "not begun: the time is over"
            continue
        try:
            execute(spec, store, device=device, stop=stop, step="auto")
            states[spec.label] = "recorded"
        except TrainingStopped as stopped:
            states[spec.label] = str(stopped)
        except Exception as error:
            states[spec.label] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"  {spec.label}: {states[spec.label]}", flush=True)
    return states


def beside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f"{path.name}.partial")


def pack(folder: Path, out: Path, files: int = FILES, size: int = FILE_BYTES) -> list[str]:
    """Packs runs into files of at most ``size`` bytes each, the small files of all first; returns what is left out.

    They are one archive, cut, which :func:`unpack` joins again: each says of which archive it is. All are written
    beside the former ones, and then put in their place.
    """
    paths = [p for names in (KEPT, LARGE) for name in names for p in sorted(folder.rglob(name))]
    room_left, chosen, left_out = files * (size - 200_000), [], []
    for path in paths:
        need = path.stat().st_size + 2048
        if need <= room_left:
            chosen.append(path)
            room_left -= need
        else:
            left_out.append(f"{path.relative_to(folder)} ({path.stat().st_size / 1e6:.0f} MB)")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in chosen:
            tar.add(path, str(path.relative_to(folder)))
    content, body = buffer.getvalue(), size - HEADER
    parts = [content[k * body : (k + 1) * body] for k in range(-(-len(content) // body))]
    header = f"{hashlib.sha256(content).hexdigest()} {len(parts)}".ljust(HEADER).encode()
    targets = [out / f"runs.tar.{number}" for number in range(files)]
    for target, part in zip(targets, parts, strict=False):
        beside(target).write_bytes(header + part)
    for target in targets[: len(parts)]:
        beside(target).replace(target)
    for target in targets[len(parts) :]:
        target.unlink(missing_ok=True)
    return left_out


def unpack(folder: Path, out: Path) -> str:
    """Puts back what an earlier call packed, beside what is there; returns why not, or nothing."""
    for leftover in out.glob("*.partial"):
        leftover.unlink()
    parts = [p.read_bytes() for n in range(FILES) if (p := out / f"runs.tar.{n}").exists()]
    if not parts:
        return ""
    digest, _, number = parts[0][:HEADER].decode("ascii", "replace").strip().partition(" ")
    content = b"".join(p[HEADER:] for p in parts)
    if str(len(parts)) != number or hashlib.sha256(content).hexdigest() != digest:
        return f"{out}: what was packed is not whole; every run begins anew"
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members: Iterator[tarfile.TarInfo] = (m for m in tar if not (folder / m.name).exists())
        tar.extractall(folder, members=members, filter="data")
    return ""


def device_tests(seconds: float = TEST_SECONDS, tests: Sequence[str] = tuple(TESTS), mark: str = "cuda") -> str:
    """Runs the tests marked `cuda`; how they ended, or how far they came."""
    command = [sys.executable, "-u", "-m", "pytest", "-m", mark, *tests, "-p", "no:cacheprovider", "-v", "--tb=short"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, ending = process.communicate(timeout=seconds)[0], ""
        except subprocess.TimeoutExpired:
            process.kill()
            said, ending = process.communicate()[0], f"stopped after {seconds:g} s: "
    print(said[-6000:], flush=True)
    results = {
        w: sum(f" {w.upper()}" in line for line in said.splitlines() if "::" in line) for w in ("passed", "failed")
    }
    if process.returncode not in (0, 1) and not ending:
        return f"failed: exit code {process.returncode}: {' '.join(said.split())[-200:]}"
    return f"{ending}{results['passed']} passed, {results['failed']} failed"


def main(arguments: list[str] | None = None) -> int:
    """Does all four; returns 0 unless a part failed."""
    parser = argparse.ArgumentParser(prog="gpu.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu", help="where runs live; packed into --out")
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, in tiny sizes")
    options = parser.parse_args(arguments)
    dry, start = options.dry_run, time.monotonic()
    if not dry and not torch.cuda.is_available():
        parser.error("there is no GPU here; --dry-run does the same on a CPU in tiny sizes")
    device, limit = ("cpu", 0.02) if dry else ("cuda", 2.0)
    deadline = start + 60 * options.minutes - (0 if dry else 45)  # for the last step, the evaluation's end and packing
    options.out.mkdir(parents=True, exist_ok=True)
    runs, path = options.work, options.out / "measured.json"
    if reason := unpack(runs, options.out):
        print(reason, flush=True)
    report: dict[str, Any] = {}
    if path.exists():
        with suppress(ValueError):  # cut off by a kill
            report = json.loads(path.read_text(encoding="utf-8"))
    report["card"] = "cpu" if dry else torch.cuda.get_device_name()

    def keep() -> None:
        report["left_out"] = pack(runs, options.out) if runs.exists() else []
        report["seconds"] = round(time.monotonic() - start, 1)
        beside(path).write_text(json.dumps(report, indent=1), encoding="utf-8")
        beside(path).replace(path)

    stop = Stop(deadline, keep)
    if not dry and "tests" not in report:
        report["tests"] = device_tests()
        keep()
    measure(report, device, dry, limit, stop, keep)
    report["runs"] = run_queue(RunStore(runs), device, stop, dry)
    keep()
    print(json.dumps(report["runs"], indent=1), f"\nleft out: {report['left_out']}", flush=True)
    text = json.dumps(report)
    return int('"failed' in text or ": failed" in text or " 0 failed" not in report.get("tests", " 0 failed"))


def measure(
    report: dict[str, Any],
    device: str,
    dry: bool,
    limit: float,
    stop: Callable[[], bool],
    keep: Callable[[], None],
) -> None:
    """Adds what the report does not have yet of the measurements of (b), keeping each."""
    if "peak" not in report:
        report["peak"] = peak(device, dry)
    for name in ("steps", "sampling", "table1_stacked"):
        report.setdefault(name, {})

    def add(part: str, name: str, call: Callable[[], Any]) -> None:
        if name not in report[part] and not stop():
            guarded(report[part], name, call)
            keep()

    add("sampling", "sbm_rae", lambda: measure_sampling(device, dry))
    for method in METHODS[-1:] if dry else METHODS:
        add("table1_stacked", method, lambda method=method: measure_stack(method, device, limit))
    for spec in measured(dry):
        stages = [] if stop() else built(spec, "cpu").stages()
        for stage in stages:
            call = lambda spec=spec, stage=stage: measure_step(spec, stage, device, limit, report["peak"])  # noqa: E731
            add("steps", f"{spec.dataset} {spec.method} {stage.name}", call)
    report["whole_runs"] = whole_runs(report, measured(dry))
    keep()


if __name__ == "__main__":
    sys.exit(main())

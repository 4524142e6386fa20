"""What a short stretch on a GPU settles, in one command: `python tests/benchmarks/gpu.py --minutes 9 --out DIR`.

In order: (a) the tests marked `cuda`, at most 90 s; (b) for every image model of the paper profile the seconds of a
training step, its share of the card's peak (a bfloat16 product, measured in the same run) and its memory, SBM-VAE's
sampling, and Table I's runs stacked (one call of a vectorised loss for all seeds) against one after another, with a
step captured in a CUDA graph beside them; (c) until the time is over, the runs of :func:`queue`, in order; (d) records,
logs, samples, weights and checkpoints packed into at most 8 files of 16 MB with
`measured.json`, which names what did not fit. Another call
with the same DIR continues every run from what the one before packed. `--dry-run` is the same on a CPU in tiny sizes.

A bare machine needs Python 3.12, torch 2.11 and the other packages of requirements.lock; without a network, carry their
wheels (`pip download -r requirements.lock -d wheels --no-deps`, without torch and nvidia packages that are there)
and `pip install --no-index --no-deps wheels/*`. Data come from REPRO_MIRROR: carry `mnist/` (11 MB) and the backgrounds
of PolyMNIST (4 MB). Nothing is downloaded; a run whose data are missing is named as such.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("REPRO_OFFLINE", "1")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.func import functional_call, grad_and_value, stack_module_state, vmap  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from repro.engine.execute import execute  # noqa: E402
from repro.engine.store import RunStore  # noqa: E402
from repro.model import TrainableModel, isolated_rng  # noqa: E402
from repro.papers import experiment_of  # noqa: E402
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec  # noqa: E402
from repro.papers.gmrf_mcvae.images.experiment import image_spec  # noqa: E402
from repro.papers.mrf_mvae.triples import experiment as triples  # noqa: E402
from repro.papers.pretrained.digits.experiment import vaegan_spec  # noqa: E402
from repro.papers.sbm_vae.sampling import SamplingSettings  # noqa: E402
from repro.papers.sbm_vae.settings import sbm_spec  # noqa: E402
from repro.records import RunSpec  # noqa: E402
from repro.training import TrainingStopped  # noqa: E402

FILES, FILE_BYTES = 7, 16_000_000  # beside measured.json
TEST_SECONDS, EVALUATIONS, SAMPLES = 90, 20, 256
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


def noise_batch(model: TrainableModel, size: int, device: str) -> dict[str, Tensor]:
    """Values in [0, 1] in the shapes of a batch: a step takes as long on them."""
    return {m: torch.rand(size, *s.shape, device=device) for m, s in model.modalities.items()}


def step_of(model: TrainableModel, batch: dict[str, Tensor], **options: Any) -> Callable[[], None]:
    """A training step of the first stage."""
    stage = model.stages()[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, **options)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(batch, stage)
        (sum(loss.parts.values()) if loss.parts else loss.total).backward()
        optimizer.step()

    return step


def measure_step(spec: RunSpec, device: str, limit: float, most: float) -> dict[str, Any]:
    """Seconds, share of the peak and memory of a training step at the run's batch size."""
    model, size = built(spec, device), spec.params["training"]["batch_size"]
    step = step_of(model, noise_batch(model, size, device), fused=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with FlopCounterMode(display=False) as counter:
        step()
    seconds = rate(step, device, limit)
    found = {"seconds": seconds, "batch_size": size, "flops": counter.get_total_flops()}
    found["share_of_peak"] = found["flops"] / seconds / most
    if device == "cuda":
        found["peak_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def measure_sampling(device: str, dry: bool) -> dict[str, float]:
    """Seconds of joint samples of all modalities of SBM-RAE, decoded."""
    model = built(sbm_spec("sbm_rae", 0, "smoke" if dry else "paper"), device).eval()
    number, evaluations = (2, 2) if dry else (SAMPLES, EVALUATIONS)
    generator = torch.Generator(device).manual_seed(0)
    sampling = SamplingSettings("dpm_solver", num_steps=evaluations)
    call = lambda: model.generate(number, generator=generator, sampling=sampling)  # noqa: E731
    return {"samples": number, "steps": evaluations, "seconds": rate(call, device, 0.02 if dry else 2.0)}


def stacked_losses(models: list[TrainableModel]) -> Callable[..., Any]:
    """From stacked parameters, buffers and a batch for each model to gradients and losses of all, in one call."""
    base = models[0]

    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = base

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return self.model.loss(batch).total

    scalar = Scalar()

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        state = {f"model.{k}": v for k, v in {**parameters, **buffers}.items()}
        return functional_call(scalar, state, (batch,))

    return vmap(grad_and_value(loss), randomness="different")


def measure_stack(method: str, device: str, limit: float, seeds: int = 3) -> dict[str, Any]:
    """Seconds of a step of all seeds of a copula model: stacked, one after another, and captured in a CUDA graph."""
    specs = [copula_spec(method, s, "paper") for s in range(seeds)]
    models = [built(s, device) for s in specs]
    batches = [noise_batch(m, specs[0].params["training"]["batch_size"], device) for m in models]
    steps = [step_of(m, b, fused=True) for m, b in zip(models, batches, strict=True)]
    found: dict[str, Any] = {"in_turn": rate(lambda: [s() for s in steps], device, limit)}
    try:
        # Parameters and gradients in one tensor each, and one optimiser for all.
        parameters, buffers = stack_module_state(models)  # type: ignore[arg-type]
        batch = {m: torch.stack([b[m] for b in batches]) for m in batches[0]}
        call, optimizer = stacked_losses(models), torch.optim.Adam(parameters.values(), lr=1e-4, fused=True)

        def step() -> None:
            gradients, _ = call(parameters, buffers, batch)
            for name, parameter in parameters.items():
                parameter.grad = gradients[name]
            optimizer.step()

        found["stacked"] = rate(step, device, limit)
    except Exception as error:  # of a library's model that cannot be vectorised: said, not hidden
        found["stacked_not_possible"] = " ".join(str(error).split())[:200]
    if device == "cuda":
        try:
            found["captured"] = seeds * rate(captured(models[0], batches[0]).replay, device, limit)
        except Exception as error:
            found["captured_not_possible"] = " ".join(str(error).split())[:200]
    return found


def captured(model: TrainableModel, batch: dict[str, Tensor]) -> torch.cuda.CUDAGraph:
    """A training step of a model as one graph, on a batch that stays in its place."""
    step = step_of(model, batch, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def guarded(found: dict[str, Any], name: str, call: Callable[[], Any]) -> None:
    """Adds what a measurement gives, or why it gives nothing, and prints it."""
    try:
        found[name] = call()
    except Exception as error:  # one model's failure must not cost the others their figures
        found[name] = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(f"  {name}: {json.dumps(found[name])}", flush=True)


def run_queue(store: RunStore, device: str, deadline: float, dry: bool) -> dict[str, str]:
    """Runs in their order until the deadline; what became of each."""
    states = {}
    for spec in queue(dry):
        if time.monotonic() > deadline:
            states[spec.label] = "not begun: the time is over"
            continue
        try:
            execute(spec, store, device=device, stop=lambda: time.monotonic() > deadline)
            states[spec.label] = "recorded"
        except TrainingStopped as stopped:
            states[spec.label] = str(stopped)
        except Exception as error:
            states[spec.label] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        print(f"  {spec.label}: {states[spec.label]}", flush=True)
    return states


def pack(folder: Path, out: Path, files: int = FILES, size: int = FILE_BYTES) -> list[str]:
    """Packs runs into tar files of at most ``size`` bytes each, the small files of all first; returns what is left out.

    They are one archive, cut, which :func:`unpack` joins again.
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
    content = buffer.getvalue()
    for number in range(files):
        part = content[number * size : (number + 1) * size]
        target = out / f"runs.tar.{number}"
        if part:
            target.with_suffix(".partial").write_bytes(part)
            target.with_suffix(".partial").replace(target)
        else:
            target.unlink(missing_ok=True)
    return left_out


def unpack(folder: Path, out: Path) -> None:
    """Puts back what an earlier call packed, beside what is there."""
    parts = [p for n in range(FILES) if (p := out / f"runs.tar.{n}").exists()]
    if parts:
        with tarfile.open(fileobj=io.BytesIO(b"".join(p.read_bytes() for p in parts))) as tar:
            members: Iterator[tarfile.TarInfo] = (m for m in tar if not (folder / m.name).exists())
            tar.extractall(folder, members=members, filter="data")


def device_tests() -> str:
    """Runs the tests marked `cuda`; how they ended."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "cuda",
        "tests/engine/test_devices.py",
        "-p",
        "no:cacheprovider",
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, timeout=TEST_SECONDS, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f"stopped after {TEST_SECONDS} s"
    print(done.stdout[-3000:], flush=True)
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else f"exit code {done.returncode}"


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
    runs = options.work
    unpack(runs, options.out)
    path = options.out / "measured.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    report["card"] = "cpu" if dry else torch.cuda.get_device_name()
    if not dry and "tests" not in report:
        report["tests"] = device_tests()
        path.write_text(json.dumps(report, indent=1))
    if "steps" not in report:
        most = report["peak"] = peak(device, dry)
        steps, stacks, sampling = {}, {}, {}
        for spec in measured(dry):
            call = lambda spec=spec: measure_step(spec, device, limit, most)  # noqa: E731
            guarded(steps, f"{spec.dataset} {spec.method}", call)
        guarded(sampling, "sbm_rae", lambda: measure_sampling(device, dry))
        for method in METHODS[-1:] if dry else METHODS:
            guarded(stacks, method, lambda method=method: measure_stack(method, device, limit))
        report |= {"steps": steps, "sampling": sampling, "table1_stacked": stacks}
        path.write_text(json.dumps(report, indent=1))
    report["runs"] = run_queue(RunStore(runs), device, deadline, dry)
    report["left_out"] = pack(runs, options.out)
    report["seconds"] = round(time.monotonic() - start, 1)
    path.write_text(json.dumps(report, indent=1))
    print(json.dumps(report["runs"], indent=1), f"\nleft out: {report['left_out']}", flush=True)
    text = json.dumps(report)
    return int('"failed' in text or ": failed" in text)


if __name__ == "__main__":
    sys.exit(main())

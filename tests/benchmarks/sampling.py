"""Speed of SBM-VAE's sampling on this machine, for ten modalities: part of `make bench`.

Evaluations of the score a second, of a batch of 256 within the predictor-corrector, and samples a second at its 100
steps and with the multistep solver's 20 evaluations; as released, compiled, and as a CUDA graph where there is a GPU.
Networks are as they were initialised, for seconds do not depend on weights.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from repro.model import isolated_rng
from repro.papers.sbm_vae.sampling import FAST, SamplingSettings
from repro.papers.sbm_vae.score import LatentScore
from repro.papers.sbm_vae.settings import sbm_spec
from repro.papers.sbm_vae.timing.evaluation import GraphedScore, compiled_score, sampler
from tests.benchmarks.support import measured_dtypes

MODALITIES, BATCH, STEPS, REPETITIONS = 10, 256, 100, 3
TIMED = {"cpu": 1, "cuda": 100}  # steps of the predictor-corrector that are timed


def network(profile: str, device: str, compute_dtype: str | None) -> LatentScore:
    """The score model of ten modalities in a profile's widths, in its own type of computation if None is given."""
    model = sbm_spec("sbm_vae", 0, profile, modalities=MODALITIES).params["model"]
    dtype = compute_dtype or model["compute_dtype"]
    with isolated_rng(0):
        made = LatentScore(MODALITIES, model["latent_dim"], compute_dtype=dtype, **model["score"])
    return made.to(device).eval()


def seconds(call: Callable[[], object], device: str) -> float:
    """Median of some calls after one that warms up, or compiles."""
    times = []
    for _ in range(1 + REPETITIONS):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def forms(score: LatentScore, device: str) -> dict[str, Callable[[], Callable[..., torch.Tensor] | None]]:
    """What evaluates the score; None is the model itself."""
    points = torch.randn(BATCH, MODALITIES, score.latent_dim, device=device)
    found = {"as released": lambda: None, "torch.compile": lambda: compiled_score(score)}
    if device == "cuda":
        found["CUDA graph"] = lambda: GraphedScore(score, points, torch.ones((), device=device))
    return found


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"  {device}, {name}, torch {torch.__version__}; {MODALITIES} modalities, batch {BATCH}", flush=True)
    slow = SamplingSettings(num_steps=STEPS)
    everything = "--long" in sys.argv or device == "cuda"
    units = device == "cuda" or "bfloat16" in measured_dtypes()
    for profile in ("quick", "paper") if everything else ("quick",):
        score = network(profile, device, None if units else "float32")
        size = sum(p.numel() for p in score.average.parameters())
        print(f"  score network of the {profile} profile, {size:,} parameters", flush=True)
        for form, make in forms(score, device).items():
            if form == "torch.compile" and not everything:
                print("    torch.compile  not measured: it compiles for a minute; ARGS=--long", flush=True)
                continue
            with torch.no_grad():
                try:
                    taken = seconds(sampler(score, BATCH, TIMED[device], make()), device) / (2 * TIMED[device])
                except RuntimeError as error:  # such as no C++ compiler
                    print(f"    {form:<14} not measured: {str(error).strip().splitlines()[0]}", flush=True)
                    continue
            rates = "; ".join(
                f"{BATCH / (s.evaluations * taken):,.1f} samples/s by {s.sampler}, {s.evaluations} evaluations"
                for s in (slow, FAST)
            )
            print(f"    {form:<14} {1 / taken:,.1f} evaluations/s of the batch; {rates}", flush=True)
    if device == "cpu":
        print(f"  seconds of {2 * TIMED['cpu']} evaluations, scaled to a whole sampling; CUDA graph: no CUDA device")
    if not everything:
        print("  the paper profile's network: not measured; ARGS=--long", flush=True)


if __name__ == "__main__":
    main()

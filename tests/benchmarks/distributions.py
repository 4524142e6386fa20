"""Speed of the asymmetric Laplace mathematics and of Metropolis-Hastings on this machine: part of `make bench`.

Draws and densities on one thread, medians over repetitions; the chains on all cores, for the potentials of the paper
(3 x 1024, three blocks of 8 latents), timed over fewer steps of the 1,000 chains and scaled. In brackets: what is to
be reached.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from repro.distributions.asymmetric_laplace import AsymmetricLaplace
from repro.model import isolated_rng
from repro.papers.mrf_mvae.neural_prior import NeuralMRFPrior
from tests.benchmarks.support import measured_dtypes

NUMBER, REPETITIONS = 100_000, 5
CHAINS, STEPS, TIMED, FEWER = 1_000, 1_000, 60, 15


def seconds(call: Callable[[], object], repetitions: int = REPETITIONS) -> float:
    call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def laplace(batch: tuple[int, ...], dim: int, blocks: dict[str, int]) -> AsymmetricLaplace:
    a = torch.randn(*batch, dim, dim)
    tril = torch.linalg.cholesky(a @ a.mT + dim * torch.eye(dim))
    return AsymmetricLaplace(torch.randn(*batch, dim), tril, blocks, validate_args=False)


def chains(dtype: torch.dtype | None, timed: int) -> float:
    """Seconds of all steps, from those that are timed."""
    prior = NeuralMRFPrior(dict.fromkeys(("m0", "m1", "m2"), 8), hidden_dtype=dtype)()
    initial = torch.randn(CHAINS, 24)
    with torch.no_grad():
        taken = seconds(
            lambda: prior.sample(
                num_chains=CHAINS, num_steps=timed, sampler="metropolis", burn_in=0, thinning=timed, initial=initial
            ),
            1,
        )
    return taken * STEPS / timed


def main() -> None:
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    with isolated_rng(0), torch.no_grad():
        joint = laplace((NUMBER,), 4, {"a": 2, "b": 2})
        conditional = joint.condition({"b": torch.randn(NUMBER, 2)})
        taken = seconds(conditional.rsample)
        print(f"  1e5 generalised hyperbolic draws in 2-D, parameters of their own: {taken:.3f} s (0.1 s)", flush=True)
        eight = laplace((), 8, {"a": 8})
        points = eight.rsample((NUMBER,))
        taken = seconds(lambda: eight.log_prob(points))
        print(f"  log_prob of 1e5 points, asymmetric Laplace in 8-D: {taken:.3f} s (0.3 s)", flush=True)
        points = conditional.rsample()
        taken = seconds(lambda: conditional.log_prob(points))
        print(f"  log_prob of 1e5 points, generalised hyperbolic in 2-D, its own parameters: {taken:.3f} s", flush=True)
    torch.set_num_threads(cores)
    for name, dtype in measured_dtypes().items():
        with isolated_rng(0):
            taken = chains(None if name == "float32" else dtype, TIMED if "--long" in sys.argv else FEWER)
        what = f"{CHAINS:,} chains x {STEPS:,} Metropolis steps, potentials 3 x 1024 in {name}, {cores} threads"
        print(f"  {what}: {taken:.0f} s, from fewer steps (90 s)", flush=True)


if __name__ == "__main__":
    main()

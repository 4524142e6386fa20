"""Seconds of a batch of samples by the number of modalities, in the forms that the sampler can run in.

Networks are as they were initialised, for seconds do not depend on weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from repro.datasets import Dataset, load_dataset
from repro.datasets.base import specs
from repro.datasets.card import load_card
from repro.model import TrainableModel, checked_distributions, isolated_rng
from repro.networks.cost import timed
from repro.papers.sbm_vae.building import build, build_sbm, first_modalities
from repro.papers.sbm_vae.model import SBMVAE
from repro.papers.sbm_vae.sampling import SamplingSettings
from repro.papers.sbm_vae.score import LatentScore
from repro.papers.sbm_vae.settings import sbm_spec
from repro.records import Metric, RunSpec

__all__ = ["GraphedScore", "build_largest", "compiled_score", "load_batches", "measure", "sampler"]


def load_batches(spec: RunSpec) -> dict[str, Dataset]:
    """The first images of the training and of the test split, a batch of each."""
    data = spec.params["data"]
    parts = {split: load_dataset(spec.dataset, split=split) for split in ("train", "test")}
    return {s: first_modalities(d.first(min(data["samples"], len(d))), data["modalities"]) for s, d in parts.items()}


def build_largest(spec: RunSpec) -> SBMVAE:
    """The model of the largest number of modalities."""
    modalities = list(specs(load_card(spec.dataset)).items())[: spec.params["data"]["modalities"]]
    return build_sbm(dict(modalities), spec.params["model"], spec.params["evaluation"]["sampling"])


def compiled_score(score: LatentScore, backend: str = "inductor") -> Callable[[Tensor, Tensor], Tensor]:
    """The score in one compiled graph; it is compiled when it is first called.

    What was compiled before is let go: the compiler keeps only some variants of one function.

    Arguments:
        score: The score model, in evaluation mode.
        backend: Which of PyTorch's compilers.
    """
    with checked_distributions():
        torch.compiler.reset()
        return torch.compile(lambda z, t: score(z, t), backend=backend, dynamic=False, fullgraph=True)


class GraphedScore:
    """The score as a CUDA graph: kernels of an evaluation are recorded once and started at once.

    A result stands until the next call. Points and times are copied into where the graph reads them.

    Arguments:
        score: The score model on a GPU, in evaluation mode.
        z: Points of the shape that all calls have.
        t: A 0-dimensional time.

    Raises:
        ValueError: If the points are not on a GPU.
    """

    def __init__(self, score: LatentScore, z: Tensor, t: Tensor) -> None:
        if not z.is_cuda:
            raise ValueError(f"a CUDA graph needs points on a GPU, these are on {z.device}")
        self.z, self.t = z.clone(), t.clone()
        stream = torch.cuda.Stream(z.device)
        stream.wait_stream(torch.cuda.current_stream(z.device))
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):  # libraries choose and allocate in the first calls, which a graph must not hold
                score(self.z, self.t)
        torch.cuda.current_stream(z.device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph), torch.no_grad():
            self.found = score(self.z, self.t)

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        self.z.copy_(z)
        self.t.copy_(t)
        self.graph.replay()
        return self.found


def sampler(
    score: LatentScore, number: int, num_steps: int, function: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Callable[[], Tensor]:
    """A call that draws joint latents ``(number, M, D)`` by the predictor-corrector, each time the same ones.

    Arguments:
        score: The score model, in evaluation mode.
        number: How many.
        num_steps: Steps N, of two evaluations each.
        function: What evaluates the score; the model itself if None.
    """
    run = SamplingSettings(num_steps=num_steps).function()
    device = score.location.device
    start = torch.randn(
        number, score.num_modalities, score.latent_dim, generator=torch.Generator(device).manual_seed(0), device=device
    )

    def draw() -> Tensor:
        generator = torch.Generator(device).manual_seed(1)
        return run(function or (lambda z, t: score(z, t)), score.sde, start, generator=generator)

    return draw


def _in_turn(calls: Mapping[int, Callable[[], object]], repetitions: int, device: str) -> dict[int, float]:
    """Median seconds of each call after one that warms it up; in turn, so that a busy machine slows all alike."""
    for call in calls.values():
        timed(call, device)[1]
    times: dict[int, list[float]] = {m: [] for m in calls}
    for _ in range(repetitions):
        for m, call in calls.items():
            times[m].append(timed(call, device)[1])
    return {m: median(t) for m, t in times.items()}


def _models(spec: RunSpec, device: str) -> tuple[dict[int, Any], dict[int, Any]]:
    """SBM-VAE and MoPoE by the number of modalities."""
    every, counts = list(specs(load_card(spec.dataset)).items()), spec.params["timing"]["modalities"]
    sampling = spec.params["evaluation"]["sampling"]
    with isolated_rng(spec.seed):
        own = {m: build_sbm(dict(every[:m]), spec.params["model"], sampling).to(device).eval() for m in counts}
        other = {m: build(sbm_spec("mopoe", 0, spec.profile, modalities=m)).to(device).eval() for m in counts}
    return own, other


def measure(model: TrainableModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu") -> list[Metric]:
    """Seconds of a batch by form and number of modalities, ``timing/<form>/<what>/<M>``.

    ``batch`` is the batch, ``evaluation`` one evaluation of the score with its share of the sampler's arithmetic, and
    ``whole`` all steps at once where ``batch`` is put together from evaluations. ``timing/<form>/available`` is 0, with
    the reason, where a form was not measured.

    Source: SBM-VAE, figure 27 and appendix A.7.
    """
    t = spec.params["timing"]
    batch, repeat, gpu = t["batch_size"], t["repetitions"], device.startswith("cuda")
    steps = t["num_steps"] if gpu else t["timed_steps"]
    own, other = _models(spec, device)
    found: list[Metric] = []

    def note(form: str, measured: Mapping[int, float]) -> None:
        """Metrics of a form of the sampler, of which ``steps`` steps were timed."""
        for m, value in measured.items():
            each = value / (2 * steps)
            text = f"median of {repeat} after a warm-up, {steps} of {t['num_steps']} steps of the predictor-corrector"
            how = "all steps timed" if gpu else f"{2 * t['num_steps']} evaluations x seconds of one"
            found.append(Metric(f"timing/{form}/evaluation/{m}", each, "s", batch, f"{text}, for one evaluation"))
            value = each * 2 * t["num_steps"]
            found.append(Metric(f"timing/{form}/batch/{m}", value, "s", batch, f"latents of a batch; {how}; {text}"))

    def simple(form: str, calls: Mapping[int, Callable[[], object]], text: str) -> None:
        for m, value in _in_turn(calls, repeat, device).items():
            name = f"timing/{form}/batch/{m}"
            found.append(Metric(name, value, "s", batch, f"{text}; median of {repeat} after a warm-up"))

    def missing(form: str, reason: str) -> None:
        found.append(Metric(f"timing/{form}/available", 0.0, "1", 0, reason))

    with torch.no_grad():
        note("eager", _in_turn({m: sampler(n.score, batch, steps) for m, n in own.items()}, repeat, device))
        for m in [] if gpu else t["whole"]:
            _, value = timed(sampler(own[m].score, batch, t["num_steps"]), device)
            text = f"latents of a batch, all {t['num_steps']} steps timed once"
            found.append(Metric(f"timing/eager/whole/{m}", value, "s", batch, text))
        if not t["compiled"]:
            missing("compiled", "not measured in this profile")
        for m in t["compiled"]:
            score = own[m].score
            call = sampler(score, batch, steps, compiled_score(score))
            try:
                note("compiled", _in_turn({m: call}, repeat, device))
            except RuntimeError as error:  # such as no C++ compiler
                missing("compiled", f"does not compile here: {str(error).strip().splitlines()[0]}")
                break
        if gpu:
            graphs = {}
            for m, n in own.items():
                start = torch.randn(batch, m, n.score.latent_dim, device=device)
                graphs[m] = sampler(n.score, batch, steps, GraphedScore(n.score, start, torch.ones((), device=device)))
            note("graph", _in_turn(graphs, repeat, device))
        else:
            missing("graph", "no CUDA device")
        drawn = {m: torch.zeros(batch, m, n.score.latent_dim, device=device) for m, n in own.items()}
        simple(
            "decoding", {m: lambda m=m: own[m].decode(drawn[m]) for m in own}, "images of a batch from their latents"
        )
        test = data["test"].to(device)
        rows = {m: x[:batch] for m, x in next(test.batches(batch, shuffle=False)).items()}
        names = list(rows)
        given = {m: {n: rows[n] for n in names[: m - 1]} for m in other}
        text = "the last modality given all others, a batch of test images"
        simple("mopoe", {m: lambda m=m: other[m].generate(1, given=given[m]) for m in other}, text)
    return found

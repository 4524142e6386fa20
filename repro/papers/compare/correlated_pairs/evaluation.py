"""How a model is measured on pairs of correlated MNIST: correlations, spread and likelihood as CoVAE, and its images.

Names are those of CoVAE's own experiment, ``test/<correlation|deviation|coverage|nll>/...``; beside them
``test/spread/...`` of latents in any unit, ``test/images/...``, ``test/mae/...`` and ``test/energy/...`` of images.
``.../data``, ``.../neighbour`` and ``.../random`` are what the data alone have in a model's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from statistics import fmean

import torch
from torch import Tensor

from repro.baselines.training_points import TrainingPoints
from repro.datasets import Dataset
from repro.metrics.energy import energy_score
from repro.model import MultimodalModel
from repro.papers.compare.building import build_alike as build
from repro.papers.compare.correlated.measures import Readout, fit_readout, paired_correlation
from repro.papers.compare.measures import costs
from repro.papers.covae.correlated_mnist.evaluation import ImageMeasures
from repro.papers.covae.evaluation import likelihood_metrics, prior_metrics, whole
from repro.papers.covae.measures import decoder_inputs, has_decoders
from repro.papers.mrf_mvae.mixing import JOINT as PRIOR
from repro.papers.mrf_mvae.mixing import chain_metrics
from repro.records import Metric, RunSpec

__all__ = ["build", "data_metrics", "evaluate", "image_metrics", "relative_spread", "spread_metrics"]

READ = "correlation of the latents that ridge regression reads from both images, mean over coordinates"
# Streams of the evaluation's seed that CoVAE's measures do not use.
GIVEN, BOTH, JOINT, ONE, RANDOM = 100, 110, 120, 130, 140
MEANS = {
    "test/nll/conditional/posterior-predictive": "/posterior-predictive",
    "test/nll/conditional/ratio": "/ratio",
}


def relative_spread(z: Tensor) -> float:
    r"""Standard deviation of latents given a modality, as a share of that over all points, mean over latents.

    .. math:: \frac1d \sum_i \sqrt{E_n[\operatorname{Var}_k z_{kni}] / \operatorname{Var}_{kn} z_{kni}}

    It has no unit, so that latents of any scale compare. Of jointly Gaussian latents of correlation :math:`\rho` with
    those that are known it is :math:`\sqrt{1 - \rho^2}`; latents that a model does not use have 1, constant ones 0.

    Arguments:
        z: ``(K, N, d)``, K samples for each of N points.

    Raises:
        ValueError: If there are fewer than two samples or points.
    """
    if z.ndim != 3 or min(z.shape[:2]) < 2:
        raise ValueError(f"latents {tuple(z.shape)} must be (K, N, d) of at least 2 samples and 2 points")
    within, total = z.double().var(0).mean(0), z.double().flatten(0, 1).var(0)
    return float(torch.where(total > 0, within / total.clamp_min(1e-300), 0.0).clamp(max=1.0).sqrt().mean())


def spread_metrics(run: ImageMeasures, rho: float) -> list[Metric]:
    """CoVAE's deviations (Figure 6) and relative spreads, from the same samples; and what the data's latents have.

    Arguments:
        run: The run's measures.
        rho: True correlation.
    """
    draws, seen = run.settings["draws"], {"conditioning": [], "missing": []}
    for i, o in enumerate(run.model.modalities):
        z = decoder_inputs(run.model, {o: run.few[o]}, num_samples=draws, generator=run.generator(10 + i))
        for m, value in z.items():
            seen["conditioning" if m == o else "missing"].append(value)
    text = f"{draws} samples of a decoder's inputs given one modality"
    found = []
    for name, values in seen.items():
        deviation = fmean(float(z.std(0).mean()) for z in values)
        spread = fmean(relative_spread(z) for z in values)
        true = 0.0 if name == "conditioning" else sqrt(1 - rho**2)
        found += [
            Metric(f"test/deviation/{name}", deviation, "1", run.points, f"standard deviation of {text}, {name}"),
            Metric(f"test/spread/{name}", spread, "1", run.points, f"share of it in that over all points, {text}"),
            Metric(f"test/spread/{name}/data", true, "1", run.points, "of the latents that the data were drawn from"),
        ]
    return found


def _generator(device: str, seed: int, stream: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(1000 * seed + stream)


def image_metrics(
    model: MultimodalModel, batch: Mapping[str, Tensor], draws: int, device: str, seed: int, split: str = "test"
) -> list[Metric]:
    """Energy scores and errors of each image given the other, and of both given both.

    Arguments:
        model: In evaluation mode.
        batch: Both modalities.
        draws: Samples a point, at least 2.
        device: Where the model is.
        seed: Of the evaluation.
        split: The batch's, with which the metrics' names begin.
    """

    scores: dict[str, list[float]] = {"given-one": [], "given-both": []}
    errors: dict[str, list[float]] = {"given-one": [], "given-both": []}

    def note(name: str, drawn: Tensor, true: Tensor) -> None:
        scores[name].append(float(energy_score(drawn, true).mean()))
        errors[name].append(float((drawn.mean(0) - true).abs().mean()))

    for m, x in model.generate(draws, given=batch, generator=_generator(device, seed, BOTH)).items():
        note("given-both", x, batch[m])
    first, second = model.modalities
    for i, (o, m) in enumerate(((first, second), (second, first))):
        note(
            "given-one",
            model.generate(draws, given={o: batch[o]}, generator=_generator(device, seed, GIVEN + i))[m],
            batch[m],
        )
    size = len(batch[first])
    what = {"given-one": "of the other image given one, mean both ways", "given-both": "of both images given both"}
    found = []
    for name, text in what.items():
        energy = f"energy score of {draws} decoder means {text}; norm over pixels"
        error = f"absolute error of the mean of {draws} decoder means {text}"
        found.append(Metric(f"{split}/energy/{name}", fmean(scores[name]), "1", size, energy))
        found.append(Metric(f"{split}/mae/{name}", fmean(errors[name]), "1", size, error))
    return found


def _read(readout: Readout, images: Mapping[str, Tensor]) -> float:
    first, second = (readout(x.clamp(0, 1)) for x in images.values())
    return paired_correlation(first, second)


def _crossing(
    model: MultimodalModel, batch: Mapping[str, Tensor], readout: Readout, device: str, seed: int
) -> tuple[float, float, list[Metric]]:
    """Correlation read from two joint images, and from a true one with the other that is generated given it.

    The metrics are what the chains of the joint samples say about themselves, of a model that has chains.
    """

    size = len(next(iter(batch.values())))
    joint = _read(readout, model.generate(size, generator=_generator(device, seed, JOINT)))
    chains = chain_metrics(model, PRIOR, size)
    first, second = model.modalities
    each = []
    for i, (o, m) in enumerate(((first, second), (second, first))):
        drawn = model.generate(1, given={o: batch[o]}, generator=_generator(device, seed, ONE + i))[m][0]
        each.append(_read(readout, {o: batch[o], m: drawn}))
    return joint, fmean(each), chains


def data_metrics(
    data: Mapping[str, Dataset], readout: Readout, draws: int, points: int, device: str, seed: int
) -> list[Metric]:
    """What is reached without a model: by true images, by the nearest training points, and by some at random.

    Arguments:
        data: The splits ``"train"``, ``"test"`` and ``"truth"``.
        readout: Reads latents from images.
        draws: Training points at random, for each test point.
        points: Of the test split, of energy scores and errors.
        device: Where to compute.
        seed: Of the evaluation.
    """
    train, test, truth = (whole(data[s], device) for s in ("train", "test", "truth"))
    few = {m: x[:points] for m, x in test.items()}
    first = next(iter(test))
    size, number = len(test[first]), len(train[first])
    determination = readout.determination(torch.cat([test["m0"], test["m1"]]), torch.cat([truth["z0"], truth["z1"]]))
    found = [
        Metric("test/images/data", _read(readout, test), "1", size, f"{READ}; true test images"),
        Metric("test/readout/determination", determination, "1", size, "R^2 of the ridge regression on test images"),
    ]
    nearest = TrainingPoints(data["train"].to(device).floats())
    joint, one, _ = _crossing(nearest, test, readout, device, seed)
    found += [
        Metric("test/images/joint/neighbour", joint, "1", min(size, number), f"{READ}; training pairs"),
        Metric("test/images/given-one/neighbour", one, "1", size, f"{READ}; a test image, the other of its nearest"),
    ]
    found += [replace(m, name=f"{m.name}/neighbour") for m in image_metrics(nearest, few, 2, device, seed)]
    generator = _generator(device, seed, RANDOM)
    rows = torch.randint(number, (draws, len(few[first])), generator=generator, device=device)
    drawn = {m: (train[m][rows], x) for m, x in few.items()}
    text = f"{draws} training images at random, mean over modalities"
    energy = fmean(float(energy_score(x, true).mean()) for x, true in drawn.values())
    error = fmean(float((train[m].mean(0) - x).abs().mean()) for m, x in few.items())
    found.append(Metric("test/energy/random", energy, "1", len(few[first]), f"energy score of {text}"))
    found.append(Metric("test/mae/random", error, "1", len(few[first]), "absolute error of the mean training image"))
    return found


def _error(metrics: list[Metric], name: str, true: str) -> Metric:
    """How far a correlation is from the true one."""
    values = {m.name: m for m in metrics}
    own = values[name]
    text = f"absolute difference from {true}; {own.protocol}"
    return replace(own, name=f"{name}/error", value=abs(own.value - values[true].value), protocol=text)


def _latent_metrics(run: ImageMeasures, spec: RunSpec) -> list[Metric]:
    """What is read at the decoders' inputs, by CoVAE's measures, and what the data have there."""
    settings = spec.params["evaluation"]
    found = run.correlations(settings.get("canonical"))
    found += [_error(found, f"test/correlation/{name}", "test/correlation/true") for name in ("joint", "conditional")]
    return found + spread_metrics(run, spec.params["data"]["rho"]) + run.coverage(settings["intervals"])


def _conditional(metrics: list[Metric]) -> list[Metric]:
    """Conditional likelihoods, averaged over which modality is given."""
    found = []
    for name, suffix in MEANS.items():
        if each := [m for m in metrics if "-given-" in m.name and m.name.endswith(suffix)]:
            mean = fmean(m.value for m in each)
            found.append(replace(each[0], name=name, value=mean, protocol=f"{each[0].protocol}; mean both ways"))
    return found


@torch.no_grad()
def evaluate(model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu") -> list[Metric]:
    """All metrics of a run: of the choice of weight on the validation split alone, else on the test split.

    Correlations take the whole split, the others its first points.

    Arguments:
        model: The trained model.
        data: As the experiment loads it.
        spec: The run.
        device: Where to compute.
    """
    model.to(device).eval()
    settings = spec.params["evaluation"]
    seed, draws, points = (settings[k] for k in ("seed", "draws", "points"))
    if settings["split"] == "validation":
        few = {m: x[:points] for m, x in whole(data["validation"], device).items()}
        return image_metrics(model, few, draws, device, seed, "validation")
    run = ImageMeasures(model, data, spec, device)
    found = _latent_metrics(run, spec) if has_decoders(model) else []
    truth = whole(data["train_truth"], device)
    readout = fit_readout(torch.cat([truth["m0"], truth["m1"]]), torch.cat([truth["z0"], truth["z1"]]))
    alone = data_metrics(data, readout, draws, run.points, device, seed)
    joint, one, chains = _crossing(model, run.batch, readout, device, seed)
    read = [
        Metric("test/images/joint", joint, "1", run.size, f"{READ}; joint samples"),
        Metric("test/images/given-one", one, "1", run.size, f"{READ}; a true image, the other given it"),
    ]
    read += [_error([*read, *alone], m.name, "test/images/data") for m in read]
    found += read + chains + image_metrics(model, run.few, draws, device, seed)
    if asked := settings.get("likelihood"):
        number, predictive = asked["importance_samples"], asked["predictive_samples"]
        nll = likelihood_metrics(model, run.few, number, device, seed, predictive, finite=True)
        found += nll + _conditional(nll)
    found += prior_metrics(model, len(data["train"])) + alone
    return found + costs(model, data["test"], spec, device)

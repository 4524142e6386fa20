"""The headline metric of every model that ships on real data, on 500 samples, against its record.

A record's value is a mean over more samples of the same kind, so that the mean over 500 of them is off by a few of its
standard errors at most. The models of the copulas, whose distances are no means, are in ``test_drawn.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from repro.datasets import Dataset, load_card, load_dataset
from repro.datasets.fetch import FetchError
from repro.hub.load import load_model
from repro.hub.manifest import entries, packaged_files
from repro.hub.registry import models
from repro.metrics.clustering import fit_classifier, score_classifier
from repro.metrics.correlation import canonical_correlations
from repro.metrics.ssim import structural_similarity
from repro.papers.covae.measures import decoder_inputs
from repro.weights.shipped import load_classifier
from tests.hub.test_drawn import DISTANCES
from tests.support.real import at_hand

NUMBER = 500
ERRORS = 4  # standard errors, of a draw whose seed is fixed

# What was found on at most 500 samples, and by how much it may be off.
Found = tuple[float, float]


def mean(values: Tensor) -> Found:
    """The mean of one value a sample, and its error."""
    values = values.double()
    return float(values.mean()), ERRORS * float(values.std()) / len(values) ** 0.5


def split_of(name: str, split: str = "test") -> Dataset:
    """The data of a model's run; those of a building block are real digits."""
    if name.startswith("vaegan"):
        return load_dataset("mnist", split)
    if name.startswith("classifier"):
        dataset = name.removeprefix("classifier-")
        return load_dataset(dataset, split, **({"source": "generated"} if dataset == "polymnist" else {}))
    spec = models()[name].spec()
    options = dict(spec.params["data"].get("options", {}))
    if spec.dataset == "correlated_mnist":
        options = {k: spec.params["data"][k] for k in ("rho", "flow", "seed")}
    return load_dataset(spec.dataset, split, **options)


def some(data: Dataset) -> Dataset:
    """As many of a split as are looked at."""
    return data.first(min(NUMBER, len(data)))


def images_of(data: Dataset, name: str = "") -> dict[str, Tensor]:
    """Images in [0, 1], at the size that a model takes."""
    found = {m: x.float() / 255 if x.dtype is torch.uint8 else x for m, x in some(data).data.items()}
    wanted = models()[name].spec().params["data"]["size"] if name else next(iter(found.values())).shape[-1]
    return {m: avg_pool2d(x, x.shape[-1] // wanted) for m, x in found.items()}


def classes(name: str) -> Found:
    model = load_model(name)
    splits = {s: split_of(name, s) for s in ("train", "test")}
    latents = {s: model.latent_means(dict(d.data)) for s, d in splits.items()}
    labels = {s: d.labels.numpy() for s, d in splits.items()}
    drawn = model.generate(NUMBER, generator=torch.Generator().manual_seed(0))
    assert all(bool(x.isfinite().all()) and len(x) == NUMBER for x in drawn.values())
    fitted = fit_classifier(latents["train"], labels["train"])
    # All 70 tumours: the same ones as in the record, of which rounding may turn one.
    return score_classifier(fitted, latents["test"], labels["test"]).accuracy, 1.01 / len(labels["test"])


def correlation(name: str) -> Found:
    model, batch = load_model(name), dict(some(split_of(name)).data)
    z = decoder_inputs(model, batch, generator=torch.Generator().manual_seed(0))
    a, b = (z[m][0] for m in model.modalities)
    whole = float(canonical_correlations(a, b).mean())
    halves = [float(canonical_correlations(a[k::2], b[k::2]).mean()) for k in (0, 1)]
    # Their bias goes with one over the number of samples, and is taken off; that adds to the error.
    found = 2 * whole - sum(halves) / 2
    return found, 2 * ERRORS * abs(1 - whole**2) / (NUMBER * a.shape[1]) ** 0.5 + 1e-6


def in_turn(name: str, score: Callable[[Dataset, str, Tensor, slice], Tensor]) -> Found:
    """The mean of a score of generated modalities, each sample's given one of its modalities: these take turns.

    Arguments:
        name: The model.
        score: Of a modality's images for the samples of a slice, one value a sample.
    """
    model, data = load_model(name), some(split_of(name))
    true, parts = images_of(data, name), []
    for k, observed in enumerate(true):
        rows = slice(k, None, len(true))
        drawn = model.generate(1, given={observed: true[observed][rows]}, generator=torch.Generator().manual_seed(k))
        scores = [score(data, m, drawn[m][0].clamp(0, 1), rows).double() for m in true if m != observed]
        parts.append(torch.stack(scores).mean(0))
    return mean(torch.cat(parts))


def similarity(name: str) -> Found:
    true = images_of(some(split_of(name)), name)
    return in_turn(name, lambda data, m, x, rows: structural_similarity(x, true[m][rows]).values)


def coherence(name: str) -> Found:
    return in_turn(name, lambda data, m, x, rows: load_classifier(data.name, m)(x).argmax(1) == data.labels[rows])


def accuracy(name: str) -> Found:
    data = some(split_of(name))
    right = [load_classifier(data.name, m)(x).argmax(1) == data.labels for m, x in images_of(data).items()]
    return mean(torch.stack(right).double().mean(0))


def confident(name: str) -> Found:
    images = load_model(name)(torch.randn(NUMBER, 10, generator=torch.Generator().manual_seed(0)))
    seen = load_classifier("mnist")((images * 255).round() / 255).softmax(1).max(1).values
    return mean((seen >= 0.9).double())


def reconstruction(name: str) -> Found:
    (x,) = images_of(split_of(name)).values()
    return mean((load_model("vaegan-decoder")(load_model(name)(x)[0]) - x).square().flatten(1).mean(1))


def density(name: str) -> Found:
    (x,) = images_of(split_of(name)).values()
    center, log_variance = load_model("vaegan-encoder")(x)
    noise = torch.randn(center.shape, generator=torch.Generator().manual_seed(0))
    return mean(-load_model(name).log_prob(center + (0.5 * log_variance).exp() * noise))


MEASURES: dict[str, Callable[[str], Found]] = {
    "samples/confident": confident,
    "test/accuracy/mean": accuracy,
    "test/classes/accuracy": classes,
    "test/conditional/coherence": coherence,
    "test/conditional/ssim": similarity,
    "test/correlation/joint": correlation,
    "test/mse": reconstruction,
    "test/nll": density,
}
SHIPPED = [n for n, e in entries().items() if packaged_files(e) and e.metric not in DISTANCES]
NEEDED = {"mnist": ["mnist"], "polymnist": ["mnist", "polymnist"], "extended_polymnist": ["mnist"]}
SLOW = ("correlated_mnist", "/biked_rendered", "/polymnist")


def needed(name: str) -> list[str]:
    """The datasets whose files the check reads."""
    if name == "vaegan-decoder":
        return []
    if not name.startswith(("vaegan", "classifier")):
        dataset = models()[name].spec().dataset
        return [] if dataset == "correlated_mnist" else NEEDED.get(dataset, [dataset])
    return NEEDED[name.removeprefix("classifier-") if name.startswith("classifier") else "mnist"]


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if any(s in n for s in SLOW) else n for n in SHIPPED]
)
def test_headline_on_five_hundred_samples_is_that_of_the_record(name: str) -> None:
    entry = entries()[name]
    if not all(at_hand(n) or not load_card(n).sources for n in needed(name)):
        with pytest.raises(FetchError, match="REPRO_OFFLINE is 1"):
            split_of(name)
        return
    value, error = MEASURES[entry.metric](name)
    assert abs(value - entry.value) <= error, (value, entry.value, error)
    assert error <= 0.25 * max(abs(entry.value), 0.2)  # so that it tells a trained model from another


def test_every_model_that_ships_is_drawn_from() -> None:
    assert {e.metric for n, e in entries().items() if n in SHIPPED} <= set(MEASURES)
    assert {n for n, e in entries().items() if packaged_files(e)} - set(SHIPPED) <= {
        n for n, e in entries().items() if e.metric in DISTANCES
    }

"""Correlated MNIST: images, two or three a sample, that one decoder draws from correlated Gaussian latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from itertools import combinations
from math import sqrt
from numbers import Real
from operator import add, sub

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from repro.datasets.base import Dataset, from_card
from repro.datasets.cache import Writer, prepared
from repro.datasets.card import Card
from repro.datasets.exact import normals
from repro.networks.flow import LatentFlow
from repro.networks.vaegan import Decoder
from repro.weights.shipped import load_config, load_tensors, manifest

__all__ = ["covariance", "decode", "fill", "gaussians", "load"]

PAIRS = "correlated_mnist"  # the dataset of two modalities
DECODER, FLOW = "vaegan-decoder", "vaegan-flow"
# Latents are multiples of this, hence exact in float32: what is stored is what was decoded.
STEP = 2.0**-12
CHUNK = 32


def covariance(rho: float | Sequence[float], latent_dim: int = 10, modalities: int = 2) -> np.ndarray:
    r"""Covariance of all K modalities' latents, of shape ``(K latent_dim, K latent_dim)``.

    .. math:: \Sigma = \begin{pmatrix} 1 & \rho \\ \rho & 1 \end{pmatrix} \otimes I

    and for more modalities the same with :math:`\rho` between every two.

    Arguments:
        rho: Correlation of coordinate i of one modality with coordinate i of another, in [0, 1); or one for each pair
            of modalities, in the order 01, 02, 12 and so on.
        latent_dim: Number of latents of a modality.
        modalities: K.

    Raises:
        ValueError: If ``rho`` is no such number, or correlations do not fit the pairs or are not positive definite.

    Source: CoVAE, equation 5.
    """
    _factor(rho, modalities)
    return np.kron(np.array(_correlations(rho, modalities)), np.eye(latent_dim))


def gaussians(
    num_samples: int,
    seed: int,
    stream: str,
    *,
    rho: float | Sequence[float],
    latent_dim: int = 10,
    modalities: int = 2,
    name: str = PAIRS,
) -> tuple[np.ndarray, ...]:
    r"""Draws all modalities' Gaussian latents, each float64 of shape ``(num_samples, latent_dim)``.

    With independent standard normal g, e and so on, and the Cholesky factor L of the modalities' correlations,

    .. math:: z_0 = g, \qquad z_1 = \rho g + \sqrt{1 - \rho^2} \, e, \qquad z_k = L_{k0} g + L_{k1} e + \dots

    so a seed's z_0 is one for all correlations.

    Arguments:
        num_samples: Number of samples; a longer draw begins with the shorter one.
        seed: The seed of all splits.
        stream: Name of the split's own stream.
        rho: Correlation, in [0, 1), or one for each pair, as :func:`covariance` takes them.
        latent_dim: Number of latents of a modality.
        modalities: Number of modalities.
        name: The dataset's name, which tells its randomness from others.

    Raises:
        ValueError: As :func:`covariance` does, or if the seed is negative.

    Source: CoVAE, equation 5.
    """
    factor = _factor(rho, modalities, name)
    drawn = normals(modalities * num_samples * latent_dim, seed, name, stream)
    independent = drawn.reshape(num_samples, modalities, latent_dim).transpose(1, 0, 2)
    # Elementwise products and sums in this order alone: the same bits on every machine.
    return tuple(reduce(add, (w * g for w, g in zip(row, independent, strict=False))) for row in factor)


def decode(decoder: Decoder, latents: Tensor) -> tuple[Tensor, float]:
    """Draws latents as bytes, by a decoder in float64.

    Arguments:
        decoder: The decoder, with float64 parameters.
        latents: float64 of shape ``(batch, latent_dim)``.

    Returns:
        Images, uint8 of shape ``(batch, 1, 28, 28)``, and the smallest distance of a value from where it would have
        been rounded to another byte, in bytes: errors of rounding in float64, some 1e-13, change no byte unless they
        are larger.

    Raises:
        ValueError: If the decoder is not in float64.
    """
    if {p.dtype for p in decoder.parameters()} != {torch.float64}:
        raise ValueError(
            "the decoder of correlated_mnist must be in float64: in float32, bytes differ between machines"
        )
    with torch.inference_mode():
        return _rounded(decoder(latents) * 255.0, torch.uint8)


def fill(
    writer: Writer,
    num_samples: int,
    seed: int,
    stream: str,
    *,
    rho: float | Sequence[float],
    decoder: Decoder,
    flow: LatentFlow | None = None,
    modalities: int = 2,
    name: str = PAIRS,
) -> None:
    r"""Writes one split: images and the latents that they were decoded from.

    .. math:: x_m = g(z_m) \quad \text{or, with a flow,} \quad x_m = g(f(z_m))

    The decoded latents are rounded to multiples of 2^-12. The smallest distances of values from where they would have
    been rounded elsewhere go to the provenance, as shares of a byte and of 2^-12.

    Arguments:
        writer: Takes the arrays.
        num_samples: Number of samples.
        seed: The seed.
        stream: Name of the split's own stream.
        rho: Correlation, in [0, 1), or one for each pair, as :func:`covariance` takes them.
        decoder: The decoder g, with float64 parameters.
        flow: The flow f, with float64 parameters, which the modalities share as they share the decoder.
        modalities: Number of modalities: arrays m0, m1 and so on, then z0, z1 and so on.
        name: The dataset's name.

    Raises:
        ValueError: As :func:`gaussians` does, or if the decoder is not in float64.

    Source: CoVAE, section 3.1, equation 6, with the decoder's mean for a draw from p(x|z).
    """
    dim = decoder.latent_dim
    drawn = gaussians(num_samples, seed, stream, rho=rho, latent_dim=dim, modalities=modalities, name=name)
    images = [writer.array(f"m{k}", (num_samples, 1, 28, 28)) for k in range(modalities)]
    latents = [writer.array(f"z{k}", (num_samples, dim), "float32") for k in range(modalities)]

    def part(start: int) -> tuple[int, float, float]:
        rows = slice(start, min(start + CHUNK, num_samples))
        z = torch.from_numpy(np.concatenate([d[rows] for d in drawn]))
        if flow is not None:
            with torch.inference_mode():
                z = flow.from_normal(z)
        steps, latent_margin = _rounded(z / STEP, torch.float64)
        z = steps * STEP
        x, margin = decode(decoder, z)
        for k, (image, latent) in enumerate(zip(x.chunk(modalities), z.chunk(modalities), strict=True)):
            images[k][rows], latents[k][rows] = image.numpy(), latent.numpy()
        return rows.stop - rows.start, margin, latent_margin

    margins = []
    # Quick work shows no bar, and none appears where there is no terminal.
    with (
        _single_threaded() as threads,
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=num_samples, desc=f"{name} {stream}", unit="sample", disable=None, delay=3.0) as bar,
    ):
        for done, *pair in pool.map(part, range(0, num_samples, CHUNK)):
            margins.append(pair)
            bar.update(done)
    margin, latent_margin = (min(m) for m in zip(*margins, strict=True))
    writer.provenance = {
        "source": "generated",
        "seed": seed,
        "stream": stream,
        "rounding_margins": {"images": margin, "latents": latent_margin},
    }


def load(
    card: Card,
    split: str,
    *,
    rho: float | Sequence[float] = 0.9,
    flow: bool = False,
    latents: bool = False,
    seed: int = 0,
    num_samples: int | None = None,
) -> Dataset:
    """Loads a split, generating it first if that has not been done.

    Arguments:
        card: The dataset's card, whose images are the modalities.
        split: ``"train"`` or ``"test"``.
        rho: Correlation of the Gaussian latents of every two modalities, in [0, 1); of three modalities or more also
            one for each pair, in the order 01, 02, 12.
        flow: Whether a flow maps the Gaussian latents to the encodings of MNIST before they are decoded; their linear
            correlation is then no longer ``rho``.
        latents: Whether the decoder's inputs z0, z1, ... are modalities too, to measure the true correlation by.
        seed: The seed; each split has its own stream of it.
        num_samples: Number of samples, that of the card if None.

    Raises:
        ValueError: If an option is out of its range, or the weights do not ship with the package.

    Source: CoVAE, section 3.1 and appendix B.1; 20,000 + 5,000 pairs by erratum E15.
    """
    flow = bool(flow)
    seed = _integer("seed", seed, 0, card.name)
    images = [m for m, spec in card.modalities.items() if spec.kind == "image"]
    _factor(rho, len(images), card.name)
    # Of the two zeros, the positive one, so that they are one variant.
    rho = [float(r) + 0.0 for r in rho] if isinstance(rho, Sequence) else float(rho) + 0.0
    stated = card.splits[split].count
    count = stated if num_samples is None else _integer("num_samples", num_samples, 1, card.name)
    weights = {name: _digest(name) for name in ((DECODER, FLOW) if flow else (DECODER,))}

    def variant(with_latents: bool) -> str | None:
        """What the card calls this variant: the options that are not the default; None at another seed or count."""
        if seed != card.generation["seed"] or count != stated:
            return None
        named = {f"rho={rho}": rho != card.generation["rho"], "flow": flow, "latents": with_latents}
        return ",".join(name for name, differs in named.items() if differs)

    def build(writer: Writer) -> None:
        decoder = Decoder(**load_config(DECODER))
        decoder.load_state_dict(load_tensors(DECODER))
        bijection = None
        if flow:
            bijection = LatentFlow(**load_config(FLOW))
            bijection.load_state_dict(load_tensors(FLOW))
            bijection = bijection.double().eval()
        parts = {"decoder": decoder.double().eval(), "flow": bijection}
        fill(writer, count, seed, split, rho=rho, modalities=len(images), name=card.name, **parts)
        writer.variant = variant(True)

    options = {"rho": rho, "flow": flow, "seed": seed, "num_samples": count, "weights": weights}
    whole = prepared(card, split, options, build)
    # Held against the card as it is now; images without their latents have a hash of their own.
    known = {k: v for k, v in whole.provenance.items() if k != "matches_card" and (latents or k != "sha256")}
    kept = {m: spec for m, spec in card.modalities.items() if latents or m in images}
    data = {m: whole.data[m] for m in kept}
    return from_card(replace(card, modalities=kept), split, data, None, known, variant(latents))


@contextmanager
def _single_threaded() -> Iterator[int]:
    """Keeps every operation to its thread and gives the number of threads there were.

    Parts of a split in as many threads need not wait for each other, as the parts of one small operation do: on a busy
    machine those made one split take five times as long as a single thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _rounded(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Values rounded to whole numbers, and the smallest distance of one from the middle between two."""
    whole = values.round()
    return whole.to(dtype), 0.5 - float((values - whole).abs().max())


def _digest(name: str) -> str:
    """SHA-256 of shipped weights: part of what a prepared split is known by."""
    load_tensors(name)  # says in one line where there are none, and checks the file
    return manifest()[name]["sha256"]["weights.safetensors"]


def _correlations(rho: float | Sequence[float], modalities: int, dataset: str = PAIRS) -> list[list[float]]:
    """The matrix of the modalities' correlations."""
    if modalities < 2:
        raise ValueError(f"{dataset}: {modalities} modality has nothing to correlate with; needs at least two")
    pairs = list(combinations(range(modalities), 2))
    each = list(rho) if isinstance(rho, Sequence) and not isinstance(rho, str) else [rho] * len(pairs)
    for r in each:
        if isinstance(r, bool) or not isinstance(r, Real) or not 0.0 <= r < 1.0:
            raise ValueError(f"{dataset}: rho is {r!r}, must be a number in [0, 1)")
    if len(each) != len(pairs):
        raise ValueError(f"{dataset}: {len(each)} correlations for the {len(pairs)} pairs of {modalities} modalities")
    matrix = [[1.0] * modalities for _ in range(modalities)]
    for (i, j), r in zip(pairs, each, strict=True):
        matrix[i][j] = matrix[j][i] = float(r)
    return matrix


def _factor(rho: float | Sequence[float], modalities: int, dataset: str = PAIRS) -> list[list[float]]:
    """Rows of the Cholesky factor of the modalities' correlations, by correctly rounded operations alone."""
    rows: list[list[float]] = []
    for correlations in _correlations(rho, modalities, dataset):
        row: list[float] = []
        # Not by sum(), which rounds otherwise from Python 3.12 on.
        for other, r in zip(rows, correlations, strict=False):
            row.append(reduce(sub, (a * b for a, b in zip(row, other, strict=False)), r) / other[len(row)])
        if (left := reduce(sub, (a * a for a in row), 1.0)) <= 0.0:
            raise ValueError(f"{dataset}: the correlations {rho} of {modalities} modalities are not positive definite")
        rows.append([*row, sqrt(left)])
    return rows


def _integer(name: str, value: int, least: int, dataset: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{dataset}: {name} is {value!r}, must be an integer of at least {least}")
    return int(value)

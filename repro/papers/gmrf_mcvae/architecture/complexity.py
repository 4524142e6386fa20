"""Table IX of GMRF MCVAE, thresholds against measured decoder costs, and its counts of latent parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from repro.datasets.base import ModalitySpec
from repro.distributions.covariance import count_parameters as count_gaussian_parameters
from repro.distributions.covariance import num_cross_entries, random_mask
from repro.networks.cost import count_flops
from repro.networks.mlp import GaussianMLPEncoder
from repro.networks.resnet import RESNETS, resnet_decoder, resnet_encoder
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.report.plain_tables import NONE, PlainTable, yes_no

__all__ = ["EXPERIMENTS", "Experiment", "build", "capacities", "cost_threshold", "thresholds"]


@dataclass(frozen=True)
class Experiment:
    """What the tables need of an experiment.

    Arguments:
        components: M.
        latent_dim: Latents of each component, d.
        batch_size: Samples in a mini-batch: 500 for the copula, 32 for images as in the author's code.
        shape: Shape of a component.
        resnet: Name in ``repro.networks.RESNETS``, None for Table IV's networks.
        published_threshold: Table IX's last column.
    """

    components: int
    latent_dim: int
    batch_size: int
    shape: tuple[int, ...]
    resnet: str | None
    published_threshold: str


EXPERIMENTS = {
    "Copula": Experiment(4, 2, 500, (2,), None, "5.3"),
    "PolyMNIST": Experiment(5, 16, 32, RESNETS["polymnist"].shape, "polymnist", "320"),
    "BIKED": Experiment(5, 4, 32, RESNETS["biked"].shape, "biked", "20"),
}


def build(experiment: str) -> GMRFMCVAE:
    """The model of an experiment on the meta device: shapes without values, for counting and printing.

    Arguments:
        experiment: A name in ``EXPERIMENTS``.

    Raises:
        ValueError: If there is no such experiment.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(f"no experiment {experiment!r}, one of {', '.join(EXPERIMENTS)}")
    e = EXPERIMENTS[experiment]
    names = [f"m{i}" for i in range(e.components)]
    specs = dict.fromkeys(names, ModalitySpec(e.shape))
    with torch.device("meta"):
        if e.resnet is None:
            return GMRFMCVAE(specs, latent_dim=e.latent_dim)
        return GMRFMCVAE(
            specs,
            latent_dim=e.latent_dim,
            encoders={m: resnet_encoder(e.resnet, latent_dim=e.latent_dim) for m in names},
            decoders={m: resnet_decoder(e.resnet, latent_dim=e.latent_dim) for m in names},
        )


def cost_threshold(components: int, latent_dim: int) -> float:
    r"""The decoder cost above which GMRF MCVAE is cheaper a step than MMVAE and MMVAE+.

    .. math:: C > \frac{M d^2}{M - 1}

    Arguments:
        components: M.
        latent_dim: Latents of each component, d.

    Raises:
        ValueError: If there are fewer than two components.

    Source: GMRF MCVAE, eq. 17.
    """
    if components < 2:
        raise ValueError(f"components is {components}, must be at least 2")
    return components * latent_dim**2 / (components - 1)


def thresholds() -> PlainTable:
    """Table IX: thresholds of eq. 17 and the measured cost C of the decoders, forward and backward."""
    rows = []
    for name, e in EXPERIMENTS.items():
        threshold = cost_threshold(e.components, e.latent_dim)
        decimals = len(e.published_threshold.partition(".")[2])
        flops = count_flops(build(name).decoders["m0"], (e.latent_dim,), batch_size=e.batch_size)
        rows.append(
            (
                name,
                str(e.components),
                str(e.latent_dim),
                e.published_threshold,
                f"{threshold:.3g}",
                yes_no(f"{threshold:.{decimals}f}" == e.published_threshold),
                f"{flops.per_sample:,.0f}",
                f"{flops.per_sample / threshold:.3g}",
                str(e.batch_size),
                f"{flops.total:,}",
                f"{flops.total / threshold:.3g}",
            )
        )
    with torch.device("meta"):
        reference = count_flops(nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256)), (256,))
    columns = ("Dataset", "M", "d", "Threshold (paper)", "Threshold", "Agrees", "C a sample", "C a sample / threshold")
    return PlainTable(
        "Table IX: decoder cost above which GMRF MCVAE is cheaper than MMVAE and MMVAE+",
        (*columns, "Batch", "C a batch", "C a batch / threshold"),
        tuple(rows),
        (
            "C is the forward and backward cost of one decoder in FLOPs, a multiplication and an addition counted as "
            "two, of matrix products and convolutions; measured, not estimated.",
            "Eq. 17 takes C of a mini-batch and counts one covariance; the posterior has one for each sample, so the "
            "ratio of one sample compares like with like.",
            f"Two layers 256 × 256, said to cost about 2e5 FLOPs, cost {reference.forward:,} forward and "
            f"{reference.total:,} forward and backward a sample.",
        ),
    )


def capacities() -> PlainTable:
    """The latent capacities of sections -C1 and -C2, counted from what is built (erratum E10)."""
    copula, polymnist = build("Copula"), build("PolyMNIST")
    with torch.device("meta"):
        baseline = GaussianMLPEncoder(2, 3, specific_dim=3)
    heads = (baseline.mean, baseline.log_variance, baseline.specific_mean, baseline.specific_log_variance)
    sizes = polymnist.block_sizes
    dim, cross = sum(sizes.values()), num_cross_entries(sizes)
    full = dim * (dim - 1) // 2
    cases = [
        ("Copula, GMRF MCVAE with d = 2", "44", copula.capacity()),
        ("Copula, baselines with 3 shared and 3 specific latents", "48", 4 * sum(h.out_features for h in heads)),
        (
            f"PolyMNIST, MRF MVAE, 84% of {full} masked",
            "665",
            count_gaussian_parameters(sizes, random_mask(full, 0.16, 0)),
        ),
        (
            f"PolyMNIST, GMRF MCVAE, 75% of the {cross} cross-block entries masked",
            "660",
            count_gaussian_parameters(sizes, random_mask(cross, 0.25, 0)),
        ),
        (
            f"PolyMNIST, GMRF MCVAE, 75% of all {full} off-diagonal entries masked",
            "660",
            count_gaussian_parameters(sizes, random_mask(full, 0.25, 0)),
        ),
        ("PolyMNIST, GMRF MCVAE without mask", NONE, polymnist.capacity()),
    ]
    free = 660 - 2 * dim
    return PlainTable(
        "Parameters of one latent distribution",
        ("Distribution", "Paper", "Counted", "Agrees"),
        tuple((name, paper, str(n), NONE if paper == NONE else yes_no(paper == str(n))) for name, paper, n in cases),
        (
            "Counted: the means, the diagonal and the free entries beside it (erratum E10).",
            f"660 would leave {free} free entries: {free / cross:.1%} of {cross}, or {free / full:.1%} of {full}, "
            "close to the 84% masked of MRF MVAE.",
        ),
    )

"""Every model of the package, small and untrained: what one of them promises, all are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from repro.baselines import METHODS, build_baseline
from repro.datasets import Dataset
from repro.datasets.base import ModalitySpec
from repro.model import MultimodalModel, isolated_rng
from repro.papers.covae.building import build
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.papers.mrf_mvae.neural_prior import ChainSettings
from repro.papers.mrf_mvae.variants import build_variant
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.model import SBMVAE
from repro.papers.sbm_vae.sampling import SamplingSettings
from repro.papers.sbm_vae.score import LatentScore

__all__ = ["CHAINS", "LIKELIHOODS", "MODELS", "NAMES", "SPECS", "batch", "dataset", "density", "make", "same_tensors"]

Specs = Mapping[str, ModalitySpec]

SPECS = {"a": ModalitySpec((3,)), "b": ModalitySpec((4,)), "c": ModalitySpec((2,))}
CHAINS = ChainSettings(num_chains=20, burn_in=5, thinning=2, num_kept=4)


def _sbm(specs: Specs, **options: object) -> SBMVAE:
    score = LatentScore(len(specs), 4, width=8, multipliers=(1,), blocks=1, multi_time=bool(options.get("mld")))
    autoencoders = Autoencoders(specs, latent_dim=4, hidden=(8,), kind=str(options.get("kind", "vae")))
    return SBMVAE(specs, autoencoders, score, sampling=SamplingSettings("dpm_solver", num_steps=3))


def _covae(specs: Specs, networks: str = "mlp") -> MultimodalModel:
    options = {"networks": networks, "posterior": "cholesky", "latent_dims": dict.fromkeys(specs, 2), "held_out": 0.3}
    widths = {"widths": (8,)} if networks == "mlp" else {}
    return build("covae", specs, options | widths)


def _baseline(method: str) -> Callable[[Specs], MultimodalModel]:
    private = {"specific_dim": 1} if method in ("mmvae_plus", "dmvae") else {}
    return lambda specs: build_baseline(method, specs, latent_dim=2, beta=0.3, widths=(8,), **private)


MODELS: dict[str, Callable[[Specs], MultimodalModel]] = {
    "gmrf": lambda s: GMRFMCVAE(s, beta=0.3),
    "gmrf_block_dominant": lambda s: GMRFMCVAE(s, beta=0.3, posterior="block_dominant", prior="block_dominant"),
    "almrf": lambda s: build_variant("almrf", s, latent_dim=2, width=8, layers=1),
    "nnmrf": lambda s: build_variant("nnmrf", s, latent_dim=2, width=8, layers=1, chains=CHAINS, potential_widths=(8,)),
    "covae": _covae,
    "covae_omics": lambda s: _covae(s, "omics"),
    **{method: _baseline(method) for method in METHODS},
    "sbm": _sbm,
    "sbm_rae": lambda s: _sbm(s, kind="rae"),
    "sbm_mld": lambda s: _sbm(s, mld=True),
}
NAMES = tuple(MODELS)
LIKELIHOODS = tuple(n for n in NAMES if n not in ("sbm_rae", "sbm_mld"))  # these have none


def make(name: str, specs: Specs = SPECS, seed: int = 0) -> MultimodalModel:
    """An untrained model, the same for each seed, in evaluation mode."""
    with isolated_rng(seed):
        return MODELS[name](specs).eval()


def batch(size: int, specs: Specs = SPECS, seed: int = 0) -> dict[str, Tensor]:
    """Standard normal values of every modality."""
    generator = torch.Generator().manual_seed(seed)
    return {m: torch.randn(size, *s.shape, generator=generator) for m, s in specs.items()}


def dataset(size: int, specs: Specs = SPECS, seed: int = 0) -> Dataset:
    """The same as a training split."""
    return Dataset("mine", "train", specs, batch(size, specs, seed))


def density(model: MultimodalModel, x: Mapping[str, Tensor], **options: Any) -> Tensor:
    """An estimate of ln p(x) from few samples, the same for each seed."""
    if isinstance(model, SBMVAE):
        options = {"num_steps": 2, "proposal_samples": 40, **options}
    generator = torch.Generator().manual_seed(0)
    return model.log_likelihood(x, **{"num_importance_samples": 7, "generator": generator, **options})


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether both have equal values under equal names."""
    return set(one) == set(other) and all(torch.equal(one[m], other[m]) for m in one)

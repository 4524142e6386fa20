"""Four papers on structured latent spaces of multimodal VAEs, regenerated table by table and figure by figure.

Names are imported on first use, so that ``import repro`` and ``repro --help`` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "load_dataset": "repro.datasets",
    "load_model": "repro.hub.load",
    "run": "repro.artifacts.running",
    "cite": "repro.hub.cite",
    # What one's own data need.
    "Dataset": "repro.datasets",
    "ModalitySpec": "repro.datasets",
    "Scales": "repro.datasets.scales",
    "TrainingSettings": "repro.training",
    "train": "repro.training",
    "GMRFMCVAE": "repro.papers.gmrf_mcvae.model",
    "ALMRFMVAE": "repro.papers.mrf_mvae.almrf",
    "NNMRFMVAE": "repro.papers.mrf_mvae.nnmrf",
    "SBMVAE": "repro.papers.sbm_vae.model",
    "CoVAE": "repro.papers.covae.model",
    "build_baseline": "repro.baselines",
    # For a network of one's own, so that a saved model can be built with it again.
    "rebuildable": "repro.networks.construction",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'repro' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""What methods are called wherever people read of them: rows of tables, legends, claims, captions."""

from __future__ import annotations

__all__ = ["NAMES", "named", "titled"]

# Key, of specifications and rows of plans, to the method's name.
NAMES = {
    "gmrf_mcvae": "GMRF MCVAE",
    "gmrf": "GMRF MVAE",
    "almrf": "ALMRF MVAE",
    "almrf_location": "ALMRF MVAE with a location",
    "nnmrf": "NN-MRF MVAE",
    "sbm_vae": "SBM-VAE",
    "sbm_vae_t": "SBM-VAE-T",
    "sbm_rae": "SBM-RAE",
    "sbm_rae_t": "SBM-RAE-T",
    "mld": "MLD",
    "covae": "CoVAE",
    "mvae": "MVAE",
    "mmvae": "MMVAE",
    "mopoe": "MoPoE-VAE",
    "mmvae_plus": "MMVAE+",
    "mvtcae": "MVTCAE",
    "jmvae": "JMVAE",
    "dmvae": "DMVAE",
    "vaegan": "VAEGAN",
}
# Folder of a paper's package, or of what no paper has, to what it is called.
TITLES = {
    "gmrf_mcvae": "GMRF MCVAE",
    "mrf_mvae": "MRF MVAE",
    "sbm_vae": "SBM-VAE",
    "covae": "CoVAE",
    "pretrained": "Pretrained networks",
    "compare": "The papers' models beside each other",
}


def named(row: str) -> str:
    """A plan's row with its method's name in place of the key: ``"MMVAE+, rho 0.3"`` of ``"mmvae_plus, rho 0.3"``.

    Arguments:
        row: A method's key, alone or before a comma and what else the row says; anything else is returned as it is.
    """
    method, comma, rest = row.partition(",")
    return NAMES.get(method, method) + comma + rest


def titled(package: str) -> str:
    """What a paper's package is called: its method's name; its own name where it is another distribution's."""
    return TITLES.get(package, package)

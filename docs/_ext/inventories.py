"""Where the documentation of other packages says what their classes are, as inventories that ship with this repository.

Their own inventories lie on their servers, which a build may not ask. These hold the names that this package's
signatures mention, at the addresses that the packages' documentation has for them: links for readers, which no page
loads. huggingface_hub's documentation is not made by Sphinx and has no inventory of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path


def _generated(*names: str) -> dict[str, str]:
    return {name: f"generated/{name}.html#{name}" for name in names}


_TORCH = {
    "torch.Tensor": "tensors.html#torch.Tensor",
    "torch.device": "tensor_attributes.html#torch.device",
    "torch.dtype": "tensor_attributes.html#torch.dtype",
    "torch.Size": "size.html#torch.Size",
    "torch.distributions.distribution.Distribution": "distributions.html#torch.distributions.distribution.Distribution",
    **_generated("torch.Generator", "torch.nn.Module", "torch.nn.ModuleList", "torch.nn.Linear", "torch.nn.Sequential"),
    **_generated("torch.nn.GroupNorm", "torch.nn.Conv2d"),
}
# What Python calls a class, by where it is defined, is not always what its documentation calls it.
_TORCH |= {
    "torch._C.Generator": _TORCH["torch.Generator"],
    "torch.nn.modules.module.Module": _TORCH["torch.nn.Module"],
    "torch.nn.modules.container.ModuleList": _TORCH["torch.nn.ModuleList"],
    "torch.nn.modules.container.Sequential": _TORCH["torch.nn.Sequential"],
    "torch.nn.modules.linear.Linear": _TORCH["torch.nn.Linear"],
    "torch.nn.modules.normalization.GroupNorm": _TORCH["torch.nn.GroupNorm"],
    "torch.nn.modules.conv.Conv2d": _TORCH["torch.nn.Conv2d"],
}
_HUB = {
    "huggingface_hub.HfApi": "package_reference/hf_api#huggingface_hub.HfApi",
    "huggingface_hub.EvalResult": "package_reference/cards#huggingface_hub.EvalResult",
}
_HUB |= {
    "huggingface_hub.hf_api.HfApi": _HUB["huggingface_hub.HfApi"],
    "huggingface_hub.repocard_data.EvalResult": _HUB["huggingface_hub.EvalResult"],
}
_VAES = {"MVAE": "mvae", "MMVAE": "mmvae", "MMVAEPlus": "mmvae_plus", "MoPoE": "mopoe", "JMVAE": "jmvae"}
_VAES |= {"MVTCAE": "mvtcae", "DMVAE": "dmvae", "BaseMultiVAE": "base"}
_MULTIVAE = {
    f"multivae.models.{name}": f"models/multimodal_vaes/{page}.html#multivae.models.{name}"
    for name, page in _VAES.items()
}
_MULTIVAE["multivae.models.base.base_model.BaseMultiVAE"] = _MULTIVAE["multivae.models.BaseMultiVAE"]

PACKAGES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "torch": ("https://docs.pytorch.org/docs/stable/", _TORCH),
    "huggingface_hub": ("https://huggingface.co/docs/huggingface_hub/", _HUB),
    "multivae": ("https://multivae.readthedocs.io/en/latest/", _MULTIVAE),
}


def write(folder: Path) -> dict[str, tuple[str, str]]:
    """Writes the inventories into a folder below ``docs/``; returns Sphinx's ``intersphinx_mapping``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, addresses) in PACKAGES.items():
        head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        lines = "".join(f"{known} py:class 1 {address} -\n" for known, address in addresses.items())
        (folder / f"{name}.inv").write_bytes(head.encode() + zlib.compress(lines.encode()))
    return {name: (base, str(folder / f"{name}.inv")) for name, (base, _) in PACKAGES.items()}

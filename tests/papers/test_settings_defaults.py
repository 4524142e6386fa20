"""Builders take some of their settings: the others have defaults in one place, and unknown names are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from repro.baselines import METHODS
from repro.datasets.base import ModalitySpec
from repro.model import MultimodalModel, resolved_settings
from repro.papers.compare.building import build as build_compared
from repro.papers.covae.building import build, settings_of
from repro.papers.sbm_vae.building import SETTINGS, build_sbm

SPECS = {"a": ModalitySpec((5,)), "b": ModalitySpec((3,))}
FEW = {"num_steps": 2}
Builder = Callable[[Mapping[str, Any] | None], MultimodalModel]
BUILDERS: dict[str, Builder] = {
    **{m: lambda s, m=m: build(m, SPECS, s) for m in ("covae", *METHODS)},
    **{f"compare {m}": lambda s, m=m: build_compared(m, SPECS, s, FEW) for m in ("covae", "gmrf_mcvae", "sbm_vae")},
    "sbm_vae": lambda s: build_sbm(SPECS, s, FEW),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_model_is_built_from_any_part_of_its_settings(name: str) -> None:
    for settings in (None, {}, {"beta": 0.03}):
        model = BUILDERS[name](settings)
        found = model.generate(2, generator=torch.Generator().manual_seed(0))
        assert {m: tuple(x.shape) for m, x in found.items()} == {"a": (2, 5), "b": (2, 3)}


@pytest.mark.parametrize("name", BUILDERS)
def test_an_unknown_setting_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=r"has no settings \['depth'\]; there are .*beta") as caught:
        BUILDERS[name]({"depth": 3, "beta": 0.1})
    assert "\n" not in str(caught.value)


def test_defaults_are_in_one_place() -> None:
    assert settings_of("covae", SPECS)["latent_dims"] == {"a": 4, "b": 4}
    assert build("covae", SPECS, {"latent_dims": 2}).block_sizes == {"a": 2, "b": 2}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"latent_dims are for \['a'\], the modalities are \['a', 'b'\]$"):
        build("covae", SPECS, {"latent_dims": {"a": 2}})
    with pytest.raises(ValueError, match=r"^unknown method 'vae'; one of covae, mvae"):
        build("vae", SPECS)
    with pytest.raises(ValueError, match=r"^the sampling has no settings \['steps'\]; there are sampler, num_steps"):
        build_sbm(SPECS, {}, {"steps": 3})
    assert resolved_settings({"a": 1}, {"a": 0, "b": 2}, "x") == {"a": 1, "b": 2}
    assert set(SETTINGS) >= {"latent_dim", "beta", "energy"}

"""multivae's models by name: which work on Table I's networks, which are refused and why, and an exact likelihood."""

from __future__ import annotations

import pytest
import torch

from repro.baselines.named import NOT_OFFERED, NamedModel, build_named, named_models
from repro.errors import UsageError
from repro.methods.checks import check_kept, check_method
from repro.methods.models import built
from repro.model import isolated_rng
from repro.papers.gmrf_mcvae.copula.experiment import Copula, copula_spec
from tests.support.linear_gaussian import linear_gaussian

WORKING = [n for n in named_models() if n not in NOT_OFFERED]


def make(name: str, **settings: object) -> NamedModel:
    with isolated_rng(0):
        like = Copula().build(copula_spec("mvae", 0, "smoke"))
        return built(name, build_named, like.modalities, {"name": name, "like": like, **settings})


def test_every_model_of_the_installed_version_is_either_offered_or_refused() -> None:
    assert set(NOT_OFFERED) <= set(named_models())
    assert len(WORKING) == 10


@pytest.mark.parametrize("name", WORKING)
def test_it_trains_and_generates(name: str) -> None:
    """A few steps lower the loss of one batch; samples given one modality have its shape and need no other."""
    model = make(name)
    check_method(name, model)
    assert check_kept(name, lambda: make(name)) == []
    batch = {
        m: torch.rand(64, *s.shape, generator=torch.Generator().manual_seed(1)) for m, s in model.modalities.items()
    }
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for step in range(12):
        with isolated_rng(step):
            total = model.loss(batch).total
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
        losses.append(total.item())
    assert sum(losses[-3:]) < sum(losses[:3])
    one = model.generate(1, given={"m1": batch["m1"][:1]}, generator=torch.Generator().manual_seed(0))
    assert {m: tuple(x.shape) for m, x in one.items()} == dict.fromkeys(model.modalities, (1, 1, 2))
    again = model.generate(1, given={"m1": batch["m1"][:1]}, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(one[m], again[m]) for m in one)


@pytest.mark.parametrize("name", WORKING)
def test_the_loss_is_a_mean_over_the_batch(name: str) -> None:
    """Of a batch twice as large with the same samples, whatever the library sums."""
    model = make(name)
    batch = {
        m: torch.rand(200, *s.shape, generator=torch.Generator().manual_seed(1)) for m, s in model.modalities.items()
    }
    with isolated_rng(0), torch.no_grad():
        small = sum(model.loss(batch).total.item() for _ in range(5))
        large = sum(model.loss({m: torch.cat([x, x]) for m, x in batch.items()}).total.item() for _ in range(5))
    assert large == pytest.approx(small, rel=0.05)


@pytest.mark.parametrize("name", list(NOT_OFFERED))
def test_what_cannot_be_used_says_why(name: str) -> None:
    with pytest.raises(UsageError, match=f"multivae's {name} cannot be used: it "):
        make(name)


def test_unknown_names_and_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no model 'NEXT'; one of .*Nexus"):
        make("NEXT")
    with pytest.raises(UsageError, match=r"no setting \['latent_dim'\]"):
        make("CRMVAE", latent_dim=3)
    for name, changes, said in (
        ("CRMVAE", {"beta": -1}, "beta is -1.0, must be positive and finite"),
        ("JMVAE", {"beta": 0}, "beta is 0.0, must be positive and finite"),
        ("MVTCAE", {"alpha": 1.5}, r"alpha is 1.5, must be in \[0, 1\]"),
        ("MVTCAE", {"alpha": "0.5"}, "alpha is '0.5', must be a finite number"),
        ("MVTCAE", {"alpha": True}, "alpha is True, must be a finite number"),
        ("MVTCAE", {"alpha": "x"}, "alpha is 'x', must be a finite number"),
    ):
        with pytest.raises(UsageError, match=said) as refused:
            make(name, **changes)
        assert "\n" not in str(refused.value)
    assert type(make("NEXUS").multivae).__name__ == "Nexus"
    assert make("CRMVAE", beta=0.5).noise_scale("m1") == pytest.approx(0.5**0.5)
    assert make("MMVAEPlus", modalities_specific_dim=2).multivae.model_config.latent_dim == 4


@pytest.mark.parametrize("name", ["MVAE", "MVTCAE"])
def test_likelihoods_are_exact_where_they_are_known(name: str) -> None:
    """Linear decoders of the known covariance, by the difference of marginals too."""
    exact = linear_gaussian("mvae")
    model = build_named(exact.model.modalities, name=name, like=exact.model, beta=1.0).double().eval()
    x = exact.data(5)
    draws = torch.Generator().manual_seed(0)
    found = model.log_likelihood(x, num_importance_samples=20_000, generator=draws)
    assert torch.allclose(found, exact.log_likelihood(x), atol=0.05)
    given = {"a": x["a"]}
    rest = {m: x[m] for m in ("b", "c")}
    found = model.log_likelihood(rest, given=given, num_importance_samples=20_000, generator=draws)
    assert torch.allclose(found, exact.log_likelihood(x) - exact.log_likelihood(given), atol=0.05)

"""Likelihoods of all eight models against exact ones, their terms, and what multivae computes itself."""

from __future__ import annotations

import pytest
import torch

from repro.papers.covae.likelihoods import decompose, posterior_predictive_log_likelihood
from tests.support.linear_gaussian import LinearGaussian, linear_covae, linear_gaussian

METHODS = ("mvae", "mvtcae", "mmvae", "mopoe", "jmvae", "dmvae", "mmvae_plus", "covae", "covae_3")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(method: str) -> LinearGaussian:
    if method.startswith("covae"):
        return linear_covae(1.2, "abc" if method == "covae_3" else "ab")
    return linear_gaussian(method)


@pytest.mark.parametrize("method", METHODS)
def test_joint_and_conditional_likelihoods_within_five_hundredths_of_a_nat(method: str) -> None:
    """At K = 2,000; the standard deviation of a point is under 0.03, so 0.1 for each and 0.05 for the mean of six."""
    exact = case(method)
    x = exact.data()
    options = {"num_importance_samples": 2000, "generator": generator()}
    for names in (list(x), ["b"], ["a", "b"]):
        part = {m: x[m] for m in names}
        estimate = exact.model.log_likelihood(part, **options)
        torch.testing.assert_close(estimate, exact.log_likelihood(part), atol=0.1, rtol=0)
        assert float((estimate - exact.log_likelihood(part)).mean()) == pytest.approx(0.0, abs=0.05)
    given = {"a": x["a"]}
    rest = {m: v for m, v in x.items() if m != "a"}
    expected = exact.log_likelihood(x) - exact.log_likelihood(given)
    estimate = exact.model.log_likelihood(rest, given=given, **options)
    torch.testing.assert_close(estimate, expected, atol=0.1, rtol=0)
    assert float((estimate - expected).mean()) == pytest.approx(0.0, abs=0.05)


def test_exact_posteriors_leave_no_variance() -> None:
    exact = linear_covae()
    x = exact.data()
    for part in (x, {"a": x["a"]}, {"b": x["b"]}):
        estimate = exact.model.log_likelihood(part, num_importance_samples=1, generator=generator())
        torch.testing.assert_close(estimate, exact.log_likelihood(part), rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_terms_add_up_to_the_estimate(method: str) -> None:
    exact = case(method)
    x = exact.data(3)
    terms = decompose(exact.model, x, num_samples=2100, generator=generator(1))
    assert terms.reconstruction.shape == terms.prior.shape == terms.posterior.shape == (2100, 3)
    torch.testing.assert_close(terms.log_likelihood(), exact.log_likelihood(x), atol=0.1, rtol=0)


def test_terms_of_an_exact_posterior_are_the_closed_forms() -> None:
    exact = linear_covae()
    model, x = exact.model, exact.data(4)
    terms = decompose(model, x, num_samples=20_000, generator=generator())
    q, prior = model.posterior(x), model.prior()
    # -E ln q is the entropy; E ln p(z) follows from the KL divergence. Standard errors are about 0.01.
    torch.testing.assert_close(terms.posterior.mean(0), q.entropy(), atol=0.06, rtol=0)
    kl = torch.distributions.kl_divergence(q, prior)
    torch.testing.assert_close(terms.prior.mean(0), -q.entropy() - kl, atol=0.06, rtol=0)


def test_mixtures_want_samples_that_divide() -> None:
    exact = linear_gaussian("mmvae")
    with pytest.raises(ValueError, match="100 samples do not divide over 3 components"):
        decompose(exact.model, exact.data(2), num_samples=100)
    with pytest.raises(ValueError, match="num_samples is 0"):
        decompose(exact.model, exact.data(2), num_samples=0)


def test_the_paper_s_conditional_is_right_where_the_encoder_is_exact() -> None:
    """Erratum E16: given exact q(z_a | x_a) it is the true conditional, with wider posteriors it is another number."""
    differences = {}
    for inflation in (1.0, 5.0):
        exact = linear_covae(inflation)
        x = exact.data(20)
        estimate = posterior_predictive_log_likelihood(
            exact.model, {"b": x["b"]}, {"a": x["a"]}, num_samples=4000, generator=generator()
        )
        true = exact.log_likelihood(x) - exact.log_likelihood({"a": x["a"]})
        differences[inflation] = float((estimate - true).mean())
    assert differences[1.0] == pytest.approx(0.0, abs=0.03)
    assert abs(differences[5.0]) > 0.1


def test_the_paper_s_conditional_for_baselines() -> None:
    exact = linear_gaussian("mmvae")
    x = exact.data(20)
    given = {"a": x["a"]}
    rest = {m: x[m] for m in "bc"}
    estimate = posterior_predictive_log_likelihood(exact.model, rest, given, num_samples=4000, generator=generator())
    assert float((estimate - exact.log_likelihood(x) + exact.log_likelihood(given)).mean()) == pytest.approx(
        0, abs=0.05
    )
    with pytest.raises(ValueError, match=r"modalities \['a'\] are both"):
        posterior_predictive_log_likelihood(exact.model, given, given)
    exact.model.likelihood = "bernoulli"  # as a model of binary images may have
    with pytest.raises(ValueError, match="the likelihood is 'bernoulli', must be one of gaussian, laplace"):
        posterior_predictive_log_likelihood(exact.model, rest, given)


def test_multivae_s_own_values() -> None:
    """Right for MVAE, MVTCAE and JMVAE; MMVAE+ leaves the last modality out; DMVAE adds up over points."""
    found = {}
    for method in ("mvae", "mvtcae", "jmvae", "dmvae", "mmvae_plus"):
        exact = linear_gaussian(method)
        exact.model.float()
        x = {m: v.float() for m, v in exact.data(12).items()}
        before = torch.get_rng_state()
        own = exact.model.library_nll(x, num_importance_samples=200, generator=generator())
        assert torch.equal(torch.get_rng_state(), before)
        assert list(x) == ["a", "b", "c"]  # the caller keeps its modalities
        wide = {m: v.double() for m, v in x.items()}
        found[method] = own, -float(exact.log_likelihood(wide).mean())
        if method == "mmvae_plus":
            rest = -float(exact.log_likelihood({m: wide[m] for m in "ab"}).mean())
    for method in ("mvae", "mvtcae", "jmvae"):
        assert found[method][0] == pytest.approx(found[method][1], abs=0.1)
    assert found["dmvae"][0] > found["dmvae"][1] + 5
    assert found["mmvae_plus"][0] == pytest.approx(rest, abs=1.0)
    assert found["mmvae_plus"][0] < found["mmvae_plus"][1] - 5


@pytest.mark.parametrize("method", ["mmvae", "mopoe"])
def test_multivae_s_own_values_of_mixtures_hang_on_the_expert_that_was_drawn(method: str) -> None:
    """All samples of a point come from one expert: MMVAE's spread hardly falls with K, MoPoE's mean stays too high."""
    exact = linear_gaussian(method)
    exact.model.float()
    # Data come by a decomposition whose signs differ between processors: so many points and samples hold for any.
    points, samples = (12, 1000) if method == "mmvae" else (2, 200)
    x = {m: v.float() for m, v in exact.data(points).items()}
    model, seeds = exact.model, range(12)
    options = {"num_importance_samples": samples}
    own = torch.tensor([model.library_nll(x, **options, generator=generator(s)) for s in seeds])
    ours = torch.stack([-model.log_likelihood(x, **options, generator=generator(s)).mean() for s in seeds])
    true = -float(exact.log_likelihood({m: v.double() for m, v in x.items()}).mean())
    assert float(ours.mean()) == pytest.approx(true, abs=0.05)
    if method == "mmvae":
        assert own.std() > 2.5 * ours.std()
    else:
        assert float(own.mean()) - true > 4 * float(own.std()) / len(seeds) ** 0.5

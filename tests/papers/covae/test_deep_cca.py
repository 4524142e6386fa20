"""Deep CCA pre-training: losses, the held-out part, canonical coordinates, and the prior that they fill."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec
from repro.distributions.blocks import cholesky_factor
from repro.metrics.correlation import canonical_correlations, distance_correlation_unbiased
from repro.model import isolated_rng
from repro.papers.covae.deep_cca import align, encoder_means, fold_into_head, held_out_parts, pretraining_loss
from repro.papers.covae.prior import MAX_CORRELATION, CorrelatedPrior, cross_diagonal_covariance, normalise_blocks


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encodings(n: int, rho: float, sizes: dict[str, int], seed: int = 0) -> dict[str, Tensor]:
    """Blocks that share a common part, so that all coordinates i of two blocks are correlated by rho."""
    g = generator(seed)
    common = torch.randn(n, max(sizes.values()), generator=g, dtype=torch.float64)
    own = {m: torch.randn(n, d, generator=g, dtype=torch.float64) for m, d in sizes.items()}
    return {m: rho**0.5 * common[:, :d] + (1 - rho) ** 0.5 * own[m] for m, d in sizes.items()}


def mixed(x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other coordinates of the same blocks."""
    g = generator(9)
    return {m: v @ torch.randn(v.shape[1], v.shape[1], generator=g, dtype=v.dtype) - 2 for m, v in x.items()}


def test_losses_are_summed_over_pairs() -> None:
    x = encodings(50, 0.5, {"a": 3, "b": 3, "c": 2})
    cca = pretraining_loss("cca", x, 0.1)
    assert list(cca) == ["a_b", "a_c", "b_c"]
    torch.testing.assert_close(cca["a_c"], -canonical_correlations(x["a"], x["c"], ridge=0.1).sum())
    other = pretraining_loss("distance_correlation", x, 0.1)
    torch.testing.assert_close(other["b_c"], -distance_correlation_unbiased(x["b"], x["c"]))


def dataset(n: int) -> Dataset:
    modalities = {m: ModalitySpec((2,)) for m in "ab"}
    rows = torch.arange(2.0 * n).reshape(n, 2)
    return Dataset("lines", "train", modalities, {"a": rows, "b": -rows}, torch.arange(n) % 3)


def test_held_out_part_is_always_the_same_and_has_no_sample_of_the_fit() -> None:
    data = dataset(50)
    fit, held_out = held_out_parts(data, 0.2)
    assert (len(fit), len(held_out)) == (40, 10)
    assert sorted([*fit.data["a"][:, 0].tolist(), *held_out.data["a"][:, 0].tolist()]) == data.data["a"][:, 0].tolist()
    assert torch.equal(held_out.data["a"], -held_out.data["b"])
    assert torch.equal(held_out.labels, (held_out.data["a"][:, 0] / 2).long() % 3)
    with isolated_rng(5):
        again = held_out_parts(data, 0.2)[1]
    assert torch.equal(again.data["a"], held_out.data["a"])
    assert held_out.data["a"][:, 0].diff().unique().numel() > 1  # no run of neighbours: labels may be in order
    with pytest.raises(ValueError, match="lines: 2 of 50 training samples held out"):
        held_out_parts(data, 0.04)


def test_folding_a_map_into_the_last_layer() -> None:
    with isolated_rng(0):
        head = nn.Linear(5, 3)
    g = generator()
    h, mean = torch.randn(7, 5, generator=g), torch.randn(3, generator=g, dtype=torch.float64)
    weight = torch.randn(3, 3, generator=g, dtype=torch.float64)
    before = head(h).detach().double()
    fold_into_head(head, mean, weight)
    torch.testing.assert_close(head(h).detach().double(), (before - mean) @ weight.T, rtol=1e-5, atol=1e-5)


def test_encoders_are_read_as_in_evaluation_and_left_as_they_were() -> None:
    with isolated_rng(0):
        networks = {m: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for m in "ab"}

    class Pair(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.network(x), torch.zeros(1)

    encoders = {m: Pair(n) for m, n in networks.items()}
    encoders["a"].train(), encoders["b"].eval()
    before = {k: v.clone() for k, v in networks["a"].state_dict().items()}
    first, second = (encoder_means(encoders, dataset(30), batch_size=b) for b in (7, 30))
    assert all(torch.allclose(first[m], second[m]) and first[m].shape == (30, 4) for m in "ab")
    assert (encoders["a"].training, encoders["b"].training) == (True, False)
    assert all(torch.equal(v, before[k]) for k, v in networks["a"].state_dict().items())


@pytest.mark.parametrize("sizes", [{"a": 4, "b": 4}, {"a": 4, "b": 2}, {"a": 2, "b": 4}])
def test_two_modalities_come_into_equation_5_s_form(sizes: dict[str, int]) -> None:
    x = mixed(encodings(8000, 0.6, sizes))
    found = align(*({m: v[s] for m, v in x.items()} for s in (slice(4000), slice(4000, None))), sizes)
    k = min(sizes.values())
    assert found.held_out.shape == (k,)
    assert float(found.held_out.mean()) == pytest.approx(0.6, abs=0.04)
    assert float(found.fitted.mean()) >= float(found.held_out.mean())
    z = torch.cat([(x[m][4000:] - found.means[m]) @ found.weights[m].T for m in "ab"], 1)
    torch.testing.assert_close(z.T.cov(), found.covariance, rtol=0, atol=0.09)
    torch.testing.assert_close(found.covariance, cross_diagonal_covariance(found.correlations, *sizes.values()))


def test_more_modalities_have_white_blocks_and_a_regular_covariance() -> None:
    sizes = {"a": 3, "b": 2, "c": 3}
    x = mixed(encodings(8000, 0.6, sizes))
    found = align(*({m: v[s] for m, v in x.items()} for s in (slice(4000), slice(4000, None))), sizes)
    prior = CorrelatedPrior(sizes)
    prior.set_covariance(found.covariance)
    covariance = prior().covariance_matrix
    torch.testing.assert_close(covariance[3:5, 3:5], torch.eye(2), rtol=0, atol=1e-5)
    assert float(torch.linalg.svdvals(covariance[:3, 5:]).mean()) == pytest.approx(0.6, abs=0.04)
    few = {m: v[:9] for m, v in x.items()}
    with pytest.raises(ValueError, match="9 held-out samples for 8 latents in all"):
        align(x, few, sizes)


def test_negative_held_out_correlations_become_none_and_high_ones_are_clipped() -> None:
    g = generator()
    x = torch.randn(300, 3, generator=g, dtype=torch.float64)
    y = torch.randn(300, 3, generator=g, dtype=torch.float64)
    found = align({"a": x[:20], "b": y[:20]}, {"a": x[20:], "b": y[20:]}, {"a": 3, "b": 3})
    assert bool((found.held_out < 0).any())
    assert bool((found.correlations >= 0).all())
    same = align({"a": x[:100], "b": x[:100]}, {"a": x[100:], "b": x[100:]}, {"a": 3, "b": 3})
    prior = CorrelatedPrior({"a": 3, "b": 3})
    prior.set_correlations(same.correlations)
    torch.testing.assert_close(prior.correlations(), torch.full((3,), MAX_CORRELATION, dtype=torch.float64))


# The prior


def test_equation_5() -> None:
    rho = torch.tensor([0.9, 0.2])
    expected = torch.eye(5)
    expected[0, 3] = expected[3, 0] = 0.9
    expected[1, 4] = expected[4, 1] = 0.2
    assert torch.equal(cross_diagonal_covariance(rho, 3, 2), expected)
    prior = CorrelatedPrior({"a": 3, "b": 2})
    assert torch.equal(prior().covariance_matrix, torch.eye(5))
    prior.set_correlations(rho)
    torch.testing.assert_close(prior().covariance_matrix, expected)
    assert list(prior.parameters()) == []


@pytest.mark.parametrize("sizes", [{"a": 2, "b": 2}, {"a": 2, "b": 1, "c": 2}])
def test_trainable_priors_keep_white_blocks_and_learn_correlations(sizes: dict[str, int]) -> None:
    prior = CorrelatedPrior(sizes, trainable=True)
    target = normalise_blocks(torch.eye(sum(sizes.values())) + 0.7, sizes)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.1)
    z = torch.randn(4000, sum(sizes.values()), generator=generator()) @ cholesky_factor(target).T
    before = prior().log_prob(z).mean()
    for _ in range(40):
        optimizer.zero_grad()
        (-prior().log_prob(z).mean()).backward()
        optimizer.step()
    assert prior().log_prob(z).mean().item() > before.item() + 0.02
    covariance = prior().covariance_matrix.detach()
    torch.testing.assert_close(covariance[:2, :2], torch.eye(2), rtol=0, atol=1e-5)
    assert float(prior.correlations().max()) > 0.3


def test_marginal_variances() -> None:
    prior = CorrelatedPrior({"a": 2, "b": 2}, marginal_variance=True)
    prior.set_correlations(torch.tensor([0.8, 0.5]))
    with torch.no_grad():
        prior.log_scale.copy_(torch.tensor([1.0, 2.0, 0.5, 3.0]).log())
    covariance = prior().covariance_matrix.detach()
    torch.testing.assert_close(covariance.diagonal().sqrt(), torch.tensor([1.0, 2.0, 0.5, 3.0]))
    assert float(covariance[1, 3]) == pytest.approx(0.5 * 2 * 3)
    expected = torch.tensor([0.8, 0.5], dtype=torch.float64)
    torch.testing.assert_close(prior.correlations(), expected, rtol=0, atol=1e-6)


def test_trainable_prior_of_two_takes_what_deep_cca_found() -> None:
    prior = CorrelatedPrior({"a": 2, "b": 2}, trainable=True)
    prior.set_correlations(torch.tensor([0.7, 0.3]))
    expected = torch.tensor([0.7, 0.3], dtype=torch.float64)
    torch.testing.assert_close(prior.correlations(), expected, rtol=0, atol=1e-5)


def test_bad_priors_are_named() -> None:
    prior = CorrelatedPrior({"a": 2, "b": 2})
    for bad in ([0.5, 1.0], [0.5, -0.1], [0.5, float("nan")]):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
            prior.set_correlations(torch.tensor(bad))
    with pytest.raises(ValueError, match=r"\(3,\) correlations for blocks of 2 and 2"):
        prior.set_correlations(torch.zeros(3))
    singular = torch.eye(4)
    singular[0, 2] = singular[2, 0] = 1.0
    with pytest.raises(ValueError, match="Sigma_prior is not positive definite: its smallest eigenvalue"):
        prior.set_covariance(singular)
    with pytest.raises(ValueError, match="not symmetric"):
        prior.set_covariance(torch.eye(4) + torch.triu(torch.ones(4, 4), 1) * 0.1)
    with pytest.raises(ValueError, match="block of 'b' in Sigma_prior is not the identity"):
        prior.set_covariance(torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0])))
    with pytest.raises(ValueError, match=r"has shape \(3, 3\), the blocks need \(4, 4\)"):
        prior.set_covariance(torch.eye(3))
    with pytest.raises(ValueError, match=r"at least two modalities, got \['a'\]"):
        CorrelatedPrior({"a": 2})
    with pytest.raises(ValueError, match="equation 5 is for two modalities"):
        CorrelatedPrior([1, 1, 1]).set_correlations(torch.zeros(1))
    with pytest.raises(ValueError, match="set correlations"):
        CorrelatedPrior([1, 1], trainable=True).set_covariance(torch.eye(2))

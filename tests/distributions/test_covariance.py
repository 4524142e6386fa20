import pytest
import torch
from torch import Tensor

from repro.distributions.blocks import as_block_sizes
from repro.distributions.covariance import (
    block_dominant_covariance,
    block_dominant_scale_tril,
    cholesky_scale_tril,
    count_parameters,
    num_cross_entries,
    off_diagonal_mask,
    random_mask,
    tril_indices,
)


def spd(n: int, dim: int, generator: torch.Generator) -> Tensor:
    a = torch.randn(n, dim, dim, generator=generator, dtype=torch.float64)
    return a @ a.mT + 0.05 * torch.eye(dim, dtype=torch.float64)


def random_case(n, sizes, generator, kind):
    """Diagonals over several orders of magnitude, and cross entries far too large for positive definiteness."""
    cross = torch.randn(n, num_cross_entries(sizes), generator=generator, dtype=torch.float64)
    cross *= 10 ** (4 * torch.rand(n, num_cross_entries(sizes), generator=generator, dtype=torch.float64) - 2)
    if kind == "blocks":
        return [spd(n, d, generator) for d in sizes], cross
    return 10 ** (3 * torch.rand(n, sum(sizes), generator=generator, dtype=torch.float64) - 2), cross


def spans(sizes):
    start = 0
    for d in sizes:
        yield slice(start, start + d)
        start += d


def test_cholesky_entries_are_row_by_row():
    assert tril_indices(4).T.tolist() == [[1, 0], [2, 0], [2, 1], [3, 0], [3, 1], [3, 2]]
    factor = cholesky_scale_tril(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([10.0, 20.0, 21.0]))
    e = torch.tensor([0.0, 1.0, 2.0]).exp()
    assert torch.equal(factor, torch.tensor([[e[0], 0, 0], [10, e[1], 0], [20, 21, e[2]]]))


def test_cholesky_mask_batches_and_gradient():
    g = torch.Generator().manual_seed(0)
    log_diagonal = torch.randn(5, 4, generator=g, dtype=torch.float64, requires_grad=True)
    off = torch.randn(3, 1, 6, generator=g, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, False, True, True, False, True])
    factor = cholesky_scale_tril(log_diagonal, off, mask)
    rows, columns = tril_indices(4)
    assert factor.shape == (3, 5, 4, 4)
    assert torch.equal(factor[..., rows, columns], (off * mask).expand(3, 5, 6))
    assert torch.equal(factor.diagonal(dim1=-2, dim2=-1), log_diagonal.exp().expand(3, 5, 4))
    assert not factor.triu(1).any()
    assert torch.autograd.gradcheck(lambda a, b: cholesky_scale_tril(a, b, mask), (log_diagonal, off))


def test_index_cache_survives_inference_mode():
    with torch.inference_mode():
        cholesky_scale_tril(torch.zeros(7), torch.zeros(21))
        block_dominant_covariance(torch.ones(7), torch.ones(12), [3, 4])
    off, cross = torch.zeros(21, requires_grad=True), torch.ones(12, requires_grad=True)
    cholesky_scale_tril(torch.zeros(7), off).sum().backward()
    block_dominant_covariance(torch.ones(7), cross, [3, 4]).sum().backward()
    assert torch.equal(off.grad, torch.ones(21))
    assert cross.grad.isfinite().all()


def test_masks_are_exact_deterministic_and_leave_the_global_generator():
    state = torch.get_rng_state()
    mask = random_mask(1000, 0.29, seed=3)
    assert mask.sum() == 290
    assert torch.equal(mask, random_mask(1000, 0.29, torch.Generator().manual_seed(3)))
    assert not torch.equal(mask, random_mask(1000, 0.29, seed=4))
    assert random_mask(100, 0.29, seed=0).sum() == 29
    assert not random_mask(9, 0.0, seed=0).any()
    assert random_mask(9, 1.0, seed=0).all()
    sizes = [2, 3, 1]
    cross = off_diagonal_mask(sizes, 0.5, seed=0)
    block = torch.tensor([0, 0, 1, 1, 1, 2])
    rows, columns = tril_indices(6)
    within = block[rows] == block[columns]
    assert cross[within].all()
    assert cross[~within].sum() == num_cross_entries(sizes) // 2 == 5
    assert off_diagonal_mask(sizes, 0.5, seed=0, entries="all").sum() == 7
    assert torch.equal(torch.get_rng_state(), state)


def test_published_parameter_counts():
    assert count_parameters([2, 2, 2, 2]) == 8 + 36 == 44
    polymnist = [16] * 5
    assert count_parameters(polymnist, off_diagonal_mask(polymnist, 0.16, seed=0, entries="all")) == 665
    kept = random_mask(num_cross_entries(polymnist), 0.25, seed=0)
    assert len(kept) == 2560
    assert count_parameters(polymnist, kept) == 160 + 640 == 800
    assert count_parameters(polymnist, off_diagonal_mask(polymnist, 0.25, seed=0, entries="all")) == 950


@pytest.mark.parametrize("form", ["block", "element"])
def test_layout_of_small_cross_entries(form):
    sizes, cross = {"a": 2, "b": 1, "c": 3}, torch.arange(1.0, 12.0)
    s = block_dominant_covariance(torch.full((6,), 1e3), cross, sizes, form=form)  # far from the bound: unchanged
    assert torch.equal(s[:2, 2:3], torch.tensor([[1.0], [2.0]]))
    assert torch.equal(s[:2, 3:], torch.tensor([[3.0, 4, 5], [6, 7, 8]]))
    assert torch.equal(s[2:3, 3:], torch.tensor([[9.0, 10, 11]]))
    assert torch.equal(s, s.mT)
    assert torch.equal(s.diagonal(), torch.full((6,), 1e3))
    assert s[0, 1] == s[3, 4] == 0


def test_matches_the_definition_block_by_block():
    g = torch.Generator().manual_seed(1)
    sizes = [2, 3, 2, 1]
    blocks, cross = random_case(20, sizes, g, "blocks")
    got = block_dominant_covariance(blocks, cross, sizes, epsilon=0.8, delta=1e-3)
    for n in range(20):
        parts = list(cross[n].split([6, 4, 2, 6, 3, 2]))
        tilde = {}
        for i in range(4):
            for j in range(i + 1, 4):
                tilde[i, j] = parts.pop(0).view(sizes[i], sizes[j])
                tilde[j, i] = tilde[i, j].T
        alpha = []
        for i in range(4):
            s = sum(torch.linalg.svdvals(tilde[i, j])[0] for j in range(4) if j != i) + 1e-3
            alpha.append(min(1.0, float(0.8 / torch.linalg.svdvals(blocks[i][n].inverse())[0] / s)))
        for i, a in enumerate(spans(sizes)):
            torch.testing.assert_close(got[n, a, a], blocks[i][n])
            for j, b in enumerate(spans(sizes)):
                if i != j:
                    torch.testing.assert_close(got[n, a, b], tilde[i, j] * (alpha[i] * alpha[j]) ** 0.5)


@pytest.mark.parametrize(
    ("sizes", "form", "kind"),
    [
        ([2, 2, 2, 2], "block", "variances"),
        ([2, 2, 2, 2], "block", "blocks"),
        ([2, 2, 2, 2], "element", "variances"),
        ([1, 3, 2], "block", "blocks"),
        ([1, 1, 1, 1, 1], "block", "variances"),
        ([3, 1, 4], "element", "variances"),
    ],
)
def test_positive_definite_with_the_stated_margin(sizes, form, kind):
    """E9: Σ ⪰ (1 - ε) blockdiag(Σ_ii), hence the smallest eigenvalue is at least (1 - ε) min λ_i."""
    g = torch.Generator().manual_seed(2)
    diagonal, cross = random_case(2000, sizes, g, kind)
    epsilon = 0.95
    s = block_dominant_covariance(diagonal, cross, sizes, epsilon=epsilon, form=form)
    assert torch.equal(s, s.mT)
    within = torch.zeros_like(s)
    for a in spans(sizes):
        within[:, a, a] = s[:, a, a]
    smallest = torch.linalg.eigvalsh(within)[:, 0]
    tolerance = 1e-12 * torch.linalg.eigvalsh(s)[:, -1]
    assert (torch.linalg.eigvalsh(s)[:, 0] >= (1 - epsilon) * smallest - tolerance).all()
    assert (torch.linalg.eigvalsh(s - (1 - epsilon) * within)[:, 0] >= -tolerance).all()


@pytest.mark.parametrize("form", ["block", "element"])
def test_factor_succeeds_in_float32(form):
    g = torch.Generator().manual_seed(3)
    sizes = [2, 2, 2, 2]
    diagonal, cross = (x.float() for x in random_case(5000, sizes, g, "variances"))
    diagonal = diagonal**3  # variances from 1e-6 to 1e3
    s = block_dominant_covariance(diagonal, cross, sizes, epsilon=0.95, form=form)
    factor = block_dominant_scale_tril(diagonal, cross, sizes, epsilon=0.95, form=form)
    scale = (diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)).sqrt()
    torch.testing.assert_close(factor @ factor.mT / scale, s / scale, atol=1e-6, rtol=1e-6)
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()


def test_dominance_is_not_preserved_yet_positive_definite():
    """A star: the hub is scaled by 1/9, the nine leaves by 1; the bound on the smallest eigenvalue is attained."""
    cross = torch.zeros(45, dtype=torch.float64)
    cross[:9] = 0.9  # pairs (0, 1) to (0, 9)
    s = block_dominant_covariance(torch.ones(10, dtype=torch.float64), cross, [1] * 10, epsilon=0.9, delta=1e-15)
    torch.testing.assert_close(s[0, 1:], torch.full((9,), 0.3, dtype=torch.float64))
    assert s[0, 1:].sum() > 2.6 > s[0, 0]
    torch.testing.assert_close(torch.linalg.eigvalsh(s)[0], torch.tensor(0.1, dtype=torch.float64))


def test_theorem_needs_strict_dominance():
    """E8: [[1, 1], [1, 1]] is dominant without strictness, and singular; the construction stays away from it."""
    ones = torch.ones(2, 2, dtype=torch.float64)
    assert (ones.diagonal() >= ones.sum(1) - 1).all()
    assert torch.linalg.matrix_rank(ones) == 1
    s = block_dominant_covariance(ones[0], torch.tensor([1.0], dtype=torch.float64), [1, 1], epsilon=0.99)
    assert torch.linalg.eigvalsh(s)[0] > 0.0099
    with pytest.raises(ValueError, match="epsilon"):
        block_dominant_covariance(ones[0], ones[0, :1], [1, 1], epsilon=1.0)


@pytest.mark.parametrize("form", ["block", "element"])
def test_common_correlation_is_bounded(form):
    """E17: at most ε / (M - 1) = 0.3 among four components; 0.9 is out of reach, also when optimised for."""
    ones = torch.ones(4, dtype=torch.float64)
    s = block_dominant_covariance(ones, torch.full((6,), 0.9, dtype=torch.float64), [1] * 4, form=form)
    torch.testing.assert_close(s, 0.7 * torch.eye(4, dtype=torch.float64) + 0.3, atol=1e-5, rtol=0)
    sizes, g = [2] * 4, torch.Generator().manual_seed(0)
    log_variance = torch.randn(16, 8, generator=g, dtype=torch.float64, requires_grad=True)
    cross = torch.randn(16, 24, generator=g, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([log_variance, cross], lr=0.1)
    for _ in range(150):
        s = block_dominant_covariance(log_variance.exp(), cross, sizes, form=form)
        first = (
            s[:, ::2, ::2]
            * (-log_variance[:, ::2] / 2).exp().unsqueeze(-1)
            * (-log_variance[:, ::2] / 2).exp().unsqueeze(-2)
        )
        mean_correlation = (first.sum((-2, -1)) - 4) / 12
        optimiser.zero_grad()
        (-mean_correlation.sum()).backward()
        optimiser.step()
    assert mean_correlation.max() <= 0.3 + 1e-9
    assert mean_correlation.median() > 0.29


@pytest.mark.parametrize("sizes", [[1, 1, 1], [2, 2, 2], [3, 3], [1, 2, 3]])
@pytest.mark.parametrize("kind", ["blocks", "variances"])
def test_gradients_are_finite_at_degenerate_points(sizes, kind):
    """Zero blocks, repeated singular values and repeated eigenvalues."""
    n = num_cross_entries(sizes)
    identity = torch.zeros(n)
    identity[: sizes[0] * sizes[1]] = torch.eye(sizes[0], sizes[1]).flatten()
    for value in (torch.zeros(n), identity, torch.full((n,), 1e-30), torch.full((n,), 1e6)):
        for form in ("block", "element") if kind == "variances" else ("block",):
            cross = value.clone().requires_grad_()
            diagonal = torch.ones(sum(sizes), requires_grad=True)
            blocks = [torch.diag(v) for v in diagonal.split(sizes)] if kind == "blocks" else diagonal
            factor = block_dominant_scale_tril(blocks, cross, sizes, form=form)
            grads = torch.autograd.grad(factor.square().log1p().sum() + factor.sum(), [cross, diagonal])
            assert all(x.isfinite().all() for x in grads)


@pytest.mark.parametrize(
    ("sizes", "form", "kind"),
    [
        ([2, 2, 2], "block", "variances"),
        ([2, 2, 2], "block", "blocks"),
        ([1, 3, 2], "block", "blocks"),
        ([1, 3, 2], "element", "variances"),
    ],
)
def test_gradcheck(sizes, form, kind):
    g = torch.Generator().manual_seed(5)
    diagonal, cross = random_case(2, sizes, g, kind)
    flat = [x.requires_grad_() for x in (diagonal if kind == "blocks" else [diagonal])]

    def function(cross, *flat):
        return block_dominant_covariance(list(flat) if kind == "blocks" else flat[0], cross, sizes, form=form)

    def factor(cross, *flat):
        return block_dominant_scale_tril(list(flat) if kind == "blocks" else flat[0], cross, sizes, form=form)

    cross = (cross / 10).requires_grad_()
    assert torch.autograd.gradcheck(function, (cross, *flat))
    assert torch.autograd.gradcheck(factor, (cross, *flat), atol=1e-4)


def test_errors_name_the_argument():
    v, c = torch.ones(4), torch.ones(4)
    for match, call in {
        "off_diagonal has 2": lambda: cholesky_scale_tril(torch.zeros(3), torch.zeros(2)),
        "mask must be boolean": lambda: cholesky_scale_tril(torch.zeros(3), torch.zeros(3), torch.ones(3)),
        "fraction": lambda: random_mask(3, 1.5, seed=0),
        "entries must": lambda: off_diagonal_mask([1, 2], 0.5, seed=0, entries="within"),
        "cross has 3 entries": lambda: block_dominant_covariance(v, torch.ones(3), [2, 2]),
        "diagonal has shape": lambda: block_dominant_covariance(torch.ones(3), c, [2, 2]),
        "diagonal blocks have shapes": lambda: block_dominant_covariance([torch.eye(2), torch.eye(3)], c, [2, 2]),
        "element form takes variances": lambda: block_dominant_covariance(
            [torch.eye(2)] * 2, c, [2, 2], form="element"
        ),
        "form must": lambda: block_dominant_covariance(v, c, [2, 2], form="row"),
        "delta positive": lambda: block_dominant_covariance(v, c, [2, 2], delta=0.0),
        "positive variances": lambda: block_dominant_covariance(-v, c, [2, 2]),
        "positive definite blocks": lambda: block_dominant_covariance([-torch.eye(2)] * 2, c, [2, 2]),
        "not positive definite in torch.float32 for 1 of 1": lambda: block_dominant_scale_tril(
            v, c * torch.nan, [2, 2]
        ),
        "block_sizes must be positive": lambda: as_block_sizes([2, 0]),
        "block_sizes must be positive integers, got": lambda: as_block_sizes({"a": 1.5}),
    }.items():
        with pytest.raises(ValueError, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)

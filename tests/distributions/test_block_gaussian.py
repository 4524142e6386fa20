import copy
import itertools
import math
import pickle
import re

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.covariance import cholesky_scale_tril

SIZES = {"a": 2, "b": 1, "c": 3, "d": 2}
SUBSETS = [s for k in range(1, 4) for s in itertools.combinations(SIZES, k)]


def make(seed=0, batch=(), scale_batch=None, sizes=SIZES, dtype=torch.float64, **kwargs) -> BlockGaussian:
    g, dim = torch.Generator().manual_seed(seed), sum(sizes.values())
    scale_batch = batch if scale_batch is None else scale_batch
    log_diagonal = 0.3 * torch.randn(*scale_batch, dim, generator=g, dtype=dtype)
    off = 0.5 * torch.randn(*scale_batch, dim * (dim - 1) // 2, generator=g, dtype=dtype)
    mean = torch.randn(*batch, dim, generator=g, dtype=dtype)
    return BlockGaussian(mean, cholesky_scale_tril(log_diagonal, off), sizes, **kwargs)


def normal(p: BlockGaussian) -> MultivariateNormal:
    return MultivariateNormal(p.mean, scale_tril=p.scale_tril)


def columns(names) -> list[int]:
    starts = dict(zip(SIZES, [0, 2, 3, 6], strict=True))
    return [starts[n] + k for n in names for k in range(SIZES[n])]


def draw(*shape, seed=1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BATCHES = [((), ()), ((4,), ()), ((), (4,)), ((4,), (4,)), ((3, 4), (4,)), ((3, 1), (4,))]


@pytest.mark.parametrize(("batch", "scale_batch"), BATCHES)
@pytest.mark.parametrize("sample_shape", [(), (5,), (2, 5)])
def test_agrees_with_multivariate_normal(batch, scale_batch, sample_shape):
    p = make(batch=batch, scale_batch=scale_batch)
    q = normal(p)
    assert p.batch_shape == q.batch_shape == torch.broadcast_shapes(batch, scale_batch)
    assert p.event_shape == q.event_shape == (8,)
    assert p.has_rsample
    for name in ("mean", "mode", "variance", "stddev", "covariance_matrix", "precision_matrix", "scale_tril"):
        torch.testing.assert_close(getattr(p, name), getattr(q, name))
    torch.testing.assert_close(p.entropy(), q.entropy())
    z = p.sample(sample_shape, torch.Generator().manual_seed(0))
    assert z.shape == (*sample_shape, *p.batch_shape, 8)
    torch.testing.assert_close(p.log_prob(z), q.log_prob(z))
    torch.testing.assert_close(p.log_prob(draw(8)), q.log_prob(draw(8)))
    assert torch.equal(p.covariance_matrix, p.covariance_matrix.mT)
    assert torch.equal(p.precision_matrix, p.precision_matrix.mT)


def test_log_prob_and_entropy_agree_with_scipy():
    p, z = make(), draw(100, 8)
    reference = scipy.stats.multivariate_normal(p.mean.numpy(), p.covariance_matrix.numpy())
    torch.testing.assert_close(p.log_prob(z), torch.from_numpy(reference.logpdf(z.numpy())))
    assert p.entropy().item() == pytest.approx(reference.entropy())


def test_log_prob_and_kl_gradients():
    mean, other = draw(3, 4).requires_grad_(), draw(4, seed=2).requires_grad_()
    scale = (draw(3, 4, 4, seed=3).tril(-1) + 2 * torch.eye(4)).requires_grad_()
    prior = (draw(4, 4, seed=4).tril(-1) + torch.eye(4)).requires_grad_()

    def function(mean, scale, other, prior):
        p = BlockGaussian(mean, scale.tril(), [2, 2], validate_args=False)
        q = BlockGaussian(other, prior.tril(), [2, 2], validate_args=False)
        value = q.condition({1: mean[:, 2:]})
        return (
            p.log_prob(mean + 1),
            q.log_prob(mean),
            kl_divergence(p, q),
            kl_divergence(q, p),
            value.mean,
            value.scale_tril,
            p.marginal([1]).scale_tril,
            p.condition({1: mean[:, 2:]}).scale_tril,
        )

    assert torch.autograd.gradcheck(function, (mean, scale, other, prior))


@pytest.mark.parametrize("observed", SUBSETS)
@pytest.mark.parametrize(("batch", "scale_batch"), [((), ()), ((4,), (4,)), ((4,), ())])
def test_condition_is_equation_9(observed, batch, scale_batch):
    p = make(batch=batch, scale_batch=scale_batch)
    rest = [n for n in SIZES if n not in observed]
    i, j = columns(rest), columns(observed)
    given = {n: draw(6, 4, SIZES[n], seed=k) for k, n in enumerate(observed)}
    if len(observed) > 1:
        given[observed[0]] = given[observed[0]][:, :1]  # leading shapes broadcast
    c = p.condition(dict(reversed(given.items())))
    s = p.covariance_matrix
    gain = s[..., i, :][..., j] @ s[..., j, :][..., j].inverse()
    z = torch.cat([x.expand(6, 4, -1) for x in given.values()], -1)
    mean = p.mean[..., i] + (gain @ (z - p.mean[..., j]).unsqueeze(-1)).squeeze(-1)
    covariance = s[..., i, :][..., i] - gain @ s[..., j, :][..., i]
    assert list(c.block_sizes) == rest
    assert c.batch_shape == (6, 4)
    torch.testing.assert_close(c.mean, mean)
    torch.testing.assert_close(c.covariance_matrix, covariance.expand(6, 4, -1, -1))
    assert torch.equal(c.covariance_matrix, c.covariance_matrix.mT)
    assert not c.scale_tril.triu(1).any()
    assert (c.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()


@pytest.mark.parametrize("observed", SUBSETS)
def test_chain_rule(observed):
    p = make(batch=(4,))
    z = p.sample((10,), torch.Generator().manual_seed(0))
    blocks = p.split(z)
    rest = [n for n in SIZES if n not in observed]
    c = p.condition({n: blocks[n] for n in observed})
    m = p.marginal(reversed(observed))
    assert list(m.block_sizes) == list(observed)
    total = m.log_prob(m.join({n: blocks[n] for n in observed})) + c.log_prob(c.join({n: blocks[n] for n in rest}))
    torch.testing.assert_close(total, p.log_prob(z))
    torch.testing.assert_close(
        m.covariance_matrix, p.covariance_matrix[..., columns(observed), :][..., columns(observed)]
    )


def test_conditioning_is_accurate_where_the_covariance_is_nearly_singular():
    """In float32, correlation 1 - 5e-7 between the blocks: a difference of covariances would keep no digit."""
    scale = torch.tensor([[1.0, 0.0], [1.0, 1e-3]])
    c = BlockGaussian(torch.zeros(2), scale, [1, 1]).condition({1: torch.tensor([2.0])})
    torch.testing.assert_close(c.variance, torch.tensor([1e-6 / (1 + 1e-6)]), rtol=1e-4, atol=0)
    torch.testing.assert_close(c.mean, torch.tensor([2.0 / (1 + 1e-6)]))


@pytest.mark.parametrize("p_batch", BATCHES)
@pytest.mark.parametrize("q_batch", BATCHES)
def test_kl_agrees_with_multivariate_normal(p_batch, q_batch):
    p, q = make(0, *p_batch), make(1, *q_batch)
    torch.testing.assert_close(kl_divergence(p, q), kl_divergence(normal(p), normal(q)))
    assert kl_divergence(p, p).abs().max() < 1e-12


def test_kl_and_entropy_agree_with_monte_carlo():
    p, q = make(0), make(1)
    z = p.sample((200_000,), torch.Generator().manual_seed(0))
    for exact, draws in ((kl_divergence(p, q), p.log_prob(z) - q.log_prob(z)), (p.entropy(), -p.log_prob(z))):
        assert abs(exact - draws.mean()) < 4 * draws.std() / math.sqrt(len(z))


def test_kl_of_different_blocks_is_an_error():
    p = make()
    for sizes in ({"a": 1, "b": 2, "c": 3, "d": 2}, {"x": 2, "b": 1, "c": 3, "d": 2}, {"b": 1, "a": 2, "c": 3, "d": 2}):
        with pytest.raises(ValueError, match="differ"):
            kl_divergence(p, make(sizes=sizes))


def test_rsample_moments_determinism_and_global_state():
    p = make(batch=(2,), scale_batch=(2,))
    state = torch.get_rng_state()
    z = p.sample((100_000,), torch.Generator().manual_seed(0))
    assert torch.equal(z, p.rsample((100_000,), torch.Generator().manual_seed(0)))
    assert not torch.equal(z[:10], p.sample((10,), torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), state)
    error = 5 * p.stddev / math.sqrt(len(z))
    assert ((z.mean(0) - p.mean).abs() < error).all()
    for k in range(2):
        scale = p.stddev[k].unsqueeze(-1) * p.stddev[k]
        assert ((z[:, k].T.cov() - p.covariance_matrix[k]).abs() < 5 * scale * math.sqrt(2 / len(z))).all()


def test_rsample_is_differentiable_and_sample_is_not():
    mean = torch.zeros(3, requires_grad=True)
    p = BlockGaussian(mean, torch.eye(3), [1, 2])
    p.rsample((7,), torch.Generator().manual_seed(0)).sum().backward()
    assert torch.equal(mean.grad, torch.full((3,), 7.0))
    assert not p.sample((7,), torch.Generator().manual_seed(0)).requires_grad


def test_global_generator_is_used_without_a_generator():
    p = make(dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        z = p.sample((3,))
    assert torch.equal(z, p.sample((3,), torch.Generator().manual_seed(5)))


def test_expand():
    p = make(batch=(4,), scale_batch=(), validate_args=False)
    e = p.expand((3, 4))
    assert e.batch_shape == (3, 4)
    assert e.block_sizes == p.block_sizes
    assert e._validate_args is False
    z = draw(3, 4, 8)
    torch.testing.assert_close(e.log_prob(z), p.log_prob(z))
    torch.testing.assert_close(kl_divergence(e, make(1)), kl_divergence(p, make(1)).expand(3, 4))
    assert e.entropy().shape == (3, 4)
    assert e.condition({"a": z[..., :2]}).batch_shape == (3, 4)
    with pytest.raises(RuntimeError, match="expand"):
        p.expand((3,))


def test_split_and_join_are_inverse():
    p, z = make(), draw(5, 3, 8)
    blocks = p.split(z)
    assert {n: tuple(x.shape) for n, x in blocks.items()} == {n: (5, 3, d) for n, d in SIZES.items()}
    assert torch.equal(p.join(dict(reversed(blocks.items()))), z)
    blocks["a"] = blocks["a"][:1]
    assert torch.equal(p.join(blocks)[..., 2:], z[..., 2:])


def test_sequence_of_sizes_copy_pickle_and_repr():
    p = BlockGaussian(torch.zeros(3), torch.eye(3), [1, 2])
    assert p.block_sizes == {0: 1, 1: 2}
    assert repr(p) == "BlockGaussian(batch_shape=(), block_sizes={0: 1, 1: 2})"
    for q in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert torch.equal(q.log_prob(torch.ones(3)), p.log_prob(torch.ones(3)))


def test_from_covariance():
    p = make(batch=(4,))
    q = BlockGaussian.from_covariance(p.mean, p.covariance_matrix, SIZES)
    torch.testing.assert_close(q.scale_tril, p.scale_tril)


def test_validation_can_be_switched_off():
    bad = torch.full((2,), torch.nan)
    p = BlockGaussian(bad, torch.eye(2), [1, 1], validate_args=False)
    assert p.log_prob(torch.zeros(2)).isnan()
    assert p.marginal([1]).mean.isnan().all()
    assert p.condition({0: bad[:1]}).mean.isnan().all()


def test_errors_are_one_line_and_name_the_parameter():
    p, eye, zeros = make(), torch.eye(2), torch.zeros(2)
    for match, call in {
        "mean has shape (3,)": lambda: BlockGaussian(torch.zeros(3), torch.eye(3), {"a": 2, "b": 2}),
        "scale_tril has shape (3, 3)": lambda: BlockGaussian(zeros, torch.eye(3), [1, 1]),
        "mean (5,), scale_tril (4,)": lambda: BlockGaussian(zeros.expand(5, 2), eye.expand(4, 2, 2), [1, 1]),
        "block_sizes must be positive": lambda: BlockGaussian(zeros, eye, [2, 0]),
        "mean of shape (2,) has NaN": lambda: BlockGaussian(zeros * torch.nan, eye, [1, 1]),
        "scale_tril of shape (2, 2) has NaN": lambda: BlockGaussian(zeros, eye * torch.inf, [1, 1]),
        "is not lower triangular": lambda: BlockGaussian(zeros, torch.ones(2, 2), [1, 1]),
        "scale_tril of shape (2, 2) has non-positive": lambda: BlockGaussian(zeros, -eye, [1, 1]),
        "covariance of shape (2, 2) is not positive": lambda: BlockGaussian.from_covariance(zeros, -eye, [1, 1]),
        "is not symmetric": lambda: BlockGaussian.from_covariance(zeros, torch.ones(2, 2).tril(), [1, 1]),
        "covariance_matrix must be square": lambda: BlockGaussian.from_covariance(zeros, zeros, [1, 1]),
        "value has shape (5, 7)": lambda: p.log_prob(draw(5, 7)),
        "value of shape (8,) has NaN": lambda: p.log_prob(draw(8) * torch.nan),
        "z has shape (7,)": lambda: p.split(draw(7)),
        "blocks ['b', 'c', 'd'] are missing": lambda: p.join({"a": draw(2)}),
        "unknown blocks ['x']": lambda: p.marginal(["a", "x"]),
        "unknown blocks ['y']": lambda: p.condition({"y": draw(2)}),
        "no block is named": lambda: p.condition({}),
        "no block is named;": lambda: p.marginal([]),
        "none remains": lambda: p.condition(p.split(draw(8))),
        "block 'a' has shape (3,), size 2": lambda: p.condition({"a": draw(3)}),
        "the values of blocks ['a'] have NaN": lambda: p.condition({"a": draw(2) * torch.nan}),
        "block 'a' (4,), block 'b' (5,)": lambda: p.condition({"a": draw(4, 2), "b": draw(5, 1)}),
        "the values (5,)": lambda: make(batch=(4,)).condition({"a": draw(5, 2)}),
        "p (4,), q (5,)": lambda: kl_divergence(make(batch=(4,)), make(batch=(5,))),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)

import itertools
import math
import re

import pytest
import torch
from torch import Tensor

from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.pairwise_mrf import PairwiseMRF
from repro.networks.potentials import PairwisePotential, UnaryPotential
from tests.support.fields import QuadraticField, double_well, quadratic_field

SIZES = {"a": 2, "b": 1, "c": 2}
SUBSETS = [s for k in (1, 2) for s in itertools.combinations(SIZES, k)]


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_moments(draws: Tensor, diagnostics, exact: BlockGaussian, errors: float = 4.5) -> None:
    """Means, variances and products against a Gaussian, in standard errors from effective sample sizes."""
    flat = draws.flatten(0, 1)
    size = diagnostics.effective_sample_size
    assert ((flat.mean(0) - exact.mean).abs() < errors * exact.stddev / size.sqrt()).all()
    centred = flat - exact.mean
    # Products of two coordinates decorrelate no slower than the slowest of the coordinates.
    least = size.amin(-1)[..., None, None]
    scale = exact.stddev.unsqueeze(-1) * exact.stddev.unsqueeze(-2)
    covariance = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).mean(0)
    assert ((covariance - exact.covariance_matrix).abs() < errors * scale * (2 / least).sqrt()).all()


@pytest.mark.parametrize("confinement", [None, 1.5])
def test_log_density_is_the_gaussian_s_with_its_constant(confinement):
    field = quadratic_field(SIZES)
    mrf, z = field.mrf(confinement), draw(7, 3, 5)
    expected = field.gaussian(confinement).log_prob(z) + field.log_partition(confinement)
    torch.testing.assert_close(mrf.log_prob_unnormalized(z), expected)
    torch.testing.assert_close(mrf.energy(z), -expected)
    assert mrf.batch_shape == ()
    assert mrf.event_shape == (5,)


def test_the_sum_is_over_every_block_and_every_pair_once_and_is_not_exponentiated_twice():
    """Erratum E7: potentials enter the exponent as they are."""
    z = draw(4, 5)
    a, b, c = z.split([2, 1, 2], -1)

    def unary(blocks, positions):
        return torch.stack([(k + 1) * x.sum(-1) for x, k in zip(blocks, positions, strict=True)], -1)

    def pairwise(left, right, pairs):
        triples = zip(left, right, pairs, strict=True)
        return torch.stack([10**i * x.sum(-1) * (j * y).sum(-1) for x, y, (i, j) in triples], -1)

    mrf = PairwiseMRF(unary, pairwise, SIZES, confinement=2.0)
    a, b, c = a.sum(-1), b.sum(-1), c.sum(-1)
    expected = a + 2 * b + 3 * c + a * b + 2 * a * c + 20 * b * c - z.square().sum(-1) / 8
    torch.testing.assert_close(mrf.log_prob_unnormalized(z), expected)


def test_potentials_are_evaluated_in_one_call_each():
    field = quadratic_field(SIZES)
    field.mrf().energy(draw(6, 5))
    assert field.unary_calls == [[0, 1, 2]]
    assert field.pairwise_calls == [[(0, 1), (0, 2), (1, 2)]]


@pytest.mark.parametrize("name", SIZES)
def test_local_terms_are_those_that_involve_the_block_and_only_they_are_evaluated(name):
    field = quadratic_field(SIZES)
    mrf, z = field.mrf(2.0), draw(6, 5)
    expected = mrf.terms(z)[..., mrf.term_indices(name)]
    field.unary_calls.clear(), field.pairwise_calls.clear()
    torch.testing.assert_close(mrf.local_terms(z, name), expected)
    k = list(SIZES).index(name)
    assert field.unary_calls == [[k]]
    assert field.pairwise_calls == [[(i, j) for i, j in [(0, 1), (0, 2), (1, 2)] if k in (i, j)]]
    changed = z.clone()
    start = sum(list(SIZES.values())[:k])
    changed[..., start : start + SIZES[name]] += 1
    others = [t for t in range(6) if t not in mrf.term_indices(name)]
    torch.testing.assert_close(mrf.terms(changed)[..., others], mrf.terms(z)[..., others])


@pytest.mark.parametrize("observed", SUBSETS)
def test_the_clamped_field_is_the_exact_gaussian_conditional(observed):
    field = quadratic_field(SIZES)
    given = {n: draw(4, SIZES[n], seed=k) for k, n in enumerate(observed)}
    given[observed[0]] = given[observed[0]][:1]  # leading shapes broadcast
    clamped = field.mrf(1.5).condition(dict(reversed(given.items())))
    exact = field.gaussian(1.5).condition(given)
    assert clamped.block_sizes == exact.block_sizes
    assert clamped.batch_shape == exact.batch_shape
    z = draw(50, *clamped.batch_shape, *clamped.event_shape)
    difference = clamped.log_prob_unnormalized(z) - exact.log_prob(z)
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))
    for name in clamped.block_sizes:
        torch.testing.assert_close(clamped.local_terms(z, name), clamped.terms(z)[..., clamped.term_indices(name)])


def test_conditioning_twice_is_conditioning_once_and_positions_stay():
    field = quadratic_field(SIZES)
    given, z = {"a": draw(4, 2), "c": draw(2, seed=2)}, draw(9, 4, 1)
    once = field.mrf(2.0).condition(given)
    twice = field.mrf(2.0).condition({"c": given["c"]}).condition({"a": given["a"]})
    torch.testing.assert_close(twice.energy(z), once.energy(z))
    assert field.unary_calls[-1] == [1]
    assert field.pairwise_calls[-1] == [(0, 1), (1, 2)]
    assert repr(once) == "PairwiseMRF(batch_shape=(4,), block_sizes={'b': 1}, clamped=['a', 'c'])"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_samples_have_the_gaussian_s_moments(sampler):
    field = quadratic_field(SIZES, coupling=0.4)
    steps = {"metropolis": 900, "mala": 300}[sampler]
    state = torch.get_rng_state()
    draws, diagnostics = field.mrf(3.0).sample(
        sampler=sampler,
        num_chains=200,
        num_steps=steps,
        burn_in=steps // 3,
        thinning=3,
        initial=2 * draw(200, 5),
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert draws.shape == (steps // 3, 200, 5)
    assert (diagnostics.effective_sample_size > 2000).all()
    assert (diagnostics.r_hat < 1.06).all()
    assert_moments(draws, diagnostics, field.gaussian(3.0))
    target = torch.tensor({"metropolis": [0.234, 0.44, 0.234], "mala": [0.574]}[sampler]).mean()
    assert abs(diagnostics.acceptance_rate.mean() - target) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_samples_of_the_clamped_field_follow_each_observation(sampler):
    field = quadratic_field(SIZES, coupling=0.4)
    given = {"b": torch.tensor([[-2.0], [2.0]], dtype=torch.float64)}
    draws, diagnostics = (
        field.mrf()
        .condition(given)
        .sample(
            sampler=sampler,
            num_chains=100,
            num_steps=400,
            burn_in=200,
            initial=2 * draw(100, 2, 4),
            generator=torch.Generator().manual_seed(1),
        )
    )
    exact = field.gaussian().condition(given)
    assert draws.shape == (400, 100, 2, 4)
    assert (exact.mean[0] - exact.mean[1]).abs().max() > 0.5
    assert_moments(draws, diagnostics, exact)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_samples_of_a_bimodal_field_agree_with_quadrature(sampler):
    """Two wells in each of two blocks, coupled; no Gaussian has this."""
    mrf = double_well()
    grid = torch.linspace(-4, 4, 801, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    weights = mrf.log_prob_unnormalized(points).softmax(0)
    draws, diagnostics = mrf.sample(
        sampler=sampler,
        num_chains=300,
        num_steps=600,
        burn_in=200,
        thinning=3,
        initial=draw(300, 2),
        generator=torch.Generator().manual_seed(0),
    )
    size = diagnostics.effective_sample_size.min()
    assert size > 500
    for statistic in (lambda z: z[..., 0], lambda z: z.prod(-1), lambda z: z[..., 1].square()):
        values, exact = statistic(points), statistic(draws)
        mean = (weights * values).sum()
        deviation = ((weights * values.square()).sum() - mean.square()).sqrt()
        assert abs(exact.mean() - mean) < 4.5 * deviation / size.sqrt()


def test_a_field_of_one_block_needs_no_pairs():
    def refuse(left, right, pairs):
        raise AssertionError("there are no pairs")

    mrf = PairwiseMRF(
        lambda blocks, positions: -blocks[0].square().sum(-1, keepdim=True) / 2, refuse, [2], confinement=None
    )
    draws, _ = mrf.sample(num_chains=10, num_steps=5, generator=torch.Generator().manual_seed(0))
    assert draws.isfinite().all()
    assert draws.dtype == torch.float32


@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_sampling_is_determined_by_the_generator(sampler):
    mrf = quadratic_field(SIZES).mrf()

    def run(seed):
        return mrf.sample(
            sampler=sampler,
            num_chains=5,
            num_steps=30,
            burn_in=20,
            initial=draw(5, 5),
            generator=torch.Generator().manual_seed(seed),
        )

    (z, one), (same, two) = run(0), run(0)
    assert torch.equal(z, same)
    assert torch.equal(one.step_size, two.step_size)
    assert not torch.equal(z, run(1)[0])
    assert not z.requires_grad


@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_neural_potentials_are_sampled_and_their_samples_train_them(sampler):
    """Eq. 38: the gradient of ln Z is the mean gradient over samples; samples enter a backward pass."""
    torch.manual_seed(0)
    unary, pairwise = UnaryPotential(2, 3, widths=(16, 16)), PairwisePotential(2, 3, widths=(16, 16))
    mrf = PairwiseMRF(unary, pairwise, [2, 2, 2], confinement=1.0)
    settings = {"sampler": sampler, "num_chains": 20, "num_steps": 40, "burn_in": 40}
    with torch.inference_mode():
        draws, diagnostics = mrf.sample(**settings, generator=torch.Generator().manual_seed(0))
    assert draws.isfinite().all()
    assert diagnostics.acceptance_rate.mean() > 0.1
    draws, _ = mrf.sample(**settings, generator=torch.Generator().manual_seed(0))
    mrf.energy(draws).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*unary.parameters(), *pairwise.parameters()])


def broken(where: str, value: float) -> PairwiseMRF:
    """One potential that is not a number where the first coordinate is positive."""

    def spoil(values: Tensor, k: int, x: Tensor) -> Tensor:
        values = values.clone()
        values[..., k] = torch.where(x[..., 0] > 0, value, values[..., k])
        return values

    field = quadratic_field(SIZES)

    def unary(blocks, positions):
        values = field.unary(blocks, positions)
        return spoil(values, positions.index(2), blocks[-1]) if where == "unary" and 2 in positions else values

    def pairwise(left, right, pairs):
        values = field.pairwise(left, right, pairs)
        k = pairs.index((0, 2)) if (0, 2) in pairs else None
        return spoil(values, k, left[k]) if where == "pairwise" and k is not None else values

    return PairwiseMRF(unary, pairwise, SIZES, confinement=None)


@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("where", "named"),
    [("unary", "unary potential of block 'c'"), ("pairwise", "pairwise potential of blocks 'a' and 'c'")],
)
def test_potentials_that_are_not_numbers_are_an_error_that_names_them(sampler, value, where, named):
    mrf = broken(where, value)
    with pytest.raises(ValueError, match=re.escape(f"{named} is NaN or +inf at 3 of 4 points")):
        mrf.energy(torch.tensor([[1.0] * 5, [-1.0] * 5, [2.0] * 5, [3.0] * 5], dtype=torch.float64))
    # The chains start where all is well, and walk into it.
    with pytest.raises(ValueError, match=re.escape(f"{named} is NaN")):
        mrf.sample(
            sampler=sampler,
            num_chains=4,
            num_steps=500,
            initial=-draw(4, 5).abs(),
            generator=torch.Generator().manual_seed(0),
        )


@pytest.mark.parametrize("sampler", ["metropolis", "mala"])
def test_a_density_of_zero_is_a_wall(sampler):
    """A Gaussian cut to the positive half-line: its mean is sqrt(2 / pi)."""

    def unary(blocks, positions):
        inside = blocks[0].detach() > 0
        return torch.where(inside, -blocks[0].square() / 2, -torch.inf)

    mrf = PairwiseMRF(unary, QuadraticField, [1], confinement=None)
    draws, diagnostics = mrf.sample(
        sampler=sampler,
        num_chains=100,
        num_steps=300,
        burn_in=100,
        initial=draw(100, 1).abs(),
        generator=torch.Generator().manual_seed(0),
    )
    assert (draws > 0).all()
    error = math.sqrt(1 - 2 / math.pi) / diagnostics.effective_sample_size.sqrt()
    assert abs(draws.mean() - math.sqrt(2 / math.pi)) < 4.5 * error
    with pytest.raises(ValueError, match="zero density for 100 of 100 chains"):
        mrf.sample(sampler=sampler, num_chains=100, num_steps=1, initial=-draw(100, 1).abs())


def test_split_and_join_are_inverse():
    mrf, z = quadratic_field(SIZES).mrf(), draw(3, 5)
    assert torch.equal(mrf.join(dict(reversed(mrf.split(z).items()))), z)


def test_errors_are_one_line_and_name_the_parameter():
    field = quadratic_field(SIZES)
    mrf = field.mrf()

    def shapeless(blocks, positions):
        return blocks[0]

    for match, call in {
        "confinement is 0, must be positive": lambda: field.mrf(0),
        "confinement is nan": lambda: field.mrf(math.nan),
        "block_sizes must be positive": lambda: PairwiseMRF(field.unary, field.pairwise, [0], confinement=None),
        "z has shape (4,)": lambda: mrf.energy(draw(4)),
        "z has NaN entries in block 'b'": lambda: mrf.energy(torch.tensor([0, 0, math.nan, 0, 0]).double()),
        "have shape (3, 2), (3, 3) is needed": lambda: PairwiseMRF(
            shapeless, field.pairwise, SIZES, confinement=None
        ).energy(draw(3, 5)),
        "unknown blocks ['x']": lambda: mrf.condition({"x": draw(2)}),
        "no block is named": lambda: mrf.condition({}),
        "none remains": lambda: mrf.condition(mrf.split(draw(5))),
        "block 'a' has shape (3,), size 2": lambda: mrf.condition({"a": draw(3)}),
        "the values of block 'a' have NaN": lambda: mrf.condition({"a": draw(2) * math.nan}),
        "block 'a' (4,), block 'b' (5,)": lambda: mrf.condition({"a": draw(4, 2), "b": draw(5, 1)}),
        "z (3,), the clamped blocks (4,)": lambda: mrf.condition({"a": draw(4, 2)}).energy(draw(3, 3)),
        "unknown blocks ['a']": lambda: mrf.condition({"a": draw(2)}).local_terms(draw(3), "a"),
        "blocks ['b', 'c'] are missing": lambda: mrf.join({"a": draw(2)}),
        "sampler is 'gibbs'": lambda: mrf.sample(sampler="gibbs", num_chains=1, num_steps=1),
        "num_chains is 0": lambda: mrf.sample(num_chains=0, num_steps=1),
        "initial has shape (2, 5), (3, 5) is needed": lambda: mrf.sample(num_chains=3, num_steps=1, initial=draw(2, 5)),
        "initial of shape (3, 5) must be finite": lambda: mrf.sample(
            num_chains=3, num_steps=1, initial=draw(3, 5) * math.nan
        ),
        "num_steps 0, burn_in 0 and thinning 1": lambda: mrf.sample(num_chains=1, num_steps=0),
        "num_steps 2, burn_in 0 and thinning 3": lambda: mrf.sample(num_chains=1, num_steps=2, thinning=3),
        "step_size is -1": lambda: mrf.sample(num_chains=1, num_steps=1, step_size=-1),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)

"""log K_ν and its ratios against arbitrary precision, scipy, closed forms and finite differences."""

from __future__ import annotations

import math
import re

import mpmath
import pytest
import scipy.special
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from repro.distributions.bessel import bessel_k_ratio, log_bessel_k, log_scaled_bessel_k, scaled_bessel_k_ratio

ORDERS = [0, 0.5, 1, 1.5, 2, 3, -3, -2.5, 0.3, -0.7, 7.3, 20, 99.5, 100, -100]
ARGUMENTS = [1e-12, 1e-6, 1e-2, 0.5, 1.9999, 2.0, 8.1, 50.0, 1e3, 1e4]


def points(values=ARGUMENTS, dtype=torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def exact_log(order: float, x: float) -> float:
    with mpmath.workdps(25):
        return float(mpmath.log(mpmath.besselk(order, x)))


@pytest.mark.parametrize("order", ORDERS)
def test_agrees_with_arbitrary_precision_over_the_whole_range(order):
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 3e-6)):
        x = points(dtype=dtype)
        exact = points([exact_log(order, v) for v in x.tolist()])
        above = points([exact_log(order + 1, v) for v in x.tolist()])
        torch.testing.assert_close(log_bessel_k(order, x).double(), exact, rtol=tolerance, atol=tolerance)
        ratio = (above - exact).exp()
        torch.testing.assert_close(bessel_k_ratio(order, x).double(), ratio, rtol=max(tolerance, 1e-11), atol=0)


def test_agrees_with_scipy_where_scipy_does_not_overflow():
    x = torch.logspace(-2, 3, 200, dtype=torch.float64)
    for order in (0, 1, 2.5, 3, 0.2, 12.7):
        expected = scipy.special.kve(order, x.numpy())
        torch.testing.assert_close(log_bessel_k(order, x), torch.from_numpy(expected).log() - x, rtol=1e-12, atol=1e-12)
    assert math.isinf(scipy.special.kve(100, 1e-12))
    assert log_bessel_k(100, points([1e-12])).isfinite().all()


def test_closed_forms_of_half_integers():
    x = points([1e-3, 0.7, 30.0])
    half = 0.5 * (math.pi / (2 * x)).log() - x
    torch.testing.assert_close(log_bessel_k(0.5, x), half)
    torch.testing.assert_close(log_bessel_k(-1.5, x), half + (1 + 1 / x).log())
    torch.testing.assert_close(bessel_k_ratio(0.5, x), 1 + 1 / x)
    torch.testing.assert_close(bessel_k_ratio(-0.5, x), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("function", [log_bessel_k, bessel_k_ratio])
def test_orders_in_a_tensor_are_taken_element_by_element(function):
    orders, x = points([0, 0.5, 1, -2.5, 0.3, 7.3]), points([0.2, 3.0, 40.0]).unsqueeze(-1)
    expected = torch.stack([function(v, x.squeeze(-1)) for v in orders.tolist()], -1)
    torch.testing.assert_close(function(orders, x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(function(orders[1:2], x), expected[:, 1:2])
    assert function(orders[:0], x).shape == (3, 0)


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 2.0, -3.0, 0.3, -0.7, points([0, 0.5, 1.2, -2.5])])
@pytest.mark.parametrize("function", [log_bessel_k, bessel_k_ratio, log_scaled_bessel_k, scaled_bessel_k_ratio])
def test_gradients_of_first_and_second_degree(function, order):
    x = points([0.05, 0.4, 1.9, 30.0]).requires_grad_()
    assert gradcheck(lambda x: function(order, x), (x,), eps=1e-6, atol=1e-6, rtol=1e-5)
    assert gradgradcheck(lambda x: function(order, x), (x,), eps=1e-6, atol=1e-5, rtol=1e-4)


def test_gradient_keeps_its_digits_at_small_arguments():
    """d ln K_ν / dx is −ν/x there, where a difference of neighbouring orders' terms would cancel."""
    for order in (1.0, 2.5, 100.0):
        x = points([1e-12, 1e-8]).requires_grad_()
        (slope,) = torch.autograd.grad(log_bessel_k(order, x).sum(), x)
        torch.testing.assert_close(slope, -order / x.detach(), rtol=1e-12, atol=0)


def test_limits_at_zero():
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for order in (0.5, 1.0, 1.7, 4.0, 100.0):
        expected = points([(order - 1) * math.log(2) + math.lgamma(order)])
        torch.testing.assert_close(log_scaled_bessel_k(order, zero), expected)
        torch.testing.assert_close(log_scaled_bessel_k(order, zero + 1e-30), expected)
        torch.testing.assert_close(scaled_bessel_k_ratio(order, zero), points([2 * order]))
        if order > 1:
            (slope,) = torch.autograd.grad(log_scaled_bessel_k(order, zero), zero)
            torch.testing.assert_close(slope, points([-1 / (4 * (order - 1))]))
    assert log_scaled_bessel_k(0.0, zero).item() == math.inf
    assert log_bessel_k(3.0, zero).item() == math.inf
    assert scaled_bessel_k_ratio(0.0, zero).item() == 0


def test_arguments_outside_the_domain_are_nan():
    for function in (log_bessel_k, bessel_k_ratio):
        for order in (0.0, 0.5, 0.3, 2.0):
            assert function(order, points([-1.0, math.nan])).isnan().all()


def test_errors_are_one_line_and_name_the_order():
    x = points([1.0])
    for match, call in {
        "order must be finite, got nan": lambda: log_bessel_k(math.nan, x),
        "order must be finite, got inf": lambda: bessel_k_ratio(math.inf, x),
        "order of shape (2,) has NaN": lambda: log_bessel_k(points([1.0, math.nan]), x),
        "order requires a gradient": lambda: bessel_k_ratio(points([1.0]).requires_grad_(), x),
    }.items():
        with pytest.raises(ValueError, match=re.escape(match)) as caught:
            call()
        assert "\n" not in str(caught.value)

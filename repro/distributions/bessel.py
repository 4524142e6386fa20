"""The modified Bessel function K_ν of the second kind in log scale, and ratios of its orders, with gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

__all__ = ["bessel_k_ratio", "log_bessel_k", "log_scaled_bessel_k", "scaled_bessel_k_ratio"]

Order = float | Tensor


def log_bessel_k(order: Order, x: Tensor) -> Tensor:
    r"""The logarithm of K_ν, which neither overflows nor underflows.

    .. math:: \ln K_\nu(x), \quad K_\nu(x) = \tfrac12 \int_0^\infty t^{\nu - 1} e^{-x (t + 1/t) / 2} \, dt

    Checked for orders to 100 and arguments from 1e-12 to 1e4 (also in single precision). The gradient flows to x alone,
    to any degree.

    Arguments:
        order: ν, any real number, or a tensor that broadcasts against x. Integers and half-integers stay on the
            device of x; other orders take their start from scipy, on the CPU.
        x: Argument. 0 gives +inf; negative, infinite and NaN entries give NaN.

    Raises:
        ValueError: If the order is not finite or requires a gradient.

    Source: MRF MVAE, appendix B.1 (K_v there).
    """
    nu = _magnitude(order)
    nu = nu.to(x) if isinstance(nu, Tensor) else nu
    return log_scaled_bessel_k(nu, _square(x)) - nu * x.log()


def bessel_k_ratio(order: Order, x: Tensor) -> Tensor:
    r"""The ratio of neighbouring orders.

    .. math:: R_\nu(x) = K_{\nu + 1}(x) / K_\nu(x)

    Arguments:
        order: As for :func:`log_bessel_k`; negative orders too.
        x: Positive argument.

    Raises:
        ValueError: As :func:`log_bessel_k`.

    Source: MRF MVAE, appendix D.2.
    """
    return scaled_bessel_k_ratio(order, _square(x)) / x


def log_scaled_bessel_k(order: Order, square: Tensor) -> Tensor:
    r"""The logarithm of x^ν K_ν(x), as a function of the argument's square.

    .. math:: \ln(x^\nu K_\nu(x)), \quad x = \sqrt{s}, \nu \ge 0

    Unlike K_ν itself it is finite at x = 0 where ν > 0, namely ln(2^(ν − 1) Γ(ν)), and so is its gradient in s there
    where ν > 1.

    Arguments:
        order: ν ≥ 0, as for :func:`log_bessel_k`; the magnitude is taken.
        square: s, non-negative.

    Raises:
        ValueError: As :func:`log_bessel_k`.
    """
    return _LogScaledBesselK.apply(square, _magnitude(order))


def scaled_bessel_k_ratio(order: Order, square: Tensor) -> Tensor:
    r"""The ratio of neighbouring orders times the argument, as a function of the argument's square.

    .. math:: T_\nu(s) = x K_{\nu + 1}(x) / K_\nu(x), \quad x = \sqrt{s}

    It is 2ν at s = 0 where ν ≥ 0, and grows as x.

    Arguments:
        order: ν, any real number, as for :func:`log_bessel_k`.
        square: s, non-negative.

    Raises:
        ValueError: As :func:`log_bessel_k`.
    """
    _magnitude(order)
    if isinstance(order, Tensor):
        upper = order >= -0.5
        ratio = _ScaledRatio.apply(square, torch.where(upper, order, -1 - order))
        return torch.where(upper, ratio, square / ratio.clamp_min(torch.finfo(ratio.dtype).tiny))
    if order >= -0.5:
        return _ScaledRatio.apply(square, float(order))
    # K is even in the order, so that R_ν R_(−1−ν) = 1.
    ratio = _ScaledRatio.apply(square, -1.0 - order)
    return square / ratio.clamp_min(torch.finfo(ratio.dtype).tiny)


def _magnitude(order: Order) -> Order:
    """|ν|, once it is known to be usable."""
    if isinstance(order, Tensor):
        if order.requires_grad:
            raise ValueError("order requires a gradient, but K is differentiated in its argument alone")
        if not bool(order.isfinite().all()):
            raise ValueError(f"order of shape {tuple(order.shape)} has NaN or infinite entries")
        return order.abs()
    if not math.isfinite(order):
        raise ValueError(f"order must be finite, got {order}")
    return abs(float(order))


def _square(x: Tensor) -> Tensor:
    """x², but NaN where x is negative, for the functions of the square could not tell."""
    return torch.where(x < 0, torch.nan, x) * x


class _LogScaledBesselK(Function):
    """ln(x^ν K_ν(x)) for ν ≥ 0; its derivative in s = x² is −1 / (2 T_(ν−1))."""

    @staticmethod
    def forward(ctx: Any, square: Tensor, order: Order) -> Tensor:
        _save(ctx, square, order)
        return _recurrence(order, square)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        square, order = _saved(ctx)
        below = scaled_bessel_k_ratio(order - 1, square)
        return (-0.5 * grad / below.clamp_min(_floor(below))).sum_to_size(square.shape), None


class _ScaledRatio(Function):
    """T_ν for ν ≥ −1/2; its derivative in s = x² is (T_ν / T_(ν−1) − 1) / 2."""

    @staticmethod
    def forward(ctx: Any, square: Tensor, order: Order) -> Tensor:
        _save(ctx, square, order)
        return _recurrence(order, square)[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        square, order = _saved(ctx)
        ratio, below = _ScaledRatio.apply(square, order), scaled_bessel_k_ratio(order - 1, square)
        slope = ratio / below.clamp_min(_floor(below))
        return (0.5 * grad * (slope - 1)).sum_to_size(square.shape), None


def _floor(below: Tensor) -> float:
    """Slopes may be infinite at s = 0; huge finite ones keep a factor 0 of the chain rule from turning to NaN."""
    return 1e10 * torch.finfo(below.dtype).tiny


def _save(ctx: FunctionCtx, square: Tensor, order: Order) -> None:
    ctx.order = None if isinstance(order, Tensor) else order
    ctx.save_for_backward(square, *([order] if isinstance(order, Tensor) else []))


def _saved(ctx: Any) -> tuple[Tensor, Order]:
    square, *order = ctx.saved_tensors
    return square, (order[0] if order else ctx.order)


def _recurrence(order: Order, square: Tensor) -> tuple[Tensor, Tensor]:
    """ln(x^ν K_ν) and T_ν for ν ≥ −1/2, upwards from an order f in [−1/2, 1/2).

    The recurrence T_(ν+1) = s / T_ν + 2 (ν + 1) has positive terms only, hence is stable; K_(ν+1) x^(ν+1) is T_ν times
    K_ν x^ν, so that logarithms of moderate numbers are added, and nothing overflows.
    """
    tensor = isinstance(order, Tensor)
    if tensor:
        order, square = torch.broadcast_tensors(order.to(square), square)
    steps = (order + 0.5).floor() if tensor else math.floor(order + 0.5)
    start = order - steps
    positive = square.clamp_min(torch.finfo(square.dtype).tiny)  # keeps NaN
    log_k, ratio = _start(start, positive.sqrt())
    last = 0 if tensor and not steps.numel() else int(steps.max()) if tensor else steps
    for k in range(last):
        above = positive / ratio + 2 * (start + k + 1)
        if tensor:
            log_k = torch.where(steps > k, log_k + ratio.log(), log_k)
            ratio = torch.where(steps > k, above, ratio)
        else:
            log_k, ratio = log_k + ratio.log(), above
    zero, nu = square == 0, order if tensor else square.new_tensor(order)
    limit = torch.where(nu > 0, (nu - 1) * math.log(2) + torch.lgamma(nu.clamp_min(1e-30)), torch.inf)
    log_k = torch.where(zero, limit, log_k)
    ratio = torch.where(zero, 2 * nu.clamp_min(0), ratio)
    negative = square < 0
    return log_k.masked_fill(negative, torch.nan), ratio.masked_fill(negative, torch.nan)


def _start(start: Order, x: Tensor) -> tuple[Tensor, Tensor]:
    """ln(x^f K_f) and T_f for f in [−1/2, 1/2)."""
    if isinstance(start, Tensor):
        first = start.flatten()[0].item() if start.numel() else 0.0
        if bool((start == first).all()):
            start = first
    if isinstance(start, float) and start == -0.5:
        return 0.5 * math.log(math.pi / 2) - x - x.log(), x
    if isinstance(start, float) and start == 0:
        k_0, k_1 = torch.special.scaled_modified_bessel_k0(x), torch.special.scaled_modified_bessel_k1(x)
        return k_0.log() - x, x * k_1 / k_0
    from scipy import special  # takes a fifth of a second to import, and the orders above do without

    orders = start.detach().cpu().double().numpy() if isinstance(start, Tensor) else np.float64(start)
    points = x.detach().cpu().double().numpy()
    k, above = special.kve(orders, points), special.kve(orders + 1, points)
    log_k, ratio = torch.as_tensor(np.log(k) + orders * np.log(points) - points), torch.as_tensor(points * above / k)
    return log_k.to(x), ratio.to(x)

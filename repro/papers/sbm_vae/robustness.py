"""Adversarial images made on one network and shown to others (SBM-VAE, section 4.2.1)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["fgsm", "percent_drop", "transferred"]


def fgsm(
    network: nn.Module | Callable[[Tensor], Tensor],
    x: Tensor,
    target: Tensor,
    epsilon: float,
    *,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    r"""The fast gradient sign attack on a network of binary attributes.

    .. math:: x' = \operatorname{clip}\big(x + \epsilon \operatorname{sign} \nabla_x L(f(x), a)\big), \quad
        L = -\sum_k \ln p(a_k \mid f_k(x))

    The attack is of the black-box kind for any other model that x' is shown to. The paper names Papernot et al. (2017)
    and "a supervised model that classifies the attributes": it leaves open whether that model learned the true
    attributes or the attacked model's answers, whether the gradient is that of the true attributes or of its own
    answers, the range of the images that epsilon counts in, and whether x' is clipped. Here: the true attributes both
    times, images in [0, 1], clipped to it.

    Arguments:
        network: From x to logits ``(batch, K)``, in evaluation mode.
        x: Images ``(batch, *shape)`` within ``limits``.
        target: True attributes ``(batch, K)`` of 0 and 1.
        epsilon: Largest change of a value, in the unit of x.
        limits: The range that images keep.

    Raises:
        ValueError: If epsilon is not positive and finite, the network is in training mode, values leave their range,
            shapes do not fit, or a gradient is not finite.

    Source: Goodfellow et al., "Explaining and harnessing adversarial examples", 2015, section 4; SBM-VAE, Table 3.
    """
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon is {epsilon}, must be positive and finite")
    if getattr(network, "training", False):
        raise ValueError("the attacked network is in training mode; batches would change its answers")
    if not bool(((x >= limits[0]) & (x <= limits[1])).all()):
        raise ValueError(f"images to attack need values in [{limits[0]:g}, {limits[1]:g}]")
    if not bool(((target == 0) | (target == 1)).all()):
        raise ValueError("attributes to attack need values 0 and 1")
    with torch.inference_mode(False), torch.enable_grad():
        moved = x.clone().detach().requires_grad_()
        logits = network(moved)
        if logits.shape != target.shape:
            raise ValueError(f"the network gives logits {tuple(logits.shape)} for attributes {tuple(target.shape)}")
        # A sum over independent samples: the sign is that of each sample's own gradient.
        loss = F.binary_cross_entropy_with_logits(logits, target.clone().to(logits), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
    if not bool(torch.isfinite(gradient).all()):
        raise ValueError("the attack's gradient is not finite")
    return (x + epsilon * gradient.sign()).clamp(*limits)


def transferred(network: nn.Module, x: Tensor, target: Tensor, epsilon: float, *, batch_size: int = 256) -> Tensor:
    """Adversarial images of a whole sample, made in batches; arguments and errors as :func:`fgsm`."""
    pairs = zip(x.split(batch_size), target.split(batch_size), strict=True)
    return torch.cat([fgsm(network, images, attributes, epsilon) for images, attributes in pairs])


def percent_drop(clean: float, attacked: float) -> float:
    r"""How much of a score an attack takes, :math:`100 (c - a) / c`, in percent.

    It is the published column: Table 3's are Table 1's "given image" scores and the adversarial ones.

    Raises:
        ValueError: If the clean score is not positive.
    """
    if not clean > 0:
        raise ValueError(f"the score without an attack is {clean}, a drop in percent needs a positive one")
    return 100.0 * (clean - attacked) / clean

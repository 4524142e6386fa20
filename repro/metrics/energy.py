"""How near a predictive distribution comes to the observation: the energy score of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from repro.metrics.arguments import check_tensors

__all__ = ["energy_score"]


def energy_score(samples: Tensor, true: Tensor) -> Tensor:
    r"""Energy score of K samples of a prediction, for each of N points; the lower the better.

    .. math:: \frac1K \sum_k \| x_k - y \|_2 - \frac{1}{2 K (K - 1)} \sum_{j \ne k} \| x_j - x_k \|_2

    Its expectation is the least for samples of the distribution that the true values are drawn from, and for those
    alone: neither a right mean without spread nor a spread around a wrong mean reaches it. The factor
    1 / (2 K (K − 1)) makes it unbiased, so that scores of different K have one expectation.

    Arguments:
        samples: K predictive samples for each point, ``(K, N, *event)``.
        true: The observations, ``(N, *event)``.

    Returns:
        ``(N,)``, in the unit of the values.

    Raises:
        ValueError: If shapes do not fit, or there are fewer than two samples.

    Source: Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", section 4.3.
    """
    check_tensors(samples=samples, true=true)
    if samples.ndim < 3 or samples.shape[1:] != true.shape:
        raise ValueError(f"samples {tuple(samples.shape)} must be (K, N, ...) for true values {tuple(true.shape)}")
    number = len(samples)
    if number < 2:
        raise ValueError(f"{number} sample has no spread; needs at least 2")
    x = samples.flatten(2).double().transpose(0, 1)  # (N, K, values)
    error = torch.linalg.vector_norm(x - true.flatten(1).double()[:, None], dim=-1).mean(1)
    spread = torch.stack([torch.pdist(one).sum() for one in x])  # each pair once
    return error - spread / (number * (number - 1))

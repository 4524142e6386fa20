"""The sample-average F1 score of binary predictions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PROTOCOL", "sample_f1"]

PROTOCOL = "F1 of each sample over its own values, averaged over samples; means over 0.5 count as 1; 0 where none is"


def sample_f1(predicted: Tensor, true: Tensor, *, threshold: float = 0.5) -> float:
    r"""Mean over samples of each sample's F1 score over its values.

    .. math:: \frac1N \sum_n \frac{2 \, |P_n \cap T_n|}{|P_n| + |T_n|}

    with :math:`P_n` the values of sample n that are predicted and :math:`T_n` those that are there; a sample where both
    are empty counts as 0, as scikit-learn's ``f1_score(average="samples")`` does. Labels are the 18 attributes, or the
    pixels of a mask.

    Arguments:
        predicted: Probabilities or decoders' means ``(N, *shape)``.
        true: 0 and 1, of the same shape.
        threshold: What is over it is predicted.

    Raises:
        ValueError: If shapes differ or are empty, a prediction is not a number, or true values are not 0 and 1.

    Source: SBM-VAE, section 4.2, "sample-average F1 score".
    """
    if predicted.shape != true.shape or predicted.ndim < 2 or not predicted.numel():
        raise ValueError(f"predictions {tuple(predicted.shape)} and true values {tuple(true.shape)} must be (N, ...)")
    if bool(torch.isnan(predicted).any()):
        raise ValueError("predictions are not numbers")
    if not bool(((true == 0) | (true == 1)).all()):
        raise ValueError("true values of an F1 score are 0 and 1, got others")
    found, there = (predicted > threshold).flatten(1), (true > 0.5).flatten(1)
    both = (found & there).sum(1).double()
    total = (found.sum(1) + there.sum(1)).double()
    return float((2 * both / total.clamp(min=1)).mean())

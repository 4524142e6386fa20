"""Coherence: whether generated modalities show the same digit, as classifiers of each modality see them.

All functions take predicted labels, one tensor of shape ``(N,)`` a modality, and return shares in [0, 1]. Their
errors are the classifiers' too: a perfect model scores the classifiers' accuracy, not 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from repro.metrics.arguments import check_samples

__all__ = [
    "Agreement",
    "Coherence",
    "ConditionalCoherence",
    "agreement_curve",
    "classify",
    "conditional_coherence",
    "unconditional_coherence",
]


@dataclass(frozen=True)
class Coherence:
    """Share of samples in which the modalities agree.

    Arguments:
        value: The share.
        num_samples: Samples N.
        modalities: Those that have to agree.
        num_labels: Different labels that were predicted. A model that collapsed to one label has 1, and a coherence
            of 1 that says nothing.
    """

    value: float
    num_samples: int
    modalities: tuple[str, ...]
    num_labels: int


@dataclass(frozen=True)
class Agreement:
    """Shares of samples by how many modalities agree.

    Arguments:
        at_least: The k-th entry, counted from 1, is the share of samples in which at least k modalities agree; the
            first is 1, the last is the unconditional coherence.
        num_samples: Samples N.
    """

    at_least: tuple[float, ...]
    num_samples: int


@dataclass(frozen=True)
class ConditionalCoherence:
    """Accuracies of generated modalities by what was observed.

    Arguments:
        values: The accuracy for each pair of observed modalities and one generated modality.
        num_samples: Samples N.
    """

    values: Mapping[tuple[tuple[str, ...], str], float]
    num_samples: int

    def given(self, *observed: str) -> float:
        """Mean over the modalities generated from one set of observed ones.

        Raises:
            ValueError: If nothing was generated from that set.
        """
        found = [v for (names, _), v in self.values.items() if set(names) == set(observed)]
        if not found:
            raise ValueError(f"nothing was generated from {observed}; there are {list(self._sets())}")
        return fmean(found)

    def by_size(self) -> dict[int, float]:
        """Mean over the sets of observed modalities of each size, by size."""
        sizes = sorted({len(s) for s in self._sets()})
        return {k: fmean(self.given(*s) for s in self._sets() if len(s) == k) for k in sizes}

    @property
    def mean(self) -> float:
        """Mean over the sets of observed modalities."""
        return fmean(self.given(*s) for s in self._sets())

    def _sets(self) -> tuple[tuple[str, ...], ...]:
        return tuple(dict.fromkeys(names for names, _ in self.values))


def classify(
    networks: Mapping[str, Callable[[Tensor], Tensor]], images: Mapping[str, Tensor], *, batch_size: int = 1000
) -> dict[str, Tensor]:
    """Predicted labels, ``(N,)`` on the CPU, of each modality's images.

    Arguments:
        networks: For each modality, a function from images ``(n, C, H, W)`` to logits ``(n, K)``.
        images: Modality to images ``(N, C, H, W)`` in [0, 1]; they need not be all that have a network.
        batch_size: Images at once.

    Raises:
        ValueError: If a modality has no network or one in training mode, images are not finite or outside [0, 1],
            numbers of images differ, logits have another shape or are not numbers, or ``batch_size`` is under 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, must be at least 1")
    check_samples(images=images)
    _check_lengths({m: len(x) for m, x in images.items()})
    labels = {}
    for m, x in images.items():
        if m not in networks:
            raise ValueError(f"modality {m!r} has no classifier; there are {', '.join(networks)}")
        if getattr(networks[m], "training", False):
            raise ValueError(f"the classifier of {m!r} is in training mode; its labels would be random")
        if not x.is_floating_point() or not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError(f"images of {m!r} need floating-point values in [0, 1], got others or {x.dtype}")
        parts = []
        for chunk in x.split(batch_size):
            with torch.no_grad():
                logits = networks[m](chunk)
            if logits.ndim != 2 or len(logits) != len(chunk) or logits.shape[1] < 2:
                raise ValueError(f"logits of {m!r} have shape {tuple(logits.shape)}, expected ({len(chunk)}, classes)")
            if bool(torch.isnan(logits).any()):
                raise ValueError(f"logits of {m!r} are not numbers")
            parts.append(logits.argmax(1).cpu())
        labels[m] = torch.cat(parts)
    return labels


def unconditional_coherence(predictions: Mapping[str, Tensor], *, modalities: Sequence[str] | None = None) -> Coherence:
    r"""Share of samples in which all modalities have the same predicted label.

    .. math:: \frac1N \sum_n 1[\hat y_n^1 = \dots = \hat y_n^M]

    In the MNIST triples of MRF MVAE only the first two modalities show the same digit and the third is free: give
    those two, since all three agree in one sample of ten however good the model is.

    Arguments:
        predictions: Modality to predicted labels ``(N,)``.
        modalities: Which have to agree; all by default.

    Raises:
        ValueError: If fewer than two modalities are compared, one is unknown or named twice, or labels have another
            shape or are not integers.

    Source:
        Palumbo et al., "MMVAE+", 2023; GMRF MCVAE, section IV-B; MRF MVAE, appendix D.2.
    """
    check_samples(predictions=predictions)
    chosen = tuple(predictions) if modalities is None else tuple(modalities)
    stacked = _stack(predictions, chosen)
    same = (stacked == stacked[:1]).all(0)
    return Coherence(float(same.double().mean()), stacked.shape[1], chosen, int(stacked.unique().numel()))


def agreement_curve(predictions: Mapping[str, Tensor]) -> Agreement:
    r"""Share of samples in which at least k modalities have the same predicted label, for each k.

    .. math:: \frac1N \sum_n 1 \left[ \max_y \sum_m 1[\hat y_n^m = y] \ge k \right], \quad k = 1, \dots, M

    Arguments:
        predictions: Modality to predicted labels ``(N,)``.

    Raises:
        ValueError: As :func:`unconditional_coherence`.

    Source:
        SBM-VAE, figure 5, which shows k from 2.
    """
    check_samples(predictions=predictions)
    stacked = _stack(predictions, tuple(predictions))
    # The count of the most common label is the largest number of modalities that agree with any one of them.
    count = torch.stack([(stacked == row).sum(0) for row in stacked]).amax(0)
    shares = tuple(float((count >= k).double().mean()) for k in range(1, stacked.shape[0] + 1))
    return Agreement(shares, stacked.shape[1])


def conditional_coherence(
    predictions: Mapping[tuple[str, ...], Mapping[str, Tensor]], labels: Tensor
) -> ConditionalCoherence:
    r"""Accuracy of the labels of generated modalities, given the label that the observed ones share.

    .. math:: c(A \to j) = \frac1N \sum_n 1[\hat y_n^{j | A} = y_n], \quad j \notin A

    Palumbo et al. generate every modality from every single other one, and average over all pairs: give the sets of
    one modality, and take ``mean``. Sutter et al. average over all sets of one size: give those, and take ``by_size``.
    SBM-VAE's averages "given the rest" come from sets that leave out one modality. A modality reconstructed from
    itself does not count.

    Arguments:
        predictions: For each tuple of observed modalities, each modality generated from them to its predicted labels
            ``(N,)``.
        labels: The observed samples' true labels, ``(N,)``.

    Raises:
        ValueError: If nothing was generated, a set is empty, names a modality twice or appears twice, a generated
            modality is an observed one, labels have another shape or are not integers, or the true labels are all the
            same, on which a generator that ignores what is observed can score 1.

    Source:
        Palumbo et al., "MMVAE+", 2023; Sutter et al., "Generalized multimodal ELBO", 2021; SBM-VAE, appendix A.4.
    """
    if not isinstance(predictions, Mapping):
        raise ValueError(f"predictions are a {type(predictions).__name__}, must be a mapping from what is observed")
    for observed, generated in predictions.items():
        check_samples(**{f"what is given {observed}": generated})
    if not predictions or not all(predictions.values()):
        raise ValueError(f"nothing was generated from one of the observed sets {list(predictions)}")
    if not isinstance(labels, Tensor) or labels.ndim != 1 or not len(labels) or not _integers(labels):
        raise ValueError("labels need to be integers of shape (N,)")
    if bool((labels == labels[0]).all()):
        raise ValueError(f"labels are all {int(labels[0])}; conditional coherence needs at least two classes")
    if len({frozenset(observed) for observed in predictions}) < len(predictions):
        raise ValueError(f"an observed set appears twice in {list(predictions)}")
    true, values = labels.detach().cpu(), {}
    for observed, generated in predictions.items():
        if isinstance(observed, str) or not observed or len(set(observed)) < len(observed):
            raise ValueError(f"observed {observed!r} has to be a tuple of different modalities")
        for m, predicted in generated.items():
            if m in observed:
                raise ValueError(f"modality {m!r} is observed in {observed}; its reconstruction is no coherence")
            _check_labels(m, predicted)
            if len(predicted) != len(true):
                raise ValueError(f"{m!r} given {observed} has {len(predicted)} labels, expected {len(true)}")
            values[observed, m] = float((predicted.detach().cpu() == true).double().mean())
    return ConditionalCoherence(values, len(true))


def _integers(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype is torch.bool)


def _check_labels(modality: str, labels: Tensor) -> None:
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"predictions of {modality!r} have shape {tuple(labels.shape)}, expected (N,), N positive")
    if not _integers(labels):
        raise ValueError(f"predictions of {modality!r} are {labels.dtype}, expected integer labels")


def _check_lengths(lengths: Mapping[str, int]) -> None:
    if not lengths or min(lengths.values()) < 1 or len(set(lengths.values())) > 1:
        raise ValueError(f"modalities have {dict(lengths)} samples, expected one positive number for all")


def _stack(predictions: Mapping[str, Tensor], modalities: tuple[str, ...]) -> Tensor:
    """Returns the labels of the modalities, ``(M, N)``, on the CPU."""
    if len(modalities) < 2 or len(set(modalities)) < len(modalities):
        raise ValueError(f"coherence compares at least two different modalities, got {list(modalities)}")
    for m in modalities:
        if m not in predictions:
            raise ValueError(f"unknown modality {m!r}; there are {', '.join(predictions)}")
        _check_labels(m, predictions[m])
    _check_lengths({m: len(predictions[m]) for m in modalities})
    return torch.stack([predictions[m].detach().cpu().long() for m in modalities])

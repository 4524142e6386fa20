"""Digit classifiers of the image experiments as one trainable model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from repro.datasets import Dataset
from repro.datasets.base import ModalitySpec
from repro.model import Loss, Stage, TrainableModel
from repro.networks.classifiers import digit_classifier

__all__ = ["LABEL", "DigitClassifiers", "accuracy"]

LABEL = "label"  # the name under which batches carry the digit


class DigitClassifiers(TrainableModel):
    r"""One classifier for all modalities, or one for each, trained by the cross-entropy.

    .. math:: L = \frac1M \sum_m -\log p_m(y | x_m)

    Source: SBM-VAE, appendix A.2, trains one on all modalities of Extended PolyMNIST; those of PolyMNIST are one for
    each modality.

    Arguments:
        modalities: Name to specification; the batches of training carry the digit as ``"label"`` beside them.
        architecture: One of :data:`repro.networks.classifiers.ARCHITECTURES`.
        shared: Whether all modalities have one classifier.
    """

    def __init__(self, modalities: Mapping[str, ModalitySpec], architecture: str, *, shared: bool) -> None:
        super().__init__(modalities)
        names = ["shared"] if shared else list(modalities)
        self.shared = shared
        self.networks = nn.ModuleDict({name: digit_classifier(architecture) for name in names})

    def network(self, modality: str) -> nn.Module:
        """The classifier of a modality.

        Raises:
            ValueError: If the modality is unknown.
        """
        if modality not in self.modalities:
            raise ValueError(f"unknown modality {modality!r}; one of {', '.join(self.modalities)}")
        return self.networks["shared" if self.shared else modality]

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """Mean cross-entropy in nats, and the accuracy on the batch as a term.

        Raises:
            ValueError: If the batch has no labels.
        """
        if LABEL not in batch:
            raise ValueError(f"the batch has {list(batch)}, a classifier is trained with {LABEL!r} too")
        label = batch[LABEL]
        self.check_batch({m: x for m, x in batch.items() if m != LABEL})
        labels = label.repeat(len(self.modalities))
        if self.shared:
            logits = self.networks["shared"](torch.cat([batch[m] for m in self.modalities]))
        else:
            logits = torch.cat([self.network(m)(batch[m]) for m in self.modalities])
        right = (logits.detach().argmax(1) == labels).float().mean()
        return Loss(cross_entropy(logits, labels), {"accuracy": right})


@torch.no_grad()
def accuracy(model: DigitClassifiers, data: Dataset, *, batch_size: int = 1000) -> dict[str, float]:
    """Share of right digits on a split, by modality.

    Arguments:
        model: The classifiers, in evaluation mode.
        data: A split with labels.
        batch_size: Samples at once.
    """
    right = dict.fromkeys(model.modalities, 0)
    for batch in data.labelled(LABEL).batches(batch_size, shuffle=False):
        for m in right:
            right[m] += int((model.network(m)(batch[m]).argmax(1) == batch[LABEL]).sum())
    return {m: n / len(data) for m, n in right.items()}

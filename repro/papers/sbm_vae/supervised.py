"""Supervised networks beside SBM-VAE: attributes and masks from faces, digits from images and spoken ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.datasets.base import Dataset, ModalitySpec
from repro.model import Loss, Stage, TrainableModel, isolated_rng
from repro.networks.soft_intro import NormalisedResidualBlock, SoftIntroEncoder

__all__ = [
    "CLASSIFIER",
    "MaskUNet",
    "ModalityClassifiers",
    "Supervised",
    "WithClassifier",
    "attribute_classifier",
    "predicts",
    "with_classifier",
]

CLASSIFIER = "judge"
LABEL = "label"
FEATURES = 256
CLASSIFIER_SEED = 0  # of the initial weights, so that one seed's runs of all methods have one and the same network


def attribute_classifier(shape: Sequence[int], outputs: int, widths: Sequence[int]) -> nn.Module:
    """From images to the logits of binary attributes: the VAEs' encoder and a linear projection of its features.

    Source: SBM-VAE, appendix A.9.
    """
    encoder = SoftIntroEncoder(shape, FEATURES, widths=widths)
    return nn.Sequential(encoder, nn.LeakyReLU(0.2), nn.Linear(FEATURES, outputs))


class MaskUNet(nn.Module):
    """U-Net from an image to the logits of a mask of the same size.

    A residual block at each resolution, halved by average pooling and doubled by nearest-neighbour upsampling, with the
    maps of the way down beside those of the way up.

    Arguments:
        in_channels: Channels of the image.
        out_channels: Channels of the mask.
        widths: Channels at the full, half, quarter, ... size.

    Source: SBM-VAE, appendix A.9, which prints the input's three and the output's one channel alone.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            NormalisedResidualBlock(a, b) for a, b in zip((widths[0], *widths[:-1]), widths, strict=True)
        )
        self.up = nn.ModuleList(NormalisedResidualBlock(a + b, a) for a, b in reversed(list(pairwise(widths))))
        self.output = nn.Conv2d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(batch, in_channels, H, W)`` to logits ``(batch, out_channels, H, W)``.

        Raises:
            ValueError: If the size cannot be halved as often.
        """
        unit = 2 ** (len(self.down) - 1)
        if x.shape[-1] % unit or x.shape[-2] % unit:
            raise ValueError(f"images of {tuple(x.shape[-2:])} cannot be halved {len(self.down) - 1} times")
        h, kept = self.stem(x), []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h)
            kept.append(h)
        kept.pop()
        for block in self.up:
            h = block(torch.cat([F.interpolate(h, scale_factor=2.0, mode="nearest"), kept.pop()], 1))
        return self.output(h)


class Supervised(TrainableModel):
    r"""Attributes, and masks where asked, predicted from images: the paper's supervised reference.

    .. math:: L = -\sum_k \ln p(a_k \mid x) - \frac{1}{HW} \sum_{ij} \ln p(s_{ij} \mid x)

    The two networks share nothing and each parameter's step is its own (Adam), so that they train as if alone.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`; ``"image"`` and what is predicted are among them.
        widths: Channels of the networks.
        targets: What is predicted, of ``"attributes"`` and ``"mask"``.

    Raises:
        ValueError: If a modality is missing or a target unknown.

    Source: SBM-VAE, Table 1 and appendix A.9.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        *,
        widths: Sequence[int],
        targets: Sequence[str] = ("attributes", "mask"),
    ) -> None:
        super().__init__(modalities)
        if not targets or not set(targets) <= {"attributes", "mask"}:
            raise ValueError(f"targets are {list(targets)}, must be of 'attributes' and 'mask'")
        if lacking := [m for m in ("image", *targets) if m not in modalities]:
            raise ValueError(f"supervised networks need the modalities {lacking}; there are {list(modalities)}")
        image = modalities["image"].shape
        self.networks = nn.ModuleDict()
        if "attributes" in targets:
            self.networks["attributes"] = attribute_classifier(image, modalities["attributes"].numel, widths)
        if "mask" in targets:
            self.networks["mask"] = MaskUNet(image[0], modalities["mask"].shape[0], widths)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """Cross-entropies in nats: a sum over attributes, a mean over the mask's pixels."""
        self.check_batch(batch)
        terms = {}
        for name, network in self.networks.items():
            costs = F.binary_cross_entropy_with_logits(network(batch["image"]), batch[name], reduction="none")
            terms[name] = (costs.sum(1) if name == "attributes" else costs.flatten(1).mean(1)).mean()
        return Loss(torch.stack(list(terms.values())).sum(), {k: v.detach() for k, v in terms.items()})


class ModalityClassifiers(TrainableModel):
    """An evaluation classifier of digits for each modality, that coherence is measured with.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`, images or spectrograms.
        widths: Channels of their convolutions.
        classes: Number of classes.
    """

    def __init__(self, modalities: Mapping[str, ModalitySpec], *, widths: Sequence[int], classes: int = 10) -> None:
        super().__init__(modalities)
        self.networks = nn.ModuleDict(
            {m: SoftIntroEncoder(s.shape, classes, widths=widths) for m, s in modalities.items()}
        )

    def stage_data(self, stage: Stage, data: Dataset) -> Dataset:
        """The split, whose batches carry the digit."""
        return data.labelled(LABEL)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """Mean cross-entropy in nats over the modalities, and the share of right digits in the batch.

        Raises:
            ValueError: If the batch has no labels, and as :meth:`check_batch`.
        """
        if LABEL not in batch:
            raise ValueError(f"the batch has {list(batch)}, evaluation classifiers are trained with {LABEL!r} too")
        self.check_batch({m: x for m, x in batch.items() if m != LABEL})
        logits = torch.cat([network(batch[m]) for m, network in self.networks.items()])
        labels = batch[LABEL].repeat(len(self.networks))
        right = (logits.detach().argmax(1) == labels).float().mean()
        return Loss(F.cross_entropy(logits, labels), {"accuracy": right})


class WithClassifier(TrainableModel):
    """A model, and a supervised network trained after it on the same split as a stage of its own.

    What is measured with a network that comes with no package, an attack or a coherence, is so part of the run, of its
    weights and of its record. The model never sees it.

    Arguments:
        model: The model that is measured.
        judge: The network, whose initial weights are drawn by :meth:`build`.

    Raises:
        ValueError: If their modalities differ, or a stage of the model is called ``"judge"``.
    """

    def __init__(self, model: TrainableModel, judge: TrainableModel) -> None:
        super().__init__(model.modalities)
        if judge.modalities != model.modalities:
            raise ValueError(
                f"the evaluation classifier has modalities {list(judge.modalities)}, the model {list(model.modalities)}"
            )
        if any(s.name == CLASSIFIER for s in model.stages()):
            raise ValueError(f"a stage of {type(model).__name__} is called {CLASSIFIER!r} too")
        self.model, self.judge = model, judge

    @classmethod
    def build(cls, model: TrainableModel, kind: type[TrainableModel], **options: object) -> WithClassifier:
        """Puts an untrained evaluation classifier beside a model; its initial weights do not depend on the model or the
        run's seed.
        """
        with isolated_rng(CLASSIFIER_SEED):
            return cls(model, kind(model.modalities, **options))

    def stages(self) -> Sequence[Stage]:
        """The model's, then the evaluation classifier's."""
        own = [replace(s, parameters=tuple(f"model.{p}" for p in s.parameters or ("",))) for s in self.model.stages()]
        return (*own, Stage(CLASSIFIER, (f"{CLASSIFIER}.",)))

    def smallest_batch(self, stage: Stage) -> int:
        """That of the stage's owner."""
        if stage.name == CLASSIFIER:
            return self.judge.smallest_batch(stage)
        return self.model.smallest_batch(self._stage(stage))

    def check_data(self, data: Dataset) -> None:
        """What both need."""
        self.model.check_data(data)
        self.judge.check_data(data)

    def _stage(self, stage: Stage) -> Stage:
        return next(s for s in self.model.stages() if s.name == stage.name)

    def stage_data(self, stage: Stage, data: Dataset) -> Dataset:
        """What the stage's owner makes of the split; the other one goes into evaluation mode."""
        classifying = stage.name == CLASSIFIER
        self.judge.train(classifying)
        self.model.train(not classifying)
        return self.judge.stage_data(stage, data) if classifying else self.model.stage_data(self._stage(stage), data)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The loss of the stage's owner; the model's first stage if None."""
        if stage is not None and stage.name == CLASSIFIER:
            return self.judge.loss(batch, stage)
        return self.model.loss(batch, None if stage is None else self._stage(stage))


def with_classifier(model: TrainableModel) -> tuple[TrainableModel, TrainableModel | None]:
    """The model that is measured and the evaluation classifier beside it; None where there is none."""
    judge = getattr(model, "judge", None)
    return (model, None) if judge is None else (model.model, judge)


def predicts(model: TrainableModel) -> bool:
    """Whether a model is a set of networks that predict from an image, and generates nothing."""
    return not hasattr(model, "generate")

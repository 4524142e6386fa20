"""The one interface that the papers' models and the baselines share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec

__all__ = [
    "Loss",
    "ModalitySpec",
    "MultimodalModel",
    "Stage",
    "TrainableModel",
    "checked_distributions",
    "evaluating",
    "isolated_rng",
    "keeping_modes",
]


@dataclass(frozen=True)
class Stage:
    """One stage of training: which parameters are optimised, and under what name it is logged.

    Arguments:
        name: The stage's name, unique within a model.
        parameters: Prefixes of the names of the parameters that are trained; empty for all of them.
    """

    name: str = "train"
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loss:
    """A loss to be minimised and its named terms.

    Arguments:
        total: A scalar with gradient, averaged over the batch.
        terms: Named detached scalars for the log, in the same unit (nats a sample unless the model says otherwise).
        parts: For adversarial models, the scalar that each group of parameters minimises, by the prefix of the
            group's names; ``total`` is then for the log alone, and a group that is not named keeps its values in this
            step. Empty where all parameters minimise ``total``.
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@contextmanager
def checked_distributions() -> Iterator[None]:
    """Keeps torch's checks of distributions as they are: its compiler's import switches them off for the process."""
    checked = torch.distributions.Distribution._validate_args
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(checked)


@contextmanager
def isolated_rng(source: int | torch.Generator | None) -> Iterator[None]:
    r"""Runs a block under its own global random state and puts the former one back.

    Third-party models draw from the global generators of torch and NumPy. Inside the block both are seeded, either
    with ``source`` itself or with one integer drawn from it, so that what is drawn is a function of ``source`` alone;
    afterwards both are as they were.

    Arguments:
        source: A seed, a generator to draw one from, or None to draw one from torch's global generator (which that
            draw advances, as any other draw would).
    """
    if source is None:
        seed = int(torch.randint(2**62, ()).item())
    elif isinstance(source, torch.Generator):
        seed = int(torch.randint(2**62, (), generator=source, device=source.device).item())
    else:
        seed = int(source)
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)


@contextmanager
def keeping_modes(model: nn.Module) -> Iterator[None]:
    """Leaves every module of a model in training or evaluation mode as it was before the block."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module's mode is as it was."""
    with keeping_modes(model):
        model.eval()
        yield


class TrainableModel(nn.Module, ABC):
    """What the training loop needs of a model: its modalities, its stages, a loss.

    Arguments:
        modalities: Name to :class:`ModalitySpec`.

    Raises:
        ValueError: If there is no modality.
    """

    def __init__(self, modalities: Mapping[str, ModalitySpec]) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("a model needs at least one modality, got none")
        self.modalities: dict[str, ModalitySpec] = dict(modalities)

    def stages(self) -> Sequence[Stage]:
        """What is trained, in order; most models have one stage."""
        return (Stage(),)

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters, which batches must have; torch's default without any."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.get_default_dtype())

    def smallest_batch(self, stage: Stage) -> int:
        """The fewest samples that a step of a stage can be taken on: two under batch normalisation, else one.

        A remainder of an epoch that is smaller is trained together with the batch before it.
        """
        normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())
        return 2 if normalises else 1

    def check_data(self, data: Dataset) -> None:
        """Refuses a training split that is too small for some stage, before the first step of any; none by default.

        Arguments:
            data: The training split.

        Raises:
            ValueError: If it is too small; it says for what.
        """

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The training loss of a batch of all modalities.

        Arguments:
            batch: Name to tensor of shape ``(batch, *spec.shape)``.
            stage: One of :meth:`stages`; the first if None.
        """

    def stage_data(self, stage: Stage, data: Dataset) -> Dataset:
        """What a stage is trained on, made from the training split: the split itself, or such as its encodings.

        It is called once whenever a stage begins or is continued, without gradients, with the model as the stages
        before left it, and with random numbers of its own that are the same each time.

        Arguments:
            stage: One of :meth:`stages`.
            data: The training split on the model's device.
        """
        return data

    def check_batch(self, batch: Mapping[str, Tensor], *, subset: bool = False) -> int:
        """Checks names and shapes of a batch and returns its size.

        Arguments:
            batch: Name to tensor.
            subset: Whether some modalities may be missing.

        Raises:
            ValueError: If a name is unknown or missing, a shape does not fit, or sizes differ; it names both sides.
        """
        known = list(self.modalities)
        if unknown := [m for m in batch if m not in self.modalities]:
            raise ValueError(f"unknown modalities {unknown}; the model has {known}")
        if not batch or (not subset and len(batch) != len(known)):
            raise ValueError(f"the batch has modalities {list(batch)}, the model needs {known}")
        for m, x in batch.items():
            if tuple(x.shape[1:]) != self.modalities[m].shape:
                raise ValueError(
                    f"modality {m!r} has shape {tuple(x.shape)}, the model needs (batch, "
                    f"{', '.join(map(str, self.modalities[m].shape))})"
                )
        sizes = {m: len(x) for m, x in batch.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"modalities of unequal batch sizes {sizes}")
        return next(iter(sizes.values()))


class MultimodalModel(TrainableModel):
    """A generative model of several modalities.

    Arguments:
        modalities: Name to :class:`ModalitySpec`, in the order of the latent blocks.

    Raises:
        ValueError: If there are fewer than two.
    """

    def __init__(self, modalities: Mapping[str, ModalitySpec]) -> None:
        super().__init__(modalities)
        if len(modalities) < 2:
            raise ValueError(f"a multimodal model needs at least two modalities, got {list(modalities)}")

    @abstractmethod
    def generate(
        self,
        num_samples: int = 1,
        *,
        given: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        sample_likelihood: bool = False,
    ) -> dict[str, Tensor]:
        """Samples every modality, jointly or given some of them.

        Arguments:
            num_samples: Number of joint samples, or of samples for each conditioning point.
            given: None for joint samples; otherwise observed modalities of shape ``(batch, *spec.shape)``, whose own
                entries in the result are their reconstructions.
            generator: Source of randomness; the global generators stay untouched.
            sample_likelihood: Whether to add the likelihood's noise to the decoders' means.

        Returns:
            Name to tensor with leading shape ``(num_samples,)``, or ``(num_samples, batch)`` under ``given``.
        """

    @abstractmethod
    def log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        *,
        given: Mapping[str, Tensor] | None = None,
        num_importance_samples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Importance-weighted estimate of the log-likelihood in nats, of shape ``(batch,)``.

        Arguments:
            batch: The modalities whose likelihood is estimated.
            given: Modalities to condition on, None for the joint likelihood.
            num_importance_samples: Samples from the proposal, for each data point.
            generator: Source of randomness.
        """

    def difference_of_marginals(
        self,
        log_marginal: Callable[[Mapping[str, Tensor]], Tensor],
        batch: Mapping[str, Tensor],
        given: Mapping[str, Tensor] | None,
    ) -> Tensor:
        r"""ln p(x_S), or ln p(x_S | x_T) = ln p(x_S, x_T) − ln p(x_T), from estimates of marginals, ``(batch,)``.

        Consistent for the model's true conditional where the marginals are, unlike a mean of p(x_S | z) over an
        approximate posterior of x_T (erratum E16).

        Arguments:
            log_marginal: From some modalities to the estimate of their joint log-likelihood, ``(batch,)``.
            batch: x_S.
            given: x_T, or None.

        Raises:
            ValueError: If names or shapes do not fit, or a modality is in both.
        """
        self.check_batch(batch, subset=True)
        if given is None:
            return log_marginal(batch)
        self.check_batch(given, subset=True)
        if both := [m for m in batch if m in given]:
            raise ValueError(f"modalities {both} are both in the batch {list(batch)} and given {list(given)}")
        return log_marginal({**batch, **given}) - log_marginal(given)

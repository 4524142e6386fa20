"""The one interface that the papers' models and the baselines share."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec, check_name
from repro.datasets.devices import as_device
from repro.datasets.values import as_tensor, as_type, unit_values, whole_number
from repro.networks.construction import recording
from repro.weights.card import saved_card
from repro.weights.folder import check_repo
from repro.weights.saved import contents_from, contents_of, restore, write

__all__ = [
    "Loss",
    "MultimodalModel",
    "Stage",
    "TrainableModel",
    "checked_distributions",
    "evaluating",
    "isolated_rng",
    "keeping_modes",
    "networks_by_name",
    "resolved_settings",
]


# Arguments that generate and log_likelihood of every model have.
COMMON = ("num_samples", "batch", "given", "generator", "sample_likelihood", "num_importance_samples")


def _count(name: str, value: Any) -> int:
    number = whole_number(name, value)
    if number < 1:
        raise ValueError(f"{name} is {number}, must be at least 1")
    return number


def _check_generator(generator: Any) -> None:
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator is {generator!r}, must be a torch.Generator or None")


def resolved_settings(settings: Mapping[str, Any] | None, defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A builder's settings, with its defaults for those that are not given.

    Arguments:
        settings: Name to value; all or some of the defaults' names.
        defaults: Every name that there is.
        what: What is built, for messages.

    Raises:
        ValueError: If a name is unknown; it lists those that there are.
    """
    given = dict(settings or {})
    if unknown := [name for name in given if name not in defaults]:
        raise ValueError(f"{what} has no settings {unknown}; there are {', '.join(defaults)}")
    return {**defaults, **given}


def networks_by_name(what: str, networks: Any, modalities: Mapping[str, ModalitySpec]) -> dict[str, Any]:
    """What is given for each modality, in the modalities' order, which blocks of latents have.

    Arguments:
        what: Of what it is, for the message, such as "encoders".
        networks: Modality to network.
        modalities: The modalities.

    Raises:
        ValueError: If it is not by name, or not for exactly these modalities.
    """
    if not isinstance(networks, Mapping | nn.ModuleDict):
        raise ValueError(f"{what} are a {type(networks).__name__}, must be a mapping from each modality's name")
    if set(networks) != set(modalities):
        raise ValueError(f"{what} are for {list(networks)}, the modalities are {list(modalities)}")
    return {m: networks[m] for m in modalities}


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

    Third-party models draw from the global generators of torch, NumPy and Python. Inside the block all are seeded,
    either with ``source`` itself or with one integer drawn from it, so that what is drawn is a function of ``source``
    alone; afterwards all are as they were.

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
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


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
    if not any(module.training for module in model.modules()):
        yield
        return
    with keeping_modes(model):
        model.eval()
        yield


class TrainableModel(nn.Module, ABC):
    """What the training loop needs of a model: its modalities, its stages, a loss.

    Arguments:
        modalities: Name to :class:`ModalitySpec`.

    Raises:
        ValueError: If there is no modality, or one has a name that no part of a model can have
            (:func:`~repro.datasets.base.check_name`).
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Models keep the arguments that they are built with, so that what is saved can be built again."""
        super().__init_subclass__(**options)
        if not getattr(cls.__init__, "records", False):
            cls.__init__ = recording(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, modalities: Mapping[str, ModalitySpec]) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("a model needs at least one modality, got none")
        for name in modalities:
            check_name(name)
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
            ValueError: If a name is unknown or missing, a shape or a type does not fit, sizes differ, or there is no
                sample; it names both sides.
        """
        known = list(self.modalities)
        if not isinstance(batch, Mapping):
            raise ValueError(f"modalities are given by name, in a mapping, not in a {type(batch).__name__}")
        if unknown := [m for m in batch if m not in self.modalities]:
            raise ValueError(f"unknown modalities {unknown}; the model has {known}")
        if not batch or (not subset and len(batch) != len(known)):
            raise ValueError(f"the batch has modalities {list(batch)}, the model needs {known}")
        for m, x in batch.items():
            if not isinstance(x, Tensor):
                raise ValueError(f"modality {m!r} is a {type(x).__name__}, must be a tensor")
            if tuple(x.shape[1:]) != self.modalities[m].shape:
                raise ValueError(
                    f"modality {m!r} has shape {tuple(x.shape)}, the model needs (batch, "
                    f"{', '.join(map(str, self.modalities[m].shape))})"
                )
        sizes = {m: len(x) for m, x in batch.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"modalities of unequal batch sizes {sizes}")
        if not all(sizes.values()):
            raise ValueError(f"the batch of {list(batch)} has no sample")
        for m, x in batch.items():
            if x.dtype is not self.dtype:
                kinds = [str(t).removeprefix("torch.") for t in (x.dtype, self.dtype)]
                raise ValueError(f"modality {m!r} has values of type {kinds[0]}, the model's parameters are {kinds[1]}")
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

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> Path:
        """Saves the model: weights as safetensors, a config.json that builds the same model again, and a card.

        A README that is there stays. Networks of classes from outside the package are named in the file; see
        :meth:`from_pretrained` for what loading them takes.

        Arguments:
            folder: The folder, which is made where there is none.
            license: For the card, such as ``"mit"``; the Hub shows none if None.

        Returns:
            The folder.

        Raises:
            ValueError: If an argument of the model cannot be written down, the model was changed after it was built,
                or the folder has no name or cannot be written to; nothing is saved then.
        """
        if not isinstance(folder, str | Path) or not str(folder).strip():
            raise ValueError(f"a model is saved in a folder, not in {folder!r}")
        with isolated_rng(0):
            contents = contents_of(self, saved_card(self, license))
        return write(Path(folder), contents)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        trust_classes: bool = False,
        **networks: Any,
    ) -> Self:
        """A saved model, in evaluation mode: its draws are bit-equal to those of the model that was saved.

        That is on the same device with the same number of threads.

        Files are checked against their hashes at every load. Nothing is unpickled, and nothing is executed but classes
        of this package and of torch's layers. A network of another class is built only if it is given here, or if its
        class is decorated with :func:`repro.rebuildable`, lies in your own environment, and ``trust_classes`` says so.
        No code is ever downloaded.

        Arguments:
            source: A folder, or else a repository of the Hub, ``"user/name"``.
            revision: Of the repository: a branch, tag or commit.
            device: Where the model is to live.
            trust_classes: Whether classes from outside the package, which the file names, may be imported from your
                environment. The class that this method is called on needs no such consent.
            networks: Arguments of the model to take instead of the saved ones, such as ``encoders``.

        Raises:
            ValueError: If there is no such device, folder or repository's name, a file is not as it was saved, or the
                model cannot be built; in one line.
            HubError: If the repository cannot be had.
        """
        place = as_device(device)
        if not isinstance(source, str | Path) or not str(source).strip():
            raise ValueError(f"a model is loaded from a folder or a repository, not from {source!r}")
        contents = contents_from(source, revision)
        with isolated_rng(0):
            model = restore(contents, str(source), own=cls, trusted=trust_classes, given=networks)
        if not isinstance(model, cls):
            raise ValueError(f"{source} is of class {type(model).__name__}, not {cls.__name__}")
        return model.to(place)

    def push_to_hub(
        self, repo: str, *, message: str = "", private: bool | None = None, license: str | None = None
    ) -> str:
        """Saves the model in a repository of the Hub, in one commit.

        The token is that of ``HF_TOKEN`` or ``hf auth login``, the server that of ``HF_ENDPOINT``. A README that is
        there stays; if somebody else pushes meanwhile, nothing is overwritten.

        Arguments:
            repo: ``"user/name"``; it is made where there is none.
            message: Of the commit.
            private: Whether a new repository is; the account's default if None.
            license: As of :meth:`save_pretrained`.

        Returns:
            The commit's address.

        Raises:
            ValueError: If the name is none, or as :meth:`save_pretrained`.
            HubError: If there is no token, or the upload fails.
        """
        check_repo(repo, "push")
        with isolated_rng(0):
            contents = contents_of(self, saved_card(self, license, repo))
        from repro.weights.shared import push_files  # the Hub's client takes a fifth of a second to import

        return push_files(repo, contents, message=message or f"Upload {type(self).__name__}", private=private)

    def generate(
        self,
        num_samples: int = 1,
        *,
        given: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
        sample_likelihood: bool = False,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Samples every modality, jointly or given some of them: means of the decoders for sampled latents.

        The model is in evaluation mode meanwhile and as it was afterwards; nothing has a gradient.

        Arguments:
            num_samples: Number of joint samples, or of samples for each conditioning point.
            given: None for joint samples; otherwise observed modalities of shape ``(batch, *spec.shape)``, in any
                order, as tensors, NumPy arrays or data frames (:meth:`prepared`). Their own entries in the result are
                their reconstructions.
            generator: Source of randomness; the global generators stay untouched.
            sample_likelihood: Whether to add the likelihood's noise to the decoders' means.
            options: What this model alone offers, such as a protocol or a sampler: the keyword arguments of its
                ``_generate``.

        Returns:
            Name to tensor with leading shape ``(num_samples,)``, or ``(num_samples, batch)`` under ``given``.

        Raises:
            ValueError: If ``num_samples`` is under 1, ``generator`` is not one, ``sample_likelihood`` is neither true
                nor false, an option is unknown or out of its range, or ``given`` does not fit (:meth:`prepared`).
        """
        count = _count("num_samples", num_samples)
        if not isinstance(sample_likelihood, bool | np.bool):
            raise ValueError(f"sample_likelihood is {sample_likelihood!r}, must be True or False")
        _check_generator(generator)
        observed = None if given is None else self.prepared(given)
        self._check_options("generate", self._generate, options)
        with torch.no_grad(), evaluating(self):
            return self._generate(
                count, given=observed, generator=generator, sample_likelihood=sample_likelihood, **options
            )

    @property
    def generation_options(self) -> tuple[str, ...]:
        """The options that :meth:`generate` of this model takes beyond those of every model, such as a protocol."""
        return tuple(p for p in signature(self._generate).parameters if p not in COMMON)

    def log_likelihood(
        self,
        batch: Mapping[str, Any],
        *,
        given: Mapping[str, Any] | None = None,
        num_importance_samples: int = 1000,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Importance-weighted estimate of ln p(x_S), or of ln p(x_S | x_T), in nats, of shape ``(batch,)``.

        The model is in evaluation mode meanwhile and as it was afterwards; nothing has a gradient.

        Arguments:
            batch: The modalities x_S whose likelihood is estimated, all or some, as ``given`` of :meth:`generate`.
            given: Modalities x_T to condition on, none of them in ``batch``; None for the likelihood of ``batch``.
            num_importance_samples: Samples from the proposal, for each data point.
            generator: Source of randomness.
            options: What this model alone offers: the keyword arguments of its ``_log_likelihood``.

        Raises:
            ValueError: If ``num_importance_samples`` is under 1, an option is unknown, a modality is in both, their
                sizes differ, or one of them does not fit (:meth:`prepared`).
        """
        count = _count("num_importance_samples", num_importance_samples)
        _check_generator(generator)
        x_s, x_t = self.prepared(batch), None if given is None else self.prepared(given)
        if x_t is not None:
            if both := [m for m in x_s if m in x_t]:
                raise ValueError(f"modalities {both} are both in the batch {list(batch)} and given {list(x_t)}")
            self.check_batch({**x_s, **x_t}, subset=True)
        self._check_options("log_likelihood", self._log_likelihood, options)
        with torch.no_grad(), evaluating(self):
            return self._log_likelihood(x_s, given=x_t, num_importance_samples=count, generator=generator, **options)

    def noise_scale(self, modality: str) -> float:
        """Scale of a modality's likelihood under which the loss is a negative ELBO, up to a factor and a constant.

        The standard deviation of a Gaussian, b of a Laplace distribution, in the data's unit. A loss that weighs the KL
        divergence by β under a likelihood of scale s is β times the negative ELBO under one of scale s √β (Gaussian) or
        s β (Laplace). :meth:`log_likelihood` and the noise of :meth:`generate` have this scale, so that likelihoods of
        different β and of different models can be set beside each other.

        Arguments:
            modality: One of the model's.

        Raises:
            ValueError: If there is no such modality, or its likelihood has no scale.
        """
        if modality not in self.modalities:
            raise ValueError(f"unknown modality {modality!r}; the model has {list(self.modalities)}")
        return self._noise_scale(modality)

    def _noise_scale(self, modality: str) -> float:
        """What :meth:`noise_scale` is."""
        raise ValueError(f"{type(self).__name__} has no likelihood of a scale")

    def prepared(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Some modalities as the model takes them: in its order, of its parameters' type and on their device.

        Values of other types are converted where nothing is lost (:func:`~repro.datasets.values.as_tensor`); bytes are
        256 levels of [0, 1], or 0 and 1 in a binary modality whose largest is 1. Values may lie outside of the declared
        range, as generated ones do, but by no more than half its width: further out, they have another scale.

        Arguments:
            batch: Name to tensor, NumPy array or data frame of shape ``(batch, *spec.shape)``, all or some of the
                modalities.

        Raises:
            ValueError: If there is no modality or no sample, a name is unknown, a shape or a type does not fit, sizes
                differ, or a value is not finite or far outside its modality's range.
        """
        if not isinstance(batch, Mapping):
            raise ValueError(f"modalities are given by name, in a mapping, not in a {type(batch).__name__}")
        if unknown := [m for m in batch if m not in self.modalities]:
            raise ValueError(f"unknown modalities {unknown}; the model has {list(self.modalities)}")
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        found = {}
        for m, spec in self.modalities.items():
            if m in batch:
                x = as_tensor(m, batch[m]).detach()
                if x.dtype is torch.uint8:
                    x = x.float() if spec.kind == "binary" and x.numel() and int(x.max()) <= 1 else self._levels(m, x)
                found[m] = as_type(m, x, self.dtype).to(device)
        self.check_batch(found, subset=True)
        for m, x in found.items():
            low, high = (float(v) for v in x.aminmax())
            if not math.isfinite(low) or not math.isfinite(high):
                raise ValueError(f"modality {m!r} has values that are not finite")
            bounds = self.modalities[m].bounds
            if bounds is not None and max(bounds[0] - low, high - bounds[1]) >= (bounds[1] - bounds[0]) / 2:
                declared = f"[{bounds[0]:g}, {bounds[1]:g}]"
                raise ValueError(f"modality {m!r} has values in [{low:g}, {high:g}], its declared range is {declared}")
        return found

    def _levels(self, modality: str, x: Tensor) -> Tensor:
        if self.modalities[modality].range != (0.0, 1.0):
            raise ValueError(f"modality {modality!r} is given as uint8, so its range must be (0, 1)")
        return unit_values(x)

    @staticmethod
    def _check_options(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        known = signature(function).parameters
        if any(p.kind is Parameter.VAR_KEYWORD for p in known.values()):
            return
        offered = [p for p in known if p not in COMMON]
        if unknown := [o for o in options if o not in offered]:
            raise ValueError(f"{name} has no options {unknown}; this model offers {offered or 'none'}")

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        """What :meth:`generate` draws, of valid arguments with ``given`` in the model's order, in evaluation mode."""
        raise NotImplementedError(f"{type(self).__name__} does not generate")

    def _log_marginal(self, batch: Mapping[str, Tensor], num: int, generator: torch.Generator | None) -> Tensor:
        """An estimate of ln p(x_S) of all or some modalities from ``num`` importance samples, ``(batch,)``."""
        raise NotImplementedError(f"{type(self).__name__} has no likelihood")

    def _log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        *,
        given: Mapping[str, Tensor] | None,
        num_importance_samples: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        """What :meth:`log_likelihood` estimates, of valid arguments: :meth:`difference_of_marginals`."""
        return self.difference_of_marginals(
            lambda x: self._log_marginal(x, num_importance_samples, generator), batch, given
        )

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
        """
        return log_marginal(batch) if given is None else log_marginal({**batch, **given}) - log_marginal(given)

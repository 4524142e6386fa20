"""The papers' latent structures, each fitted to the same encodings: what is drawn, jointly and given some modalities.

Latents are stacked, ``(*batch, M, D)``, and standardised by coordinate.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from repro.datasets.base import Dataset, ModalitySpec
from repro.distributions.asymmetric_laplace import AsymmetricLaplace
from repro.distributions.block_gaussian import BlockGaussian
from repro.distributions.diffusion import VPSDE
from repro.distributions.log_partition import log_partition_batch
from repro.distributions.mcmc import MCMCDiagnostics
from repro.model import Loss, Stage, TrainableModel, isolated_rng
from repro.papers.covae.deep_cca import Alignment, align
from repro.papers.covae.prior import CorrelatedPrior
from repro.papers.mrf_mvae.almrf import AsymmetricLaplacePrior
from repro.papers.mrf_mvae.neural_prior import ChainSettings, NeuralMRFPrior
from repro.papers.sbm_vae.guidance import PairEnergy
from repro.papers.sbm_vae.sampling import SamplingSettings, sample_latents
from repro.papers.sbm_vae.score import LatentScore
from repro.training import TrainingSettings, epoch_seed, train

__all__ = ["Structure", "build_structure"]

COMPARED_AT_ONCE = 1000  # points whose distances to all encodings are in memory at a time


class Structure(ABC):
    """A distribution of the latents of all modalities that is fitted to encodings.

    Arguments:
        names: The modalities, in order.
        latent_dim: Latents a modality, D.

    Attributes:
        diagnostics: Of the Markov chains of the last draws; None where draws are independent.
    """

    diagnostics: MCMCDiagnostics | None = None

    def __init__(self, names: Sequence[str], latent_dim: int) -> None:
        self.names, self.latent_dim = list(names), latent_dim
        self.sizes = dict.fromkeys(self.names, latent_dim)

    @abstractmethod
    def fit(self, encodings: Dataset, seed: int) -> int:
        """Fits to encodings, and returns how many free numbers that has set.

        Arguments:
            encodings: ``"mean"`` and ``"scale"`` of each q(z | x), ``(N, M, D)``, on the device to compute on.
            seed: Of initialisation and noise.
        """

    @abstractmethod
    def sample(self, number: int, generator: torch.Generator | None) -> Tensor:
        """Joint draws ``(number, M, D)``."""

    @abstractmethod
    def conditional(self, values: Tensor, observed: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """Draws given some modalities, ``(N, M, D)`` with the observed ones as they were.

        Arguments:
            values: ``(N, M, D)``, of which only the observed modalities are looked at.
            observed: Their indices, at least one and not all.
            generator: Source of randomness.
        """


def _drawn(encodings: Dataset, seed: int) -> Tensor:
    """One draw of every encoding, ``(N, M, D)``."""
    with isolated_rng(epoch_seed(seed, "encodings", 0)):
        noise = torch.randn(encodings.data["mean"].shape)
    return encodings.data["mean"] + encodings.data["scale"] * noise.to(encodings.data["mean"])


def _moments(encodings: Dataset) -> tuple[Tensor, Tensor]:
    r"""Mean and covariance of the mixture of all encodings, ``(M D,)`` and ``(M D, M D)``, in double precision.

    .. math::
        \bar\mu, \quad \frac{1}{N} \sum_n \operatorname{diag}(\sigma_n^2) + (\mu_n - \bar\mu)(\mu_n - \bar\mu)^\top
    """
    mean = encodings.data["mean"].flatten(1).double()
    covariance = mean.T.cov(correction=0) + torch.diag(encodings.data["scale"].flatten(1).double().square().mean(0))
    return mean.mean(0), covariance


class _Explicit(Structure):
    """A distribution with closed-form draws and conditionals."""

    distribution: BlockGaussian | AsymmetricLaplace

    def sample(self, number: int, generator: torch.Generator | None) -> Tensor:
        return self.distribution.rsample((number,), generator).unflatten(-1, (-1, self.latent_dim))

    def conditional(self, values: Tensor, observed: Sequence[int], generator: torch.Generator | None) -> Tensor:
        rest = self.distribution.condition({self.names[k]: values[:, k] for k in observed})
        drawn = rest.split(rest.rsample(generator=generator))
        return torch.stack([drawn.get(m, values[:, k]) for k, m in enumerate(self.names)], 1)


class Gaussian(_Explicit):
    """A Gaussian of the encodings' mean and covariance: GMRF MCVAE's Markov random field, or one a modality.

    Arguments:
        names, latent_dim: As :class:`Structure`.
        joint: Whether covariances between modalities are kept.

    Source: GMRF MCVAE, section III-C.
    """

    def __init__(self, names: Sequence[str], latent_dim: int, *, joint: bool) -> None:
        super().__init__(names, latent_dim)
        self.joint = joint

    def fit(self, encodings: Dataset, seed: int) -> int:
        mean, covariance = _moments(encodings)
        blocks = 1 if self.joint else len(self.names)
        size = len(mean) // blocks
        if not self.joint:
            covariance = torch.block_diag(*(covariance[k : k + size, k : k + size] for k in range(0, len(mean), size)))
        self.distribution = BlockGaussian.from_covariance(mean.float(), covariance.float(), self.sizes)
        return blocks * (size + size * (size + 1) // 2)


class Canonical(_Explicit):
    """CoVAE's correlated prior in the canonical coordinates of the encodings.

    The paper trains the encoders by Deep CCA first; these encoders are fixed, so that the canonical map is the linear
    one, fitted and held out as in the paper.

    Arguments:
        names, latent_dim: As :class:`Structure`.
        held_out: Share of the encodings that the correlations are estimated on.

    Source: CoVAE, equation 5 and Algorithm 1; erratum E14.
    """

    alignment: Alignment

    def __init__(self, names: Sequence[str], latent_dim: int, *, held_out: float) -> None:
        super().__init__(names, latent_dim)
        self.held_out = held_out

    def fit(self, encodings: Dataset, seed: int) -> int:
        z = _drawn(encodings, seed)
        count = round(self.held_out * len(z))
        parts = [{m: x[:, k] for k, m in enumerate(self.names)} for x in (z[count:], z[:count])]
        self.alignment = align(*parts, self.sizes)
        prior = CorrelatedPrior(self.sizes).to(z)
        prior.set_covariance(self.alignment.covariance)
        self.distribution = prior()
        number, dim = len(self.names), self.latent_dim
        cross = dim if number == 2 else number * (number - 1) // 2 * dim * dim
        return number * (dim + dim * dim) + cross

    def _mapped(self, z: Tensor, *, back: bool) -> Tensor:
        """From latents to canonical coordinates, or back."""
        parts = []
        for k, m in enumerate(self.names):
            mean, weight = self.alignment.means[m], self.alignment.weights[m]
            x = z[..., k, :].double()
            parts.append(torch.linalg.solve(weight, x.mT).mT + mean if back else (x - mean) @ weight.T)
        return torch.stack(parts, -2).to(z)

    def sample(self, number: int, generator: torch.Generator | None) -> Tensor:
        return self._mapped(super().sample(number, generator), back=True)

    def conditional(self, values: Tensor, observed: Sequence[int], generator: torch.Generator | None) -> Tensor:
        drawn = super().conditional(self._mapped(values, back=False), observed, generator)
        return _held(self._mapped(drawn, back=True), values, observed)


def _held(z: Tensor, values: Tensor, observed: Sequence[int]) -> Tensor:
    """Draws with the observed modalities as they were given, to the last bit."""
    z = z.clone()
    z[:, list(observed)] = values[:, list(observed)]
    return z


class _Fit(TrainableModel):
    """What the training loop minimises: a loss of draws of the encodings.

    Arguments:
        number: Modalities, M.
        latent_dim: Latents a modality, D.
    """

    def __init__(self, number: int, latent_dim: int) -> None:
        spec = ModalitySpec((number, latent_dim))
        super().__init__({"mean": spec, "scale": spec})

    def drawn(self, batch: Mapping[str, Tensor]) -> Tensor:
        """New draws of q(z | x), ``(batch, M, D)``."""
        return batch["mean"] + batch["scale"] * torch.randn_like(batch["mean"])


def _trained(model: _Fit, encodings: Dataset, training: Mapping[str, Any], seed: int) -> int:
    settings = TrainingSettings(**training, device=str(encodings.data["mean"].device))
    with torch.enable_grad():
        train(model, encodings, settings, seed=seed)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class _LaplaceFit(_Fit):
    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(len(sizes), next(iter(sizes.values())))
        self.prior = AsymmetricLaplacePrior(sizes)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        return Loss(-self.prior().log_prob(self.drawn(batch).flatten(1)).mean())


class Laplace(_Explicit):
    """ALMRF MVAE's asymmetric Laplace distribution, by maximum likelihood.

    The paper ties posterior and prior by a maximum mean discrepancy, for want of a divergence; to given encodings the
    distribution can be fitted by its own likelihood.

    Arguments:
        names, latent_dim: As :class:`Structure`.
        training: Settings of the training loop.

    Source: MRF MVAE, section 3.1.2; errata E1 and E3.
    """

    def __init__(self, names: Sequence[str], latent_dim: int, *, training: Mapping[str, Any]) -> None:
        super().__init__(names, latent_dim)
        self.training = training

    def fit(self, encodings: Dataset, seed: int) -> int:
        with isolated_rng(seed):
            model = _LaplaceFit(self.sizes)
        number = _trained(model, encodings, self.training, seed)
        with torch.no_grad():
            self.distribution = model.prior()
        return number


class _NeuralFit(_Fit):
    def __init__(self, sizes: Mapping[str, int], widths: Sequence[int], confinement: float) -> None:
        super().__init__(len(sizes), next(iter(sizes.values())))
        self.prior = NeuralMRFPrior(sizes, widths=widths, confinement=confinement)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        z, density = self.drawn(batch).flatten(1), self.prior().log_prob_unnormalized
        scale = torch.diag_embed(batch["scale"].flatten(1))
        posterior = BlockGaussian(batch["mean"].flatten(1), scale, self.prior.block_sizes, validate_args=False)
        log_partition = log_partition_batch(density, posterior, z[None])
        return Loss(log_partition - density(z).mean(), {"log_partition": log_partition.detach()})


class Neural(Structure):
    """NN-MRF MVAE's field of neural potentials, by maximum likelihood with an estimate of ln Z, drawn by Markov chains.

    Arguments:
        names, latent_dim: As :class:`Structure`.
        widths, confinement: Of :class:`~repro.papers.mrf_mvae.neural_prior.NeuralMRFPrior`.
        chains: Of :class:`~repro.papers.mrf_mvae.neural_prior.ChainSettings`.
        training: Settings of the training loop.

    Source: MRF MVAE, section 3.1.3; errata E6 and E7.
    """

    prior: NeuralMRFPrior

    def __init__(
        self,
        names: Sequence[str],
        latent_dim: int,
        *,
        widths: Sequence[int],
        confinement: float,
        chains: Mapping[str, Any],
        training: Mapping[str, Any],
    ) -> None:
        super().__init__(names, latent_dim)
        self.widths, self.confinement, self.training = widths, confinement, training
        self.chains = ChainSettings(**chains)

    def fit(self, encodings: Dataset, seed: int) -> int:
        with isolated_rng(seed):
            model = _NeuralFit(self.sizes, self.widths, self.confinement)
        number = _trained(model, encodings, self.training, seed)
        self.prior = model.prior
        return number

    def sample(self, number: int, generator: torch.Generator | None) -> Tensor:
        chains, c = min(number, self.chains.num_chains), self.chains
        needed = math.ceil(number / chains)
        steps = max(needed, c.num_kept) * c.thinning
        draws, self.diagnostics = self.prior().sample(
            num_chains=chains,
            num_steps=steps,
            sampler=c.sampler,
            burn_in=c.burn_in,
            thinning=c.thinning,
            generator=generator,
        )
        return draws[-needed:].flatten(0, 1)[:number].unflatten(-1, (-1, self.latent_dim))

    def conditional(self, values: Tensor, observed: Sequence[int], generator: torch.Generator | None) -> Tensor:
        c, field = self.chains, self.prior().condition({self.names[k]: values[:, k] for k in observed})
        draws, self.diagnostics = field.sample(
            num_chains=1,
            num_steps=c.num_kept * c.thinning,
            sampler=c.sampler,
            burn_in=c.burn_in,
            thinning=c.thinning,
            generator=generator,
        )
        drawn = field.split(draws[-1, 0])
        return torch.stack([drawn.get(m, values[:, k]) for k, m in enumerate(self.names)], 1)


class _ScoreFit(_Fit):
    def __init__(self, score: LatentScore, energy: PairEnergy | None) -> None:
        super().__init__(score.num_modalities, score.latent_dim)
        self.score, self.energy = score, energy

    def stages(self) -> Sequence[Stage]:
        """The score model, then the energy where there is one."""
        score = Stage("score", ("score.network.",))
        return (score,) if self.energy is None else (score, Stage("energy", ("energy.",)))

    def smallest_batch(self, stage: Stage) -> int:
        """Two for the energy, which contrasts samples."""
        return 2 if stage.name == "energy" else 1

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        z = self.drawn(batch)
        if stage is not None and stage.name == "energy" and self.energy is not None:
            return Loss(self.energy.loss(z))
        if self.training:
            self.score.update_average()
        return Loss(self.score.loss(z))


class Score(Structure):
    """SBM-VAE's score model of the latents, with or without a pair energy that guides conditional draws.

    Arguments:
        names, latent_dim: As :class:`Structure`; latents a modality are a square number.
        sde: β_min and β_max of the diffusion.
        score: Of :class:`~repro.papers.sbm_vae.score.LatentScore`.
        sampling: Of :class:`~repro.papers.sbm_vae.sampling.SamplingSettings`.
        training: Settings of the training loop.
        energy: Hidden layers of the pair energy; None for no guidance.
        gamma: Strength of the guidance.

    Source: SBM-VAE, sections 2 and 2.2.1, appendix A.2.
    """

    model: _ScoreFit

    def __init__(
        self,
        names: Sequence[str],
        latent_dim: int,
        *,
        sde: Sequence[float],
        score: Mapping[str, Any],
        sampling: Mapping[str, Any],
        training: Mapping[str, Any],
        energy: Sequence[int] | None = None,
        gamma: float = 0.0,
    ) -> None:
        super().__init__(names, latent_dim)
        self.sde, self.score, self.training = VPSDE(*sde), score, training
        self.energy, self.gamma = energy, gamma
        self.sampling = SamplingSettings(**sampling)

    def fit(self, encodings: Dataset, seed: int) -> int:
        number = len(self.names)
        with isolated_rng(seed):
            score = LatentScore(number, self.latent_dim, sde=self.sde, **self.score)
            energy = None if self.energy is None else PairEnergy(number, self.latent_dim, self.sde, self.energy)
        self.model = _ScoreFit(score, energy)
        return _trained(self.model, encodings, self.training, seed)

    def sample(self, number: int, generator: torch.Generator | None) -> Tensor:
        return sample_latents(self.model.score, number, self.sampling, generator=generator)

    def conditional(self, values: Tensor, observed: Sequence[int], generator: torch.Generator | None) -> Tensor:
        mask = torch.tensor([k in observed for k in range(len(self.names))], device=values.device)
        return sample_latents(
            self.model.score,
            len(values),
            self.sampling,
            values=values,
            observed=mask,
            energy=self.model.energy,
            gamma=self.gamma,
            generator=generator,
        )


class Neighbour(Structure):
    """No model: encodings of training samples as they are, given others those of the nearest sample.

    It has every dependence that the training encodings have, at the price of keeping them all. A structure that falls
    short of it does not hold a dependence that the encodings have.
    """

    encodings: Tensor

    def fit(self, encodings: Dataset, seed: int) -> int:
        self.encodings = _drawn(encodings, seed)
        return self.encodings.numel()

    def sample(self, number: int, generator: torch.Generator | None) -> Tensor:
        device = "cpu" if generator is None else generator.device
        chosen = torch.randint(len(self.encodings), (number,), generator=generator, device=device)
        return self.encodings[chosen.to(self.encodings.device)]

    def conditional(self, values: Tensor, observed: Sequence[int], generator: torch.Generator | None) -> Tensor:
        columns = list(observed)
        known = self.encodings[:, columns].flatten(1)
        parts = values[:, columns].flatten(1).split(COMPARED_AT_ONCE)
        nearest = torch.cat([torch.cdist(part, known).argmin(1) for part in parts])
        return _held(self.encodings[nearest], values, observed)


def build_structure(name: str, names: Sequence[str], latent_dim: int, settings: Mapping[str, Any]) -> Structure:
    """A structure that is not fitted yet.

    Arguments:
        name: ``"independent"``, ``"gaussian"``, ``"laplace"``, ``"neural"``, ``"score"``, ``"score_guided"``,
            ``"canonical"`` or ``"neighbour"``.
        names: The modalities, in order.
        latent_dim: Latents a modality.
        settings: Its own, as its class takes them.

    Raises:
        ValueError: If the name is unknown, and as the classes do.
    """
    if name in ("independent", "gaussian"):
        return Gaussian(names, latent_dim, joint=name == "gaussian")
    classes: dict[str, type[Structure]] = {
        "laplace": Laplace,
        "neural": Neural,
        "score": Score,
        "score_guided": Score,
        "canonical": Canonical,
        "neighbour": Neighbour,
    }
    if name not in classes:
        raise ValueError(f"unknown structure {name!r}; one of independent, gaussian, {', '.join(classes)}")
    return classes[name](names, latent_dim, **settings)

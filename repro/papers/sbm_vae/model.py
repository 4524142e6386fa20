"""SBM-VAE: independent autoencoders whose latents a score model makes coherent, with guidance and MLD beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor

from repro.datasets.base import Dataset, ModalitySpec
from repro.model import Loss, MultimodalModel, Stage, evaluating
from repro.papers.sbm_vae.autoencoders import Autoencoders
from repro.papers.sbm_vae.finetuning import finetune_loss
from repro.papers.sbm_vae.guidance import ContrastiveEncoders, PairEnergy
from repro.papers.sbm_vae.likelihood import fitted_gaussian, log_marginal
from repro.papers.sbm_vae.sampling import FAST, PAPER, SamplingSettings, sample_latents
from repro.papers.sbm_vae.score import LatentScore, random_subsets
from repro.papers.sbm_vae.staging import cached_latents, column, missing_mask, with_present

__all__ = ["SBMVAE"]

DECODED_AT_ONCE = 1000


@torch.no_grad()
def _latent_sizes(autoencoders: Autoencoders) -> dict[str, int]:
    """Latents that each encoder gives, of a sample of zeros."""
    like, training = next(autoencoders.parameters()), autoencoders.training
    autoencoders.eval()  # one sample has no statistics of a batch
    zeros = {m: like.new_zeros(1, *s.shape) for m, s in autoencoders.modalities.items()}
    found = {m: autoencoders.encode(m, x)[0].shape[-1] for m, x in zeros.items()}
    autoencoders.train(training)
    return found


class SBMVAE(MultimodalModel):
    r"""Score-based multimodal autoencoder.

    .. math:: p(x_{1:M}) = \int p_\theta(z_{1:M}) \prod_m p_{\psi_m}(x_m \mid z_m) \, dz

    Stages, in order: ``autoencoders`` (all M at once), ``contrastive`` (where there are contrastive encoders),
    ``score``, ``energy`` (where there is a pair energy) and ``finetune`` (where ``finetune_drop`` is positive). For the
    score and the energy the split is encoded once. With a score of several times this is MLD.

    Arguments:
        modalities: Name to :class:`~repro.model.ModalitySpec`.
        autoencoders: Stage I.
        score: Stage II, of as many modalities and latents.
        energy: Energy-based guidance (the variants -C), with the score's kernel.
        contrastive: Contrastive guidance (-T), whose embeddings' size is the score's ``context_dim``.
        gamma: Strength of the energy's guidance for one sample; 1000 / 256 for Table 4, 2000 / 256 for Table 10.
        sampling: The sampler of :meth:`generate`.
        latents: What the score is trained on: ``"sample"`` of q(z | x), new in every epoch, or its ``"mean"`` (appendix
            A.9). Points are the same either way.
        missing: Share of each modality's samples that are missing in training, at random (appendix A.10.1).
        finetune_drop: Probability p that a modality is dropped in fine-tuning the decoders (appendix A.5.1); 0 for no
            fine-tuning.

    Raises:
        ValueError: If parts do not fit each other, or an option is out of range.

    Source: SBM-VAE, sections 2, 2.1 and 2.2, appendices A.2, A.3, A.5.1 and A.10.1.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        autoencoders: Autoencoders,
        score: LatentScore,
        *,
        energy: PairEnergy | None = None,
        contrastive: ContrastiveEncoders | None = None,
        gamma: float = 1000 / 256,
        sampling: SamplingSettings = PAPER,
        latents: str = "sample",
        missing: float = 0.0,
        finetune_drop: float = 0.0,
    ) -> None:
        super().__init__(modalities)
        number, dim = len(self.modalities), autoencoders.latent_dim
        if list(autoencoders.modalities) != list(self.modalities):
            raise ValueError(f"autoencoders for {list(autoencoders.modalities)}, modalities {list(self.modalities)}")
        if set((sizes := _latent_sizes(autoencoders)).values()) != {dim}:
            raise ValueError(f"latents of unequal size: the encoders give {sizes}, every modality needs {dim}")
        for name, part in {"score network": score, "energy model": energy}.items():
            if part is not None and (own := (part.num_modalities, part.latent_dim)) != (number, dim):
                text = f"the {name} is for {own[0]} modalities of {own[1]} latents"
                raise ValueError(f"{text}, the autoencoders have {number} of {dim}")
        if energy is not None and energy.sde != score.sde:
            raise ValueError(f"the energy model has the kernel {energy.sde}, the score model {score.sde}")
        context = 0 if contrastive is None else contrastive.embedding_dim
        if context != score.network.context_dim:
            raise ValueError(f"the score takes embeddings of size {score.network.context_dim}, there are {context}")
        if latents not in ("sample", "mean"):
            raise ValueError(f"latents is {latents!r}, must be 'sample' or 'mean'")
        for name, share in {"missing": missing, "finetune_drop": finetune_drop}.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} is {share}, must be at least 0 and under 1")
        self.autoencoders, self.score, self.energy, self.contrastive = autoencoders, score, energy, contrastive
        self.gamma, self.sampling, self.latents = gamma, sampling, latents
        self.missing, self.finetune_drop = missing, finetune_drop

    @property
    def decoders(self) -> torch.nn.ModuleDict:
        """Each modality's decoder."""
        return self.autoencoders.decoders

    @property
    def likelihood(self) -> str:
        """``"gaussian"`` or ``"bernoulli"``, of all modalities.

        Raises:
            AttributeError: If they differ, or the autoencoders are regularised ones, which have no likelihood.
        """
        kinds = set(self.autoencoders.likelihoods.values())
        if self.autoencoders.kind == "rae" or len(kinds) > 1:
            raise AttributeError("there is no one likelihood of all modalities")
        return kinds.pop()

    def stages(self) -> Sequence[Stage]:
        """The stages that this model has."""
        found = [Stage("autoencoders", ("autoencoders.",))]
        if self.contrastive is not None:
            found.append(Stage("contrastive", ("contrastive.",)))
        found.append(Stage("score", ("score.network.",)))
        if self.energy is not None:
            found.append(Stage("energy", ("energy.",)))
        if self.finetune_drop:
            found.append(Stage("finetune", ("autoencoders.decoders.",)))
        return tuple(found)

    def smallest_batch(self, stage: Stage) -> int:
        """Two for the contrasts between samples, and under batch normalisation where it is trained."""
        if stage.name in ("contrastive", "energy"):
            return 2
        return super().smallest_batch(stage) if stage.name == "autoencoders" else 1

    def stage_data(self, stage: Stage, data: Dataset) -> Dataset:
        """The split itself with what is missing marked, or its latents, encoded once.

        The frozen networks go into evaluation mode, for their batch normalisation; the score's location and scale are
        those of the split's latents.
        """
        trained = {"autoencoders": self.autoencoders, "contrastive": self.contrastive, "score": self.score}
        for part in (self.autoencoders, self.contrastive, self.score, self.energy):
            if part is not None:
                part.train(part is trained.get(stage.name, self.energy))
        present = missing_mask(len(data), len(self.modalities), self.missing, next(iter(data.data.values())).device)
        if stage.name in ("autoencoders", "contrastive", "finetune"):
            return with_present(data, present)
        contrastive = self.contrastive if stage.name == "score" else None
        found = cached_latents(self.autoencoders, contrastive, data, present, sampled=self.latents == "sample")
        if stage.name == "score":
            columns = [found.data.get(self._column(name)) for name in ("mean", "scale", "present")]
            self.score.fit(*columns)
        return found

    def _column(self, name: str) -> str:
        return column(name, self.modalities)

    def _standardised(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Latents of a cached batch, or of one of modalities, ``(batch, M, D)``."""
        if self._column("mean") in batch:
            mean, scale = batch[self._column("mean")], batch[self._column("scale")]
        else:
            with torch.no_grad():
                pairs = [self.autoencoders.encode(m, batch[m]) for m in self.modalities]
            mean, scale = (torch.stack(parts, 1) for parts in zip(*pairs, strict=True))
            scale = scale if self.latents == "sample" else torch.zeros_like(scale)
        return self.score.standardise(mean + scale * torch.randn_like(mean))

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """The loss of a stage, for a batch of all modalities or one of what :meth:`stage_data` made of them.

        Raises:
            ValueError: If the stage is unknown, or names or shapes do not fit.
        """
        name = self.stages()[0].name if stage is None else stage.name
        if not isinstance(batch, Mapping):
            self.check_batch(batch)
        batch = dict(batch)
        present = batch.pop(self._column("present"), None)
        if self._column("mean") not in batch:
            self.check_batch(batch)
        if name == "autoencoders":
            return self.autoencoders.loss(batch, present)
        if name == "contrastive" and self.contrastive is not None:
            total = self.contrastive.loss(batch)
            return Loss(total, {"contrastive": total.detach()})
        if name == "finetune":
            return finetune_loss(self.autoencoders, self.score, self._standardised(batch), batch, self.finetune_drop)
        z = self._standardised(batch)
        if name == "energy" and self.energy is not None:
            total = self.energy.loss(z, present)
            return Loss(total, {"nce": total.detach()})
        if name != "score":
            raise ValueError(f"unknown stage {name!r}; the model has {[s.name for s in self.stages()]}")
        if self.training:
            self.score.update_average()
        total = self.score.loss(z, self._training_context(batch), present)
        return Loss(total, {"score_matching": total.detach()})

    def _training_context(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """The mean embedding of a random subset of the modalities of each sample, which may be empty."""
        if self.contrastive is None:
            return None
        embedded = batch.get(self._column("embedding"))
        if embedded is None:
            with torch.no_grad():
                embedded = torch.stack([self.contrastive.embed(m, batch[m]) for m in self.modalities], 1)
        subsets = random_subsets(len(embedded), len(self.modalities), embedded.device)
        return self.contrastive.context(embedded, subsets[..., 0])

    def _noise_scale(self, modality: str) -> float:
        """That of the modality's autoencoder, a VAE with a Gaussian likelihood."""
        if self.autoencoders.kind == "rae" or self.autoencoders.likelihoods[modality] != "gaussian":
            return super()._noise_scale(modality)
        return self.autoencoders.noise_scale(modality)

    @torch.no_grad()
    def latents_of(self, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Standardised means of q(z | x) of what is given, zeros elsewhere ``(batch, M, D)``, and which it is ``(M,)``.

        Raises:
            ValueError: If names, shapes or sizes do not fit.
        """
        number = self.check_batch(given, subset=True)
        device = self.score.location.device
        values = torch.zeros(number, len(self.modalities), self.autoencoders.latent_dim, device=device)
        for k, m in enumerate(self.modalities):
            if m in given:
                values[:, k] = (self.autoencoders.encode(m, given[m])[0] - self.score.location[k]) / self.score.scale[k]
        return values, torch.tensor([m in given for m in self.modalities], device=device)

    @torch.no_grad()
    def latent_means(
        self, given: Mapping[str, Tensor], *, num_samples: int = 16, generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Means of all standardised latents given some modalities, ``(batch, M D)``, which classifiers read.

        .. math:: \mu_m = E_{q(z_m \mid x_m)}[z_m] \text{ of what is given}, \qquad
            \frac1K \sum_k z_m^k \text{ of the others}, \quad z^k \sim p_\theta(z \mid z_T = \mu_T)

        The score's conditional has no mean in closed form: it is that of K samples, by the model's sampler.

        Arguments:
            given: Observed modalities, all or some.
            num_samples: K.
            generator: Source of randomness; a new one of seed 0 if None, so that the result is the same each time.

        Raises:
            ValueError: If names or shapes do not fit, or K is under 1.

        Source: SBM-VAE, sections 2 and 2.1, algorithm 2.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}, must be at least 1")
        generator = torch.Generator(self.score.location.device).manual_seed(0) if generator is None else generator
        with evaluating(self):
            if len(given) == len(self.modalities):
                return self.latents_of(given)[0].flatten(1)
            return self.sample(num_samples, given=given, generator=generator).mean(0).flatten(1)

    @torch.no_grad()
    def sample(
        self,
        num_samples: int = 1,
        *,
        given: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        sampling: SamplingSettings | None = None,
        gamma: float | None = None,
    ) -> Tensor:
        """Standardised latents ``(num_samples, M, D)``, or ``(num_samples, batch, M, D)`` under ``given``.

        Arguments:
            num_samples: Joint samples, or samples for each conditioning point.
            given: Observed modalities.
            generator: Source of randomness.
            sampling: The sampler; the model's if None.
            gamma: Strength of the energy's guidance; 0 for none, the model's where something is observed if None.

        Raises:
            ValueError: As :meth:`generate`; all modalities given leave nothing to sample.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}, must be at least 1")
        if sampling is not None and not isinstance(sampling, SamplingSettings):
            raise ValueError(f"sampling is {sampling!r}, must be SamplingSettings or None")
        if gamma is not None and not (isinstance(gamma, Real) and 0 <= gamma < math.inf):
            raise ValueError(f"gamma is {gamma!r}, must be a number of at least 0, or None")
        if gamma and self.energy is None:
            raise ValueError("this model has no energy to guide by")
        if gamma and (given is None or len(given) == len(self.modalities)):
            raise ValueError("guidance needs an observed and an unobserved modality")
        sampling = sampling or self.sampling
        common = {"generator": generator, "energy": self.energy}
        if given is None:
            context = None
            if self.contrastive is not None:
                context = self.score.location.new_zeros(num_samples, self.contrastive.embedding_dim)
            return sample_latents(self.score, num_samples, sampling, context=context, **common)
        values, observed = self.latents_of(given)
        if bool(observed.all()):
            raise ValueError(f"all modalities {list(given)} are observed; there is nothing left to sample")
        number = len(values)
        repeated = values.repeat(num_samples, 1, 1)
        context = self._observed_context(given, observed)
        z = sample_latents(
            self.score,
            num_samples * number,
            sampling,
            values=repeated,
            observed=observed,
            context=None if context is None else context.repeat(num_samples, 1),
            gamma=self.gamma if gamma is None else gamma,
            **common,
        )
        return z.reshape(num_samples, number, *z.shape[1:])

    def _observed_context(self, given: Mapping[str, Tensor], observed: Tensor) -> Tensor | None:
        if self.contrastive is None:
            return None
        zeros = self.score.location.new_zeros(len(next(iter(given.values()))), self.contrastive.embedding_dim)
        rows = [self.contrastive.embed(m, given[m]) if m in given else zeros for m in self.modalities]
        return self.contrastive.context(torch.stack(rows, 1), observed[None])

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
        sampling: SamplingSettings | None = None,
        gamma: float | None = None,
    ) -> dict[str, Tensor]:
        """Samples all modalities, or given any subset of them; observed ones come back as reconstructions of q's mean.

        Arguments:
            num_samples: Joint samples, or samples for each conditioning point.
            given: Observed modalities; all of them give reconstructions alone.
            generator: Source of randomness.
            sample_likelihood: Whether to add the noise of a VAE's likelihood, or draw binary values.
            sampling: The sampler; the model's if None.
            gamma: Strength of the energy's guidance; 0 for none, the model's where something is observed if None.

        Returns:
            Name to ``(num_samples, *shape)``, or ``(num_samples, batch, *shape)`` under ``given``.

        Raises:
            ValueError: If a name or shape does not fit, guidance is asked for where there is nothing to guide, or a
                reverse step gave a value that is not finite (it says at which evaluation).
        """
        if given is not None and set(given) == set(self.modalities) and not gamma:
            values, _ = self.latents_of(given)
            z = values.expand(num_samples, *values.shape)
        else:
            z = self.sample(num_samples, given=given, generator=generator, sampling=sampling, gamma=gamma)
        return self.decode(z, generator=generator, sample_likelihood=sample_likelihood)

    @torch.no_grad()
    def decode(
        self, z: Tensor, *, generator: torch.Generator | None = None, sample_likelihood: bool = False
    ) -> dict[str, Tensor]:
        """Decoders' means, or draws, for standardised latents ``(*batch, M, D)``."""
        z = self.score.restore(z)
        shape, rows = z.shape[:-2], z.reshape(-1, *z.shape[-2:])
        parts = [self.autoencoders.decode(chunk) for chunk in rows.split(DECODED_AT_ONCE)]
        means = {m: torch.cat([p[m] for p in parts]).reshape(*shape, *s.shape) for m, s in self.modalities.items()}
        if not sample_likelihood:
            return means
        return {m: self._draw(m, mean, generator) for m, mean in means.items()}

    def _draw(self, modality: str, mean: Tensor, generator: torch.Generator | None) -> Tensor:
        device = mean.device if generator is None else generator.device
        if self.autoencoders.likelihoods[modality] == "bernoulli":
            u = torch.rand(mean.shape, generator=generator, device=device).to(mean.device)
            return (u < mean).to(mean)
        if self.autoencoders.kind == "rae":
            raise ValueError("a regularised autoencoder has no likelihood to sample from; take its means")
        noise = torch.randn(mean.shape, generator=generator, device=device).to(mean.device)
        return mean + self.autoencoders.noise_scale(modality) * noise

    def _log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        *,
        given: Mapping[str, Tensor] | None,
        num_importance_samples: int,
        generator: torch.Generator | None,
        num_steps: int = 30,
        num_probes: int | None = 1,
        proposal_samples: int | None = None,
    ) -> Tensor:
        """Estimates ln p of all modalities, of some, or of some given others; see :func:`~.likelihood.log_marginal`.

        Each importance sample of a point takes ``2 num_steps`` evaluations of the score and their gradients, under
        ``given`` twice as many: with the default score network (7.3 million parameters, 3 modalities of 16 latents) and
        16 points, 3 s on one CPU core. Where some modalities are not observed, ``proposal_samples`` draws by 20
        evaluations each come first. Progress is shown on a terminal.

        Arguments:
            batch, given, num_importance_samples, generator: As :meth:`~repro.model.MultimodalModel.log_likelihood`.
            num_steps: Of the probability flow.
            num_probes: Signs for each divergence, None for exact ones.
            proposal_samples: Where some modalities are not observed, joint draws of the model that the proposal of
                their latents is fitted to; four times as many as there are latents, and at least 1,000, if None.

        Raises:
            ValueError: For regularised autoencoders, which have no likelihood.
        """
        common = {"num_importance_samples": num_importance_samples, "generator": generator}
        common |= {"num_steps": num_steps, "num_probes": num_probes}
        reference = None

        def estimate(x: Mapping[str, Tensor]) -> Tensor:
            nonlocal reference
            if len(x) < len(self.modalities) and reference is None:
                number = proposal_samples or max(1000, 4 * len(self.modalities) * self.autoencoders.latent_dim)
                draws = self.sample(number, generator=generator, sampling=FAST)
                reference = fitted_gaussian(draws, list(self.modalities))
            return log_marginal(self.autoencoders, self.score, x, reference=reference, **common)

        return self.difference_of_marginals(estimate, batch, given)

"""The joint likelihoods that multivae itself computes, and former names of the baselines' classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from multivae.data.datasets.base import MultimodalBaseDataset
from torch import Tensor

from repro.baselines.models import Baseline, BaselineSettings, multivae_fields
from repro.model import isolated_rng

__all__ = ["JointBaseline", "JointBaselineSettings", "multivae_joint_nll"]

# What models were pickled and published as.
JointBaseline, JointBaselineSettings = Baseline, BaselineSettings


@torch.no_grad()
def multivae_joint_nll(
    model: Baseline,
    batch: Mapping[str, Tensor],
    *,
    num_importance_samples: int = 1000,
    generator: torch.Generator | None = None,
) -> float:
    """Mean over a batch of the joint negative log-likelihood as multivae 1.0.3 itself computes it, in nats a sample.

    It is here to be shown beside :meth:`~repro.model.MultimodalModel.log_likelihood`, not to be used: DMVAE's adds up
    over points and chunks, MMVAE+'s leaves the last modality out (the library removes it from its caller's data: here,
    from a copy), and those of MMVAE and MoPoE draw all samples from one expert taken at random. The decoders have the
    scale that they are trained with in multivae: for MMVAE the model's noise scale, for all others 1.

    Arguments:
        model: A baseline.
        batch: All modalities.
        num_importance_samples: K.
        generator: Source of randomness.

    Raises:
        ValueError: If names or shapes do not fit.
    """
    size, method, library = model.check_batch(batch), model.method, model.multivae
    if method.model is not method.library:
        networks = [dict(part.items()) for part in (library.encoders, library.decoders)]
        library = method.library(method.config(**multivae_fields(model.settings)), *networks)
        library.load_state_dict(model.multivae.state_dict())
    training = model.training
    with isolated_rng(generator):
        inputs = MultimodalBaseDataset(data={m: batch[m] for m in model.modalities})
        found = library.compute_joint_nll(inputs, K=num_importance_samples)
    model.train(training)  # it switches to evaluation
    return float(found) / size

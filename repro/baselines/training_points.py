"""The training split in a model's place: what is reached without one, and the least that a model has to beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from repro.datasets import Dataset
from repro.model import Loss, MultimodalModel, Stage

__all__ = ["TrainingPoints"]

POINTS_AT_ONCE = 1_000


class TrainingPoints(MultimodalModel):
    r"""What generates as if the training split were all there is: the ceiling of what its points can do.

    .. math:: \hat x = x^{(n)}, \qquad n = \arg\min_i \sum_{m \in T} \| x_m - x_m^{(i)} \|_2^2

    given the modalities T; without any, training points in their own order.

    Arguments:
        data: The training split.
    """

    def __init__(self, data: Dataset) -> None:
        super().__init__(data.modalities)
        self.points = {m: x.float() for m, x in data.data.items()}

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        """There is nothing to train.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("training points are not trained")

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        """Training points; given some modalities, the nearest one of each point, whatever the number of samples."""
        if given is None:
            return {m: x[:num_samples] for m, x in self.points.items()}
        known = torch.cat([self.points[m].flatten(1) for m in given], 1)
        asked = torch.cat([x.flatten(1) for x in given.values()], 1)
        rows = torch.cat([torch.cdist(part, known).argmin(1) for part in asked.split(POINTS_AT_ONCE)])
        return {m: x[rows].expand(num_samples, *x[rows].shape) for m, x in self.points.items()}

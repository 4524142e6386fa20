"""A line through two modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from repro.datasets import ModalitySpec
from repro.model import Loss, MultimodalModel, Stage


class Regression(MultimodalModel):
    """b = w a + c, and a standard normal a."""

    def __init__(self) -> None:
        super().__init__({m: ModalitySpec((1,)) for m in "ab"})
        self.line = nn.Linear(1, 1)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        return Loss((self.line(batch["a"]) - batch["b"]).square().mean())

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        a = torch.randn(num_samples, 1, generator=generator) if given is None else given["a"][None]
        return {"a": a, "b": self.line(a)}

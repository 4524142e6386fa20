"""Runs of a noisy autoencoder whose steps take as long as a run says, so that faults can be timed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec, fingerprint
from repro.experiment import Cost, Experiment
from repro.model import Loss, MultimodalModel, Stage
from repro.papers.gmrf_mcvae.model import GMRFMCVAE
from repro.records import Metric, RunSpec

MODALITIES = {"a": ModalitySpec((2,)), "b": ModalitySpec((3,))}
SAMPLES = 48


def toy_spec(
    seed: int = 0,
    *,
    epochs: int = 20,
    pause: float = 0.0,
    width: int = 4,
    appetite: int = 0,
    method: str = "autoencoder",
    **training: Any,
) -> RunSpec:
    """A run of two stages of ``epochs`` epochs of three steps, each of which sleeps for ``pause`` seconds.

    Once the file that the environment's ``TOY_HURRY`` names is there, no step sleeps any more. A step takes
    ``appetite`` bytes of memory for each sample. With the method "gmrf" it is a GMRF MCVAE, of one stage, that does not
    sleep.
    """
    params = {
        "model": {"width": width, "pause": pause, "appetite": appetite},
        "training": {"epochs": epochs, "batch_size": 16, "learning_rate": 0.01, **training},
        "data": {"seed": 0},
        "evaluation": {"num_samples": 30},
    }
    return RunSpec("toy", "toy", method, seed, "smoke", params)


class Toy(MultimodalModel):
    """Two stages, dropout, noise, and a buffer that the loss moves."""

    def __init__(self, width: int, pause: float, appetite: int) -> None:
        super().__init__(MODALITIES)
        self.pause, self.width, self.appetite = pause, width, appetite
        self.encoder, self.decoder = nn.Linear(5, width), nn.Linear(width, 5)
        self.dropout = nn.Dropout(0.2)
        self.register_buffer("average", torch.zeros(width))

    def stages(self) -> tuple[Stage, ...]:
        return Stage("encode", ("encoder.",)), Stage("decode", ("decoder.",))

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        if self.pause and not Path(os.environ.get("TOY_HURRY", "/no such file")).exists():
            time.sleep(self.pause)
        torch.empty(len(batch["a"]) * self.appetite, dtype=torch.uint8)
        x = torch.cat([batch["a"], batch["b"]], 1)
        z = self.dropout(self.encoder(x))
        z = z + 0.1 * torch.randn_like(z)
        self.average.mul_(0.9).add_(0.1 * z.detach().mean(0))
        error = (self.decoder(z) - x).square().sum(1).mean()
        return Loss(error + 0.1 * z.square().sum(1).mean(), {"error": error.detach()})

    def generate(
        self,
        num_samples: int = 1,
        *,
        given: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        sample_likelihood: bool = False,
    ) -> dict[str, Tensor]:
        size = (num_samples,) if given is None else (num_samples, len(next(iter(given.values()))))
        z = torch.randn(*size, self.width, generator=generator) + self.average
        a, b = self.decoder(z).split([2, 3], -1)
        return {"a": a, "b": b}

    def log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        *,
        given: Mapping[str, Tensor] | None = None,
        num_importance_samples: int = 10,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        noise = torch.randn(self.check_batch(batch), num_importance_samples, generator=generator)
        return noise.mean(1) - batch["a"].square().sum(1)


class ToyExperiment(Experiment):
    datasets = ("toy",)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        return toy_spec(seed, method=method, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        generator = torch.Generator().manual_seed(spec.params["data"]["seed"])
        values = {m: torch.rand(SAMPLES, *s.shape, generator=generator) for m, s in MODALITIES.items()}
        return {"train": Dataset("toy", "train", MODALITIES, values, provenance={"sha256": fingerprint(values)})}

    def build(self, spec: RunSpec) -> MultimodalModel:
        if spec.method == "gmrf":
            return GMRFMCVAE(MODALITIES, latent_dim=2)
        return Toy(**spec.params["model"])

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> list[Metric]:
        generator, number = torch.Generator().manual_seed(0), spec.params["evaluation"]["num_samples"]
        joint = model.generate(number, generator=generator)
        points = {m: x[:7].float() for m, x in data["train"].data.items()}
        conditional = model.generate(5, given=points, generator=generator)
        likelihood = model.log_likelihood(points, num_importance_samples=10, generator=generator)
        values = {"joint": joint["b"], "conditional": conditional["a"], "likelihood": likelihood}
        return [Metric(name, float(x.mean()), "1", x.numel(), "mean") for name, x in values.items()]

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        return model.generate(4, generator=torch.Generator().manual_seed(1))

    def cost(self, spec: RunSpec) -> Cost:
        return Cost(6 * spec.params["training"]["epochs"] * spec.params["model"]["pause"], 100.0)

"""Stages with settings and data of their own, and the learning rate that falls on a plateau."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec
from repro.model import Loss, Stage, TrainableModel
from repro.training import TrainingSettings, train

MODALITIES = {"a": ModalitySpec((2,)), "b": ModalitySpec((3,))}


class Encodings(TrainableModel):
    """An encoder, then a map fitted to its noisy encodings, which are cached with their scale in a buffer."""

    def __init__(self) -> None:
        super().__init__(MODALITIES)
        self.encoder, self.map = nn.Linear(5, 2), nn.Linear(2, 2)
        self.register_buffer("scale", torch.zeros(()))
        self.sizes: list[int] = []
        self.calls = 0

    def stages(self) -> tuple[Stage, ...]:
        return Stage("encode", ("encoder.",)), Stage("map", ("map.",))

    def stage_data(self, stage: Stage, data: Dataset) -> Dataset:
        self.calls += 1
        if stage.name == "encode":
            return data
        z = self.encoder(torch.cat([data.data["a"], data.data["b"]], 1))
        z = z + 0.1 * torch.randn_like(z)
        self.scale.copy_(z.std())
        return Dataset("encodings", data.split, {"z": ModalitySpec((2,))}, {"z": z}, data.labels)

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        self.sizes.append(len(next(iter(batch.values()))))
        if stage is not None and stage.name == "map":
            return Loss((self.map(batch["z"]) - batch["z"] / self.scale).square().mean())
        return Loss(self.encoder(torch.cat([batch["a"], batch["b"]], 1)).square().mean())


def data(size: int = 24) -> Dataset:
    generator = torch.Generator().manual_seed(3)
    values = {m: torch.randn(size, *s.shape, generator=generator) for m, s in MODALITIES.items()}
    return Dataset("toy", "train", MODALITIES, values, torch.zeros(size, dtype=torch.int64))


def model() -> Encodings:
    torch.manual_seed(5)
    return Encodings()


OWN = {"map": {"epochs": 4, "batch_size": 12, "learning_rate": 0.05}}


class Interrupt(Exception):
    """An interruption on purpose."""


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_own_settings_and_cached_data_continue_bit_for_bit(after: int, tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-2, stages=OWN, plateau=1)
    whole = model()
    history = train(whole, data(), settings, seed=1)
    assert [(e["stage"], e["epochs"]) for e in history] == [("encode", 2)] * 2 + [("map", 4)] * 4
    assert whole.sizes == [8] * 6 + [12] * 8

    seen = 0

    def stop(entry: object) -> None:
        nonlocal seen
        seen += 1
        if seen > after:
            raise Interrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Interrupt):
        train(model(), data(), settings, seed=1, checkpoint=checkpoint, on_epoch=stop)
    continued = model()
    assert train(continued, data(), settings, seed=1, checkpoint=checkpoint) == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, continued.state_dict()[name]), name


class Stuck(TrainableModel):
    """A loss that is always 1, with a gradient of 1: a step of SGD-like Adam moves by the learning rate."""

    def __init__(self) -> None:
        super().__init__({"a": MODALITIES["a"]})
        self.w = nn.Parameter(torch.zeros(()))
        self.track: list[float] = []

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        self.track.append(float(self.w.detach()))
        return Loss(self.w - self.w.detach() + 1.0)


def stuck(settings: TrainingSettings, folder: Path, *, stopped_after: int) -> list[float]:
    """How far each epoch's one step went; an interrupted and continued run comes to the same."""
    only_a = Dataset("toy", "train", {"a": MODALITIES["a"]}, {"a": torch.zeros(4, 2)}, torch.zeros(4).long())
    whole, continued = Stuck(), Stuck()
    train(whole, only_a, settings, seed=0)

    def stop(entry: dict[str, object]) -> None:
        if entry["epoch"] == stopped_after:
            raise Interrupt

    checkpoint = folder / "checkpoint.safetensors"
    with pytest.raises(Interrupt):
        train(Stuck(), only_a, settings, seed=0, checkpoint=checkpoint, on_epoch=stop)
    train(continued, only_a, settings, seed=0, checkpoint=checkpoint)
    assert torch.equal(continued.w, whole.w)
    return [a - b for a, b in zip(whole.track, [*whole.track[1:], float(whole.w.detach())], strict=True)]


def test_learning_rate_falls_on_a_plateau_and_stays_low_after_an_interruption(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=8, batch_size=4, learning_rate=0.1, plateau=2)
    steps = stuck(settings, tmp_path, stopped_after=6)
    # Epoch 1 is the best; after 2 more without a lower loss are allowed, the fourth brings the rate down.
    assert steps[:4] == pytest.approx([0.1] * 4, rel=1e-4)
    assert steps[4:7] == pytest.approx([0.01] * 3, rel=1e-4)


def test_learning_rate_decays_with_every_epoch_and_goes_on_from_there_after_an_interruption(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=5, batch_size=4, learning_rate=0.1, decay=0.5)
    steps = stuck(settings, tmp_path, stopped_after=3)
    assert steps == pytest.approx([0.1, 0.05, 0.025, 0.0125, 0.00625], rel=1e-4)


def test_a_stage_decays_on_its_own(tmp_path: Path) -> None:
    own = {"train": {"decay": 0.5}}
    settings = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.1, stages=own)
    assert stuck(settings, tmp_path, stopped_after=2) == pytest.approx([0.1, 0.05, 0.025], rel=1e-4)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="plateau is -1"):
        TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0, plateau=-1)
    for decay in (0, -0.5, 1.1, float("nan")):
        with pytest.raises(ValueError, match="must be above 0 and at most 1"):
            TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0, decay=decay)
    with pytest.raises(ValueError, match="decay is True, must be a number"):
        TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0, decay=True)
    with pytest.raises(ValueError, match="the learning rate falls by one of them"):
        TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0, plateau=2, decay=0.5)
    with pytest.raises(ValueError, match=r"stage 'map' has settings \['device'\]"):
        TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0, stages={"map": {"device": 1}})
    with pytest.raises(ValueError, match="learning_rate is 0"):
        TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0, stages={"map": {"learning_rate": 0}})
    settings = TrainingSettings(epochs=1, batch_size=8, learning_rate=1.0, stages={"decode": {"epochs": 2}})
    with pytest.raises(ValueError, match=r"stages \['decode'\]; the model has \['encode', 'map'\]"):
        train(model(), data(), settings, seed=0)

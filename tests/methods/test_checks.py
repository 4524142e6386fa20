"""What is trained and kept of a reader's model: parts that no optimizer sees, state that no checkpoint has."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repro.datasets import ModalitySpec
from repro.errors import UsageError
from repro.methods.checks import check_kept, check_method
from repro.methods.models import built
from repro.model import MultimodalModel, isolated_rng

MODALITIES = {m: ModalitySpec((2,), "continuous", None) for m in ("a", "b")}


class Shift(nn.Module):
    """Each modality is a constant with a parameter a modality."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.ParameterDict({m: torch.zeros(2) for m in MODALITIES})

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return sum(((x - self.shift[m]).square().mean() for m, x in batch.items()), torch.zeros(()))

    def generate(self, num_samples: int, given: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        leading = (num_samples,) if given is None else (num_samples, len(next(iter(given.values()))))
        return {m: self.shift[m].expand(*leading, 2) for m in MODALITIES}

    def log_likelihood(self, batch: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError


class Holder:
    """No module: it has a network by ``net()`` and one parameter that is found."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(torch.ones(()))
        self.parts, self.inner, self.lazy = [Shift()], type("Inner", (), {"net": Shift()})(), None

    def net(self) -> Shift:
        return self.parts[0]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return self.scale.square() + self.net().loss(batch)

    def generate(self, num_samples: int, given: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        return self.net().generate(num_samples, given)

    def log_likelihood(self, batch: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError


class Nested(Holder):
    def net(self) -> Shift:
        return self.inner.net


class Lazy(Holder):
    def net(self) -> Shift:
        self.lazy = self.lazy or Shift()
        return self.lazy


class Penalised(Shift):
    """With a gradient penalty at points of its own: leaves of the graph that are new in every loss."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        points = torch.randn(3, 2, requires_grad=True)
        value = (self.shift["a"] * points).square().sum()
        (gradient,) = torch.autograd.grad(value, points, create_graph=True)
        return super().loss(batch) + gradient.square().mean()


class Annealed(Shift):
    step = 0

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.step += 1
        return super().loss(batch) * min(1.0, self.step / 100)


class AnnealedInBuffer(Shift):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros(()))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.step += 1
        return super().loss(batch) * (self.step / 100).clamp(max=1.0)


class RunningMean(Holder):
    """What it generates follows a mean of batches that is a plain attribute."""

    mean = torch.zeros(2)

    def __init__(self) -> None:
        super().__init__()
        self.network = Shift()

    def net(self) -> Shift:
        return self.network

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * batch["a"].mean(0)
        return super().loss(batch)

    def generate(self, num_samples: int, given: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        return {m: x + self.mean for m, x in super().generate(num_samples, given).items()}


class Counting(Shift):
    """A count for nobody but the reader, and the last loss."""

    batches, last = 0, None

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.batches += 1
        self.last = super().loss(batch)
        return self.last


class Choosing(Shift):
    """Takes one of the modalities by Python's own generator."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        chosen = random.choice(sorted(batch))
        return super().loss({chosen: batch[chosen]})


class Clock(Shift):
    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return super().loss(batch) * (1.0 + time.perf_counter())


class OwnGenerator(Shift):
    def __init__(self) -> None:
        super().__init__()
        self.draws = torch.Generator().manual_seed(0)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return super().loss(batch) * (1.0 + torch.rand((), generator=self.draws))


class Logging(Shift):
    """Numbers that become tensors, and tensors that cannot be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.adjacency, self.shape = 0.0, torch.eye(2).to_sparse(), torch.empty(2, device="meta")

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.last = batch["a"].mean(0)
        return super().loss(batch)


class Perceptual(Shift):
    """With a fixed network that is not to be trained, out of the optimizer's sight."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = [nn.Linear(2, 3).requires_grad_(False)]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return super().loss(batch) + self.fixed[0](self.shift["a"]).square().mean()


class CountingInDict(Shift):
    def __init__(self) -> None:
        super().__init__()
        self.state = {"step": 0}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.state["step"] += 1
        return super().loss(batch) * self.state["step"]


class Attached(Shift):
    """A running mean in a buffer with the graph of the batches before."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * self.shift["a"]
        return super().loss(batch) + self.mean.square().sum()


class DictState(Shift):
    def get_extra_state(self) -> dict[str, int]:
        return {"step": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


class LazyLayers(Shift):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(3)


class Growing(Shift):
    """Creates a layer in its first loss."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        if not hasattr(self, "layer"):
            self.layer = nn.Linear(2, 2)
        return super().loss(batch) + self.layer(batch["a"]).mean()


def maker(kind: Callable[[], Any]) -> Callable[[], MultimodalModel]:
    def make() -> MultimodalModel:
        with isolated_rng(0):
            return built("mine", lambda modalities: kind(), MODALITIES, {})

    return make


@pytest.mark.parametrize("kind", [Holder, Nested, Lazy])
def test_parts_that_would_not_be_trained_are_refused(kind: Callable[[], Any]) -> None:
    """In a list, in an object that is no module, or made with the first loss."""
    with pytest.raises(UsageError, match=r"method mine: .* shape \(2,\) that is no parameter of the model"):
        check_method("mine", maker(kind)())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (DictState, r"'parts\.inner\._extra_state', which is no tensor"),
        (LazyLayers, "lazy layers; give each its sizes"),
        (Attached, "backward through the graph a second time"),
        (Growing, "loss creates or removes 'parts.inner.layer.bias' in its state"),
    ],
)
def test_parameters_and_state_have_to_be_there_from_the_start(kind: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"^method mine: .*{said}"):
        check_method("mine", maker(kind)())


@pytest.mark.parametrize(
    ("kind", "name"), [(Annealed, "step"), (RunningMean, "mean"), (CountingInDict, "such as a count in a dict")]
)
def test_state_that_an_interruption_would_lose_is_refused_by_its_name(kind: Callable[[], Any], name: str) -> None:
    make = maker(kind)
    assert check_method("mine", make()) == ["samples of its likelihood", "a likelihood"]
    with pytest.raises(UsageError, match=rf"besides parameters and buffers \({name}\), which is lost"):
        check_kept("mine", make)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Shift, []),
        (Penalised, []),
        (AnnealedInBuffer, []),
        (Counting, ["batches"]),
        (Choosing, []),
        (Logging, []),
        (Perceptual, []),
        (Clock, []),
        (OwnGenerator, []),
    ],
)
def test_a_model_that_is_what_its_state_says_is_taken(kind: Callable[[], Any], names: list[str]) -> None:
    """However often; and one of which nothing can be told, as it is never twice the same."""
    make = maker(kind)
    for _ in range(12):
        check_method("mine", make())
        assert check_kept("mine", make) == names

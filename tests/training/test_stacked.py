"""Seeds trained together and one after another: the same parameters within rounding, checkpoints that fit both."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repro.datasets.base import Dataset, ModalitySpec
from repro.model import Loss, Stage, TrainableModel, isolated_rng
from repro.training import NonFiniteLossError, TrainingSettings, TrainingStopped, train
from repro.training.loop import training
from repro.training.stacked import NotStackableError, Stack, train_stacked
from repro.training.steps import EagerStep
from tests.engine.test_devices import LONG, MODELS, dataset, devices, pretend, trainable

SEEDS = range(3)
# Why the seeds of these models are trained one after another; all others are stacked.
LOOKS = "vmap: It looks like you're either (1) calling .item()"
REFUSED = {"gmrf block-dominant": LOOKS, "variant nnmrf": LOOKS, "variant nnmrf per sample": LOOKS}
REFUSED |= {"mopoe": "vmap: inplace arithmetic", "mvtcae": LOOKS}
REFUSED |= dict.fromkeys((m for m in MODELS if m.startswith("covae")), LOOKS)
# The stage of the score, whose average of weights is of lists of tensors; the stages beside it are stacked.
REFUSED |= dict.fromkeys((m for m in MODELS if m.startswith(("sbm", "mld"))), "stage 'score' of SBMVAE")
# The energy's too, whose rows are drawn at random.
REFUSED["sbm-vae"] = "of SBMVAE is trained one seed after another"


def seeded(name: str, seed: int) -> TrainableModel:
    """The model with parameters of its own for each seed."""
    model = trainable(name)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=g))
    return model


def settings(device: str = "cpu", epochs: int = 2) -> TrainingSettings:
    return TrainingSettings(epochs, 40, 1e-3, device=device)  # the last batch of an epoch is smaller


def together(models: list[Any], data: Dataset, chosen: TrainingSettings, **options: Any) -> list[Any]:
    each = [{k: v[i] if isinstance(v, list) else v for k, v in options.items()} for i in range(len(models))]
    runs = [training(m, data, chosen, seed=s, key=str(s), **each[s]) for s, m in enumerate(models)]
    return train_stacked(runs)


def one_after_another(models: list[Any], data: Dataset, chosen: TrainingSettings) -> list[Any]:
    return [train(m, data, chosen, seed=s) for s, m in enumerate(models)]


def assert_close(a: nn.Module, b: nn.Module, least: float) -> None:
    for k, x in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[k], x, rtol=least, atol=least, msg=lambda m, k=k: f"{k}: {m}")


@pytest.fixture(params=["cpu", *(pytest.param(d, marks=pytest.mark.cuda) for d in devices() if d != pretend())])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU, and a GPU where there is one."""
    return request.param


@pytest.mark.parametrize("name", [pytest.param(m, marks=pytest.mark.slow) if m.startswith(LONG) else m for m in MODELS])
def test_stacked_seeds_are_the_seeds_alone(name: str, device: str) -> None:
    stacked, alone = ([seeded(name, s) for s in SEEDS] for _ in range(2))
    data = dataset(stacked[0])
    expected = one_after_another(alone, data, settings(device))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = together(stacked, data, settings(device))
    reasons = [str(w.message) for w in said if "one seed after another" in str(w.message)]
    assert all(REFUSED.get(name, "") in r for r in reasons)
    assert bool(reasons) == (name in REFUSED)
    for a, b, history, other in zip(alone, stacked, expected, found, strict=True):
        assert_close(a, b, 2e-3)  # Adam's first steps are of one size, whatever rounding leaves of a gradient near 0
        assert [e["epoch"] for e in other] == [e["epoch"] for e in history]
        assert [e["loss"] for e in other] == pytest.approx([e["loss"] for e in history], rel=1e-3, abs=1e-3)
    if not reasons:
        assert len({float(next(m.parameters()).detach().sum()) for m in stacked}) == len(SEEDS)


class Toy(TrainableModel):
    """A linear map with noise and a counter, whose loss does what it is told to besides."""

    def __init__(self, seed: int, also: Any = None) -> None:
        super().__init__({"x": ModalitySpec((3,))})
        self.also = also
        with isolated_rng(seed):
            self.layer = nn.Linear(3, 2)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(2))

    def loss(self, batch: Any, stage: Stage | None = None) -> Loss:
        """The mean square of the map."""
        y = self.layer(batch["x"] + 0.1 * torch.randn_like(batch["x"]) + torch.rand(3, device=batch["x"].device))
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * y.mean(0))
        return Loss(y.square().mean() + (0.0 if self.also is None else self.also(self, y)), {"mean": y.mean()})


def data(number: int = 100) -> Dataset:
    x = torch.rand(number, 3, generator=torch.Generator().manual_seed(1))
    return Dataset("toy", "train", {"x": ModalitySpec((3,))}, {"x": x})


def test_stacked_training_is_continued_bit_for_bit_together_and_alone(tmp_path: Path) -> None:
    whole = [Toy(s) for s in SEEDS]
    together(whole, data(), settings(), checkpoint=[tmp_path / f"w{s}.safetensors" for s in SEEDS])
    paths = [tmp_path / f"a{s}.safetensors" for s in SEEDS]
    counts = [iter(range(100)) for _ in SEEDS]
    stops = [lambda c=c: next(c) >= 3 for c in counts]
    found = together([Toy(s) for s in SEEDS], data(), settings(), checkpoint=paths, stop=stops)
    assert [type(x) for x in found] == [TrainingStopped] * 3
    copies = [p.with_name(f"copy of {p.name}") for p in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    continued = [Toy(s) for s in SEEDS]
    together(continued, data(), settings(), checkpoint=paths)
    for a, b in zip(whole, continued, strict=True):
        assert all(torch.equal(x, b.state_dict()[k]) for k, x in a.state_dict().items())
    alone = Toy(1)
    train(alone, data(), settings(), seed=1, key="1", checkpoint=copies[1])
    assert_close(whole[1], alone, 1e-5)


def test_a_run_alone_goes_on_stacked(tmp_path: Path) -> None:
    paths = [tmp_path / f"{s}.safetensors" for s in SEEDS]
    for s, path in enumerate(paths):  # each left at another step
        count = iter(range(100))
        with pytest.raises(TrainingStopped):
            train(
                Toy(s),
                data(),
                settings(),
                seed=s,
                key=str(s),
                checkpoint=path,
                stop=lambda c=count, s=s: next(c) >= s,
            )
    found = [Toy(s) for s in SEEDS]
    together(found, data(), settings(), checkpoint=paths)
    for s, model in enumerate(found):
        alone = Toy(s)
        train(alone, data(), settings(), seed=s)
        assert_close(alone, model, 1e-4)


def test_stacked_seeds_decay_as_alone() -> None:
    chosen = TrainingSettings(3, 40, 0.1, decay=0.2)
    stacked, alone, constant = ([Toy(s) for s in SEEDS] for _ in range(3))
    together(stacked, data(), chosen)
    one_after_another(alone, data(), chosen)
    one_after_another(constant, data(), TrainingSettings(3, 40, 0.1))
    for a, b, c in zip(alone, stacked, constant, strict=True):
        assert_close(a, b, 1e-5)
        assert not torch.allclose(a.layer.weight, c.layer.weight, atol=1e-2)


def test_seeds_end_each_at_its_time() -> None:
    """With patience, whose stages end at different epochs."""
    chosen = TrainingSettings(12, 40, 0.3, patience=1)
    validation = data(30)
    alone, stacked = [Toy(s) for s in SEEDS], [Toy(s) for s in SEEDS]
    expected = [train(m, data(), chosen, seed=s, validation=validation) for s, m in enumerate(alone)]
    found = together(stacked, data(), chosen, validation=validation)
    assert [len(h) for h in found] == [len(h) for h in expected]
    assert len({len(h) for h in expected}) > 1
    for a, b in zip(alone, stacked, strict=True):
        assert_close(a, b, 1e-2)


def test_an_error_of_one_ends_none_of_the_others() -> None:
    models = [Toy(s) for s in SEEDS]
    with torch.no_grad():
        models[1].layer.weight.fill_(float("nan"))
    found = together(models, data(), settings())
    assert isinstance(found[1], NonFiniteLossError)
    assert [len(found[s]) for s in (0, 2)] == [2, 2]
    alone = Toy(2)
    train(alone, data(), settings(), seed=2)
    assert_close(alone, models[2], 1e-4)


LEFT_ALONE = {
    "a branch on a value": (lambda m, y: y.sum() if float(y.detach().mean()) > 0 else -y.sum(), "vmap|item"),
    "a draw by values": (lambda m, y: torch.bernoulli(y.detach().sigmoid()).mean() * y.sum(), "bernoulli draws"),
    "dropout": (lambda m, y: nn.functional.dropout(y, 0.5).sum(), "draws within a library's operation"),
    "normals around values": (lambda m, y: torch.normal(y.detach(), 1.0).mean() * y.sum(), "values of its own"),
    "a count of Python's": (lambda m, y: _counted(m) * y.sum(), "is not what it is alone"),
}


def _counted(model: Toy) -> float:
    model.calls = getattr(model, "calls", 0) + 1
    return float(model.calls)


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_cannot_be_stacked_is_said_in_one_line(name: str) -> None:
    also, reason = LEFT_ALONE[name]
    alone, stacked = ([Toy(s, also) for s in SEEDS] for _ in range(2))
    with pytest.warns(UserWarning, match=reason) as said:
        together(stacked, data(), settings())
    texts = [str(w.message) for w in said if "one seed after another" in str(w.message)]
    assert len(texts) == 1
    assert "\n" not in texts[0]
    one_after_another(alone, data(), settings())
    for a, b in zip(alone, stacked, strict=True):
        assert name.startswith("a count") or all(torch.equal(x, b.state_dict()[k]) for k, x in a.state_dict().items())


@pytest.mark.parametrize("precisions", [(torch.float32,), (torch.float32, torch.float64)])
def test_gradients_that_rounding_alone_tells_apart_are_the_same(
    precisions: tuple[torch.dtype, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a hidden unit at 0 but for rounding does to single precision, and what a wrong loss does to both."""
    computed, tried = Stack._computed, []

    def off(self: Stack, *arguments: Any) -> Any:
        gradients, terms = computed(self, *arguments)
        tried.append(gradients["layer.weight"].dtype)
        if tried[-1] in precisions:
            gradients["layer.weight"][1] *= 1.1
        return gradients, terms

    monkeypatch.setattr(Stack, "_computed", off)
    models = [Toy(s) for s in SEEDS]
    before = [{k: x.clone() for k, x in m.state_dict().items()} for m in models]
    steps = [EagerStep(m, m.stages()[0], torch.optim.Adam(m.parameters())) for m in models]
    refused = pytest.raises(NotStackableError, match=r"the gradient of layer\.weight of seed 1 at once is not")
    with refused if torch.float64 in precisions else nullcontext():
        Stack(steps, [data().data] * len(SEEDS))
    assert tried == [torch.float32, torch.float64]
    for model, values in zip(models, before, strict=True):
        assert all(torch.equal(x, values[k]) for k, x in model.state_dict().items())


def test_a_gradient_that_rounding_tells_apart_hides_no_other_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = Stack._computed

    def off(self: Stack, *arguments: Any) -> Any:
        gradients, terms = computed(self, *arguments)
        if gradients["layer.weight"].dtype is torch.float32:
            gradients["layer.weight"][0] *= 1.1
            self.others["mean"][2] += 1
        return gradients, terms

    monkeypatch.setattr(Stack, "_computed", off)
    models = [Toy(s) for s in SEEDS]
    steps = [EagerStep(m, m.stages()[0], torch.optim.Adam(m.parameters())) for m in models]
    with pytest.raises(NotStackableError, match="the buffer mean of seed 2 at once is not what it is alone"):
        Stack(steps, [data().data] * len(SEEDS))


def test_captured_steps_are_not_stacked() -> None:
    class Captured:
        name = "captured"

    def run() -> Any:
        from repro.training.loop import StepRequest

        yield StepRequest(Captured(), {"x": torch.zeros(1)})

    with pytest.raises(ValueError, match="not with captured ones"):
        train_stacked([run(), run()])


def test_random_streams_are_as_before() -> None:
    before = torch.get_rng_state()
    together([Toy(s) for s in SEEDS], data(), settings())
    assert torch.equal(torch.get_rng_state(), before)

"""The one interface: isolated random state, and batches that do not fit."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from repro.datasets.base import ModalitySpec
from repro.model import Loss, MultimodalModel, Stage, isolated_rng


class Plain(MultimodalModel):
    """Nothing but the interface."""

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        self.check_batch(batch)
        return Loss(torch.zeros(()))

    def generate(self, num_samples: int = 1, **options: object) -> dict[str, Tensor]:
        return {m: torch.zeros(num_samples, *s.shape) for m, s in self.modalities.items()}

    def log_likelihood(self, batch: Mapping[str, Tensor], **options: object) -> Tensor:
        return torch.zeros(self.check_batch(batch))


MODEL = Plain({"a": ModalitySpec((2,)), "b": ModalitySpec((1, 3, 4))})
BATCH = {"a": torch.zeros(5, 2), "b": torch.zeros(5, 1, 3, 4)}


def states() -> tuple[bytes, bytes, bytes]:
    """The global states of torch, NumPy and Python."""
    found = (torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), repr(random.getstate()))
    return found[0], found[1].encode(), found[2].encode()


def draws() -> list[float]:
    return [*torch.rand(3).tolist(), *np.random.rand(3).tolist(), random.random()]


def test_isolated_rng_gives_the_former_states_back() -> None:
    before = states()
    with isolated_rng(7):
        draws()
    assert states() == before
    with contextlib.suppress(KeyError), isolated_rng(torch.Generator().manual_seed(3)):
        draws()
        raise KeyError
    assert states() == before


def test_draws_are_a_function_of_the_seed_alone() -> None:
    found = []
    for source in (7, 7, 8, torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)):
        torch.rand(1), np.random.rand(1)
        with isolated_rng(source):
            found.append(draws())
    assert found[0] == found[1]
    assert found[3] == found[4]
    assert len({tuple(x) for x in found}) == 3


def test_a_generator_advances_by_one_draw_and_none_draws_from_the_global_one() -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2):
        with isolated_rng(generator):
            found.append(draws())
    assert found[0] != found[1]
    with isolated_rng(5):
        results = []
        for _ in range(2):
            with isolated_rng(None):
                results.append(draws())
        after = torch.rand(1)
    with isolated_rng(5):
        torch.randint(2**62, (2,))
        assert torch.equal(torch.rand(1), after)
        assert results[0] != results[1]


def test_isolated_rng_takes_seeds_beyond_32_bits() -> None:
    with isolated_rng(2**62 - 1):
        assert len(set(draws())) == 7


def test_a_batch_that_fits_gives_its_size() -> None:
    assert MODEL.check_batch(BATCH) == 5
    assert MODEL.check_batch({"b": BATCH["b"]}, subset=True) == 5
    assert MODEL.check_batch({"b": BATCH["b"], "a": BATCH["a"]}) == 5


@pytest.mark.parametrize(
    ("batch", "subset", "message"),
    [
        ({**BATCH, "c": BATCH["a"]}, False, "unknown modalities ['c']; the model has ['a', 'b']"),
        ({"c": BATCH["a"]}, True, "unknown modalities ['c']; the model has ['a', 'b']"),
        ({"a": BATCH["a"]}, False, "the batch has modalities ['a'], the model needs ['a', 'b']"),
        ({}, True, "the batch has modalities [], the model needs ['a', 'b']"),
        ({**BATCH, "a": torch.zeros(5, 3)}, False, "modality 'a' has shape (5, 3), the model needs (batch, 2)"),
        ({"b": torch.zeros(5, 3, 4)}, True, "modality 'b' has shape (5, 3, 4), the model needs (batch, 1, 3, 4)"),
        ({**BATCH, "a": torch.zeros(4, 2)}, False, "modalities of unequal batch sizes {'a': 4, 'b': 5}"),
    ],
)
def test_messages_name_both_sides(batch: dict[str, Tensor], subset: bool, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MODEL.check_batch(batch, subset=subset)


def test_one_modality_is_too_few() -> None:
    with pytest.raises(ValueError, match=r"at least two modalities, got \['a'\]"):
        Plain({"a": ModalitySpec((2,))})


def test_most_models_have_one_stage_of_all_parameters() -> None:
    assert list(MODEL.stages()) == [Stage("train", ())]

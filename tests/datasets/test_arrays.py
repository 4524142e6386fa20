"""Splits made of one's own arrays: inferred, standardised and held out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch

import repro
from repro.datasets import Dataset, ModalitySpec

RNG = np.random.default_rng(0)
OWN = {
    "genes": pandas.DataFrame(RNG.normal(5, 3, (50, 4)), columns=list("wxyz")),
    "picture": RNG.integers(0, 256, (50, 1, 4, 4)).astype(np.uint8),
    "panel": RNG.integers(0, 2, (50, 3)),
    "age": RNG.integers(20, 90, 50),
}


def test_what_arrays_hold_is_inferred() -> None:
    (train,) = Dataset.from_arrays(OWN).values()
    assert train.modalities == {
        "genes": ModalitySpec((4,)),
        "picture": ModalitySpec((1, 4, 4), "image", (0.0, 1.0)),
        "panel": ModalitySpec((3,), "binary", (0.0, 1.0)),
        "age": ModalitySpec((1,)),
    }
    assert torch.allclose(train.data["genes"], torch.tensor(OWN["genes"].to_numpy()).float())
    assert {x.dtype for x in train[0].values()} == {torch.float32}
    stated = Dataset.from_arrays(OWN, specs={"panel": ModalitySpec((3,))})["train"]
    assert stated.modalities["panel"].kind == "continuous"


def test_parts_are_standardised_as_the_training_split_is() -> None:
    labels = np.arange(50)
    raw = Dataset.from_arrays(OWN, labels=labels, validation=0.2)
    parts = Dataset.from_arrays(OWN, labels=labels, validation=0.2, standardise=True)
    assert {s: len(d) for s, d in parts.items()} == {"train": 40, "validation": 10}
    assert sorted(torch.cat([d.labels for d in parts.values()]).tolist()) == list(range(50))
    for m in ("genes", "age"):
        assert torch.allclose(parts["train"].data[m].mean(0), torch.zeros(1), atol=1e-6)
        assert torch.allclose(parts["train"].data[m].std(0, correction=0), torch.ones(1), atol=1e-6)
    for split, part in parts.items():
        back = part.restored(part.data)
        assert all(torch.allclose(back[m].float(), x.float(), atol=1e-4) for m, x in raw[split].data.items())
        again = part.standardised({"genes": raw[split].data["genes"].numpy()})
        assert torch.allclose(again["genes"], part.data["genes"], atol=1e-6)
    other = Dataset.from_arrays(OWN, labels=labels, validation=0.2, seed=1)["validation"]
    assert other.labels.tolist() != parts["validation"].labels.tolist()


def test_a_constant_column_stays_finite() -> None:
    split = Dataset.from_arrays({"a": np.full((5, 2), 7.0), "b": np.arange(10.0).reshape(5, 2)}, standardise=True)
    assert split["train"].data["a"].abs().max() == 0


@pytest.mark.parametrize("share", [-0.1, 1.0, 0.001, 0.999])
def test_shares_that_leave_a_part_empty_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="validation"):
        Dataset.from_arrays(OWN, validation=share)


def test_public_names_need_no_torch_before_they_are_used() -> None:
    for name in repro.__all__:
        assert getattr(repro, name) is not None
    code = "import repro, sys; dir(repro); raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

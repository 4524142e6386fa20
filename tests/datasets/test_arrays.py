"""Splits made of one's own arrays: inferred, standardised and held out."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings as drawing
from hypothesis import strategies as st
from safetensors.torch import save

import repro
from repro.datasets import Dataset, ModalitySpec
from repro.datasets.scalars import flag, real_number
from repro.datasets.scales import Scales

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


def test_frames_of_the_same_rows_in_other_orders_are_refused() -> None:
    genes, other = OWN["genes"], OWN["genes"].iloc[::-1]
    with pytest.raises(ValueError, match=r"^data frames 'a' and 'c' have the same rows in different orders"):
        Dataset.from_arrays({"a": genes, "b": genes.to_numpy(), "c": other})
    for also in (genes.copy(), other.reset_index(drop=True), genes.set_index(genes.index + 7)):
        assert len(Dataset.from_arrays({"a": genes, "c": also})["train"]) == 50


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
@pytest.mark.parametrize("split", ["validation", "test"])
def test_shares_that_leave_a_part_empty_are_refused(split: str, share: float) -> None:
    with pytest.raises(ValueError, match=split):
        Dataset.from_arrays(OWN, **{split: share})
    with pytest.raises(ValueError, match="test leave one part"):
        Dataset.from_arrays(OWN, validation=0.5, test=0.5)


@drawing(max_examples=20, deadline=None)
@drawn(
    size=st.integers(5, 40),  # of four, two parts of 0.4 would leave none to train on
    shares=st.tuples(st.sampled_from([0.0, 0.25, 0.4]), st.sampled_from([0.0, 0.25, 0.4])),
    seed=st.integers(0, 5),
)
def test_splits_share_no_sample_and_lose_none(size: int, shares: tuple[float, float], seed: int) -> None:
    arrays = {"a": np.arange(size), "b": np.arange(size) * 2.0}
    splits = Dataset.from_arrays(arrays, labels=np.arange(size), validation=shares[0], test=shares[1], seed=seed)
    expected = {"validation": round(shares[0] * size), "test": round(shares[1] * size)}
    assert {s: len(d) for s, d in splits.items() if s != "train"} == {s: n for s, n in expected.items() if n}
    assert sorted(torch.cat([d.labels for d in splits.values()]).tolist()) == list(range(size))
    for d in splits.values():
        assert d.data["a"][:, 0].tolist() == d.labels.tolist()
    # A test split is no other choice of the samples for validation.
    alone = Dataset.from_arrays(arrays, labels=np.arange(size), validation=shares[0], seed=seed)
    if shares[0]:
        assert alone["validation"].labels.tolist() == splits["validation"].labels.tolist()


TYPES = (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)


@pytest.mark.parametrize("kind", TYPES)
def test_scales_take_any_type_and_are_read_back(kind: type, tmp_path: Path) -> None:
    train = Dataset.from_arrays(OWN, standardise=True)["train"]
    path = tmp_path / "scales of mine.safetensors"
    train.scales.save(path)
    scales = repro.Scales.load(str(path))
    assert set(scales) == {"genes", "age"}
    new = {"genes": np.ones((2, 4), kind), "age": np.ones((2, 1), kind)}
    ours, again = train.standardised(new), scales.standardised(new)
    for m, (mean, deviation) in train.scales.items():
        assert torch.equal(ours[m], again[m])
        assert torch.allclose(ours[m].double(), ((1 - mean) / deviation).expand(2, -1), atol=1e-6)
        assert torch.allclose(scales.restored(ours)[m].double(), torch.ones(1).double(), atol=1e-5)


def test_values_without_a_scale_are_restored_as_they_are() -> None:
    scales = Scales({"genes": (torch.zeros(3), 2 * torch.ones(3))})
    count = torch.tensor([[2**40 + 1]])
    assert torch.equal(scales.restored({"age": count})["age"], count)
    assert scales.restored({"genes": torch.ones(1, 3).half()})["genes"].dtype is torch.float16
    assert torch.equal(scales.restored({"genes": [[1, 2, 3]]})["genes"], torch.tensor([[2.0, 4.0, 6.0]]))


def test_digits_beyond_single_precision_are_standardised() -> None:
    values = 1e6 + 0.01 * RNG.normal(size=(200, 3))
    train = Dataset.from_arrays({"a": values, "b": values}, standardise=True)["train"]
    right = (values - values.mean(0)) / values.std(0)
    assert np.abs(train.data["a"].numpy() - right).max() < 1e-5


def test_files_that_hold_no_scales_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for content in (None, b"", b"no tensors", save({"mean.a": torch.zeros(2)}), save({"weight": torch.zeros(2)})):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
            repro.Scales.load(path)
        assert "\n" not in str(caught.value)


def test_public_names_need_no_torch_before_they_are_used() -> None:
    for name in repro.__all__:
        assert getattr(repro, name) is not None
    code = "import repro, sys; dir(repro); raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PAIR = {"a": np.arange(12.0).reshape(6, 2), "b": np.arange(6.0)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrays": [PAIR["a"], PAIR["b"]]}, "mine: arrays are a list, must be a mapping from each modality's name"),
        ({"arrays": None}, "mine: arrays are a NoneType, must be a mapping from each modality's name"),
        ({"specs": [1]}, "mine: specs are a list, must be a mapping from each modality's name"),
        ({"specs": {"a": (2,)}}, "mine: the spec of modality 'a' is (2,), must be a ModalitySpec"),
        ({"validation": "0.2"}, "validation is '0.2', must be a number of at least 0 and under 1"),
        ({"test": None}, "test is None, must be a number of at least 0 and under 1"),
        ({"seed": "x"}, "seed is 'x', must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5, must be a whole number"),
        ({"seed": 2**70}, f"seed is {2**70}, must fit 64 bits"),
        ({"labels": [0.0, 1.0, float("nan")] * 2}, "mine: labels are not all finite; leave samples without a label"),
    ],
)
def test_arguments_that_fit_nothing_are_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    options = {"arrays": PAIR, **changes}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        Dataset.from_arrays(options.pop("arrays"), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_values_that_fit_no_scale_are_refused() -> None:
    train = Dataset.from_arrays(PAIR, standardise=True)["train"]
    for there in (train.standardised, train.restored):
        for values, message in (
            ({"z": np.zeros((2, 2))}, "mine: unknown modalities ['z']; there are ['a', 'b']"),
            ({"a": np.zeros((2, 5))}, "modality 'a' has shape (2, 5), its scale is of samples of (2,)"),
            ({"a": 1.0}, "modality 'a' has shape (), its scale is of samples of (2,)"),
            (np.zeros((2, 2)), "mine: values are a ndarray, must be a mapping from each modality's name"),
        ):
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                there(values)  # type: ignore[arg-type]
    given = train.standardised(PAIR | {"b": PAIR["b"][:, None]})
    assert np.allclose(train.restored({m: x.numpy() for m, x in given.items()})["a"], PAIR["a"])
    with pytest.raises(ValueError, match=r"^modality 'a' needs a finite mean and a positive, finite deviation"):
        Dataset.from_arrays({**PAIR, "a": PAIR["a"] * 1e200}, standardise=True)


@pytest.mark.parametrize("half", [0.5, Fraction(1, 2), np.float16(0.5), np.float64(0.5), torch.tensor(0.5)], ids=repr)
def test_numbers_of_any_type_become_floats(half: object) -> None:
    number = real_number("alpha", half)
    assert (type(number), number) == (float, 0.5)
    assert [type(real_number("alpha", one)) for one in (1, np.int64(1), torch.tensor(1))] == [float] * 3


@pytest.mark.parametrize(
    "value",
    [
        *("0.5", None, True, np.True_, np.nan, -np.inf, 10**400, 0.5j, [0.5], np.array(0.5), 0.7),
        *(torch.tensor(True), torch.tensor([0.5]), torch.tensor(0.5, requires_grad=True)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_number_or_out_of_range_is_refused(value: object) -> None:
    message = f"alpha is {value!r}, must be at most 0.6"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        real_number("alpha", value, "at most 0.6", lambda x: x <= 0.6)


@pytest.mark.parametrize("value", ["yes", None, 0, 1, 2, np.nan], ids=repr)
def test_a_flag_is_true_or_false(value: object) -> None:
    assert [flag("subsampling", x) for x in (True, False)] == [True, False]
    with pytest.raises(ValueError, match=f"^subsampling is {value!r}, must be True or False$"):
        flag("subsampling", value)

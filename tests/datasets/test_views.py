"""Views of a split: its first samples, and batches that carry the label."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.datasets import Dataset, ModalitySpec


def build(labels: bool = True) -> Dataset:
    data = {"a": torch.arange(12.0).view(6, 2)}
    return Dataset("d", "train", {"a": ModalitySpec((2,))}, data, torch.arange(6) if labels else None, {"sha256": "x"})


def test_first_is_a_view_with_its_own_hash() -> None:
    split = build()
    part = split.first(4)
    assert len(part) == 4
    assert part.labels is not None
    assert part.labels.tolist() == [0, 1, 2, 3]
    assert part.data["a"].data_ptr() == split.data["a"].data_ptr()
    assert part.provenance["first"] == 4
    assert part.provenance["sha256"] not in ("x", split.first(3).provenance["sha256"])


@pytest.mark.parametrize("count", [0, 7])
def test_first_needs_as_many(count: int) -> None:
    with pytest.raises(ValueError, match=f"d train has 6 samples, {count} are asked for"):
        build().first(count)


@pytest.mark.parametrize("shuffle", [True, False])
def test_labelled_batches_pair(shuffle: bool) -> None:
    seen = []
    for batch in build().labelled("y").batches(4, shuffle=shuffle, generator=torch.Generator().manual_seed(1)):
        assert torch.equal(batch["a"][:, 0], 2.0 * batch["y"])
        seen += batch["y"].tolist()
    assert sorted(seen) == list(range(6))
    assert (seen == sorted(seen)) is not shuffle
    assert build().labelled("y")[2]["y"] == 2
    assert set(build()[2]) == {"a"}


def test_labelled_refuses() -> None:
    with pytest.raises(ValueError, match="d train has no labels"):
        build(labels=False).labelled()
    with pytest.raises(ValueError, match="'a' is a modality"):
        build().labelled("a")


def test_a_slice_a_list_and_a_mask_give_batches() -> None:
    split = build().labelled("y")
    for index in (slice(1, 3), [1, 2], torch.tensor([1, 2]), np.array([1, 2]), (split.data["a"][:, 0] // 2 % 3 > 0)):
        found = split[index]
        rows = [1, 2] if not (isinstance(index, torch.Tensor) and index.dtype is torch.bool) else [1, 2, 4, 5]
        assert found["y"].tolist() == rows
        assert torch.equal(found["a"][:, 0], 2.0 * found["y"])
    assert split[[-1]]["y"].tolist() == [5]
    assert split[np.int64(2)]["y"] == split[2]["y"] == split[-4]["y"] == 2

    assert split[::-2]["y"].tolist() == [5, 3, 1]
    assert split.select(slice(None, None, -2)).labels.tolist() == [5, 3, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("index", [6, -7, [0, 6], [True, False], 1.5, "a", [[0, 1]], None, ...])
def test_an_index_that_is_outside_or_none_is_refused(index: Any) -> None:
    for ask in (build().__getitem__, build().select):
        with pytest.raises(IndexError, match=r"d train of length 6$|does not fit d train"):
            ask(index)


@pytest.mark.parametrize("labels", [["x"] * 6, torch.zeros(6, 1), torch.zeros(6, dtype=torch.complex64), 3])
def test_labels_are_one_real_number_a_sample(labels: Any) -> None:
    split = build(labels=False)
    with pytest.raises(ValueError, match=r"^d: labels "):
        replace(split, labels=labels)
    assert replace(split, labels=[0, 1] * 3).labels.tolist() == [0, 1] * 3  # type: ignore[union-attr]


def test_equality_is_that_of_the_values() -> None:
    assert build() == build()
    assert build() == replace(build(), provenance={})
    assert build() != build(labels=False)
    assert build() != replace(build(), data={"a": build().data["a"] + 1})
    assert build() != replace(build(), split="test")
    assert build() != 3


def test_a_repr_is_a_line_a_modality() -> None:
    data = {"image": torch.zeros(3, 1, 8, 8, dtype=torch.uint8), "b<i>": torch.ones(3, 2)}
    data["image"][0, 0, 0, 0] = 255
    specs = {"image": ModalitySpec((1, 8, 8), "image", (0.0, 1.0)), "b<i>": ModalitySpec((2,), unit="mm")}
    split = Dataset("d", "train", specs, data, torch.tensor([0, 1, 1]))
    assert repr(split).splitlines() == [
        "d train: 3 samples, 2 classes",
        "  image  (1, 8, 8)  image       uint8    [0, 1]",
        "  b<i>   (2,)       continuous  float32  [1, 1] mm",
    ]
    assert "b&lt;i&gt;" in split._repr_html_()
    assert "<i>" not in split._repr_html_()


def test_empty_data_names_and_shapes_are_refused_at_construction() -> None:
    spec = {"a": ModalitySpec((2,))}
    for build_it, message in (
        (lambda: ModalitySpec(()), r"modality shape \(\) has no dimension"),
        (lambda: ModalitySpec((2.5,)), r"modality shape \(2.5,\) must be whole numbers"),
        (lambda: ModalitySpec(5), "modality shape 5 must be whole numbers"),
        *((lambda r=r: ModalitySpec((2,), range=r), "must be two finite numbers") for r in ((0, math.inf), (1,), "01")),
        (lambda: ModalitySpec((2,), range=(1.0, 0.0)), r"modality range \(1.0, 0.0\) is empty"),
        (lambda: ModalitySpec((2,), "binary", (-1.0, 1.0)), "binary values lie in"),
        (lambda: Dataset("d", "train", spec, {"a": torch.zeros(0, 2)}), "^d: there is no sample"),
        (lambda: Dataset("d", "train", {}, {}), "^d: there is no modality"),
        *(
            (
                lambda n=n: Dataset("d", "train", {n: spec["a"]}, {n: torch.zeros(1, 2)}),
                f"^d: a modality is called {re.escape(repr(n))}",
            )
            for n in ("type", "values", "gene.expression", "", "a\n")
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build_it()


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-2, 2, width=32), high=st.floats(-2, 2, width=32), kind=st.sampled_from(["image", "binary", "audio"])
)
def test_values_outside_the_declared_range_are_refused(low: float, high: float, kind: str) -> None:
    spec, values = ModalitySpec((2,), kind, (0.0, 1.0)), torch.tensor([[low, high]])
    if min(low, high) >= 0 and max(low, high) <= 1:
        assert torch.equal(Dataset("d", "train", {"a": spec}, {"a": values}).data["a"], values)
    elif min(low, high) < -1e-4 or max(low, high) > 1.0001:
        with pytest.raises(ValueError, match=r"^d: modality 'a' has values in \[.*\], its declared range is \[0, 1\]$"):
            Dataset("d", "train", {"a": spec}, {"a": values})


def test_binary_bytes_of_at_most_one_are_zero_and_one() -> None:
    bits = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)
    spec = ModalitySpec((2,), "binary", (0.0, 1.0))
    assert Dataset("d", "train", {"a": spec}, {"a": bits})[0]["a"].tolist() == [0.0, 1.0]
    assert Dataset("d", "train", {"a": spec}, {"a": 255 * bits})[0]["a"].tolist() == [0.0, 1.0]
    image = ModalitySpec((2,), "image", (0.0, 1.0))
    assert Dataset("d", "train", {"a": image}, {"a": bits})[0]["a"].tolist() == pytest.approx([0.0, 1 / 255])


def test_a_frame_becomes_a_tensor_and_text_in_it_is_refused() -> None:
    frame = pandas.DataFrame({"x": [1, 2, 3], "y": [0.5, 0.25, 1.0], "z": [True, False, True]})
    split = Dataset("d", "train", {"a": ModalitySpec((3,))}, {"a": frame})
    assert split[0]["a"].tolist() == [1.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="modality 'a' is a DataFrame of values that are not all numbers"):
        Dataset("d", "train", {"a": ModalitySpec((3,))}, {"a": frame.astype({"z": str})})


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 40), batch_size=st.integers(1, 15), smallest=st.integers(1, 15), shuffle=st.booleans())
def test_a_small_remainder_joins_the_batch_before_it(size: int, batch_size: int, smallest: int, shuffle: bool) -> None:
    data = {"a": torch.arange(float(size))[:, None]}
    split = Dataset("d", "train", {"a": ModalitySpec((1,))}, data)
    found = [b["a"].flatten() for b in split.batches(batch_size, shuffle=shuffle, smallest=smallest)]
    assert sorted(torch.cat(found).tolist()) == list(range(size))
    sizes = [len(b) for b in found]
    assert set(sizes[:-1]) <= {batch_size}
    assert sizes[-1] >= min(smallest, size) or batch_size < smallest
    if (rest := size % batch_size) == 0 or rest >= smallest:
        assert sizes == [batch_size] * (size // batch_size) + [rest] * (rest > 0)


def test_data_without_a_card_is_given_to_the_datasets_library() -> None:
    found = build().to_hf()
    assert found.column_names == ["a", "label"]
    assert found[2] == {"a": [4.0, 5.0], "label": 2}


def test_labels_of_batches_are_int64() -> None:
    split = replace(build(), labels=torch.arange(6, dtype=torch.int32))
    assert split.labelled("y")[0]["y"].dtype is torch.int64
    assert replace(build(), labels=torch.arange(6.0)).labelled("y")[0]["y"].dtype is torch.int64
    with pytest.raises(ValueError, match="no whole numbers"):
        replace(build(), labels=torch.arange(6) / 4).labelled("y")


@pytest.mark.parametrize("value", ["3", 1.5, None])
def test_counts_and_sizes_are_whole_numbers(value: Any) -> None:
    data = Dataset.from_arrays({"a": torch.zeros(6, 2), "b": torch.zeros(6, 1)})["train"]
    with pytest.raises(ValueError, match=f"^count is {value!r}, must be a whole number$"):
        data.first(value)
    with pytest.raises(ValueError, match=f"^batch_size is {value!r}, must be a whole number$"):
        next(data.batches(value))
    with pytest.raises(IndexError, match=r"^slice\(0, 'x', None\) does not fit mine train"):
        data[0:"x"]  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"^device 'gpu': "):
        data.to("gpu")


def test_a_range_is_two_numbers_of_any_sequence() -> None:
    assert hash(ModalitySpec((3,), range=[0, 1])) == hash(ModalitySpec((3,), range=(0, 1)))  # type: ignore[arg-type]
    for value in (3, (0,), "ab"):
        with pytest.raises(ValueError, match=r"must be two finite numbers, or None where unbounded$"):
            ModalitySpec((3,), range=value)  # type: ignore[arg-type]

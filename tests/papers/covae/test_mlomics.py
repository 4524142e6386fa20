"""CoVAE's figures on MLOmics: class counts from the list of samples, small runs through the real loader, pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from repro.artifacts.inventory import find
from repro.artifacts.render import plan, render, unique
from repro.datasets import load_dataset
from repro.datasets.fetch import FetchError
from repro.datasets.omics_labels import class_counts, read_samples
from repro.errors import RunError
from repro.model import isolated_rng
from repro.papers.covae.omics.figures import bars, scatter_classes
from repro.records import RunSpec
from repro.training import train
from tests.support import miniatures
from tests.support.experiments import build_model, evaluate, figure_samples, load_data, training_settings
from tests.support.experiments import render as draw

Cards = Callable[..., None]
PNG, PDF = b"\x89PNG", b"%PDF-"
SAMPLES = 200  # the held-out tenth of four fifths of them has to have four samples at least


def sample_list(classes: list[str]) -> str:
    return "\n".join(["sample,cancer", *(f"S{n},{c}" for n, c in enumerate(classes))]) + "\n"


def card_with_list(card: str, path: Path, content: str, labels: list[str], counts: dict[str, int]) -> str:
    """The card whose list of samples is ``content``, written to the mirror."""
    _, front, body = card.split("---\n", 2)
    fields = yaml.safe_load(front)
    own = fields["repro"]
    (source,) = [s for s in own["sources"] if s.get("group") == "samples"]
    source["sha256"] = hashlib.sha256(content.encode()).hexdigest()
    own["labels"], own["splits"] = labels, {s: {"count": n} for s, n in counts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n{body}"


@pytest.fixture
def cohort(mirror: Path, cards: Cards) -> Path:
    """MLOmics in miniature: its layers, its labels, and its list of samples; returns the list's path."""
    text = miniatures.write_omics(mirror, samples=SAMPLES)
    names = [str(n) for n in range(32)]
    path = mirror / "mlomics" / "pan_cancer_samples.csv"
    classes = [f"c{k:02d}" for k in range(32) for _ in range(k % 5 + 1)]
    content = sample_list([*classes, *["c31"] * (SAMPLES - len(classes))])
    cards(mlomics=card_with_list(text, path, content, names, {"train": 160, "test": 40}))
    return path


# Class counts


def test_counts_come_from_the_list_of_samples_alone(cohort: Path) -> None:
    for file in ("Pan-cancer_mRNA.csv", "Pan-cancer_miRNA.csv", "Pan-cancer_label_num.csv"):
        (cohort.parent / file).unlink()
    found = class_counts("mlomics")
    assert sum(found.values()) == SAMPLES
    assert len(found) == 32
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert next(iter(found)) == "c31"
    assert found["c03"] == 4
    equal = [name for name, n in found.items() if n == 1]
    assert equal == sorted(equal)
    files = draw("covae/fig13", "paper", lookup=lambda _: None)
    assert files["png"].startswith(PNG)
    assert files["pdf"].startswith(PDF)


def test_counts_without_a_list_come_from_the_labels(miniature: Callable[[str], None]) -> None:
    miniature("tcga_brca")
    labels = torch.cat([load_dataset("tcga_brca", s).labels for s in ("train", "test")])
    expected = {name: int((labels == i).sum()) for i, name in enumerate(("LumA", "Basal", "Her2"))}
    assert class_counts("tcga_brca") == expected
    files = draw("covae/fig13-tcga", "paper", lookup=lambda _: None)
    assert files["png"].startswith(PNG)


def test_lists_that_do_not_fit_are_named(cohort: Path, mirror: Path, cards: Cards) -> None:
    content = sample_list(["a", "b", "b"])
    text = miniatures.write_omics(mirror)
    cards(mlomics=card_with_list(text, cohort, content, ["0", "1"], {"train": 3, "test": 1}))
    message = "3 samples of 2 classes, the card of mlomics has 4 of 2"
    with pytest.raises(ValueError, match=f"pan_cancer_samples.csv: {message}"):
        class_counts("mlomics")
    cohort.unlink()
    with pytest.raises(FetchError, match=r"pan_cancer_samples.csv"):
        class_counts("mlomics")
    with pytest.raises(ValueError, match="copula has no classes to count"):
        class_counts("copula")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"the header is \[\]"),
        ("name,cancer\nA,x\n", "expected sample,cancer"),
        ("sample,cancer\nA,x\nB\n", r"row 3 is \['B'\]"),
        ("sample,cancer\nA, \n", "row 2 is"),
        ("sample,cancer\nA,x\nA,y\n", "row 3: sample 'A' occurs twice"),
    ],
)
def test_bad_lists_are_named(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_samples(content.encode(), "list.csv")
    assert str(caught.value).startswith("list.csv")


# The figures' runs


def test_figures_are_ready_and_need_the_tables_runs() -> None:
    for name, artifact in (("covae/fig9", "covae/table1"), ("covae/fig9-tcga", "covae/table1-tcga")):
        assert find(name).built
        for profile in ("paper", "quick", "smoke"):
            needed = set(unique(plan(find(name), profile)))
            assert len(needed) == 8
            assert needed < set(unique(plan(find(artifact), profile)))
    (spec,) = unique(plan(find("covae/fig12"), "paper"))
    assert (spec.dataset, spec.method, spec.seed) == ("mlomics", "covae", 0)
    for name in ("covae/fig13", "covae/fig13-tcga"):
        assert find(name).built
        assert unique(plan(find(name), "paper")) == []


@pytest.mark.parametrize("name", ["fig9", "fig12"])
def test_a_figure_without_records_names_what_it_lacks(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"covae/{name} lacks the records of covae/.*`make covae-{name}`"):
        render(find(f"covae/{name}"), "paper", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_runs_and_pictures_through_the_loader(cohort: Path) -> None:
    """The smoke profile of two models on the miniature, and both figures from what they keep."""
    kept: dict[str, dict[str, Tensor]] = {}
    for method in ("mvae", "covae"):
        (spec,) = plan(find("covae/fig9"), "smoke")[method]
        data = load_data(spec)
        with isolated_rng(spec.seed):
            model = build_model(spec)
        train(model, data["train"], training_settings(spec), seed=spec.seed)
        metrics = {m.name: m for m in evaluate(model, data, spec)}
        kept[method] = figure_samples(model, spec)
        for which, modality in (("mrna-to-mirna", "mirna"), ("joint/mrna", "mrna")):
            coefficients = kept[method][f"spearman/{which}"]
            # The first feature is constant, so it has no coefficient.
            assert len(coefficients) == model.modalities[modality].numel - 1
            assert metrics[f"test/spearman/{which}"].value == pytest.approx(float(coefficients.mean()), abs=1e-6)
    assert "labels" not in kept["mvae"]
    test = load_dataset("mlomics", "test")
    assert torch.equal(kept["covae"]["labels"], test.labels)
    points = kept["covae"]["pca/mrna"].numpy()
    assert points.shape == (len(test), 2)
    centred = test.data["mrna"].double() - test.data["mrna"].double().mean(0)
    singular = torch.linalg.svdvals(centred)[:2].numpy()
    np.testing.assert_allclose(np.linalg.norm(points, axis=0), singular, rtol=1e-4)

    def samples(spec: RunSpec) -> dict[str, np.ndarray]:
        return {k: v.numpy() for k, v in kept["covae" if spec.method == "covae" else "mvae"].items()}

    for figure in ("fig9", "fig12"):
        files = draw(f"covae/{figure}", "smoke", lookup=lambda _: None, samples=samples)
        assert files["png"].startswith(PNG)
        assert files["pdf"].startswith(PDF)
        assert max(map(len, files.values())) < 300_000


# The drawings


def test_bars_show_every_class_and_number() -> None:
    counts = {f"c{i}": 40 - i for i in range(32)}
    axes = bars(counts, "tumours").axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == list(counts)
    assert [p.get_height() for p in axes.patches] == list(counts.values())
    assert {t.get_text() for t in axes.texts} == {str(n) for n in counts.values()}
    assert axes.get_title() == f"{sum(counts.values()):,} tumours of 32 classes"
    with pytest.raises(ValueError, match="no classes"):
        bars({}, "tumours")


def test_many_classes_have_their_legend_below_and_looks_of_their_own() -> None:
    labels = np.repeat(np.arange(32), 3)
    points = np.random.default_rng(0).normal(size=(96, 2))
    figure = scatter_classes({"a": points, "b": points}, labels, [str(i) for i in range(32)])
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 32
    assert all(a.get_legend() is None for a in figure.axes)
    looks = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.round(3).tobytes()) for c in figure.axes[0].collections
    }
    assert len(looks) == 32
    few = scatter_classes({"a": points}, labels % 3, ["x", "y", "z"])
    assert few.legends == []
    assert len(few.axes[0].get_legend().get_texts()) == 3

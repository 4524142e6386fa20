"""MRF MVAE's experiments: specifications, smoke runs on synthetic digits, tables and pictures made from records."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro import datasets
from repro.artifacts.inventory import find
from repro.artifacts.render import missing_runs, plan, render, unique
from repro.datasets import Dataset
from repro.datasets.base import fingerprint, specs
from repro.datasets.card import load_card
from repro.distributions.mcmc import effective_sample_size
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.errors import RunError
from repro.metrics.inception import unavailable_reason
from repro.model import isolated_rng
from repro.papers import paper
from repro.papers.mrf_mvae.skewed import experiment as skewed
from repro.papers.mrf_mvae.skewed import tables as skewed_tables
from repro.papers.mrf_mvae.triples import evaluation as triples_evaluation
from repro.papers.mrf_mvae.triples import experiment as triples
from repro.papers.mrf_mvae.triples import figures, tables
from repro.papers.mrf_mvae.triples.readings import ALIKE, reading
from repro.records import Metric, Record, RunSpec
from repro.report.plain_tables import PlainTable
from repro.report.tables import Table
from tests.support.experiments import build_model, load_data, results_of

PAPER = "mrf_mvae"
TRIPLES = ("table4", "table4-ablations", "table4-sweep", "table4-features", "fig6", "fig7", "fig8", "fig9")
SIZES = {"train": 1_000, "test": 300}


def synthetic(name: str, split: str = "train", **options: Any) -> Dataset:
    """Triples of bars whose length says the digit; the third's is another digit."""
    if name != "mnist_triples":
        return REAL(name, split=split, **options)
    card, count = load_card(name), SIZES[split]
    g = torch.Generator().manual_seed(SIZES[split])
    labels = torch.cat([torch.arange(10), torch.randint(10, (count - 10,), generator=g)])
    shown = {"m0": labels, "m1": labels, "m2": labels.flip(0)}
    data = {}
    for m, digits in shown.items():
        x = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
        for n, digit in enumerate(digits.tolist()):
            x[n, :, 4 : 6 + 2 * digit, 8:20] = 200 + digit
            x[n, :, 0, n % 28] = 30 + n % 200
        data[m] = x
    return Dataset(name, split, specs(card), data, labels, {"sha256": fingerprint(data, labels)})


REAL = datasets.load_dataset


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", synthetic)


def test_the_paper_s_settings() -> None:
    """Appendix D.2: four layers of 1024, latent 8, potentials 3 x 1024, 100 epochs, three initialisations."""
    rows = paper(PAPER).plan("table4", "paper")
    for alike in ALIKE:
        read = triples.reading_rows(rows, alike)
        assert {v: [s.seed for s in found] for v, found in read.items()} == {v: [0, 1, 2] for v in triples.LABELS}
    for found in rows.values():
        model, training = found[0].params["model"], found[0].params["training"]
        assert (model["latent_dim"], model["width"], model["layers"]) == (8, 1024, 4)
        assert training["epochs"] == 100
        named = {} if reading(found[0]) == "digit" else {"alike": "image"}
        assert found[0].params["data"] == {"train_samples": 60_000, "held_out": 0} | named
    assert rows["nnmrf"][0].params["model"]["potential_widths"] == [1024] * 3
    assert rows["nnmrf"][0].params["model"]["beta"] == 0.0078
    ((figure9,),) = paper(PAPER).plan("fig9", "paper").values()
    assert figure9.params["model"]["beta"] == 0.0085
    chains = rows["nnmrf"][0].params["model"]["chains"]
    assert chains["burn_in"] + chains["thinning"] * chains["num_kept"] == 1000


def test_profiles_and_settings_have_keys_of_their_own() -> None:
    artifacts = [*TRIPLES, "tails", "tails-sweep", "tails-fig"]
    for artifact in artifacts:
        keys = {
            p: {s.key for found in paper(PAPER).plan(artifact, p).values() for s in found}
            for p in ("paper", "quick", "smoke")
        }
        assert not keys["paper"] & keys["quick"]
        assert not keys["quick"] & keys["smoke"]
    changed = unique(paper(PAPER).plan("table4-ablations", "quick"))
    assert len({s.key for s in [*changed, *unique(paper(PAPER).plan("table4", "quick"))]}) == 3 + 9
    assert {reading(s) for s in unique(paper(PAPER).plan("table4", "quick"))} == {"digit"}
    assert {reading(s) for s in unique(paper(PAPER).plan("table4", "overnight"))} == {"image", "digit"}
    held_out = unique(paper(PAPER).plan("table4-sweep", "paper"))
    assert {s.params["evaluation"]["split"] for s in held_out} == {"validation"}
    with pytest.raises(KeyError):
        paper(PAPER).plan("table9", "paper")
    with pytest.raises(ValueError, match="unknown variant 'mrf'; one of nnmrf, almrf, gmrf"):
        triples.spec("mrf", 0, "paper")
    for alike in ("digits", ["image"], {"image": 1}, np.array("image"), None):
        with pytest.raises(ValueError, match=r"alike is .*, must be one of image, digit"):
            triples.spec("gmrf", 0, "paper", alike=alike)
    with pytest.raises(ValueError, match=r"gmrf has no setting \['location'\]"):
        triples.spec("gmrf", 0, "paper", location=True)
    with pytest.raises(ValueError, match="unknown method 'mvae'"):
        skewed.spec("mvae", 0, "paper")


@pytest.mark.parametrize("variant", list(triples.LABELS))
def test_every_setting_reaches_the_model(variant: str) -> None:
    spec = triples.spec(variant, 0, "smoke")
    model = build_model(spec)
    settings = spec.params["model"]
    assert (model.beta, model.likelihood, model.scale, model.reduction) == (
        settings["beta"],
        settings["likelihood"],
        settings["scale"],
        settings["reduction"],
    )
    assert set(model.block_sizes.values()) == {settings["latent_dim"]}
    widths = [m.out_features for m in model.encoders["m0"].modules() if isinstance(m, torch.nn.Linear)]
    assert widths[: settings["layers"]] == [settings["width"]] * settings["layers"]
    if variant == "nnmrf":
        chains = settings["chains"]
        assert {k: getattr(model.chains, k) for k in chains} == chains
        assert (model.partition, model.num_samples, model.prior.confinement) == ("batch", 1, 1.0)
    if variant == "almrf":
        assert (model.bandwidth, model.unbiased, model.penalty, model.locations) == ("median", True, "aggregated", None)
        moved = build_model(triples.spec(variant, 0, "smoke", location=True))
        assert moved.locations is not None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """The smoke runs of all artifacts on MNIST triples."""
    found = RunStore(tmp_path_factory.mktemp("runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", synthetic)
        for artifact in ("table4", "table4-ablations", "table4-sweep"):
            for spec in unique(plan(find(f"{PAPER}/{artifact}"), "smoke", None if artifact == "table4-sweep" else 1)):
                execute(spec, found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("artifact", TRIPLES)
def test_smoke_runs_render(artifact: str, store: RunStore, tmp_path: Path) -> None:
    found = find(f"{PAPER}/{artifact}")
    seeds = None if artifact == "table4-sweep" else 1
    assert missing_runs(unique(plan(found, "smoke", seeds)), store) == []
    paths = render(found, "smoke", tmp_path, store=store, seeds=seeds)
    again = render(found, "smoke", tmp_path / "again", store=store, seeds=seeds)
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]
    expected = {".pdf", ".png"} if artifact.startswith("fig") else {".md", ".tex"}
    assert {p.suffix for p in paths} == expected
    assert all(p.stat().st_size < 300_000 for p in paths)


@pytest.mark.slow
def test_records_name_every_protocol(store: RunStore) -> None:
    for variant in triples.LABELS:
        record = store.record(triples.spec(variant, 0, "smoke"))
        assert record is not None
        names = {m.name for m in record.metrics}
        shared = {
            "test/unconditional/coherence",
            "test/conditional/coherence",
            "test/conditional/coherence/m0-m1",
            "test/conditional/coherence/m1-m0",
            "test/unconditional/frechet/classifier/mean",
            "test/conditional/frechet/classifier/m0-m2",
            "test/conditional/frechet/pixels/m1-m0",
            "test/true/coherence",
            "test/neighbour/coherence",
            "test/true/frechet/logits/mean",
        }
        assert shared <= names
        assert ("test/conditional-exact/coherence" in names) == (variant == "almrf")
        for task in ("unconditional", "unconditional-from-posteriors"):
            assert (f"test/{task}/r_hat" in names) == (variant == "nnmrf")
        # A triple's own modality is reconstructed, not generated, and the third is free.
        assert not names & {"test/conditional/coherence/m0-m0", "test/conditional/coherence/m0-m2"}
        both = [record.metric(f"test/conditional/coherence/{k}").value for k in ("m0-m1", "m1-m0")]
        assert record.metric("test/conditional/coherence").value == pytest.approx(sum(both) / 2)
        assert "clipped to [0, 1]" in record.metric("test/unconditional/coherence").protocol


def test_the_sweep_trains_on_none_of_what_it_measures(bars: None) -> None:
    spec = triples.spec("gmrf", 0, "smoke", sweep=True, beta=0.3)
    data = load_data(spec)
    assert list(data) == ["train", "validation"]
    assert (len(data["train"]), len(data["validation"])) == (250, 250)
    whole = synthetic("mnist_triples").first(500)
    for m, x in whole.data.items():
        assert torch.equal(torch.cat([data["train"].data[m], data["validation"].data[m]]), x)
    assert torch.equal(data["validation"].labels, whole.labels[250:])
    assert data["train"].provenance["sha256"] != data["validation"].provenance["sha256"]


class Copy(torch.nn.Module):
    """Generates what it is given, and true triples: a perfect model."""

    generation_options = ()

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        self.samples = dict(data.floats().data)

    def unary_posterior(self, modality: str, x: torch.Tensor) -> Any:
        """A latent that is the bar's length."""
        return torch.distributions.Normal((x[:, 0, :, 10] > 0.7).float().sum(1, keepdim=True), 1.0)

    def decode(self, z: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        rows = torch.arange(28)[None, :]
        bars = {m: ((rows >= 4) & (rows < 4 + length)).float() for m, length in z.items()}
        return {m: (b[:, None, :, None] * (torch.arange(28) // 4 < 5)).clone() for m, b in bars.items()}

    def generate(self, num_samples: int = 1, *, given: Any = None, generator: Any = None, **options: Any) -> Any:
        rows = {m: x[:num_samples] if given is None else x for m, x in self.samples.items()}
        return rows if given is None else {m: x[None] for m, x in rows.items()}


class Digit(torch.nn.Module):
    """Reads the digit off a bar's length, and a few features that have full rank."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = (x[:, 0, :, 10] > 0.7).float().sum(1)
        return -(length[:, None] - 2.0 - 2.0 * torch.arange(10)).abs()

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0, 10:, :].mean((1, 2)), x[:, 0, :10, :].mean((1, 2)), x[:, 0, 0].sum(1)], 1)


def test_a_perfect_model_scores_as_true_triples_do(bars: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one whose second modality is of the third's digits has coherence at its share of equal digits."""
    monkeypatch.setattr(triples_evaluation, "load_classifier", lambda name: Digit().eval())
    spec, test = triples.spec("gmrf", 0, "smoke"), synthetic("mnist_triples", "test")
    data = {"train": synthetic("mnist_triples").first(500), "test": test}
    perfect = Copy(test.first(200))
    values = {m.name: m.value for m in triples_evaluation.evaluate(perfect, data, spec)}
    assert values["test/unconditional/coherence"] == values["test/conditional/coherence"] == 1.0
    assert values["test/conditional/reconstructed/m0"] == values["test/true/accuracy"] == 1.0
    assert values["test/unconditional/digits"] == 10
    assert values["test/neighbour/coherence"] == 1.0
    assert values["test/unconditional/frechet/classifier/mean"] == pytest.approx(0.0, abs=1e-6)
    assert values["test/true/frechet/classifier/mean"] > 1e-4
    mixed = Copy(test.first(200))
    mixed.samples["m1"] = mixed.samples["m2"]
    values = {m.name: m.value for m in triples_evaluation.evaluate(mixed, data, spec)}
    labels = test.labels[:200]
    share = float((labels == test.labels.flip(0)[:200]).double().mean())
    assert values["test/unconditional/coherence"] == pytest.approx(share)
    assert values["test/conditional/coherence/m0-m1"] == pytest.approx(share)
    assert values["test/conditional/coherence/m1-m0"] == 1.0


def record(spec: RunSpec, values: dict[str, float]) -> Record:
    """A record with given values."""
    metrics = [Metric(name, value, "1", 100, "given") for name, value in values.items()]
    environment = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "none", "versions": {}}
    return Record(spec, metrics, environment, {}, "0" * 64, 1.0, 1.0)


def table4(profile: str, seeds: int, lookup: Callable[[RunSpec], Record | None]) -> Table:
    return tables.table4(results_of("mrf_mvae/table4", profile, lookup, seeds=seeds))


def features(profile: str, seeds: int, lookup: Callable[[RunSpec], Record | None]) -> PlainTable:
    return tables.features(results_of("mrf_mvae/table4-features", profile, lookup, seeds=seeds))


def table4_values(distance: float) -> dict[str, float]:
    values = {
        "test/true/coherence": 0.98,
        "test/neighbour/coherence": 0.8,
        "test/true/frechet/classifier/mean": 1.0,
        tables.DIGITS: 10.0,
    }
    for m in ("m0", "m1"):
        values[f"test/conditional/reconstructed/{m}"] = 0.9
    for task in ("unconditional", "conditional"):
        values[f"test/{task}/coherence"] = 0.5
        for space in ("classifier", "logits", "pixels"):
            values[f"test/{task}/frechet/{space}/mean"] = distance
    chains = {f"test/unconditional/{k}": 1.0 for k in ("acceptance_rate", "effective_sample_size", "r_hat")}
    return values | chains


def test_the_search_for_features_names_a_space_that_explains_the_published_numbers() -> None:
    """If pixels in [0, 255] gave the published numbers exactly, the table would say so, and of no other space."""
    printed = {v: tables._printed(label) for v, label in triples.LABELS.items()}

    def lookup(spec: RunSpec, shuffled: bool = False) -> Record:
        values = table4_values(7.0)
        for task, name in (("uncond", "unconditional"), ("cond", "conditional")):
            variant = {"gmrf": "nnmrf", "nnmrf": "gmrf"}.get(spec.method, spec.method) if shuffled else spec.method
            values[f"test/{name}/frechet/pixels/mean"] = printed[variant][f"{task}_fid"] / 255.0**2
        return record(spec, values)

    table = features("smoke", 1, lookup)
    by_label = {row[0]: row for row in table.rows}
    assert by_label["pixels in [0, 255]: x 65,025"][-2:] == ("1", "1.00")
    assert by_label["pixels in [0, 1] (784)"][-1] == "1.00"
    assert by_label["Inception, 2048 features (the FID)"][-2] == "not measured"
    assert "explains the published values: pixels in [0, 255]: x 65,025." in table.notes[0]
    other = features("smoke", 1, lambda spec: lookup(spec, True))
    assert "explains the published values: none" in other.notes[0]


def test_table_4_says_why_cells_are_empty_and_what_was_published() -> None:
    rows = {s for found in paper(PAPER).plan("table4", "smoke", 1).values() for s in found}
    table = table4("smoke", 1, lambda s: record(s, table4_values(3.0)) if s in rows else None)
    text = table.to_markdown()
    assert "14252.11" in text
    assert "Inception weights not available" in text
    assert "not run: make mrf-table4-ablations" in text
    cells = {row.label: row.cells for row in table.rows}
    assert cells["GMRF MVAE"]["cond_coherence"].published == 0.94
    assert cells["NN-MRF MVAE"]["uncond_fid"].reason == unavailable_reason()
    extra = {row.label: row.cells for row in table.groups[0].rows}
    assert extra[triples.FIGURE9]["cond_coherence"].published == 0.41
    digit = {row.label: row.cells for row in table.groups[1].rows}
    assert digit["GMRF MVAE"]["cond_coherence"].published == 0.94
    assert table.groups[1].title == "The first two show two images of one digit"


def test_table_4_stands_with_one_reading_alone() -> None:
    """What was recorded before the other reading was there is still shown, and says what it is."""
    rows = {
        s
        for alike in ("digit",)
        for found in triples.reading_rows(paper(PAPER).plan("table4", "smoke", 1), alike).values()
        for s in found
    }
    table = table4("smoke", 1, lambda s: record(s, table4_values(3.0)) if s in rows else None)
    assert {row.cells["cond_coherence"].reason for row in table.rows} == {"not run: make mrf-table4 PROFILE=smoke"}
    assert [g.title for g in table.groups] == ["The first two show two images of one digit"]
    assert all(row.cells["cond_coherence"].n == 1 for row in table.groups[0].rows[:3])


def test_chains_that_do_not_mix_win_nothing() -> None:
    """However high their coherence: it is never bold, and the cell says why."""

    def lookup(spec: RunSpec) -> Record:
        values = table4_values(3.0)
        if spec.method == "nnmrf":
            values |= {"test/unconditional/coherence": 0.99, "test/unconditional/r_hat": 10.9}
        return record(spec, values)

    table = table4("smoke", 2, lookup)
    assert table.winners("uncond_coherence", published=False) == ("ALMRF MVAE", "GMRF MVAE")
    text = table.to_markdown()
    assert "**0.990" not in text
    assert "chains that do not mix (largest split R-hat 10.90, over 1.1)" in text
    mixed = table4("smoke", 2, lambda s: record(s, table4_values(3.0) | {"test/unconditional/r_hat": 1.05}))
    assert "do not mix" not in mixed.to_markdown()


@pytest.mark.parametrize("num_draws", [4, 5, 6, 7, 10, 13])
def test_the_least_effective_sample_size_is_that_of_chains_that_never_move(num_draws: int) -> None:
    g = torch.Generator().manual_seed(num_draws)
    still = torch.randn(1, 30, 1, generator=g) + 1e-6 * torch.randn(num_draws, 30, 1, generator=g)
    assert float(effective_sample_size(still)) == pytest.approx(tables._least_size(num_draws, 30), rel=1e-6)


def test_table_4_states_what_was_run() -> None:
    """Triples that were trained on, potentials, the steps of chains, and records of the rows below."""
    spec = triples.spec("nnmrf", 0, "overnight")
    values = table4_values(3.0) | {"test/unconditional/effective_sample_size": 1484.3}
    changed = unique(paper(PAPER).plan("table4-ablations", "overnight"))[:1]
    table = table4("overnight", 1, lambda s: record(s, values) if s in (spec, *changed) else None)
    text = table.to_markdown()
    assert "of 55,000 triples (5,000 more are held out)" in text
    assert "NN-MRF's potentials of 3 hidden layers of 256 (the paper: 3 of 1024)" in text
    assert "1,000 chains of 1,600 steps, each the proposal of one of 3 blocks; 10 draws a chain are kept" in text
    assert "least effective sample size 1,484 (as many chains that never move: 1,429)" in text
    assert "; 1 record; " in table.provenance
    assert "The rows with one setting changed have records of their own: Profile overnight; seeds 0; 1 record; " in text
    quick = table4("quick", 1, lambda s: record(s, values) if s.params["data"]["held_out"] == 0 else None).to_markdown()
    assert "of 60,000 triples, batch" in quick
    assert "1,000 chains of 600 steps" in quick
    assert "(as many chains that never move: 1,333)" in quick


def test_settings_tell_variants_of_unequal_epochs_apart() -> None:
    specs = unique(paper(PAPER).plan("table4-ablations", "overnight"))[:3]
    kept = [record(s, table4_values(3.0)) for s in specs]
    results = results_of("mrf_mvae/table4-ablations", "overnight", lambda s: None)
    text = tables._settings(kept, results)
    assert "by 0.001% for 5 epochs, at most 100 (NN-MRF MVAE, ALMRF MVAE); until the held-out loss" in text
    assert "by 0.05% for 5 epochs, at most 100 (GMRF MVAE) (the paper: 100)" in text
    assert "at most 100 (the paper: 100)" in tables._settings(kept[:2], results)


def test_the_search_for_features_goes_without_chains_that_do_not_mix() -> None:
    """Pixels in [0, 255] explain the other variants' values, whatever chains of the neural one have."""

    def lookup(spec: RunSpec) -> Record:
        values, label = table4_values(7.0), triples.LABELS[spec.method]
        for task, name in (("uncond", "unconditional"), ("cond", "conditional")):
            own = 1.0 if spec.method == "nnmrf" else tables._printed(label)[f"{task}_fid"]
            values[f"test/{name}/frechet/pixels/mean"] = own / 255.0**2
        return record(spec, values | ({"test/unconditional/r_hat": 10.9} if spec.method == "nnmrf" else {}))

    table = features("quick", 1, lookup)
    row = next(r for r in table.rows if r[0] == "pixels in [0, 255]: x 65,025")
    assert row[-2:] == ("1", "1.00")
    assert [cell.endswith(" [1]") for cell in row[1:7]] == [True, True, False, False, False, False]
    assert all(bool(n.cell.caveat) == n.heading.startswith("NN-MRF") for n in table.numbers())
    text = table.to_markdown()
    assert "[1] chains that do not mix (largest split R-hat 10.90, over 1.1)" in text
    verdict = table.notes[0]
    assert "This is by the cells without a caveat, of models of triples whose first two show two images" in verdict
    assert "Training: 7 epochs (the paper: 100)" in verdict
    assert "(published): ALMRF MVAE 0.500 (0.76), GMRF MVAE 0.500 (0.94)." in verdict
    mixed = features("quick", 1, lambda s: record(s, table4_values(7.0)))
    assert "[1]" not in mixed.to_markdown()
    assert "This is by all cells" in mixed.notes[0]


def test_chains_that_start_at_posteriors_have_a_row_where_they_were_measured() -> None:
    label = "NN-MRF MVAE, chains of the prior started at draws of posteriors"

    def lookup(spec: RunSpec, r_hat: float = 5.0) -> Record:
        values = table4_values(3.0)
        if spec.method == "nnmrf":
            name = "test/unconditional-from-posteriors"
            values |= {f"{name}/coherence": 0.7, f"{name}/r_hat": r_hat, f"{name}/frechet/classifier/mean": 2.0}
        return record(spec, values)

    rows = {row.label: row.cells for row in table4("smoke", 2, lookup).groups[0].rows}
    assert rows[label]["uncond_coherence"].mean == 0.7
    assert "do not mix (largest split R-hat 5.00" in rows[label]["uncond_coherence"].caveat
    assert rows[label]["cond_coherence"].reason == "its conditional samples are those above"
    mixed = {row.label: row.cells for row in table4("smoke", 2, lambda s: lookup(s, 1.0)).groups[0].rows}
    assert mixed[label]["uncond_coherence"].caveat == ""
    assert label not in table4("smoke", 2, lambda s: record(s, table4_values(3.0))).to_markdown()


@pytest.mark.parametrize("digits", [10, 3])
def test_a_collapsed_model_is_not_chosen(digits: int) -> None:
    """However coherent one digit is with itself."""

    def lookup(spec: RunSpec) -> Record:
        large = spec.params["model"]["beta"] == max(triples.sweep_betas("smoke", reading(spec))[spec.method])
        values = {"validation/unconditional/digits": float(digits if large else 10)}
        for task in ("unconditional", "conditional"):
            values[f"validation/{task}/coherence"] = 0.9 if large else 0.4
            values[f"validation/{task}/frechet/classifier/mean"] = 10.0
        return record(spec, values)

    chosen = tables.choose_betas(results_of("mrf_mvae/table4-sweep", "smoke", lookup))
    assert set(chosen) == set(ALIKE)
    for alike, found in chosen.items():
        betas = triples.sweep_betas("smoke", alike)
        assert all((b == max(betas[v])) == (digits == 10) for v, b in found.items())


def test_no_beta_is_chosen_of_a_variant_with_runs_to_come() -> None:
    first, *_ = unique(paper(PAPER).plan("table4-sweep", "smoke"))

    def lookup(spec: RunSpec) -> Record | None:
        values = {"validation/unconditional/digits": 10.0}
        for task in ("unconditional", "conditional"):
            values |= {f"validation/{task}/coherence": 0.9, f"validation/{task}/frechet/classifier/mean": 10.0}
        return None if spec == first else record(spec, values)

    results = results_of("mrf_mvae/table4-sweep", "smoke", lookup)
    chosen = tables.choose_betas(results)
    assert set(chosen[reading(first)]) == set(triples.sweep_betas("smoke", reading(first))) - {first.method}
    table = tables.sweep(results)
    assert table.rows[0][3:] == ("not run", *["—"] * 5)
    assert f"(not run in full: {triples.LABELS[first.method]})" in table.to_markdown()


def test_pictures_refuse_what_is_no_row_of_pictures() -> None:
    good = np.zeros((4, 28, 28), dtype=np.uint8)
    figure = figures.image_blocks({"one": {"a": good, "b": good}}, "columns")
    assert len(figure.axes) == 1
    for bad in (np.zeros((4, 28, 28)), np.zeros((3, 28, 28), dtype=np.uint8), np.zeros((4, 27, 28), dtype=np.uint8)):
        with pytest.raises(ValueError, match=re.escape("need one shape (N, 28, 28) of bytes")):
            figures.image_blocks({"one": {"a": good, "b": bad}})
    with pytest.raises(ValueError, match="of bytes"):
        figures.image_blocks({})


@pytest.mark.slow
def test_pictures_are_of_the_first_triple_of_each_digit(store: RunStore) -> None:
    from safetensors.torch import load_file

    spec = triples.spec("almrf", 0, "smoke")
    kept = load_file(store.directory(spec) / "samples.safetensors")
    test = synthetic("mnist_triples", "test")
    rows = [int((test.labels == d).nonzero()[0]) for d in range(10)]
    for m, x in test.data.items():
        assert torch.equal(kept[f"true.{m}"], x[rows, 0])
    assert set(kept) == {f"{g}.{m}" for g in ("true", "prior", "m0", "m1") for m in test.data}
    assert all(x.shape == (10, 28, 28) and x.dtype is torch.uint8 for x in kept.values())


@pytest.mark.slow
def test_the_heavy_tailed_comparison_runs_and_renders(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    wanted = [*unique(paper(PAPER).plan("tails", "smoke")), skewed.spec("gmrf", 0, "smoke", sweep=True, beta=0.01)]
    for spec in wanted:
        found = execute(replace(spec), store)
        assert all(math.isfinite(m.value) and m.value >= 0 for m in found.metrics)
    for artifact in ("tails", "tails-fig"):
        paths = render(find(f"{PAPER}/{artifact}"), "smoke", tmp_path / "figures", store=store)
        assert all(p.stat().st_size < 300_000 for p in paths)
    text = (tmp_path / "figures" / PAPER / "smoke" / "tails.md").read_text()
    assert "Noise floor: two true samples" in text
    assert "factor of" not in text  # a verdict on the claim, which smoke does not bear
    assert "factor of" in skewed_tables.tails(results_of("mrf_mvae/tails", "smoke", store.record)).to_markdown()
    with pytest.raises(RunError, match="tails-sweep lacks the records of"):
        render(find(f"{PAPER}/tails-sweep"), "smoke", tmp_path / "figures", store=store)
    sweep = skewed_tables.sweep(results_of("mrf_mvae/tails-sweep", "smoke", store.record))
    assert len(sweep.rows) == 1


def test_the_verdict_on_tails_follows_the_numbers() -> None:
    def rows(error: dict[str, float], **chains: float) -> dict[str, list[Record]]:
        name = "test/unconditional/mean/tail-true/mean"
        mixing = {f"test/unconditional/{k}": v for k, v in chains.items()}
        return {m: [record(skewed.spec(m, 0, "smoke"), {name: e} | mixing)] for m, e in error.items()}

    said = skewed_tables._verdict(rows({"gmrf": 0.02, "almrf": 0.01, "nnmrf": 0.03}, r_hat=1.05))
    assert "is lower than the Gaussian variant's by a factor of 2.00; the lowest is that of ALMRF MVAE." in said
    error = {"gmrf": 0.01, "almrf": 0.03, "nnmrf": 0.005}
    said = skewed_tables._verdict(rows(error, r_hat=1.05))
    assert "is higher than the Gaussian variant's by a factor of 3.00; the lowest is that of NN-MRF MVAE." in said
    said = skewed_tables._verdict(rows(error))
    assert "the lowest, chains aside that are not known to mix, is that of GMRF MVAE." in said


def test_models_are_the_same_for_the_same_seed() -> None:
    spec = triples.spec("nnmrf", 3, "smoke")
    with isolated_rng(3):
        one = build_model(spec)
    with isolated_rng(3):
        two = build_model(spec)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))

"""All models on MNIST triples: one budget in both readings, measures by known answers, the sweep, the table, claims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from repro.artifacts.claims import assess, claims
from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.datasets import load_dataset
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.experiment import Results
from repro.networks.construction import construction_of
from repro.papers import experiment_of
from repro.papers.compare.methods import LABELS, REGULARISED, SCORE, VARIANTS, chosen_weights, weights
from repro.papers.compare.priors.experiment import Priors
from repro.papers.compare.priors.settings import priors_spec
from repro.papers.compare.rows import epochs_in_all, weight_of
from repro.papers.compare.triples.evaluation import evaluate
from repro.papers.compare.triples.experiment import AllOnTriples
from repro.papers.compare.triples.settings import LATENT_DIM, SHARED, WEIGHTS_OF, triples_spec
from repro.papers.compare.triples.tables import (
    FLOORS,
    HEADINGS,
    digits,
    digits_sweep,
    score,
    triples,
    triples_sweep,
)
from repro.papers.mrf_mvae.triples.experiment import Triples
from repro.papers.mrf_mvae.triples.experiment import spec as mrf_spec
from repro.papers.mrf_mvae.triples.readings import ALIKE
from repro.records import Record, RunSpec
from tests.support.compared import Copies, MadeUp, made_record, named_by, own_row, run_smoke, smoke_records
from tests.support.experiments import build_model, results_of

COMPARED, SWEPT = {"image": triples, "digit": digits}, {"image": triples_sweep, "digit": digits_sweep}
NAMES = {"image": "compare/triples", "digit": "compare/digits"}


# What is run


@pytest.mark.parametrize("alike", ALIKE)
@pytest.mark.parametrize("profile", ["paper", "overnight", "quick", "smoke"])
def test_all_have_the_same_data_epochs_and_measures(profile: str, alike: str) -> None:
    specs = {m: triples_spec(m, 0, profile, alike) for m in LABELS}
    assert len({s.key for s in specs.values()}) == len(LABELS)
    budgets = set()
    for m, spec in specs.items():
        training = spec.params["training"]
        common = (training.get(k) for k in ("batch_size", "learning_rate", "patience", "min_improvement"))
        budgets.add((epochs_in_all(spec), str(spec.params["data"]), *common))
        assert set(training.get("stages", {})) == ({"deep_cca"} if m == "covae" else {"score"} if m in SCORE else set())
        assert (training.get("patience") is not None) == (profile == "overnight")
        assert ("likelihood" in spec.params["evaluation"]) == (m not in REGULARISED)
        assert weight_of(spec) == chosen_weights(WEIGHTS_OF[alike])[m]
        assert weight_of(spec) in weights(m, WEIGHTS_OF[alike])
        other = triples_spec(m, 0, profile, alike, weight=weights(m, WEIGHTS_OF[alike])[0], sweep=True)
        assert weight_of(other) == weights(m, WEIGHTS_OF[alike])[0]
        assert other.params["evaluation"]["split"] == "validation"
        assert other.params["data"]["held_out"] >= other.params["evaluation"]["num_samples"]
        assert not {"likelihood", "timed"} & set(other.params["evaluation"])
    assert len(budgets) == 1
    assert len(plan(find(NAMES[alike]), profile)) == len(LABELS)
    seeds = {len(s) for s in plan(find(NAMES[alike]), profile).values()}
    assert seeds == {3 if profile in ("paper", "overnight") else 1}
    assert len(plan(find(f"{NAMES[alike]}-sweep"), profile)) == sum(len(weights(m, "mnist_triples")) for m in LABELS)


def test_readings_share_all_but_data_and_weights_and_are_told_from_other_experiments() -> None:
    for m in LABELS:
        image, digit = (triples_spec(m, 0, "quick", alike, weight=0.1) for alike in ALIKE)
        assert image.key != digit.key
        assert image.params["data"] == digit.params["data"] | {"alike": "image"}
        assert all(image.params[k] == digit.params[k] for k in ("model", "training", "evaluation"))
        assert isinstance(experiment_of(image), AllOnTriples)
    assert isinstance(experiment_of(priors_spec("prior_neural", 0, "quick", "mnist_triples")), Priors)
    assert isinstance(experiment_of(mrf_spec("gmrf", 0, "quick")), Triples)
    for name, alike in (("compare/triples", "image"), ("compare/digits-sweep", "digit")):
        assert {s.params["data"]["alike"] for s in unique(plan(find(name), "quick"))} == {alike}


def test_a_quick_run_is_done_in_a_minute_and_a_half() -> None:
    for name, most in (("compare/triples", 90), ("compare/digits", 90), ("compare/triples-sweep", 25)):
        assert max(AllOnTriples().cost(s).seconds for s in unique(plan(find(name), "quick"))) < most


def test_specifications_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'vae'; one of gmrf_mcvae, almrf"):
        triples_spec("vae", 0, "smoke")
    with pytest.raises(ValueError, match="unknown reading 'digits'; one of image, digit"):
        triples_spec("covae", 0, "smoke", "digits")


@pytest.mark.parametrize("method", LABELS)
def test_all_have_covaes_encoders_and_decoders_and_can_be_built_again(method: str) -> None:
    model = build_model(triples_spec(method, 0, "smoke"))
    owner = next(x for x in (model, *model.modules()) if {"encoders", "decoders"} <= {n for n, _ in x.named_children()})
    own = LATENT_DIM if method in (*SCORE, *VARIANTS, "covae") else 32 if method in ("mmvae_plus", "dmvae") else SHARED
    for m in ("m0", "m1", "m2"):
        sizes = {n: tuple(p.shape) for n, p in owner.decoders[m].named_parameters()}.values()
        assert sorted(sizes) == sorted([(16, own), (16,), (784, 16), (784,)])
        heads = 1 if method in REGULARISED else 2
        sizes = {n: tuple(p.shape) for n, p in owner.encoders[m].named_parameters()}.values()
        assert sorted(sizes) == sorted([(16, 784), (16,), *heads * [(own, 16), (own,)]])
    assert construction_of(model) is not None


# Measures


@pytest.mark.parametrize("alike", ALIKE)
def test_the_test_split_itself_is_coherent_and_a_shuffled_one_at_its_share_of_equal_digits(alike: str) -> None:
    spec = triples_spec("sbm_rae", 0, "smoke", alike)
    data = AllOnTriples().load(spec)
    true = data["test"].first(spec.params["evaluation"]["num_samples"]).floats()
    found = {s: {m.name: m.value for m in evaluate(Copies(true.data, true.modalities, s), data, spec)} for s in (0, 1)}
    seen = found[0]
    assert seen["test/unconditional/coherence"] == seen["test/true/coherence"] > 0.95
    assert seen["test/conditional/coherence"] == seen["test/reconstruction/coherence"] == seen["test/true/accuracy"]
    for task in ("unconditional", "conditional", "reconstruction"):
        assert seen[f"test/{task}/frechet/classifier/mean"] == pytest.approx(0.0, abs=1e-3)
    equal = float((true.labels == true.labels.roll(1)).double().mean())
    assert found[1]["test/conditional/coherence"] == pytest.approx(equal, abs=0.03)
    assert found[1]["test/unconditional/coherence"] == pytest.approx(equal, abs=0.03)
    for name in ("test/true/accuracy", "test/nearest/conditional/coherence"):
        assert found[0][name] == found[1][name] > 0.4


def swept(spec: RunSpec, coherence: float, conditional: float, distance: float, digits: int = 10) -> Record:
    values = {
        "unconditional/coherence": coherence,
        "conditional/coherence": conditional,
        "unconditional/digits": digits,
    }
    values |= {f"{task}/frechet/classifier/mean": distance for task in ("unconditional", "conditional")}
    return made_record(spec, {f"validation/{k}": v for k, v in values.items()})


def test_the_score_is_distance_over_coherence_and_a_collapse_has_none() -> None:
    spec = triples_spec("mvae", 0, "smoke", weight=0.1, sweep=True)
    assert score(swept(spec, 0.5, 0.5, 10.0)) == pytest.approx(20.0)
    assert score(swept(spec, 0.9, 0.1, 10.0)) == pytest.approx(10.0 / 0.3)
    assert score(swept(spec, 1.0, 0.5, 10.0, digits=3)) == pytest.approx((10_000 * 20.0) ** 0.5)


@pytest.mark.parametrize("alike", ALIKE)
def test_each_reading_chooses_its_own_weights(alike: str) -> None:
    def record(spec: RunSpec) -> Record | None:
        if spec.params["data"]["alike"] != alike or spec.params["evaluation"]["split"] != "validation":
            return None
        tried = weights(spec.method, WEIGHTS_OF[alike])
        best = tried[1] if alike == "image" else tried[2]
        return swept(spec, 0.5, 0.5, 10.0 if weight_of(spec) == best else 20.0)

    table = SWEPT[alike](results_of(f"{NAMES[alike]}-sweep", "quick", record))
    (chosen,) = (str(n) for n in table.notes if "Chosen:" in str(n))
    assert f"GMRF MCVAE {weights('gmrf_mcvae', WEIGHTS_OF[alike])[1 if alike == 'image' else 2]:g}," in chosen
    assert "counts as 0.001, the least, seed 0" in chosen
    assert ALIKE[alike] in table.caption
    assert not [n for n in table.notes if "At an edge" in str(n)]


# The smoke profile, end to end


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("triples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def smoke(root: Path) -> dict[str, Record]:
    """The records of all fourteen."""
    assert run_smoke("compare/triples", root) == 0
    return smoke_records("compare/triples", root)


def test_records_have_what_the_table_shows(smoke: dict[str, Record]) -> None:
    assert list(smoke) == list(LABELS)
    for method, own in smoke.items():
        values = {m.name: m.value for m in own.metrics}
        lacking = {name for name in HEADINGS if name not in values}
        assert lacking == ({"test/nll/joint"} if method in REGULARISED else set())
        assert {name for floor in FLOORS.values() for name in floor.values()} <= set(values)
        assert values["sampling/joint/seconds"] > 0
        assert ("test/unconditional/r_hat" in values) == (method == "nnmrf")
    for name in ("test/true/coherence", "test/nearest/conditional/coherence"):
        assert len({r.metric(name).value for r in smoke.values()}) == 1


def test_every_model_is_a_row_and_says_what_it_lacks(root: Path, smoke: dict[str, Record]) -> None:
    text = (root / "results" / "compare" / "smoke" / "triples.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "| obtained |" in line}
    for label in (*LABELS.values(), *FLOORS):
        assert label in lines
    assert "a regularised autoencoder has no likelihood" in text
    assert "of which the first two show the same image" in text
    assert "48 latents in all, 500 triples, 2 epochs of all stages together (10 steps of at most 100)" in text
    chosen = "these weights are those that the sweep of the profile quick chose"
    assert f"is not recorded: make compare-triples-sweep PROFILE=smoke; {chosen}" in text


@pytest.mark.parametrize("alike", ALIKE)
def test_weights_are_chosen_on_training_triples_alone(root: Path, alike: str) -> None:
    spec = triples_spec("mvae", 0, "smoke", alike, weight=0.1, sweep=True)
    data = AllOnTriples().load(spec)
    assert {s: len(d) for s, d in data.items()} == {"train": 400, "validation": 100}
    train = load_dataset("mnist_triples", split="train", alike=alike).first(500)
    assert torch.equal(torch.cat([data["train"].data["m1"], data["validation"].data["m1"]]), train.data["m1"])
    same = torch.equal(train.data["m0"], train.data["m1"])
    assert same == (alike == "image")
    record = execute(spec, RunStore(root / "runs"), device="cpu")
    assert not [m.name for m in record.metrics if not m.name.startswith("validation/")]
    assert score(record) > 0


def test_a_readers_method_stands_under_the_table(
    root: Path, smoke: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not own_row("compare/triples", root, HEADINGS)["test/conditional/coherence"].startswith("—")


# Made-up records


def made_up(profile: str, factor: float = 1.0, method: str = "gmrf_mcvae", collapsed: str = "") -> MadeUp:
    return MadeUp(
        profile, named_by(HEADINGS, FLOORS), factor, method, {"test/reconstruction/coherence": 0.99}, collapsed
    )


def tables(alike: str, made: MadeUp) -> list:
    results: Results = results_of(NAMES[alike], made.profile, made.record)
    return COMPARED[alike](results)


@pytest.mark.parametrize("alike", ALIKE)
def test_joint_coherence_of_a_collapse_is_shown_and_takes_no_part(alike: str) -> None:
    first, costs = tables(alike, made_up("overnight", 1.5, "mvae", collapsed="mvae"))
    assert first.caption == f"All models on MNIST triples, of which the first two show {ALIKE[alike]}"
    assert costs.caption == f"{first.caption}: what they take"
    assert [r.label for r in first.rows] == list(LABELS.values())
    cells = next(r for r in first.rows if r.label == "MVAE").cells
    assert cells["test/unconditional/coherence"].caveat.startswith("collapsed: joint samples show 3 of the 10 digits")
    assert cells["test/conditional/coherence"].caveat == ""
    best = [str(n) for n in first.notes if "MVAE is the best" in str(n)]
    assert [n.split(":")[0] for n in best] == ["Given one of the first two, coherence"]
    assert any("at most 60 epochs of all stages together, each stage until 5,000 further" in n for n in first.notes)


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "reproduced"), (0.9, "contradicted")])
@pytest.mark.parametrize("alike", ALIKE)
def test_claims_follow_from_records(alike: str, factor: float, verdict: str) -> None:
    coherence, distance = (c for c in claims("compare") if c.artifact == NAMES[alike])
    assert coherence.id.endswith("-conditional")
    assert distance.id.endswith("-score")
    assert assess(coherence, made_up("paper", factor)).verdict == verdict
    better = made_up("paper", 1 / factor, "sbm_vae")
    assert assess(replace(distance, caveat=""), better).verdict == verdict
    withheld = assess(distance, better)
    assert withheld.verdict == "inconclusive"
    assert "the paper has no experiment on MNIST triples" in withheld.reasons
    found = assess(coherence, made_up("quick", factor))
    assert found.verdict == "inconclusive"
    assert "one seed" in found.reasons
    assert assess(coherence, made_up("smoke", factor)).verdict == "not run"

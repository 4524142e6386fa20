"""All models on PolyMNIST: one budget, measures by known answers, the sweep, the table, claims."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from repro.artifacts.claims import assess, claims
from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.datasets import Dataset, load_dataset
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.model import MultimodalModel
from repro.networks.construction import construction_of
from repro.papers import experiment_of
from repro.papers.compare.alike import private_latents
from repro.papers.compare.digit_scores import digit_score
from repro.papers.compare.methods import LABELS, POLYMNIST, REGULARISED, SCORE, VARIANTS, chosen_weights, weights
from repro.papers.compare.polymnist.evaluation import evaluate
from repro.papers.compare.polymnist.experiment import AllOnPolyMNIST
from repro.papers.compare.polymnist.settings import MODALITIES, PROFILES, polymnist_spec
from repro.papers.compare.polymnist.tables import FLOORS, HEADINGS, polymnist, polymnist_sweep, score
from repro.papers.compare.priors.experiment import Priors
from repro.papers.compare.priors.settings import PROFILES as PRIORS
from repro.papers.compare.priors.settings import priors_spec
from repro.papers.compare.rows import epochs_in_all, weight_of
from repro.papers.sbm_vae.building import first_modalities
from repro.papers.sbm_vae.polymnist.experiment import ExtendedPolyMNIST
from repro.papers.sbm_vae.settings import sbm_spec
from repro.records import Record, RunSpec
from tests.support.compared import Copies, MadeUp, made_record, named_by, own_row, run_smoke, smoke_records
from tests.support.experiments import build_model, results_of

NAME = "compare/polymnist"
TASKS = ("unconditional", "given-one", "given-rest")


# What is run


@pytest.mark.parametrize("profile", ["paper", "overnight", "quick", "smoke"])
def test_all_have_the_same_data_epochs_and_measures(profile: str) -> None:
    specs = {m: polymnist_spec(m, 0, profile) for m in LABELS}
    assert len({s.key for s in specs.values()}) == len(LABELS)
    budgets = set()
    for m, spec in specs.items():
        training = spec.params["training"]
        common = (training.get(k) for k in ("batch_size", "learning_rate", "patience", "min_improvement"))
        budgets.add((epochs_in_all(spec), str(spec.params["data"]), *common))
        assert set(training.get("stages", {})) == ({"deep_cca"} if m == "covae" else {"score"} if m in SCORE else set())
        assert (training.get("patience") is not None) == (profile == "overnight")
        assert ("likelihood" in spec.params["evaluation"]) == (m not in REGULARISED)
        assert weight_of(spec) == chosen_weights(POLYMNIST)[m]
        assert weight_of(spec) in weights(m, POLYMNIST)
        other = polymnist_spec(m, 0, profile, weight=weights(m, POLYMNIST)[0], sweep=True)
        assert weight_of(other) == weights(m, POLYMNIST)[0]
        assert other.params["evaluation"]["split"] == "validation"
        assert not {"likelihood", "timed"} & set(other.params["evaluation"])
    assert len(budgets) == 1
    assert len(plan(find(NAME), profile)) == len(LABELS)
    seeds = {len(s) for s in plan(find(NAME), profile).values()}
    assert seeds == {3 if profile in ("paper", "overnight") else 1}
    assert len(plan(find(f"{NAME}-sweep"), profile)) == sum(len(weights(m, POLYMNIST)) for m in LABELS)


def test_networks_are_those_of_the_structures_and_runs_are_told_from_other_experiments() -> None:
    for profile in PROFILES:
        structures = PRIORS[POLYMNIST][profile]
        for m in LABELS:
            spec = polymnist_spec(m, 0, profile)
            for k in ("networks", "widths", "hidden_dtype"):
                assert spec.params["model"][k] == structures["autoencoders"][k]
            assert spec.params["data"]["modalities"] == structures["modalities"] == len(MODALITIES)
            assert isinstance(experiment_of(spec), AllOnPolyMNIST)
    assert isinstance(experiment_of(priors_spec("prior_neural", 0, "quick", POLYMNIST)), Priors)
    assert isinstance(experiment_of(sbm_spec("sbm_vae", 0, "quick")), ExtendedPolyMNIST)


def test_a_quick_run_is_done_in_a_minute_on_average() -> None:
    for name, most in ((NAME, 90), (f"{NAME}-sweep", 30)):
        seconds = [AllOnPolyMNIST().cost(s).seconds for s in unique(plan(find(name), "quick"))]
        assert max(seconds) < most
        assert sum(seconds) < 60 * len(seconds)


def test_specifications_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'vae'; one of gmrf_mcvae, almrf"):
        polymnist_spec("vae", 0, "smoke")


@pytest.mark.parametrize("method", LABELS)
def test_all_have_the_same_encoders_and_decoders_and_can_be_built_again(method: str) -> None:
    model = build_model(polymnist_spec(method, 0, "smoke"))
    reference = build_model(polymnist_spec("mvae", 0, "smoke"))
    assert tuple(model.modalities) == MODALITIES

    def owner(x: MultimodalModel) -> torch.nn.Module:
        return next(y for y in (x, *x.modules()) if {"encoders", "decoders"} <= {n for n, _ in y.named_children()})

    def layers(x: torch.nn.Module) -> list[tuple[int, ...]]:
        """Of all but the heads, whose sizes are those of the latents."""
        return sorted(tuple(w.shape) for w in x.parameters() if w.ndim == 4)

    latents = PROFILES["smoke"]["latent_dim"]
    private = private_latents(latents, len(MODALITIES))
    own = latents if method in (*SCORE, *VARIANTS, "covae") else latents * len(MODALITIES)
    own = sum(private.values()) if method in ("mmvae_plus", "dmvae") else own
    for m in MODALITIES:
        for part in ("encoders", "decoders"):
            mine = layers(getattr(owner(model), part)[m])
            assert mine == layers(getattr(owner(reference), part)[m])
            assert len(mine) > 3
        first = next(w for n, w in owner(model).decoders[m].named_parameters() if w.ndim == 2)
        assert first.shape[1] == own
    assert construction_of(model) is not None


# Measures


@pytest.fixture(scope="module")
def points() -> dict[str, Dataset]:
    """Splits of test points alone, which are the soonest made."""
    every = first_modalities(load_dataset(POLYMNIST, split="test").first(300), len(MODALITIES))
    rows = {"test": slice(100), "validation": slice(100, 200), "train": slice(200, 300)}
    return {
        split: dataclasses.replace(
            every, split=split, data={m: x[r] for m, x in every.data.items()}, labels=every.labels[r]
        )
        for split, r in rows.items()
    }


def test_the_test_split_itself_is_coherent_and_a_shuffled_one_at_its_share_of_equal_digits(
    points: dict[str, Dataset],
) -> None:
    spec, true = polymnist_spec("sbm_rae", 0, "smoke"), points["test"].floats()
    found = {
        s: {m.name: m.value for m in evaluate(Copies(true.data, true.modalities, s), points, spec)} for s in (0, 1)
    }
    seen = found[0]
    assert seen["test/unconditional/coherence"] == seen["test/true/coherence"] > 0.9
    for name in ("given-one/coherence", "given-rest/coherence", "reconstruction/accuracy"):
        assert seen[f"test/{name}"] == pytest.approx(seen["test/true/accuracy"])
    for task in (*TASKS, "reconstruction"):
        assert seen[f"test/{task}/frechet/classifier/mean"] == pytest.approx(0.0, abs=1e-3)
    equal = float((true.labels == true.labels.roll(1)).double().mean())
    for task in TASKS:
        assert found[1][f"test/{task}/coherence"] == pytest.approx(equal, abs=0.06)
    for task in ("given-one", "given-rest"):
        name = f"test/nearest/{task}/coherence"
        assert 0.1 < found[0][name] == found[1][name] < 1.0


def test_training_points_themselves_are_the_nearest_ones(points: dict[str, Dataset]) -> None:
    spec, true = polymnist_spec("sbm_rae", 0, "smoke"), points["test"].floats()
    data = points | {"train": points["test"]}
    seen = {m.name: m.value for m in evaluate(Copies(true.data, true.modalities), data, spec)}
    for task in ("given-one", "given-rest"):
        assert seen[f"test/nearest/{task}/coherence"] == seen[f"test/{task}/coherence"]


@pytest.mark.parametrize("method", ["almrf", "mld"])
def test_a_model_has_what_the_table_shows(method: str, points: dict[str, Dataset]) -> None:
    spec = polymnist_spec(method, 0, "smoke")
    names = {m.name for m in evaluate(build_model(spec), points, spec)}
    lacking = {name for name in HEADINGS if name not in names}
    assert lacking == ({"test/nll/joint"} if method in REGULARISED else set())


def swept(spec: RunSpec, coherence: float, conditional: float, distance: float, digits: int = 10) -> Record:
    values = {f"{task}/coherence": conditional for task in TASKS}
    values |= {"unconditional/coherence": coherence, "unconditional/digits": digits}
    values |= {f"{task}/frechet/classifier/mean": distance for task in TASKS}
    return made_record(spec, {f"validation/{k}": v for k, v in values.items()})


def test_the_score_is_distance_over_coherence_and_a_collapse_has_none() -> None:
    spec = polymnist_spec("mvae", 0, "smoke", weight=0.2, sweep=True)
    assert score(swept(spec, 0.5, 0.5, 10.0)) == pytest.approx(20.0)
    assert score(swept(spec, 0.8, 0.1, 10.0)) == pytest.approx(10.0 / 0.2)
    assert score(swept(spec, 1.0, 0.5, 10.0, digits=3)) == pytest.approx((10_000 * 20.0**2) ** (1 / 3))
    assert digit_score(swept(spec, 1.0, 0.5, 10.0), ["given-one"]) == pytest.approx(20.0)


def test_the_sweep_chooses_the_weight_of_the_lowest_score() -> None:
    def record(spec: RunSpec) -> Record | None:
        if spec.params["evaluation"]["split"] != "validation":
            return None
        best = weights(spec.method, POLYMNIST)[2]
        return swept(spec, 0.5, 0.5, 10.0 if weight_of(spec) == best else 20.0)

    table = polymnist_sweep(results_of(f"{NAME}-sweep", "quick", record))
    (chosen,) = (str(n) for n in table.notes if "Chosen:" in str(n))
    assert f"GMRF MCVAE {weights('gmrf_mcvae', POLYMNIST)[2]:g}," in chosen
    assert "counts as 0.001, the least, seed 0" in chosen
    assert not [n for n in table.notes if "At an edge" in str(n)]


def test_a_sweep_is_shown_as_its_runs_come_and_chooses_of_whole_methods_alone() -> None:
    def record(spec: RunSpec) -> Record | None:
        tried = weights(spec.method, POLYMNIST)
        rows = tried if spec.method == "mmvae" else tried[:1] if spec.method == "mvae" else ()
        return swept(spec, 0.5, 0.5, 10.0 + weight_of(spec)) if weight_of(spec) in rows else None

    table = polymnist_sweep(results_of(f"{NAME}-sweep", "quick", record))
    (chosen,) = (str(n) for n in table.notes if "Chosen:" in str(n))
    assert f"Chosen: MMVAE {min(weights('mmvae', POLYMNIST)):g}; this DISAGREES with" in chosen
    (rest,) = (str(n) for n in table.notes if "some are not of" in str(n))
    assert "GMRF MCVAE" in rest
    assert ", MVAE," in rest
    assert ", MMVAE," not in rest
    cells = {row.label: row.cells for row in table.rows}
    first, second = (f"{w:g}" for w in weights("mvae", POLYMNIST)[:2])
    assert cells["MVAE"][first].n == 1
    assert cells["MVAE"][second].reason == cells["GMRF MCVAE"][first].reason == "not run"


# The smoke profile, end to end


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("polymnist")


@pytest.fixture(scope="module")
def smoke(root: Path) -> dict[str, Record]:
    """The records of all fourteen."""
    assert run_smoke(NAME, root) == 0
    return smoke_records(NAME, root)


@pytest.mark.slow
def test_records_have_what_the_table_shows(smoke: dict[str, Record]) -> None:
    assert list(smoke) == list(LABELS)
    for method, own in smoke.items():
        values = {m.name: m.value for m in own.metrics}
        lacking = {name for name in HEADINGS if name not in values}
        assert lacking == ({"test/nll/joint"} if method in REGULARISED else set())
        assert {name for floor in FLOORS.values() for name in floor.values()} <= set(values)
        assert values["sampling/joint/seconds"] > 0
        assert ("test/unconditional/r_hat" in values) == (method == "nnmrf")
    for name in ("test/true/coherence", "test/nearest/given-one/coherence"):
        assert len({r.metric(name).value for r in smoke.values()}) == 1


@pytest.mark.slow
def test_every_model_is_a_row_and_says_what_it_lacks(root: Path, smoke: dict[str, Record]) -> None:
    text = (root / "results" / "compare" / "smoke" / "polymnist.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "| obtained |" in line}
    for label in (*LABELS.values(), *FLOORS):
        assert label in lines
    assert "a regularised autoencoder has no likelihood" in text
    assert "residual encoders and decoders of 2 and 4 and 4 channels" in text
    assert "12 latents in all, 200 samples, 2 epochs of all stages together (4 steps of at most 100)" in text
    chosen = "these weights are those that the sweep of the profile quick chose"
    assert f"is not recorded: make compare-polymnist-sweep PROFILE=smoke; {chosen}" in text


@pytest.mark.slow
def test_weights_are_chosen_on_the_validation_split_alone(root: Path) -> None:
    spec = polymnist_spec("mvae", 0, "smoke", weight=0.2, sweep=True)
    data = AllOnPolyMNIST().load(spec)
    assert {s: len(d) for s, d in data.items()} == {"train": 200, "validation": 60}
    whole = first_modalities(load_dataset(POLYMNIST, split="validation"), len(MODALITIES)).first(60)
    assert torch.equal(data["validation"].data["m1"], whole.data["m1"])
    record = execute(spec, RunStore(root / "runs"), device="cpu")
    assert not [m.name for m in record.metrics if not m.name.startswith("validation/")]
    assert score(record) > 0


@pytest.mark.slow
def test_a_readers_method_stands_under_the_table(
    root: Path, smoke: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not own_row(NAME, root, HEADINGS)["test/given-one/coherence"].startswith("—")


# Made-up records


def made_up(profile: str, factor: float = 1.0, method: str = "gmrf_mcvae", collapsed: str = "") -> MadeUp:
    return MadeUp(
        profile, named_by(HEADINGS, FLOORS), factor, method, {"test/reconstruction/accuracy": 0.99}, collapsed
    )


def test_joint_coherence_of_a_collapse_is_shown_and_takes_no_part() -> None:
    made = made_up("overnight", 1.5, "mvae", collapsed="mvae")
    first, costs = polymnist(results_of(NAME, made.profile, made.record))
    assert first.caption == "All models on PolyMNIST of three modalities"
    assert costs.caption == f"{first.caption}: what they take"
    assert [r.label for r in first.rows] == list(LABELS.values())
    cells = next(r for r in first.rows if r.label == "MVAE").cells
    assert cells["test/unconditional/coherence"].caveat.startswith("collapsed: joint samples show 3 of the 10 digits")
    assert cells["test/given-one/coherence"].caveat == ""
    best = [str(n).split(":")[0] for n in first.notes if "MVAE is the best" in str(n)]
    assert best == ["Given one modality, coherence", "Given two modalities, coherence"]
    assert any("each stage until the validation split's loss has not improved for 3" in n for n in first.notes)


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "reproduced"), (0.9, "contradicted")])
def test_claims_follow_from_records(factor: float, verdict: str) -> None:
    coherence, distance = (c for c in claims("compare") if c.artifact == NAME)
    assert coherence.id.endswith("-conditional")
    assert distance.id.endswith("-score")
    assert assess(coherence, made_up("paper", factor)).verdict == verdict
    assert assess(distance, made_up("paper", 1 / factor, "sbm_vae")).verdict == verdict
    found = assess(coherence, made_up("quick", factor))
    assert found.verdict == "inconclusive"
    assert "one seed" in found.reasons
    assert assess(coherence, made_up("smoke", factor)).verdict == "not run"

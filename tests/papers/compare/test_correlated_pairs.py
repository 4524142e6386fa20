"""All models on pairs of correlated MNIST: one budget, measures by known answers, a table a correlation, claims."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from repro.artifacts.claims import assess, claims
from repro.artifacts.inventory import find
from repro.artifacts.render import plan, unique
from repro.datasets.base import Dataset, ModalitySpec
from repro.datasets.correlated_mnist import gaussians
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.model import Loss, MultimodalModel, Stage
from repro.networks.construction import construction_of
from repro.papers import experiment_of
from repro.papers.compare.correlated_pairs.evaluation import evaluate, relative_spread
from repro.papers.compare.correlated_pairs.experiment import AllOnPairs
from repro.papers.compare.correlated_pairs.settings import (
    LATENT_DIM,
    LATENTS,
    RHOS,
    SCORE_LATENT_DIM,
    SWEPT,
    pairs_spec,
)
from repro.papers.compare.correlated_pairs.tables import FLOORS, HEADINGS, SCORED_BY, pairs, score, weights_runs
from repro.papers.compare.methods import LABELS, PAIRS, REGULARISED, SCORE, VARIANTS, chosen_weights, weights
from repro.papers.compare.rows import epochs_in_all, weight_of
from repro.papers.covae.correlated_mnist.experiment import CorrelatedMNIST, image_spec
from repro.papers.covae.evaluation import likelihood_metrics
from repro.papers.covae.settings import METHODS
from repro.records import Record, RecordError, RunSpec
from tests.support.compared import MadeUp, named_by, own_row, run_smoke, smoke_records
from tests.support.experiments import build_model, results_of

SPECS = {m: ModalitySpec((1, 28, 28), "image", (0.0, 1.0)) for m in ("m0", "m1")}
RHO, DIM = 0.8, 10


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# What is run


@pytest.mark.parametrize("profile", RHOS)
def test_all_have_the_same_data_epochs_and_measures(profile: str) -> None:
    specs = {m: pairs_spec(m, 0, profile, 0.6) for m in LABELS}
    assert len({s.key for s in specs.values()}) == len(LABELS)
    budgets = set()
    for m, spec in specs.items():
        training = spec.params["training"]
        common = (training.get(k) for k in ("batch_size", "learning_rate", "optimizer", "patience", "plateau"))
        budgets.add((epochs_in_all(spec), str(spec.params["data"]), *common))
        assert set(training.get("stages", {})) == ({"deep_cca"} if m == "covae" else {"score"} if m in SCORE else set())
        assert ("likelihood" in spec.params["evaluation"]) == (m not in REGULARISED)
        assert weight_of(spec) == chosen_weights(PAIRS)[m]
        assert weight_of(spec) in weights(m, PAIRS)
        assert m not in METHODS or 1.0 in weights(m, PAIRS)  # CoVAE's own, of all eight of its models
        other = pairs_spec(m, 0, profile, 0.6, weight=weights(m, PAIRS)[0], sweep=True)
        assert weight_of(other) == weights(m, PAIRS)[0]
        assert other.params["evaluation"]["split"] == "validation"
        assert not {"likelihood", "intervals"} & set(other.params["evaluation"])
        assert "test_samples" not in other.params["data"]
    assert len(budgets) == 1
    assert len(weights_runs(profile, None)) == sum(len(weights(m, PAIRS)) for m in LABELS)
    assert {s.params["data"]["rho"] for (s,) in weights_runs(profile, None).values()} == {SWEPT}
    assert len(plan(find("compare/correlated-pairs"), profile)) == len(RHOS[profile]) * len(LABELS)


@pytest.mark.parametrize("profile", ["quick", "overnight", "paper"])
def test_covae_is_trained_as_in_its_own_experiment(profile: str) -> None:
    own, there = pairs_spec("covae", 0, profile, 0.6, weight=1.0), image_spec("covae", 0, profile, 0.6)
    assert own.params["model"] == there.params["model"]
    assert own.params["training"] == there.params["training"]
    assert own.params["data"].items() <= there.params["data"].items()


def test_runs_are_told_from_those_of_other_experiments_on_the_same_data() -> None:
    own, there = pairs_spec("covae", 0, "smoke", 0.6), image_spec("covae", 0, "smoke", 0.6)
    assert isinstance(experiment_of(own), AllOnPairs)
    assert isinstance(experiment_of(there), CorrelatedMNIST)
    assert find("compare-correlated").name == "compare/correlated"
    triples = unique(plan(find("compare/correlated"), "quick"))
    assert not [s for s in triples if isinstance(experiment_of(s), AllOnPairs)]


def test_the_quick_profile_is_done_in_an_hour_on_two_cores() -> None:
    runs = unique(plan(find("compare/correlated-pairs"), "quick"))
    seconds = {s.method: AllOnPairs().cost(s).seconds for s in runs}
    assert len(runs) == 126
    assert sum(AllOnPairs().cost(s).seconds for s in runs) < 2 * 3600
    assert {m for m, x in seconds.items() if x > 60} <= {"nnmrf", "sbm_vae"}
    assert max(seconds.values()) < 90


def test_specifications_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'vae'; one of gmrf_mcvae, almrf"):
        pairs_spec("vae", 0, "smoke", 0.6)
    with pytest.raises(ValueError, match=r"rho is 1.0, must be in \[0, 1\)"):
        pairs_spec("covae", 0, "smoke", 1.0)


@pytest.mark.parametrize("method", LABELS)
@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_all_have_covaes_encoders_and_decoders_and_can_be_built_again(method: str, profile: str) -> None:
    model = build_model(pairs_spec(method, 0, profile, 0.6))
    owner = next(x for x in (model, *model.modules()) if {"encoders", "decoders"} <= {n for n, _ in x.named_children()})
    own = SCORE_LATENT_DIM if method in SCORE else LATENT_DIM if method in (*VARIANTS, "covae") else LATENTS
    reference = build_model(pairs_spec("covae", 0, profile, 0.6))

    def shapes(network: nn.Module, size: int) -> list[tuple[int, ...]]:
        """Without the sizes of latents, and without a head that a regularised autoencoder's encoder lacks."""
        kept = [p for n, p in network.named_parameters() if "log_variance" not in n]
        return sorted(tuple(0 if k == size else k for k in p.shape) for p in kept)

    for m in SPECS:
        for part in ("encoders", "decoders"):
            assert shapes(getattr(owner, part)[m], own) == shapes(getattr(reference, part)[m], LATENT_DIM)
    assert construction_of(model) is not None


# Measures


def drawing(seed: int = 0) -> Tensor:
    """From latents to logits of pixels."""
    return torch.randn(DIM, 784, generator=generator(seed)) / 3


def toy(split: str, n: int, latents: bool = False) -> Dataset:
    z = gaussians(n, 0, split, rho=RHO, modalities=2, name="toy")
    truth = {f"z{k}": torch.from_numpy(x).float() for k, x in enumerate(z)}
    images = {m: torch.sigmoid(x @ drawing()).reshape(n, 1, 28, 28) for m, x in zip(SPECS, truth.values(), strict=True)}
    specs = SPECS | ({m: ModalitySpec((DIM,)) for m in truth} if latents else {})
    return Dataset("toy", split, specs, images | (truth if latents else {}), None, {"sha256": "0" * 64})


class Oracle(MultimodalModel):
    """Knows how the toy images are drawn, and believes in a correlation."""

    def __init__(self, rho: float) -> None:
        super().__init__(SPECS)
        self.decoders = nn.ModuleDict({m: nn.Linear(DIM, 784, bias=False) for m in SPECS})
        for decoder in self.decoders.values():
            decoder.weight.data.copy_(drawing().T)
        self.inverse, self.rho = torch.linalg.pinv(drawing()), rho

    def loss(self, batch: Mapping[str, Tensor], stage: Stage | None = None) -> Loss:
        raise NotImplementedError

    def _generate(
        self,
        num_samples: int,
        *,
        given: Mapping[str, Tensor] | None,
        generator: torch.Generator | None,
        sample_likelihood: bool,
    ) -> dict[str, Tensor]:
        size = (num_samples,) if given is None else (num_samples, len(next(iter(given.values()))))
        z = {m: (x.flatten(1).logit() @ self.inverse).expand(*size, DIM) for m, x in (given or {}).items()}
        for m in SPECS:
            noise = torch.randn(*size, DIM, generator=generator)
            known = [v for o, v in z.items() if o != m]
            if m not in z:
                z[m] = self.rho * known[0] + sqrt(1 - self.rho**2) * noise if known else noise
        return {m: torch.sigmoid(self.decoders[m](z[m])).reshape(*size, 1, 28, 28) for m in SPECS}


@pytest.fixture(scope="module")
def oracles() -> dict[float, dict[str, float]]:
    """What models are measured to have that believe in the true correlation, and in none."""
    spec = pairs_spec("sbm_rae", 0, "smoke", RHO)
    params = {**spec.params, "evaluation": spec.params["evaluation"] | {"points": 200, "draws": 16}}
    data = {s: toy(s, 400) for s in ("train", "test")}
    data |= {"train_truth": toy("train", 400, latents=True), "truth": toy("test", 400, latents=True)}
    own = dataclasses.replace(spec, params=params)
    return {rho: {m.name: m.value for m in evaluate(Oracle(rho), data, own)} for rho in (RHO, 0.0)}


def test_the_true_model_has_what_true_pairs_have(oracles: dict[float, dict[str, float]]) -> None:
    found = oracles[RHO]
    # One correlation of 400 pairs has the standard error 0.018 at 0.8, and means of ten coordinates less.
    for name in ("joint", "conditional"):
        assert found[f"test/correlation/{name}/error"] < 0.05, name
        difference = abs(found[f"test/correlation/{name}"] - found["test/correlation/true"])
        assert found[f"test/correlation/{name}/error"] == pytest.approx(difference)
    for name in ("joint", "given-one"):
        assert found[f"test/images/{name}/error"] < 0.05, name
    assert found["test/readout/determination"] > 0.95
    assert found["test/spread/conditioning"] == found["test/deviation/conditioning"] == pytest.approx(0.0, abs=1e-4)
    assert found["test/spread/missing/data"] == pytest.approx(0.6)
    # 200 points of ten latents: the variances that it is a ratio of are known to about 3%.
    assert found["test/spread/missing"] == pytest.approx(0.6, abs=0.05)
    assert found["test/deviation/missing"] == pytest.approx(0.6, abs=0.03)
    # 200 points of ten latents both ways are 4,000 draws, of which a point's have one deviation.
    assert found["test/coverage/latent"] == pytest.approx(0.9, abs=5 * sqrt(0.9 * 0.1 / 4000))
    assert found["test/mae/given-both"] == pytest.approx(0.0, abs=1e-4)
    assert found["test/energy/given-one"] < found["test/energy/random"]
    assert found["test/energy/given-one"] < found["test/energy/given-one/neighbour"]
    assert found["test/images/joint/neighbour"] == pytest.approx(found["test/images/data"], abs=0.05)


def test_a_model_without_correlation_is_seen(oracles: dict[float, dict[str, float]]) -> None:
    true, none = oracles[RHO], oracles[0.0]
    for name in ("joint", "given-one"):
        assert abs(none[f"test/images/{name}"]) < 0.1, name
        assert none[f"test/images/{name}/error"] > 0.6, name
    assert none["test/correlation/conditional/error"] > 0.4
    assert none["test/spread/missing"] == pytest.approx(1.0, abs=0.05)
    assert none["test/energy/given-one"] > true["test/energy/given-one"]
    assert none["test/energy/given-one"] == pytest.approx(none["test/energy/random"], rel=0.1)
    for name in ("test/images/data", "test/energy/random", "test/mae/given-one/neighbour", "test/correlation/true"):
        assert none[name] == true[name]


def test_relative_spread_is_that_of_gaussians_and_has_no_unit() -> None:
    a, e = torch.randn(2000, 3, generator=generator()), torch.randn(32, 2000, 3, generator=generator(1))
    z = 0.6 * a + 0.8 * e
    assert relative_spread(z) == pytest.approx(0.8, abs=0.02)
    assert relative_spread(100 * z + 7) == pytest.approx(relative_spread(z), rel=1e-4)
    assert relative_spread(e) == pytest.approx(1.0, abs=0.01)
    assert relative_spread(a.expand(2, -1, -1)) == relative_spread(torch.ones(2, 3, 1)) == 0.0
    with pytest.raises(ValueError, match="must be"):
        relative_spread(a[None])


# The smoke profile, end to end


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def smoke(root: Path) -> dict[str, Record]:
    """The records of all fourteen."""
    assert run_smoke("compare/correlated-pairs", root) == 0
    return smoke_records("compare/correlated-pairs", root)


def test_records_have_what_the_table_shows(smoke: dict[str, Record]) -> None:
    assert list(smoke) == list(LABELS)
    for method, own in smoke.items():
        values = {m.name: m.value for m in own.metrics}
        lacking = {name for name in HEADINGS if name not in values}
        assert lacking == ({n for n in HEADINGS if n.startswith("test/nll/")} if method in REGULARISED else set())
        assert {name for floor in FLOORS.values() for name in floor.values()} <= set(values)
        assert values["sampling/joint/seconds"] > 0
        assert ("test/unconditional/r_hat" in values) == (method == "nnmrf")
        assert 0 < values["test/mae/given-one/neighbour"] < 1  # of intensities in [0, 1], not of bytes
        for each in ("posterior-predictive", "ratio") if "test/nll/joint" in values else ():
            both = [values[f"test/nll/{x}/{each}"] for x in ("m1-given-m0", "m0-given-m1")]
            assert values[f"test/nll/conditional/{each}"] == pytest.approx(sum(both) / 2)
    shared = {m: r.metric("test/correlation/joint").value for m, r in smoke.items()}
    assert {m for m, v in shared.items() if v == pytest.approx(1.0)} == {"mvae", "mmvae", "mopoe", "mvtcae", "jmvae"}
    for name in ("test/images/data", "test/energy/random", "test/mae/given-both/neighbour", "test/correlation/true"):
        assert len({r.metric(name).value for r in smoke.values()}) == 1


def test_every_model_is_a_row_and_says_what_it_lacks(root: Path, smoke: dict[str, Record]) -> None:
    text = (root / "results" / "compare" / "smoke" / "correlated-pairs.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "| obtained |" in line}
    for label in (*LABELS.values(), *FLOORS):
        assert label in lines
    assert "a regularised autoencoder has no likelihood" in text
    assert "160 pairs, 4 epochs of all stages together (8 steps of at most 80)" in text
    assert "Weights were chosen at ρ = 0.6 on 40 training pairs, by runs of 2 epochs on the rest" in text
    assert "is not recorded: make compare-correlated-pairs-sweep PROFILE=smoke; these weights" in text


def test_weights_are_chosen_on_training_pairs_alone(root: Path) -> None:
    spec = pairs_spec("mvae", 0, "smoke", SWEPT, weight=0.1, sweep=True)
    data = AllOnPairs().load(spec)
    assert {s: len(d) for s, d in data.items()} == {"train": 120, "validation": 40}
    whole = AllOnPairs().load(pairs_spec("mvae", 0, "smoke", SWEPT))
    assert torch.equal(torch.cat([data["train"].data["m1"], data["validation"].data["m1"]]), whole["train"].data["m1"])
    record = execute(spec, RunStore(root / "runs"), device="cpu")
    assert not [m.name for m in record.metrics if not m.name.startswith("validation/")]
    one, both = (record.metric(name).value for name in SCORED_BY)
    assert SCORED_BY == ("validation/energy/given-one", "validation/energy/given-both")
    assert score(record) == pytest.approx(sqrt(one * both))
    assert one > 0


def test_held_out_pairs_are_trained_on_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The readout is fitted on the pairs that models are trained on, in the overnight profile too."""
    spec = pairs_spec("mvae", 0, "overnight", SWEPT)
    small = spec.params["data"] | {"train_samples": 60, "held_out": 20, "test_samples": 30}
    data = AllOnPairs().load(dataclasses.replace(spec, params={**spec.params, "data": small}))
    sizes = {"train": 40, "validation": 20, "train_truth": 40, "test": 30, "truth": 30}
    assert {s: len(d) for s, d in data.items()} == sizes
    assert torch.equal(data["train"].data["m0"], data["train_truth"].data["m0"])


def test_a_readers_method_stands_under_the_table(
    root: Path, smoke: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not own_row("compare/correlated-pairs", root, HEADINGS)["test/energy/given-one"].startswith("—")


# Made-up records


def made_up(profile: str, covae: float) -> MadeUp:
    return MadeUp(profile, named_by(HEADINGS, FLOORS), covae, "covae")


def test_a_table_a_correlation_and_one_of_what_runs_take() -> None:
    lookup = made_up("quick", 0.9)
    tables = pairs(results_of("compare/correlated-pairs", "quick", lookup.record))
    captions = ["All models on pairs of correlated MNIST" + x for x in (", ρ = 0.3", ", ρ = 0.6", ", ρ = 0.9")]
    assert [t.caption for t in tables] == [*captions, f"{captions[0][:-9]}: what they take"]
    for table in tables[:3]:
        assert [r.label for r in table.rows] == list(LABELS.values())
        assert [r.label for r in table.floors] == list(FLOORS)
    assert any("Test pairs." in str(n) for n in tables[0].notes)
    assert f"To be read as the table {captions[0]!r}, whose notes are of all." in tables[1].notes
    # What a seed takes is a mean over the correlations, which are no seeds.
    costs = tables[3].rows[0].cells["training"]
    assert (costs.n, tables[3].notes[-1].endswith("Of the up to 3 runs of a model and a seed, the mean.")) == (3, True)
    best = [str(n) for n in tables[2].notes if "CoVAE is the best" in str(n)]
    assert len(best) == sum(better == "lower" for _, _, better, _ in HEADINGS.values())


def test_a_likelihood_that_is_not_finite_is_left_out_and_said() -> None:
    """As of a posterior so narrow that its density at its own samples is beyond their precision."""

    class Narrow(Oracle):
        def log_likelihood(self, batch: Mapping[str, Tensor], **options: object) -> Tensor:
            value = torch.nan if options.get("given") is None else 1.0
            return torch.full((len(next(iter(batch.values()))),), value)

    batch = {m: torch.rand(4, 1, 28, 28) for m in SPECS}
    assert likelihood_metrics(Narrow(RHO), batch, 2, "cpu", 0, finite=True) == []
    with pytest.raises(RecordError, match="'test/nll/joint' is nan, not a finite number"):
        likelihood_metrics(Narrow(RHO), batch, 2, "cpu", 0)
    lookup = made_up("quick", 0.9)
    whole = results_of("compare/correlated-pairs", "quick", lookup.record)

    def without(spec: RunSpec) -> Record | None:
        made = lookup.record(spec)
        if made is None or spec.method != "almrf":
            return made
        return dataclasses.replace(made, metrics=[m for m in made.metrics if m.name != "test/nll/joint"])

    first, *_ = pairs(dataclasses.replace(whole, lookup=without))
    row = next(r for r in first.rows if r.label == LABELS["almrf"])
    assert row.cells["test/nll/joint"].reason == "the model offers none that is finite"


@pytest.mark.parametrize(("covae", "verdict"), [(0.9, "reproduced"), (1.1, "contradicted")])
def test_claims_follow_from_records(covae: float, verdict: str) -> None:
    stated = [c for c in claims("compare") if c.artifact == "compare/correlated-pairs"]
    assert [c.id for c in stated] == ["pairs-latents", "pairs-images", "pairs-conditional"]
    for c in stated:
        assert assess(c, made_up("paper", covae)).verdict == verdict
        found = assess(c, made_up("quick", covae))
        assert found.verdict == "inconclusive"
        assert "trained for minutes (profile quick)" in found.reasons
        assert assess(c, made_up("smoke", covae)).verdict == "not run"

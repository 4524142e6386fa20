"""All models on the tumours: one budget, CoVAE's networks for all, means of latents by known answers, the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from repro.artifacts.claims import claims
from repro.datasets import card, load_dataset
from repro.engine.execute import execute
from repro.engine.store import RunStore
from repro.networks.construction import construction_of
from repro.networks.omics import OmicsDecoder, OmicsEncoder
from repro.papers import experiment_of
from repro.papers.compare.methods import LABELS, REGULARISED, SCORE, TUMOURS, VARIANTS, chosen_weights, weights
from repro.papers.compare.rows import epochs_in_all, weight_of
from repro.papers.compare.tumours.evaluation import data_metrics
from repro.papers.compare.tumours.experiment import AllOnTumours
from repro.papers.compare.tumours.settings import LATENT_DIM, LATENTS, tumours_spec
from repro.papers.compare.tumours.tables import HEADINGS, SCORED_BY, TARGETS, score, weights_runs
from repro.papers.covae.settings import METHODS
from repro.records import Record
from tests.support import miniatures
from tests.support.compared import own_row, run_smoke, smoke_records
from tests.support.experiments import build_model

MODALITIES = ("mrna", "mirna")


# What is run


@pytest.mark.parametrize("profile", ["paper", "quick", "smoke"])
def test_all_have_the_same_data_steps_and_measures(profile: str) -> None:
    specs = {m: tumours_spec(m, 0, profile) for m in LABELS}
    assert len({s.key for s in specs.values()}) == len(LABELS)
    budgets = set()
    for m, spec in specs.items():
        training = spec.params["training"]
        budgets.add((epochs_in_all(spec), *(training[k] for k in ("batch_size", "learning_rate", "optimizer"))))
        assert set(training.get("stages", {})) == ({"deep_cca"} if m == "covae" else {"score"} if m in SCORE else set())
        assert ("likelihood" in spec.params["evaluation"]) == (m not in REGULARISED)
        experiment = experiment_of(spec)
        assert isinstance(experiment, AllOnTumours)
        assert 0 < experiment.cost(spec).seconds < 100
        assert weight_of(spec) == chosen_weights(TUMOURS)[m]
        assert weight_of(spec) in weights(m, TUMOURS)
        assert m not in METHODS or 1.0 in weights(m, TUMOURS)  # CoVAE's own, of all eight of its models
        other = tumours_spec(m, 0, profile, weight=weights(m, TUMOURS)[0], sweep=True)
        assert weight_of(other) == weights(m, TUMOURS)[0]
        assert other.params["evaluation"]["split"] == "validation"
        assert "likelihood" not in other.params["evaluation"]
    assert len(budgets) == 1
    if profile == "paper":
        assert budgets == {(200, 128, 1e-3, "adamw")}
    assert len(weights_runs(profile, None)) == sum(len(weights(m, TUMOURS)) for m in LABELS)


def test_unknown_methods_are_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'vae'; one of gmrf_mcvae, almrf"):
        tumours_spec("vae", 0, "smoke")


@pytest.mark.parametrize("method", LABELS)
def test_all_have_covaes_encoders_and_decoders_and_can_be_built_again(method: str) -> None:
    model = build_model(tumours_spec(method, 0, "smoke"))
    owner = next(x for x in (model, *model.modules()) if {"encoders", "decoders"} <= {n for n, _ in x.named_children()})
    sizes = {"mrna": 200, "mirna": 184}
    for m in MODALITIES:
        (encoder,) = (x for x in owner.encoders[m].modules() if isinstance(x, OmicsEncoder))
        (decoder,) = (x for x in owner.decoders[m].modules() if isinstance(x, OmicsDecoder))
        linear = [x for x in (*encoder.encoder, *decoder.decoder, decoder.output) if isinstance(x, torch.nn.Linear)]
        hidden = [(x.in_features, x.out_features) for x in linear]
        shared = method in (*VARIANTS, *SCORE, "covae")
        size = LATENT_DIM if shared else LATENTS  # MMVAE+ and DMVAE: half of them the modality's own
        assert hidden == [(sizes[m], 128), (128, 64), (size, 64), (64, 128), (128, sizes[m])]
        assert encoder.mean.out_features == size
        assert hasattr(encoder, "log_variance") == (method not in REGULARISED)
        assert {x.p for x in encoder.encoder if isinstance(x, torch.nn.Dropout)} == {0.1}
    assert construction_of(model) is not None


# Means of latents


def test_means_of_latents_are_those_of_what_conditional_generation_draws() -> None:
    """Of a Gaussian the mean over draws of z given one modality; its observed block is its own encoder's mean."""
    model = build_model(tumours_spec("gmrf_mcvae", 0, "smoke")).eval()
    x = {m: torch.randn(3, s.numel, generator=torch.Generator().manual_seed(1)) for m, s in model.modalities.items()}
    with torch.no_grad():
        model.prior.off_diagonal.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(2))
        assert torch.equal(model.latent_means(x), model.posterior(x).mean)
        for given in MODALITIES:
            draws = model._conditional_latents(
                model.prior(), {given: x[given]}, 20_000, "joint", 1.0, torch.Generator().manual_seed(3)
            )
            drawn = torch.cat([draws[m] for m in MODALITIES], -1)
            found = model.latent_means({given: x[given]})
            assert found.shape == (3, LATENTS)
            error = drawn.std(0) / 20_000**0.5
            assert ((found - drawn.mean(0)).abs() < 5 * error).all()
            k = MODALITIES.index(given) * LATENT_DIM
            torch.testing.assert_close(found[:, k : k + LATENT_DIM], model.encoders[given](x[given])[0])
    with pytest.raises(ValueError, match="unknown modalities"):
        model.latent_means({"dna": x["mrna"]})


@pytest.mark.parametrize("method", ["almrf", "nnmrf", "sbm_vae", "sbm_rae", "mld"])
def test_means_of_latents_of_the_others_keep_what_is_observed_and_are_the_same_each_time(method: str) -> None:
    model = build_model(tumours_spec(method, 0, "smoke")).eval()
    x = {m: torch.randn(3, s.numel, generator=torch.Generator().manual_seed(1)) for m, s in model.modalities.items()}
    every, one = model.latent_means(x), model.latent_means({"mirna": x["mirna"]})
    assert every.shape == one.shape == (3, LATENTS)
    if method in SCORE:
        torch.testing.assert_close(one[:, LATENT_DIM:], every[:, LATENT_DIM:])
    else:
        torch.testing.assert_close(one[:, LATENT_DIM:], model.unary_posterior("mirna", x["mirna"]).mean)
        torch.testing.assert_close(every, model.posterior(x).mean)
    torch.rand(1)
    assert torch.equal(one, model.latent_means({"mirna": x["mirna"]}))


@pytest.mark.parametrize("method", LABELS)
def test_means_of_latents_are_those_of_evaluation_mode_and_leave_the_model_as_it_was(method: str) -> None:
    model = build_model(tumours_spec(method, 0, "smoke")).eval()
    x = {m: torch.randn(3, s.numel, generator=torch.Generator().manual_seed(1)) for m, s in model.modalities.items()}
    batches = [x, {"mrna": x["mrna"]}, {m: v[:1] for m, v in x.items()}, {"mirna": x["mirna"][:1]}]
    expected = [model.latent_means(given) for given in batches]
    model.train()
    state, randomness = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    for given, means in zip(batches, expected, strict=True):
        assert torch.equal(model.latent_means(given), means)
    assert torch.equal(model.latent_means(dict(reversed(x.items()))), expected[0])
    assert all(module.training for module in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), randomness)


@pytest.mark.parametrize("method", LABELS)
def test_what_means_of_latents_cannot_be_had_of_is_named(method: str) -> None:
    model = build_model(tumours_spec(method, 0, "smoke")).eval()
    x = {m: torch.zeros(2, s.numel) for m, s in model.modalities.items()}
    with pytest.raises(ValueError, match=r"unknown modalities \['dna'\]; the model has \['mrna', 'mirna'\]"):
        model.latent_means({"dna": x["mrna"], "mrna": x["mrna"]})
    with pytest.raises(ValueError, match=r"the batch has modalities \[\], the model needs"):
        model.latent_means({})
    with pytest.raises(ValueError, match="modality 'mirna' has shape"):
        model.latent_means({"mirna": x["mrna"]})
    if method in ("nnmrf", *SCORE):
        with pytest.raises(ValueError, match="num_samples is 0, must be at least 1"):
            model.latent_means({"mrna": x["mrna"]}, num_samples=0)


def test_a_likelihood_is_named_where_there_is_one() -> None:
    assert build_model(tumours_spec("sbm_vae", 0, "smoke")).likelihood == "gaussian"
    assert not hasattr(build_model(tumours_spec("mld", 0, "smoke")), "likelihood")


# The smoke profile, end to end


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mirror with 80 tumours of five and three features, and a folder for runs and results."""
    folder = tmp_path_factory.mktemp("tumours")
    cards = folder / "cards"
    cards.mkdir()
    (cards / "tcga_brca.md").write_text(miniatures.write_tcga(folder / "mirror", 80, 20), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPRO_MIRROR", str(folder / "mirror"))
        patch.setenv("REPRO_DATA", str(folder / "data"))
        patch.setattr(card, "cards_directory", lambda: cards)
        card.card_names.cache_clear()
        card.load_card.cache_clear()
        yield folder
    card.card_names.cache_clear()
    card.load_card.cache_clear()


@pytest.fixture(scope="module")
def smoke(root: Path) -> dict[str, Record]:
    """The records of all fourteen."""
    assert run_smoke("compare/tumours", root, "--seeds", "1") == 0
    return smoke_records("compare/tumours", root)


def test_records_have_what_the_table_shows(smoke: dict[str, Record]) -> None:
    assert list(smoke) == list(LABELS)
    for method, own in smoke.items():
        names = {m.name for m in own.metrics}
        lacking = {name for name in HEADINGS if name not in names}
        assert lacking == ({n for n in HEADINGS if n.startswith("test/nll/")} if method in REGULARISED else set())
        assert {f"test/neighbour/{what}/{name}" for what in ("mae", "spearman") for name in TARGETS} <= names
        assert own.metric("sampling/joint/seconds").value > 0
    for name in ("test/neighbour/mae/mrna-to-mirna", "test/features/classes/accuracy", "test/mean/mae/mrna"):
        assert len({r.metric(name).value for r in smoke.values()}) == 1
    assert len({r.metric("test/mae/mrna-to-mirna").value for r in smoke.values()}) == len(LABELS)


def test_every_model_is_a_row_and_says_what_it_lacks(root: Path, smoke: dict[str, Record]) -> None:
    text = (root / "results" / "compare" / "smoke" / "tumours.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "| obtained |" in line}
    for label in (*LABELS.values(), "Nearest training points", "The classifier on the features", "Training means"):
        assert label in lines
    assert "a regularised autoencoder has no likelihood" in text
    assert "4 epochs of all stages together (4 steps of at most 128)" in text
    assert "on the 42 tumours that its correlations are not taken from (1 instead of 1 steps an epoch)" in text
    assert "by runs of 4 epochs on the rest (4 steps)" in text
    assert "The sweep on validation data is not recorded: make compare-tumours-sweep PROFILE=smoke; these" in text
    assert "these weights are those that the sweep of the profile paper chose." in text


def test_claims_name_rows_and_metrics_that_there_are(smoke: dict[str, Record]) -> None:
    stated = [c for c in claims("compare") if c.artifact == "compare/tumours"]
    assert len(stated) == 2
    for c in stated:
        assert {c.rule["row"], *c.rule["among"]} == set(METHODS)
        for name in c.rule["metrics"]:
            assert smoke[c.rule["row"]].metric(name).value > 0


def test_weights_are_chosen_on_training_tumours_of_every_class(root: Path) -> None:
    spec = tumours_spec("mvae", 0, "smoke", weight=0.1, sweep=True)
    data = AllOnTumours().load(spec)
    train = load_dataset("tcga_brca", split="train")
    assert {s: len(d) for s, d in data.items()} == {"train": 48, "validation": 12}
    assert data["validation"].labels.bincount().tolist() == [4, 4, 4]
    rows = {tuple(row) for row in train.data["mrna"].tolist()}
    parts = [{tuple(row) for row in d.data["mrna"].tolist()} for d in data.values()]
    assert parts[0] | parts[1] == rows
    assert not parts[0] & parts[1]
    record = execute(spec, RunStore(root / "runs"), device="cpu")
    assert not [m.name for m in record.metrics if not m.name.startswith("validation/")]
    both = [record.metric(name).value for name in SCORED_BY]
    assert score(record) == pytest.approx((both[0] * both[1]) ** 0.5)


def test_what_the_data_alone_reach(root: Path) -> None:
    """Of test points that are training points the nearest are they themselves; a mean errs as its definition says."""
    train = load_dataset("tcga_brca", split="train")
    found = {m.name: m.value for m in data_metrics({"train": train, "test": train}, "cpu", 0)}
    assert found["test/neighbour/mae/joint/mrna"] == found["test/neighbour/mae/mirna-to-mrna"] == 0.0
    x = train.data["mirna"]
    assert found["test/mean/mae/mirna"] == pytest.approx(float((x - x.mean(0)).abs().mean()), rel=1e-5)


def test_a_readers_method_stands_under_the_table(
    root: Path, smoke: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = list(own_row("compare/tumours", root, HEADINGS, "--seeds", "1").values())
    assert cells[0].startswith("—")  # no classes without means of latents
    assert not cells[5].startswith("—")

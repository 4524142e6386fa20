"""SBM-VAE's runs from specification to rendered files, on miniatures and on made-up records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from repro.artifacts.inventory import artifacts
from repro.datasets import Dataset, ModalitySpec
from repro.model import MultimodalModel, isolated_rng
from repro.papers import paper
from repro.papers.sbm_vae.building import build_sbm, first_modalities
from repro.papers.sbm_vae.celeba.tables import table10
from repro.papers.sbm_vae.polymnist import figures, tables
from repro.papers.sbm_vae.polymnist.evaluation import draw_samples
from repro.papers.sbm_vae.polymnist.experiment import SECONDS_EVALUATION
from repro.papers.sbm_vae.settings import BASELINES, METHODS, PROFILES, ROWS, sbm_spec
from repro.records import Metric, Record, RunSpec
from repro.training import train
from tests.support.experiments import (
    build_model,
    estimate,
    evaluate,
    figure_samples,
    load_data,
    render,
    results_of,
    training_settings,
)

pytestmark = pytest.mark.slow


def run(spec: RunSpec) -> tuple[Record, dict[str, np.ndarray]]:
    data = load_data(spec)
    with isolated_rng(spec.seed):
        model = build_model(spec)
    history = train(model, data["train"], training_settings(spec), seed=spec.seed)
    metrics = list(evaluate(model, data, spec))
    pictures = {k: v.numpy() for k, v in figure_samples(model, spec).items()}
    environment = {
        "commit": "0" * 40,
        "dirty": False,
        "device": "cpu",
        "device_name": "test",
        "versions": {"torch": "0"},
    }
    record = Record(spec, metrics, environment, {}, "0" * 64, 1.0, 1.0, history)
    return record, pictures


@pytest.mark.parametrize("method", ["sbm_vae", "sbm_rae_t", "mld", "mvtcae"])
def test_a_run_goes_through(method: str, miniature: Callable[[str], None]) -> None:
    miniature("extended_polymnist")
    spec = sbm_spec(method, 0, "smoke")
    record, pictures = run(spec)
    names = {m.name for m in record.metrics}
    assert len(names) == len(record.metrics)
    assert {"test/reconstruction/coherence/mean", "test/nearest/coherence/mean"} <= names
    hows = ("plain", "guided") if method == "sbm_vae" else ("plain",)
    for how in hows:
        assert {f"test/rest/{how}/{k}/mean" for k in ("coherence", "frechet")} <= names
        assert {f"test/observed/{how}/coherence/{m}/1" for m in ("m0", "m2")} <= names
    assert ("test/rest/plain/cosine/mean" in names) == (method in METHODS)
    assert ("test/nfe/heun/3/joint" in names) == (method in ("sbm_vae", "mld"))
    curve = {f"test/steps/{how}/{n}/coherence/m2/{k}" for how in ("plain", "guided") for n in (2, 3) for k in (1, 2)}
    assert {n for n in names if n.startswith("test/steps/")} == (curve if method == "sbm_vae" else set())
    shares = [record.metric(f"test/unconditional/plain/digit/{d}").value for d in range(10)]
    assert sum(shares) == pytest.approx(1)
    agree = [record.metric(f"test/unconditional/plain/agree/{k}").value for k in (2, 3)]
    assert agree[0] >= agree[1]
    assert all(math.isfinite(m.value) for m in record.metrics)
    assert pictures["given/m0"].dtype == np.uint8
    assert pictures["given/m0"].shape[0] == 4
    assert pictures["joint/m2"].shape == (10, 3, 28, 28)
    stages = [e["stage"] for e in record.history]
    assert stages == list(dict.fromkeys(stages))  # one epoch each, in order
    assert stages[-1] == {"sbm_vae": "energy", "mvtcae": "train"}.get(method, "score")


def test_stored_pictures_of_ten_modalities_are_small() -> None:
    modalities = {f"m{k}": ModalitySpec((3, 28, 28), kind="image", range=(0.0, 1.0)) for k in range(10)}

    class Grey(MultimodalModel):
        def loss(self, batch, stage=None):
            raise AssertionError

        def log_likelihood(self, batch, **options):
            raise AssertionError

        def generate(self, num_samples=1, *, given=None, generator=None, sample_likelihood=False):
            batch = () if given is None else (len(next(iter(given.values()))),)
            return {m: torch.full((num_samples, *batch, *s.shape), 0.5) for m, s in self.modalities.items()}

    images = {m: torch.zeros(20, *s.shape) for m, s in modalities.items()}
    test = Dataset("extended_polymnist", "test", modalities, images, labels=torch.arange(20) % 10)
    found = draw_samples(Grey(modalities), test, sbm_spec("mvtcae", 0, "paper"))
    assert {k: tuple(x.shape) for k, x in found.items()} == {
        **{f"given/m{k}": (2, 10, 3, 28, 28) for k in (0, 2, 5)},
        **{f"joint/m{k}": (6, 3, 28, 28) for k in range(10)},
    }
    assert sum(x.numel() for x in found.values()) < 299_000


# Made-up records


def made_up(spec: RunSpec) -> Record:
    """A record with every metric of a run, whose values tell the method, the seed and the part apart."""
    number = spec.params["data"]["modalities"]
    base = 0.3 + 0.05 * [*BASELINES, *METHODS].index(spec.method) + 0.01 * spec.seed
    parts = [*(f"m{k}" for k in range(number)), "mean"]
    names = [f"test/unconditional/plain/agree/{k}" for k in range(2, number + 1)]
    names += [f"test/unconditional/plain/digit/{d}" for d in range(10)]
    names += [f"test/unconditional/plain/frechet/{p}" for p in parts]
    names += [f"test/floor/{k}/{p}" for k in ("coherence", "frechet") for p in parts]
    for how in ("plain", "guided") if spec.params["model"].get("energy") else ("plain",):
        names += [f"test/rest/{how}/{k}/{p}" for k in ("coherence", "frechet", "cosine") for p in parts]
        names += [
            f"test/observed/{how}/{k}/{m}/{n}"
            for k in ("coherence", "frechet")
            for m in ("m0", f"m{number - 1}")
            for n in range(1, number - 1)
        ]
    names += [f"test/reconstruction/{k}/{p}" for k in ("coherence", "frechet", "mse") for p in parts]
    names += [f"test/nearest/coherence/{p}" for p in parts]
    names += [
        f"test/steps/{how}/{steps}/coherence/m{number - 1}/{n}"
        for how in ("plain", "guided")
        for steps in spec.params["evaluation"]["steps"]
        for n in range(1, number)
    ]
    for name, steps in spec.params["evaluation"]["nfe"]:
        count = steps * {"predictor_corrector": 2, "heun": 2}.get(name, 1) - (name == "heun")
        names += [f"test/nfe/{name}/{count}/{part}" for part in ("joint", "given")]
    metrics = [Metric(n, base + 0.05 * ("guided" in n), "1", 20, "made up") for n in names]
    metrics.append(Metric("test/fid/available", 0.0, "1", 0, "no Inception weights: get them"))
    environment = {
        "commit": "0" * 40,
        "dirty": False,
        "device": "cpu",
        "device_name": "test",
        "versions": {"torch": "0"},
    }
    return Record(spec, metrics, environment, {}, "0" * 64, 1.0, 1.0, [])


def made_up_samples(spec: RunSpec) -> Mapping[str, np.ndarray]:
    number = spec.params["data"]["modalities"]
    rng = np.random.default_rng(0)
    found = {f"joint/m{k}": rng.integers(0, 255, (10, 3, 28, 28), dtype=np.uint8) for k in range(number)}
    for k in (0, 2, 5):
        if k < number:
            found[f"given/m{k}"] = rng.integers(0, 255, (4, 10, 3, 28, 28), dtype=np.uint8)
    return found


# Figure 27 has a run of another kind; its own tests render it.
BY_HAND = {"celebamask_hq", "mhd"}  # their artifacts have tests of their own, as figure 27 has
BUILT = [
    a.id
    for a in artifacts().values()
    if a.paper == "sbm_vae" and a.built and a.id != "fig27" and not BY_HAND & set(a.data)
]


@pytest.mark.parametrize("artifact", BUILT)
def test_every_built_artifact_renders(artifact: str, miniature: Callable[[str], None]) -> None:
    miniature("extended_polymnist")
    files_ = render(f"sbm_vae/{artifact}", "quick", lookup=made_up, samples=made_up_samples)
    kinds = {"pdf", "png"} if artifact.startswith("fig") else {"md", "tex"}
    assert set(files_) == kinds
    assert all(files_.values())


def test_what_is_not_built_is_refused() -> None:
    for artifact in ("table9", "fig32", "fig28"):
        with pytest.raises(KeyError):
            paper("sbm_vae").plan(artifact, "quick")
        if artifact.startswith("table"):
            with pytest.raises(KeyError):
                render(f"sbm_vae/{artifact}", "quick", lookup=made_up, samples=made_up_samples)


def test_table5_has_the_published_values_and_says_what_is_missing() -> None:
    table = tables.table5(results_of("sbm_vae/table5", "paper", made_up))
    published = paper("sbm_vae").published["table5"]["rows"]
    assert [r.label for r in table.rows] == list(ROWS)
    for row in table.rows:
        known = published.get(row.label)
        assert row.cells["coherence"].published == (known[0][0] if known else None)
        assert row.cells["fid"].published == (known[1][0] if known else None)
        assert row.cells["fid"].reason == "no Inception weights: get them"
        assert row.cells["coherence"].n == 3
    guided = next(r for r in table.rows if r.label == "SBM-VAE-C")
    plain = next(r for r in table.rows if r.label == "SBM-VAE")
    assert guided.cells["coherence"].mean == pytest.approx(plain.cells["coherence"].mean + 0.05)
    assert guided.cells["agree"].reason == "the same joint samples as without guidance"
    reduced = tables.table5(results_of("sbm_vae/table5", "quick", made_up))
    assert any("no attempt" in note for note in reduced.notes)
    assert not any("no attempt" in note for note in table.notes)


def test_table7_compares_models_and_averages_the_published_rows_shown() -> None:
    for profile, means in (("quick", [0.162, None, 0.161]), ("paper", [0.164, None, 0.133])):
        table = tables.table7(results_of("sbm_vae/table7", profile, made_up))
        assert [r.label for r in table.rows] == ["SBM-VAE-C", "SBM-VAE", "MVTCAE"]
        assert [r.cells["mean"].published for r in table.rows] == means
        assert len(table.columns) == sbm_spec("sbm_vae", 0, profile).params["data"]["modalities"] + 1
        for column in table.verdict().columns:  # no model but one has both values
            assert (column.same_winner, column.rank_correlation, column.num_rows) == (None, None, 1)
        assert "Best model as published" not in table.to_markdown()
        open_ = table.not_settled("the reason").to_markdown()  # no verdict, but a best mean in bold
        assert "Which model is the best is not settled: the reason." in open_
        assert "The published average of MVTCAE is 0.118; the mean of its 10 published rows is 0.133." in table.notes


def test_notes_say_how_the_models_shown_were_trained() -> None:
    table = tables.table5(results_of("sbm_vae/table5", "quick", made_up))
    assert "dpm-solver, 20 steps (the paper: predictor-corrector, 100 steps)" in table.notes[0]
    assert table.notes[1] == (
        "Autoencoders: channels 16, 32, 64; 8 epochs, batch 64, learning rate 0.001 (as in the paper). Score model: "
        "channels 32, 64, 64; 24 epochs, batch 128 (the paper: 256), learning rate 0.001 (the paper: 0.0002). Energy: "
        "layers of 256, 256; 20 epochs, batch 64, learning rate 0.001. Multimodal VAEs: channels 16, 32, 64; 12 "
        "epochs, batch 64, learning rate 0.001 (as in the paper). Beta of the VAEs: 0.1 (as in the paper). Adam "
        "throughout. The paper states neither epochs nor widths."
    )
    kept = [sbm_spec(m, 0, "overnight", energy_epochs=12) for m in ("sbm_vae", "sbm_rae")]
    kept.append(sbm_spec("sbm_vae", 0, "overnight"))
    ablations = results_of("sbm_vae/table5-ablations", "overnight", lambda s: made_up(s) if s in kept else None)
    note = tables.table5_ablations(ablations).notes[1]
    assert "Energy: layers of 256, 256; at most 100 or 12 (SBM-VAE), 12 (SBM-RAE) epochs" in note
    assert "its validation loss has not improved for 3 epochs" in note
    ends = [{"stage": "energy", "epoch": k, "epochs": 12, "validation_loss": 1.5 - k / 100} for k in (2, 7, 12)]
    risen = [e | {"validation_loss": 1.5 + e["epoch"] / 100} for e in ends]
    rows = {"falls": [replace(made_up(kept[0]), history=ends)], "rises": [replace(made_up(kept[1]), history=risen)]}
    assert tables._energy_note(rows, "overnight") == [
        "By how much the energies' validation loss still fell: falls: 0.01 an epoch at the end of 12. Table 5's have "
        "up to 100."
    ]
    assert tables._energy_note({"rises": rows["rises"], "not run": []}, "overnight") == []
    six = tables.table6(results_of("sbm_vae/table6", "quick", made_up)).notes
    assert len(six) == 2
    assert "Beta" not in six[1]  # its rows say it


def test_the_paper_profile_has_the_settings_that_the_paper_states() -> None:
    stated = dict(paper("sbm_vae").published["settings"])
    sampling, betas = stated.pop("sampling"), stated.pop("beta")
    specs = {m: sbm_spec(m, 0, "paper").params for m in (*METHODS, *BASELINES)}
    for method, params in specs.items():
        assert params["evaluation"]["sampling"] == sampling
        training = params["training"]
        stages = training.get("stages", {"train": training})
        for stage in set(stages) & set(stated):
            assert {**training, **stages[stage]}.items() >= stated[stage].items()
        if params["model"].get("kind") != "rae":
            assert params["model"]["beta"] == betas[method]
    notes = tables.table5(results_of("sbm_vae/table5", "paper", made_up)).notes[:2]
    assert "predictor-corrector, 100 steps (as in the paper)" in notes[0]
    assert "the paper: " not in " ".join(notes)


def test_settings_tables_print_what_runs_use() -> None:
    four = tables.table4(results_of("sbm_vae/table4", "paper", made_up))
    assert four.column("beta_min") == ("0.1", "1")
    assert four.column("beta_max") == ("5", "5")
    assert four.column("N") == ("100", "100")
    assert four.column("EBM scale") == ("1000", "1000")
    assert four.column("gamma a sample") == ("3.91", "3.91")
    ten = table10(results_of("sbm_vae/table10", "paper", made_up))
    assert (ten.column("beta_max"), ten.column("N"), ten.column("EBM scale")) == (("20",), ("1000",), ("2000",))


def test_specifications_are_the_papers() -> None:
    spec = sbm_spec("sbm_vae", 0, "paper")
    model, training = spec.params["model"], spec.params["training"]
    assert (model["latent_dim"], model["beta"], model["sde"]) == (64, 0.1, [0.1, 5.0])
    assert training["stages"]["score"]["learning_rate"] == 2e-4
    assert (training["batch_size"], training["learning_rate"]) == (256, 1e-3)
    assert sbm_spec("sbm_vae", 0, "paper", modalities=9).params["model"]["sde"] == [1.0, 5.0]
    assert sbm_spec("mvtcae", 0, "paper").params["model"]["latent_dim"] == 640
    assert sbm_spec("mmvae_plus", 0, "paper").params["model"]["specific_dim"] == 32
    assert len(paper("sbm_vae").plan("table5", "paper")["MLD"]) == 3
    assert paper("sbm_vae").plan("table5", "quick")["SBM-VAE"] == paper("sbm_vae").plan("table5", "quick")["SBM-VAE-C"]
    for method in (*METHODS, *BASELINES):
        seconds, megabytes = estimate(sbm_spec(method, 0, "quick"))
        assert 0 < seconds < 3600
        assert megabytes > 0


def test_figure_11_is_measured_in_the_comparisons_runs_with_an_energy() -> None:
    assert sbm_spec("sbm_rae", 2, "paper").params["evaluation"]["steps"] == [100, 1000]
    spec = sbm_spec("sbm_vae", 0, "quick")
    assert sbm_spec("sbm_vae", 0, "quick", modalities=3) == spec  # figures 6 and 7 share the run
    evaluation = spec.params["evaluation"]
    assert (evaluation["steps"], evaluation["steps_samples"]) == ([20, 100], 150)
    variants = [{"beta": 0.5}, {"modalities": 2}, {"missing": 0.2}, {"finetune_drop": 0.3}]
    others = [sbm_spec("sbm_vae", 0, "quick", **v) for v in variants]
    for other in (*others, *(sbm_spec(m, 0, "quick") for m in ("sbm_vae_t", "mld", "mvtcae"))):
        assert other.params["evaluation"]["steps"] == []
    without = replace(spec, params=spec.params | {"evaluation": evaluation | {"steps": []}})
    # (20 + 100) steps of two evaluations, plain and guided, given one and two modalities, for 150 images.
    counted = 240 * 2 * 2 * 150 / 1000 * SECONDS_EVALUATION
    assert estimate(spec)[0] - estimate(without)[0] == pytest.approx(counted)


def test_alpha_is_a_plain_number_in_a_specification() -> None:
    found = [sbm_spec("mvtcae", 0, "smoke", alpha=a).params["model"]["alpha"] for a in (1, 0.5, np.float32(0.5))]
    assert [(type(a), a) for a in found] == [(int, 1), (float, 0.5), (float, 0.5)]  # 1 and 1.0 have different keys


def test_errors_name_what_is_wrong(miniature: Callable[[str], None]) -> None:
    with pytest.raises(ValueError, match="unknown method 'gan'"):
        sbm_spec("gan", 0, "quick")
    with pytest.raises(ValueError, match=r"no setting \['width'\]"):
        sbm_spec("mld", 0, "quick", width=3)
    for alpha in ("0.5", None, True, math.nan, 10**400, 1.5, np.array(0.5)):
        with pytest.raises(ValueError, match=r"alpha is .*, must be in \[0, 1\]"):
            sbm_spec("mvtcae", 0, "smoke", alpha=alpha)
    for value in ("yes", 2, math.nan):
        with pytest.raises(ValueError, match=f"subsampling is {value!r}, must be True or False"):
            sbm_spec("mvae", 0, "smoke", subsampling=value)
    for value in (0, -3, True):
        with pytest.raises(ValueError, match=f"energy_epochs is {value}, must be at least 1"):
            sbm_spec("sbm_vae", 0, "smoke", energy_epochs=value)
    with pytest.raises(ValueError, match=r"energy_epochs is 1.5, must be a whole number"):
        sbm_spec("sbm_vae", 0, "smoke", energy_epochs=1.5)
    with pytest.raises(ValueError, match=r"sbm_vae_t has no setting \['energy_epochs'\]"):
        sbm_spec("sbm_vae_t", 0, "smoke", energy_epochs=3)
    for number in (1, 11):
        with pytest.raises(ValueError, match=f"2 to 10 modalities to train on, not {number}"):
            sbm_spec("mld", 0, "quick", modalities=number)
    miniature("extended_polymnist")
    data = load_data(sbm_spec("mld", 0, "smoke"))["test"]
    assert list(first_modalities(data, 2).data) == ["m0", "m1"]
    with pytest.raises(ValueError, match="has 3 modalities, 4 are asked for"):
        first_modalities(data, 4)
    with pytest.raises(ValueError, match="no square image"):
        build_sbm(data.modalities, sbm_spec("mld", 0, "smoke").params["model"] | {"latent_dim": 8}, {})
    with pytest.raises(ValueError, match="must be finite and at least one"):
        figures.curves({"y": {"a": {1: [math.nan]}}}, horizontal="x")
    with pytest.raises(ValueError, match="no shares"):
        figures.bars({}, horizontal="x", vertical="y", expected=0.1)
    with pytest.raises(ValueError, match="pages of shapes"):
        figures.pages({"a": np.zeros((2, 3, 4), np.uint8)}, rows=["r"], title="t")


def test_bands_are_standard_deviations_over_seeds() -> None:
    figure = figures.curves({"y": {"model": {1.0: [0.0, 2.0], 2.0: [1.0, 1.0]}}}, horizontal="x")
    (axis,) = figure.axes
    (line,) = axis.get_lines()
    assert line.get_ydata().tolist() == [1.0, 1.0]
    vertices = axis.collections[0].get_paths()[0].vertices
    at_one = vertices[vertices[:, 0] == 1.0, 1]
    assert (at_one.min(), at_one.max()) == pytest.approx((1 - math.sqrt(2), 1 + math.sqrt(2)))


def test_profiles_name_rows_that_exist() -> None:
    for profile in PROFILES.values():
        assert set(profile["rows"]) <= set(ROWS)
    assert PROFILES["paper"]["epochs"]["score"] == 300  # the released code's default

"""Tables II and III, figures 3 and 4 and the costs of a step, from records and samples that are made up here."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from repro.artifacts.inventory import artifacts, find
from repro.artifacts.render import _repeated
from repro.model import isolated_rng
from repro.papers import paper
from repro.papers.gmrf_mcvae.copula.experiment import LABELS, METHODS
from repro.papers.gmrf_mcvae.images import figures as image_figures
from repro.papers.gmrf_mcvae.images import tables as image_tables
from repro.papers.gmrf_mcvae.scaling import evaluation as scaling_evaluation
from repro.papers.gmrf_mcvae.scaling import tables as scaling_tables
from repro.papers.gmrf_mcvae.scaling.experiment import scaling_spec, seconds_per_step
from repro.records import Metric, Record, RunSpec
from repro.report.plotting import render as draw
from tests.papers.gmrf_mcvae.images import ARTIFACTS
from tests.support import miniatures
from tests.support.experiments import build_model, estimate, evaluate, figure_samples, load_data, render, results_of

plan = paper("gmrf_mcvae").plan

Cards = Callable[..., None]
PLACE = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "a machine", "versions": {"torch": "2"}}
COMMAND = "Inception weights not available: curl -fL there"


def record(spec: RunSpec, values: dict[str, float], seconds: float = 1.0) -> Record:
    metrics = [Metric(name, v, "1", 100, "as the test says") for name, v in values.items()]
    if not any("fid/available" in m.name or "step/" in m.name for m in metrics):
        metrics.append(Metric("test/fid/available", 0.0, "1", 0, COMMAND))
    return Record(spec, metrics, PLACE, {}, "0" * 64, seconds, 1.0)


def names(columns: dict[str, Any]) -> list[str]:
    """Metrics of all of a table's columns but FID, and those of its floor."""
    own = [f"test/{name}" for _, name in columns.values() if "/fid" not in name]
    return own + [f"test/floor/{n.split('/', 2)[2]}" for n in own]


def made_up(artifact: str, columns: dict[str, Any], extra: tuple[str, ...] = ()) -> Callable[[RunSpec], Record]:
    """Every model's k-th metric is k tenths plus its place and its seed's hundredths."""

    def lookup(spec: RunSpec) -> Record:
        base = METHODS.index(spec.method) + spec.seed / 100
        found = dict.fromkeys([*names(columns), *extra])
        return record(spec, {name: base + k / 10 for k, name in enumerate(found)})

    return lookup


TASKS = ("conditional", "unconditional", "floor")
RECONSTRUCTION = "test/reconstruction/coherence"
AGREEMENT = ("digits", *(f"coherence/at_least_{k}" for k in range(2, 6)))
EXTRA2 = (
    *(f"test/{task}/{m}" for task in ("unconditional", "floor") for m in AGREEMENT),
    "test/floor/accuracy",
    "test/floor/coherence",
)


def test_table2_sets_obtained_beside_published() -> None:
    lookup = made_up("table2", image_tables.TABLE2, EXTRA2)
    main, agreement = image_tables.table2(results_of("gmrf_mcvae/table2", "paper", lookup, seeds=None))
    published = image_tables._published("table2")
    assert published["rows"]["GMRF MCVAE"] == [118.21, 0.321, 180.76, 0.869, 0.995]
    for m, row in zip(METHODS, main.rows, strict=True):
        prints = dict(zip(published["columns"], published["rows"][LABELS[m]], strict=True))
        for key, cell in row.cells.items():
            assert cell.published == prints.get(key)
            if key.endswith("_fid"):
                assert (cell.n, cell.reason) == (0, COMMAND)
            else:
                metric = f"test/{image_tables.TABLE2[key][1]}"
                assert cell.n == 3
                assert cell.mean == pytest.approx(
                    np.mean([lookup(s).metric(metric).value for s in plan("table2", "paper")[m]])
                )
    assert [r.label for r in agreement.rows] == list(LABELS.values())
    text = main.to_markdown()
    assert COMMAND in text
    assert "data\\_range = 255" in text
    assert "75% of its off-diagonal entries masked" in text
    assert "100 epochs on all training samples, batch 256" in text
    assert "Laplace likelihood of scale 0.75 (MVAE, MMVAE, MoPoE-VAE, MMVAE+), 1 (GMRF MCVAE); beta: MVAE 2.5" in text
    assert "the background" not in text
    assert (
        main.floors[0].cells["cond_coherence"].mean
        == lookup(plan("table2", "paper")["mvae"][0]).metric("test/floor/accuracy").value
    )
    repeated = results_of("mrf_mvae/table1", "paper", lookup, seeds=1)
    renamed = _repeated(find("mrf_mvae/table1"), image_tables.table2(repeated))
    assert all(t.rows[-1].label == "MRF MVAE" for t in renamed)
    assert renamed[0].rows[-1].cells["cond_coherence"].published == 0.869


def test_ablations_set_what_latents_hold_beside_the_prior() -> None:
    lookup = made_up("table2-ablations", image_tables.ABLATIONS)
    table = image_tables.ablations(results_of("gmrf_mcvae/table2-ablations", "quick", lookup))
    assert [r.label for r in table.rows] == list(plan("table2-ablations", "quick"))
    spec = plan("table2-ablations", "quick")["no mask"][0]
    for key, (_, metric) in image_tables.ABLATIONS.items():
        assert table.rows[1].cells[key].mean == lookup(spec).metric(f"test/{metric}").value
    without = made_up("table2", image_tables.TABLE2, (*EXTRA2, RECONSTRUCTION))
    main, _ = image_tables.table2(results_of("gmrf_mcvae/table2", "quick", without, seeds=1))
    mvae = without(plan("table2", "quick")["mvae"][0])
    assert main.rows[0].cells["ceiling"].mean == mvae.metric(RECONSTRUCTION).value
    near = next(r for r in main.floors if r.label.startswith("Nearest training sample"))
    assert near.cells["cond_coherence"].reason == "not measured"
    assert not any("what gives the unobserved latents" in n for n in main.notes)
    extra = (*EXTRA2, RECONSTRUCTION, *(f"test/latents-{how}/coherence" for how in ("nearest", "mean", "sample")))
    lookup = made_up("table2", image_tables.TABLE2, extra)
    main, _ = image_tables.table2(results_of("gmrf_mcvae/table2", "quick", lookup, seeds=1))
    (told,) = (n for n in main.notes if "what gives the unobserved latents" in n)
    own = lookup(plan("table2", "quick")["gmrf_mcvae"][0])
    assert f"a draw from that conditional {own.metric('test/latents-sample/coherence').value:.3f};" in told
    assert f"the learned prior {own.metric('test/conditional/coherence').value:.3f}." in told
    measured = made_up("table2", image_tables.TABLE2, (*EXTRA2, "test/nearest/coherence", "test/nearest/ssim"))
    main, _ = image_tables.table2(results_of("gmrf_mcvae/table2", "quick", measured, seeds=1))
    near = next(r for r in main.floors if r.label.startswith("Nearest training sample"))
    assert (
        near.cells["cond_coherence"].mean
        == measured(plan("table2", "quick")["mvae"][0]).metric("test/nearest/coherence").value
    )
    assert near.cells["uncond_coherence"].n == 0


def test_pilots_are_measured_on_held_out_images_alone() -> None:
    specs = plan("table2-sweep", "overnight")
    assert all(s.params["evaluation"]["split"] == "validation" for (s,) in specs.values())
    assert {s.params["training"].get("patience") for (s,) in specs.values()} == {None}
    lookup = made_up("table2-sweep", {}, [f"validation/{name}" for _, name in image_tables.ABLATIONS.values()])
    table = image_tables.sweep(results_of("gmrf_mcvae/table2-sweep", "overnight", lookup))
    assert [r.label for r in table.rows] == list(specs)
    assert all(cell.n == 1 for row in table.rows for cell in row.cells.values())
    text = table.to_markdown()
    assert "No test data enters" in text
    # What rows differ in is no setting of the table: each beta, the mask, and the epochs of the one that rises.
    assert "beta: GMRF MCVAE 0.0001, 0.00025, 0.0005 or 0.001, by row (" in text
    assert "no mask or 75% of its off-diagonal entries masked, by row" in text
    assert "where beta rises, 1 at 0.0001, 1 at 0.00025, 1 at 0.0005, 3 at 0.001;" in text
    assert "Rows that name no beta have 0.001, and a mask." in text


def test_the_nearest_reading_of_conditional_coherence_is_named() -> None:
    later = [f"test/{n}/coherence" for n in image_tables.LATER_PROTOCOLS.values()]
    lookup = made_up("table2", image_tables.TABLE2, (*EXTRA2, *later))
    main, _ = image_tables.table2(results_of("gmrf_mcvae/table2", "paper", lookup, seeds=1))
    (group,) = main.groups
    assert len(group.rows) == 4
    own = lookup(plan("table2", "paper")["gmrf_mcvae"][0])
    values = {n: own.metric(f"test/{n}/coherence").value for n in ("conditional", "conditional-mean")}
    values["conditional-temperature-0.5"] = own.metric("test/conditional-temperature-0.5/coherence").value
    (note,) = (n for n in main.notes if "Nearest to the published 0.869" in n)
    labels = {v: k for k, v in image_tables.LATER_PROTOCOLS.items()}
    labels["conditional"] = "together, from the prior's conditional"
    best = min(values, key=lambda k: abs(values[k] - 0.869))
    assert note.endswith(f"Nearest to the published 0.869: {labels[best]}.")


def test_table2_says_what_coherence_comes_to_without_a_mask_where_that_is_on_record() -> None:
    (unmasked,) = plan("table2-ablations", "overnight")["no mask"]
    own = made_up("table2", image_tables.TABLE2, EXTRA2)
    values = {"test/conditional/coherence": 0.44, "test/conditional-mean/coherence": 0.82}

    def notes(found: Record | None) -> list[str]:
        results = results_of("gmrf_mcvae/table2", "overnight", lambda s: found if s == unmasked else own(s))
        return [n for n in image_tables.table2(results)[0].notes if "Without the mask" in n]

    assert notes(None) == []
    (note,) = notes(record(unmasked, values))
    mean = next(k for k, n in image_tables.LATER_PROTOCOLS.items() if n == "conditional-mean")
    assert note.endswith(f": {image_tables.TOGETHER} 0.440; {mean} 0.820.")


def test_rows_of_before_erratum_e19_are_named() -> None:
    rows = plan("table2-ablations", "overnight")
    texts = {"no mask": image_tables.RECONSTRUCTIONS, "as in Table II": "each modality's own encoder"}

    def lookup(spec: RunSpec) -> Record | None:
        found = next((t for row, t in texts.items() if spec in rows[row]), None)
        if found is None:
            return None
        coherence = [Metric(f"test/{n}/coherence", 0.5, "1", 9, found) for n in ("reconstruction", "latents-nearest")]
        return Record(spec, coherence, PLACE, {}, "0" * 64, 1.0, 1.0)

    def note() -> str:
        table = image_tables.ablations(results_of("gmrf_mcvae/table2-ablations", "overnight", lookup))
        assert {c.reason for c in table.rows[2].cells.values()} == {
            "not run: make gmrf-table2-ablations PROFILE=overnight ARGS=--long"
        }
        return "".join(n for n in table.notes if "E19" in n)

    assert note().endswith("not the joint one (erratum E19) (as in Table II).")
    texts["no mask"] = texts["as in Table II"]
    assert note().endswith("not the joint one (erratum E19).")
    texts |= dict.fromkeys(texts, image_tables.RECONSTRUCTIONS)
    assert note() == ""


def test_readings_that_are_equal_in_law_have_no_winner() -> None:
    def told(later: float) -> str:
        values = {"conditional": 0.117, "conditional-componentwise": 0.118, "conditional-mean": later}
        spec = plan("table2", "quick")["gmrf_mcvae"][0]
        own = record(spec, {f"test/{k}/coherence": v for k, v in values.items()})
        (note,) = image_tables._nearest_reading([own], 0.869)
        return note.partition("Nearest to the published 0.869")[2]

    equal = f"{image_tables.TOGETHER}, or {image_tables.ONE_AT_A_TIME} (equal in law)"
    mean = next(k for k, n in image_tables.LATER_PROTOCOLS.items() if n == "conditional-mean")
    assert told(0.05) == f", within two standard errors of one another: {equal}; {mean}."  # of 100 samples
    assert told(0.0) == f": {equal}."
    assert told(0.5) == f": {mean}."


def test_notes_say_what_was_trained_on_and_where_the_paper_departs() -> None:
    def note(name: str, profile: str) -> str:
        found = image_tables.table2(results_of(name, profile, made_up("table2", image_tables.TABLE2, EXTRA2), seeds=1))
        return found[0].notes[0]

    for name in ("gmrf_mcvae/table2", "mrf_mvae/table1"):
        text = note(name, "overnight")
        assert text.startswith(
            "At most 26 epochs on 55,000 of the 60,000 training samples, ended once the loss of the 5,000 that are "
            "held out has not improved for 3 epochs, batch 32, Adam at 0.004, times 0.9 after each epoch; images"
        )
    assert "The paper: at most 1,000 epochs; 512 latents (MVAE, MMVAE, MoPoE-VAE); 84%" in text
    text = note("gmrf_mcvae/table2", "quick")
    assert text.startswith("4 epochs on 12,000 of the 60,000 training samples, batch 32")
    said, _, chosen = text.partition("The paper: ")[2].partition(" Of what it does not state, the profile paper has: ")
    assert said.startswith(
        "100 epochs; 64 channels at the images' resolution, at most 1,024 (encoder) and 512 (decoder)"
    )
    assert said.endswith("; 512 latents (MVAE, MMVAE, MoPoE-VAE); beta 0.001 (GMRF MCVAE).")
    assert chosen == "batch 256; Adam at 0.0005; beta 2.5 (MVAE, MMVAE, MoPoE-VAE, MMVAE+)."
    assert "The paper:" not in note("gmrf_mcvae/table2", "paper")
    lookup = made_up("table3", image_tables.TABLE3)
    text = image_tables.table3(results_of("gmrf_mcvae/table3", "overnight", lookup, seeds=1)).notes[0]
    assert "on all training samples, ended once the validation loss has not improved for 10 epochs" in text
    assert "The paper: 100 epochs; images of 64 × 64; 32 channels" in text


def test_the_row_of_true_images_says_what_it_compares() -> None:
    def lookup(spec: RunSpec) -> Record:
        own = made_up("table2", image_tables.TABLE2, EXTRA2)(spec)
        floor = Metric("test/floor/frechet-classifier", 1.0, "1", 50, "these and as many validation images; by a rule")
        return replace(own, metrics=[floor if m.name == floor.name else m for m in own.metrics])

    for profile, held_out in {"overnight": True, "quick": False}.items():
        main, _ = image_tables.table2(results_of("gmrf_mcvae/table2", profile, lookup, seeds=1))
        (note,) = (n for n in main.notes if n.startswith("True images"))
        assert "of these and as many validation images, 50 a side" in note
        assert "The models' distances have 100 a side, and a Fréchet distance is biased upwards" in note
        assert ("the 5,000 training images that are held out" in note) == held_out
        assert any(n.endswith("N = 100 test samples.") for n in main.notes)
    same = made_up("table3", image_tables.TABLE3)
    text = image_tables.table3(results_of("gmrf_mcvae/table3", "quick", same)).to_markdown()
    assert "N = 100 test bicycles and as many generated ones. That is fewer than features" in text
    assert "biased upwards" not in text


def test_table2_is_shown_as_its_models_come() -> None:
    whole = made_up("table2", image_tables.TABLE2, EXTRA2)

    def lookup(spec: RunSpec) -> Record | None:
        return whole(spec) if spec.method == "gmrf_mcvae" else None

    found = image_tables.table2(results_of("gmrf_mcvae/table2", "overnight", lookup, seeds=1))
    absent = {"not run: make gmrf-table2 PROFILE=overnight ARGS=--long"}
    for table in found:
        *others, own = table.rows
        assert all({c.reason for c in row.cells.values()} == absent for row in others)
        assert {c.reason for c in own.cells.values()} <= {None, COMMAND}
    assert found[0].rows[0].cells["cond_coherence"].published == 0.448


def test_missing_protocol_rows_say_so() -> None:
    lookup = made_up("table2", image_tables.TABLE2, EXTRA2)
    main, _ = image_tables.table2(results_of("gmrf_mcvae/table2", "paper", lookup, seeds=1))
    (group,) = main.groups
    assert [row.cells["cond_coherence"].reason for row in group.rows] == ["not measured"] * 2
    assert {row.cells["uncond_coherence"].reason for row in group.rows} == {"not part of this row"}


@pytest.mark.parametrize("artifact", ["table3", "table3-biked"])
def test_table3_never_mixes_the_two_datasets(artifact: str) -> None:
    lookup = made_up(artifact, image_tables.TABLE3)
    table = image_tables.table3(results_of(f"gmrf_mcvae/{artifact}", "quick", lookup))
    specs = [s for row in plan(artifact, "quick").values() for s in row]
    assert {s.dataset for s in specs} == {ARTIFACTS[artifact]}
    rendered = artifact == "table3"
    assert ("rendered from BIKED's parameters" in table.caption) == rendered
    assert any("another dataset" in note for note in table.notes) == rendered
    assert table.rows[-1].cells["cond_ws"].published == 0.31
    assert table.rows[-1].cells["cond_full_fid"].reason == COMMAND
    text = table.to_markdown()
    assert "images of 32 × 32" in text
    assert "; the bias of the decoders' outputs starts at 1, the background. Latents:" in text
    assert "Gaussian likelihood of scale 0.05; beta: MVAE 1," in text


@pytest.mark.parametrize(("given", "told"), [(2.9, True), (2.0, False)])
def test_models_that_ignore_what_is_observed_are_named(given: float, told: bool) -> None:
    def lookup(spec: RunSpec) -> Record:
        own = {m.name: m.value for m in made_up("table3", image_tables.TABLE3)(spec).metrics}
        joint = 9.0 if spec.method == "mvae" else 2.95
        return record(
            spec, own | {f"test/{k}/frechet-pixels": v for k, v in zip(TASKS, (given, joint, 0.2), strict=True)}
        )

    notes = image_tables.table3(results_of("gmrf_mcvae/table3", "quick", lookup)).notes
    named = [n for n in notes if "are no nearer to true images than" in n]
    assert bool(named) == told
    if told:
        assert named[0].endswith("ones: MMVAE, MoPoE-VAE, MMVAE+, GMRF MCVAE.")
        assert named[0].startswith("By the distances of components alone, ")


def test_models_that_ignore_it_by_both_distances_are_named_once() -> None:
    values = {"conditional": 2.0, "unconditional": 2.0, "floor": 0.1}
    spec = plan("table3", "quick")["mvae"][0]
    own = record(spec, {f"test/{k}/frechet-pixels{e}": v for k, v in values.items() for e in ("", "/whole")})
    (note,) = image_tables._indifferent_notes({"mvae": [own]})
    assert note.startswith("By the distances of components and of whole bicycles, averaged over ")
    assert note.endswith("ones: MVAE.")


def test_components_without_ink_are_explained() -> None:
    def lookup(spec: RunSpec) -> Record:
        full = made_up("table3", image_tables.TABLE3)(spec)
        kept = {m.name: m.value for m in full.metrics if "conditional/centres" not in m.name and "fid" not in m.name}
        return record(spec, kept)

    table = image_tables.table3(results_of("gmrf_mcvae/table3", "quick", lookup))
    assert table.rows[0].cells["cond_ws"].reason == "no generated image of a component has ink"
    assert table.rows[0].cells["cond_ws_joint"].reason == "no generated image of a component has ink"
    near = next(r for r in table.floors if r.label.startswith("Nearest training sample"))
    assert {near.cells[k].reason for k in ("cond_ws", "cond_ws_joint", "cond_component_ssim")} == {"not measured"}


# Figures


def pictures(condition: str, components: list[str], channels: int, size: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (3, channels, size, size)
    keys = [f"true/{condition}", "true/whole", *(f"generated/{m}" for m in components)]
    return {k: rng.integers(0, 256, shape).astype(np.uint8) for k in keys}


def test_figure3_shows_what_is_given_and_each_generated_modality() -> None:
    models = {f"model {i}": pictures("m0", ["m0", "m1", "m2"], 3, 28, i) for i in range(3)}
    figure = image_figures.conditional_digits(models, "m0")
    images = [a for a in figure.axes if a.images]
    assert len(images) == 3
    page = np.asarray(images[1].images[0].get_array())
    assert page.shape == (3 * 30, 3 * 30, 3)
    own = models["model 1"]
    assert np.array_equal(page[1:29, 31:59], own["true/m0"][1].transpose(1, 2, 0))
    assert np.array_equal(page[61:89, 61:89], own["generated/m2"][2].transpose(1, 2, 0))
    assert [t.get_text() for t in images[1].get_yticklabels()] == ["given m0", "m1", "m2"]
    assert {t.get_text() for t in figure.texts} >= set(models)


def test_figure4_overlays_generated_components_on_the_given_one() -> None:
    parts = ["crank", "frame", "wheels"]
    own = pictures("frame", parts, 1, 16)
    own["true/frame"][:] = 255
    own["true/frame"][:, :, 4, 4] = 0
    figure = image_figures.bicycles({"model": own}, "frame", parts)
    given, true, model = (np.asarray(a.images[0].get_array()) for a in figure.axes)
    blue = (0, 114, 178)
    for page in (given, true, model):
        assert page.shape == (3 * 17, 16, 3)
        assert tuple(page[4, 4]) == blue
    darkest = np.minimum(own["generated/crank"], own["generated/wheels"])[1, 0]
    kept = np.ones((16, 16), bool)
    kept[4, 4] = False
    assert np.array_equal(model[17:33][kept][:, 0], darkest[kept])
    assert np.array_equal(true[17:33][kept][:, 0], own["true/whole"][1, 0][kept])


def test_figures_are_small_and_the_same_twice() -> None:
    make = lambda: image_figures.conditional_digits({"a": pictures("m0", ["m0", "m1"], 3, 28)}, "m0")  # noqa: E731
    for suffix in ("pdf", "png"):
        content = draw(make(), suffix)
        assert content == draw(make(), suffix)
        assert len(content) < 300_000
    assert Image.open(io.BytesIO(draw(make(), "png"))).size[0] > 300


def test_pictures_that_do_not_fit_are_named() -> None:
    good = pictures("m0", ["m0", "m1"], 3, 28)
    with pytest.raises(ValueError, match="no models to draw"):
        image_figures.conditional_digits({}, "m0")
    with pytest.raises(ValueError, match="images of 'b' are"):
        image_figures.conditional_digits({"a": good, "b": {k: x[:1] for k, x in good.items()}}, "m0")
    with pytest.raises(ValueError, match="with 'true/m9'"):
        image_figures.conditional_digits({"a": good}, "m9")
    with pytest.raises(ValueError, match="expected \\['m0'\\]"):
        image_figures.bicycles({"a": good}, "m0", ["m0"])


def test_figure4_is_rendered_from_stored_samples(mirror: Any, cards: Cards) -> None:
    cards(biked_rendered=miniatures.write_bike_table(mirror))
    rows = plan("fig4", "smoke")
    stored = {}
    for (spec,) in rows.values():
        with isolated_rng(0):
            model = build_model(spec).eval()
        stored[spec] = {k: v.numpy() for k, v in sorted(figure_samples(model, spec).items())}
        assert sum(v.nbytes for v in stored[spec].values()) < 300_000
    found = render("gmrf_mcvae/fig4", "smoke", lookup=lambda spec: None, samples=stored.__getitem__)
    assert set(found) == {"pdf", "png"}
    assert found["pdf"].startswith(b"%PDF")


# The cost of a step


def test_growth_is_the_exponent() -> None:
    m = list(range(2, 11))
    for k in (0.5, 1.0, 2.0):
        assert scaling_tables.growth(m, [3 * x**k for x in m]) == pytest.approx(k)
    # A fixed cost flattens the growth less over the upper half than over all.
    shifted = [1.0 + x for x in m]
    whole = float(np.polyfit(np.log(m), np.log(shifted), 1)[0])
    upper = float(np.polyfit(np.log(m[4:]), np.log(shifted[4:]), 1)[0])
    assert scaling_tables.growth(m, shifted) == pytest.approx(upper)
    assert whole < upper < 1.0
    with pytest.raises(ValueError, match="growth of 1 values over 1"):
        scaling_tables.growth([2], [1.0])


def test_scaling_reads_seconds_from_records() -> None:
    power = {"mvae": 1, "mmvae": 2, "mopoe": 1, "mmvae_plus": 2, "gmrf_mcvae": 1}

    def lookup(spec: RunSpec) -> Record:
        m = spec.params["data"]["components"]
        value = float(m ** power[spec.method])
        return record(spec, {"step/peak": value, "step/flops": value}, seconds=10 * value)

    costs = scaling_tables.costs(dict(results_of("gmrf_mcvae/scaling", "quick", lookup)))
    assert costs.components == tuple(range(2, 11))
    assert costs.seconds["MMVAE"] == pytest.approx([m**2 for m in range(2, 11)])  # ten steps a run
    seconds, memory, flops = scaling_tables.scaling_tables(costs)
    assert seconds.column("Growth") == memory.column("Growth") == flops.column("Growth")
    assert seconds.column("Growth") == ("1.00", "2.00", "1.00", "2.00", "1.00")
    assert seconds.column("Order (paper)")[-1] == "M² d² + M C"
    assert "a machine (cpu)" in seconds.notes[-1]
    found = render("gmrf_mcvae/scaling", "quick", lookup=lookup)
    assert set(found) == {"md", "tex", "pdf", "png"}


def polymnist(mirror: Any, cards: Cards) -> None:
    card = miniatures.write_backgrounds(mirror, "polymnist", miniatures.DIGITS)
    cards(mnist=miniatures.write_mnist(mirror), polymnist=card)


@pytest.mark.slow
def test_a_scaling_run_has_so_many_modalities_and_measures_a_step(mirror: Any, cards: Cards) -> None:
    polymnist(mirror, cards)
    found = {}
    for method in ("mmvae", "gmrf_mcvae"):
        for m in (2, 6):
            spec = scaling_spec(method, m, "smoke")
            data = load_data(spec)
            assert list(data["train"].modalities) == [f"m{i}" for i in range(m)]
            assert len(data["train"]) == 8
            if m == 6:  # PolyMNIST has five
                assert torch.equal(data["train"].data["m5"], data["train"].data["m0"])
            with isolated_rng(0):
                model = build_model(spec)
            with torch.no_grad():
                found[method, m] = {x.name: x.value for x in evaluate(model, data, spec, "cpu")}
            assert figure_samples(model, spec) == {}
            assert all(p.grad is None for p in model.parameters())
    # M decodes and M encodes against M^2 and M: 12 / 4 = 3 and (36 + 6) / (4 + 2) = 7, but for the latents.
    for method, ratio in (("gmrf_mcvae", 3.0), ("mmvae", 7.0)):
        flops = [found[method, m]["step/flops"] for m in (2, 6)]
        assert flops[1] / flops[0] == pytest.approx(ratio, rel=0.35)
        assert found[method, 6]["step/peak"] > 2 * found[method, 2]["step/peak"] > 0


def test_peak_memory_is_what_is_alive_at_once() -> None:
    x = torch.zeros(250_000)  # 1 MB

    def step() -> None:
        a = x + 1
        b = a * 2
        del a
        c = b + 1
        del b, c

    assert scaling_evaluation._peak_bytes(step, "cpu") == pytest.approx(2e6, rel=0.01)


def test_seconds_of_a_step_and_estimates() -> None:
    spec = scaling_spec("mmvae", 3, "quick")
    assert seconds_per_step(record(spec, {"step/peak": 1.0}, seconds=5.0)) == pytest.approx(0.5)
    costs = [estimate(scaling_spec(m, 10, "quick"))[0] for m in ("mmvae", "gmrf_mcvae")]
    assert costs[0] > 2 * costs[1] > 0
    with pytest.raises(ValueError, match="components is 1, must be at least 2"):
        scaling_spec("mmvae", 1, "quick")


def test_the_inventory_has_what_the_papers_share() -> None:
    assert find("mrf_mvae/table1").same_as == "gmrf_mcvae/table2"
    assert find("mrf_mvae/fig2").same_as == "gmrf_mcvae/fig3"
    own = [a for a in artifacts().values() if a.paper == "gmrf_mcvae" and a.id in (*ARTIFACTS, "scaling")]
    assert len(own) == len(ARTIFACTS) + 1
    assert all(a.built for a in own)


def test_pilots_at_the_rate_that_stays_are_a_table_of_their_own() -> None:
    rows = plan("table2-constant", "overnight")
    label = next(r for r in rows if r.endswith(image_tables.PILOT))
    (pilot,), (own,) = rows[label], rows["GMRF MCVAE"]
    values = {f"{s}/{n}/coherence": 0.5 for s in ("test", "validation") for n in ("reconstruction", "conditional")}

    def tables(*known: RunSpec) -> list[Any]:
        found = {s: record(s, values) for s in known}
        return image_tables.constant_rate(results_of("gmrf_mcvae/table2-constant", "overnight", found.get))

    (alone,) = tables(own)
    assert not any(r.label.endswith(image_tables.PILOT) for r in alone.rows)
    _, pilots = tables(own, pilot)
    assert all(r.label.endswith(image_tables.PILOT) for r in pilots.rows)
    (measured,) = (r for r in pilots.rows if r.label == label)
    assert measured.cells["reconstruction"].n == 1
    usual = plan("table2", "quick")
    assert {s for found in plan("table2-constant", "quick").values() for s in found} == {s for (s,) in usual.values()}


def test_the_rate_that_stays_is_a_row_and_the_run_of_before() -> None:
    rows = plan("table2-ablations", "overnight")
    (spec,) = rows["as in Table II, beta 0.0001, batch 64, Adam at 0.001"]
    assert spec.key == "5edc24240b9802db"  # on record
    assert spec.params["training"] == {"epochs": 26, "batch_size": 64, "learning_rate": 1e-3, "patience": 3}
    (usual,) = rows["as in Table II"]
    assert usual == plan("table2", "overnight")["gmrf_mcvae"][0]
    assert (usual.params["training"]["decay"], usual.params["model"]["beta"]) == (0.9, 1e-3)
    for profile in ("paper", "quick", "smoke"):
        assert not any("batch 64" in row for row in plan("table2-ablations", profile))

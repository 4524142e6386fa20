"""Figure 27: what is timed, in which forms, and the table, the slope and the curves of its record."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from repro.artifacts.inventory import artifacts
from repro.model import isolated_rng
from repro.papers import experiment_of, paper
from repro.papers.sbm_vae.sampling import SamplingSettings
from repro.papers.sbm_vae.score import LatentScore
from repro.papers.sbm_vae.settings import sbm_spec
from repro.papers.sbm_vae.timing import evaluation as timing
from repro.papers.sbm_vae.timing.evaluation import compiled_score, sampler
from repro.papers.sbm_vae.timing.experiment import FORMS, Timing, timing_spec
from repro.papers.sbm_vae.timing.figures import draw_timing
from repro.papers.sbm_vae.timing.tables import points, slope, timing_table
from repro.records import Metric, Record, RunSpec
from repro.training import train
from tests.support.experiments import (
    build_model,
    estimate,
    evaluate,
    figure_samples,
    load_data,
    render,
    training_settings,
)

pytestmark = pytest.mark.slow

PLACE = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "a machine", "versions": {"torch": "2"}}


def score() -> LatentScore:
    """A small score model whose output is not that of an untrained one, zero."""
    with isolated_rng(0):
        made = LatentScore(3, 16, width=8, blocks=1, multipliers=(1, 2)).eval()
        with torch.no_grad():
            for p in made.average.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return made


def changed(spec: RunSpec, **timed: object) -> RunSpec:
    return RunSpec(
        spec.paper,
        spec.dataset,
        spec.method,
        spec.seed,
        spec.profile,
        spec.params | {"timing": spec.params["timing"] | timed},
    )


def record(spec: RunSpec, metrics: list[Metric]) -> Record:
    return Record(spec, metrics, PLACE, {}, "0" * 64, 1.0, 1.0, [])


def made_up(spec: RunSpec) -> Record:
    """Seconds that grow by 0.1 a modality with the released form, not at all compiled; MoPoE doubles."""
    t = spec.params["timing"]
    values = {f"eager/batch/{m}": 20 + 0.1 * m for m in t["modalities"]} | {"eager/whole/10": 21.5}
    values |= {f"compiled/batch/{m}": 8.0 for m in t["compiled"]}
    values |= {f"decoding/batch/{m}": 0.02 * m for m in t["modalities"]}
    values |= {f"mopoe/batch/{m}": 2.0**m for m in t["modalities"]}
    metrics = [Metric(f"timing/{n}", v, "s", 256, "made up") for n, v in values.items()]
    return record(spec, [*metrics, Metric("timing/graph/available", 0.0, "1", 0, "no CUDA device")])


def test_a_run_goes_through(miniature: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    miniature("extended_polymnist")
    spec = changed(timing_spec("smoke"), compiled=[3])
    taken = []  # the compiler takes minutes; what it is given is called as it is here
    monkeypatch.setattr(timing, "compiled_score", lambda s: taken.append(s) or (lambda z, t: s(z, t)))
    data = load_data(spec)
    assert {split: (len(d), list(d.data)) for split, d in data.items()} == dict.fromkeys(
        ("train", "test"), (4, ["m0", "m1", "m2"])
    )
    with isolated_rng(0):
        model = build_model(spec)
    history = train(model, data["train"], training_settings(spec), seed=0)
    assert [e["stage"] for e in history] == ["autoencoders", "score"]
    metrics = evaluate(model, data, spec)
    found = {m.name: m for m in metrics}
    assert len(found) == len(metrics)
    for form in ("eager", "decoding", "mopoe"):
        for m in (2, 3):
            assert 0 < found[f"timing/{form}/batch/{m}"].value < math.inf
            assert (found[f"timing/{form}/batch/{m}"].unit, found[f"timing/{form}/batch/{m}"].num_samples) == ("s", 4)
    # On a CPU two of the three steps are timed; a batch takes six evaluations.
    for name in ("eager", "compiled"):
        each = found[f"timing/{name}/evaluation/3"]
        assert found[f"timing/{name}/batch/3"].value == pytest.approx(6 * each.value)
        assert "2 of 3 steps of the predictor-corrector" in each.protocol
        assert "6 evaluations x seconds of one" in found[f"timing/{name}/batch/3"].protocol
    assert "all 3 steps timed once" in found["timing/eager/whole/3"].protocol
    assert [s.num_modalities for s in taken] == [3]
    assert "timing/compiled/batch/2" not in found
    assert (found["timing/graph/available"].value, found["timing/graph/available"].protocol) == (0, "no CUDA device")
    assert figure_samples(model, spec) == {}
    assert points(record(spec, list(metrics)))["eager"].keys() == {2, 3}


def test_what_does_not_compile_says_why(miniature: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    miniature("extended_polymnist")

    def broken(s: LatentScore) -> Callable[..., torch.Tensor]:
        def call(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nlong traceback")

        return call

    monkeypatch.setattr(timing, "compiled_score", broken)
    for compiled, reason in (([2, 3], "does not compile here: no C++ compiler"), ([], "not measured in this profile")):
        spec = changed(timing_spec("smoke"), compiled=compiled)
        metrics = evaluate(build_model(spec), load_data(spec), spec)
        (found,) = [m for m in metrics if m.name == "timing/compiled/available"]
        assert (found.value, found.protocol) == (0, reason)
        row = next(r for r in timing_table([record(spec, list(metrics))]).rows if r[0] == FORMS["compiled"])
        assert row[1:3] == (reason, reason)


def test_a_draw_is_the_models_own_and_takes_two_evaluations_a_step() -> None:
    made, calls = score(), []

    def counted(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(float(t))
        return made(z, t)

    drawn = sampler(made, 5, 4, counted)()
    assert len(calls) == SamplingSettings(num_steps=4).evaluations == 8
    assert calls[0::2] == calls[1::2]  # the corrector and the predictor of a step at one time
    assert torch.equal(drawn, sampler(made, 5, 4)())
    assert drawn.shape == (5, 3, 16)

    start = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    again = SamplingSettings(num_steps=4).function()(lambda z, t: made(z, t), made.sde, start, generator=g)
    assert torch.equal(drawn, again)


def test_the_compiled_score_is_one_graph_with_the_same_values() -> None:
    made, z = score(), torch.randn(6, 3, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = compiled_score(made, backend="aot_eager")  # traced whole, without the C++ compiler
        for t in (0.2, 0.9):
            torch.testing.assert_close(found(z, torch.tensor(t)), made(z, torch.tensor(t)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="scale"):  # compilation alone would leave such checks off in the process
        torch.distributions.Normal(0.0, -1.0)


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="a CUDA graph needs points on a GPU, these are on cpu"):
        timing.GraphedScore(score(), torch.zeros(2, 3, 16), torch.tensor(0.5))


def test_the_slope_is_least_squares() -> None:
    assert slope({2: 1.0, 3: 1.5, 4: 2.0}) == pytest.approx(0.5)
    values = {2: 3.0, 5: 2.0, 9: 4.0, 10: 3.5}
    x, y = torch.tensor(list(values)).double(), torch.tensor(list(values.values())).double()
    fitted = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y).solution[0]
    assert slope(values) == pytest.approx(float(fitted))
    with pytest.raises(ValueError, match="a slope over 1 number"):
        slope({2: 1.0})


def test_the_table_has_a_row_a_form_and_says_how_seconds_came_about() -> None:
    table = timing_table([made_up(timing_spec("quick"))])
    rows = {r[0]: r for r in table.rows}
    assert list(rows) == list(FORMS.values())
    eager, compiled, graph = (rows[FORMS[f]] for f in ("eager", "compiled", "graph"))
    assert eager[1:10] == tuple(f"{20 + 0.1 * m:.3g}" for m in range(2, 11))
    assert eager[10:] == ("0.1", f"{0.1 / 20.6:.1%}")
    assert compiled[1:] == ("8", *["—"] * 7, "8", "0", "0.0%")
    assert graph[1:] == (*["no CUDA device"] * 9, "—", "—")
    assert any("All steps at once took 21.5 s with 10 modalities, against 21 s so" in n for n in table.notes)
    assert any("200 evaluations of the score" in n for n in table.notes)
    assert "a machine (cpu)" in table.notes[-1]
    with pytest.raises(ValueError, match="one record, not from 0"):
        timing_table([])


def test_figure_27_renders_with_its_table() -> None:
    assert artifacts()["sbm_vae/fig27"].built
    files = render("sbm_vae/fig27", "quick", lookup=made_up, samples=lambda spec: {})
    assert set(files) == {"md", "tex", "pdf", "png"}
    assert all(files.values())
    figure = draw_timing([made_up(timing_spec("quick"))])
    sampled, fast = figure.axes
    assert [line.get_label() for line in sampled.get_lines()] == ["SBM-VAE, released", "SBM-VAE, compiled"]
    assert [line.get_label() for line in fast.get_lines()] == ["decoding", "MoPoE"]
    assert sampled.get_ylim()[0] == fast.get_ylim()[0] == 0  # a flat line looks flat


def test_the_run_is_one_and_apart_from_the_comparison() -> None:
    (spec,) = paper("sbm_vae").plan("fig27", "quick")["seconds"]
    assert spec == timing_spec("quick")
    assert isinstance(experiment_of(spec), Timing)
    assert not isinstance(experiment_of(sbm_spec("sbm_vae", 0, "quick")), Timing)
    assert Timing().spec("timing", 0, "quick") == spec
    for method, seed, changes in (("sbm_vae", 0, {}), ("timing", 1, {}), ("timing", 0, {"modalities": 2})):
        with pytest.raises(ValueError, match="a profile has one timed run, 'timing' of seed 0"):
            Timing().spec(method, seed, "quick", **changes)
    published = timing_spec("paper").params
    assert published["model"]["score"] == sbm_spec("sbm_vae", 0, "paper").params["model"]["score"]
    assert (published["timing"]["batch_size"], published["timing"]["num_steps"]) == (256, 100)
    assert published["timing"]["modalities"] == list(range(2, 11))
    assert estimate(spec)[0] < 360
    assert estimate(timing_spec("paper"))[0] > 10 * estimate(spec)[0]

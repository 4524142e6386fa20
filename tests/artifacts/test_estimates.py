"""What runs take: counts of steps against formulas, seconds on fast and slow machines, precision by the device."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from repro.artifacts.inventory import artifacts, find
from repro.artifacts.planning import all_runs
from repro.artifacts.render import Sources, estimate, plan, resolved, unique
from repro.cli.main import main
from repro.engine import environment as machine
from repro.engine.cost import (
    COUNTED,
    LOOP,
    at_rates,
    cost,
    expected,
    kind_of,
    measured_as,
    read_table,
    training_seconds,
)
from repro.engine.speed import REFERENCE, Speed, cached_speed, describe, measure_speed, speed
from repro.engine.store import RunStore, figures_root
from repro.records import Record, RunSpec, precision_of, provenance, with_precision

FIGURES = Path(__file__).resolve().parents[2] / "figures"
RECORDS = sorted(FIGURES.glob("*/records/*.json"))


def _runs(name: str, profile: str = "quick", **choices) -> list[RunSpec]:
    return unique(plan(find(name), profile, **choices))


# ---- counts


@pytest.mark.parametrize(
    ("name", "profile", "method"),
    [
        ("gmrf_mcvae/table1", "paper", "mvae"),
        ("covae/table1-tcga", "paper", "mvae"),
        ("sbm_vae/table5", "quick", "sbm_vae"),
        ("sbm_vae/table5", "overnight", "sbm_vae_t"),
        ("gmrf_mcvae/table2", "quick", "gmrf_mcvae"),
        ("mrf_mvae/table4", "overnight", "gmrf"),
    ],
)
def test_table_is_what_the_counter_counts(name: str, profile: str, method: str) -> None:
    from repro.artifacts.counting import count_run

    spec = next(s for s in _runs(name, profile) if s.method == method)
    assert count_run(spec) == read_table()[kind_of(spec)]["steps"]


def test_a_step_takes_about_what_the_rates_give() -> None:
    """What is far from it was counted wrongly, or before its model was changed."""
    factors = {
        f"{kind}, {stage}, {precision}": factor
        for kind, entry in read_table().items()
        for precision, by_stage in entry.get("timed", {}).items()
        for stage, factor in by_stage.items()
    }
    assert len(factors) > 500
    assert {name: x for name, x in factors.items() if not 0.25 < x < 4} == {}


def test_products_of_a_step_are_those_of_the_networks() -> None:
    """Forward once and backward twice 2 n m for each layer, but the first layers' inputs need no gradient."""
    from repro.artifacts.counting import count_run
    from repro.papers import experiment_of

    spec = next(s for s in _runs("gmrf_mcvae/table1", "smoke") if s.method == "mvae")
    model = experiment_of(spec).build(spec)
    weights = {n: p.numel() for n, p in model.named_parameters() if p.ndim == 2}
    each = count_run(spec)["train"]["products"][1]
    assert 2 * 2 * sum(weights.values()) < each <= 2 * 3 * 2 * sum(weights.values())


def test_channels_are_counted_in_blocks_of_sixteen() -> None:
    """But those of images: layers from 3 to 8 and from 8 to 16 channels count as from 3 to 16 and from 16 to 16."""
    from repro.artifacts.counting import CONVOLUTIONS

    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 16, 3, padding=1)]
    x = torch.ones(2, 3, 5, 5)
    with FlopCounterMode(display=False) as plain:
        torch.nn.Sequential(*layers)(x).sum().backward()
    with FlopCounterMode(display=False, custom_mapping=CONVOLUTIONS) as blocks:
        torch.nn.Sequential(*layers)(x).sum().backward()
    pixels = 2 * 25 * 9 * 2
    first, second = 3 * 8 * pixels, 8 * 16 * pixels
    assert plain.get_total_flops() == 2 * first + 3 * second
    assert blocks.get_total_flops() == 2 * 2 * first + 2 * 3 * second


def test_every_quick_run_of_the_plans_is_counted() -> None:
    absent = [s.label for specs in all_runs("quick").values() for s in specs if kind_of(s) not in read_table()]
    assert not absent


def test_cost_grows_as_the_epochs_and_the_samples() -> None:
    spec = _runs("gmrf_mcvae/table1")[0]
    training, data = spec.params["training"], spec.params["data"]
    one = cost(spec)
    longer = cost(replace(spec, params={**spec.params, "training": {**training, "epochs": 3 * training["epochs"]}}))
    wider = cost(replace(spec, params={**spec.params, "data": {**data, "train_samples": 2 * data["train_samples"]}}))
    assert one is not None
    assert longer is not None
    assert wider is not None
    [once], [thrice], [twice] = (list(found.stages.values()) for found in (one, longer, wider))
    for what in (*COUNTED, "number"):
        assert getattr(thrice, what) == pytest.approx(3 * getattr(once, what))
        assert getattr(twice, what) == pytest.approx(2 * getattr(once, what), rel=0.1)
    assert one.flops == once.products + once.convolutions > 0
    assert one.steps == once.number
    assert longer.evaluation == one.evaluation


def test_counts_do_not_depend_on_weights_and_precision() -> None:
    spec = next(s for s in _runs("gmrf_mcvae/table2") if s.method == "mvae")
    other = with_precision(spec, "float32")
    assert kind_of(spec) == kind_of(other)
    assert spec.key != other.key
    model = {**spec.params["model"], "beta": 0.123}
    assert kind_of(replace(spec, params={**spec.params, "model": model})) == kind_of(spec)
    wider = {**spec.params["model"], "latent_dim": 7}
    assert kind_of(replace(spec, params={**spec.params, "model": wider})) != kind_of(spec)


# ---- seconds


def test_a_slower_machine_takes_longer_by_what_it_is_slower_at() -> None:
    spec = _runs("gmrf_mcvae/table2")[0]
    slow = replace(REFERENCE, convolutions_bfloat16=REFERENCE.convolutions_bfloat16 / 25)
    assert expected(spec, slow)[0] > 10 * expected(spec, REFERENCE)[0]
    plain = with_precision(spec, "float32")
    assert expected(plain, slow)[0] == pytest.approx(expected(plain, REFERENCE)[0])
    half = Speed(*(x / 2 for x in (84, 217, 96, 188)), operation=2 * REFERENCE.operation, bandwidth=22.5)
    assert expected(spec, half)[0] == pytest.approx(2 * expected(spec, REFERENCE)[0])


def test_narrow_convolutions_gain_no_more_than_twice_by_half_precision() -> None:
    """Units for tiles multiply four times as fast in bfloat16; networks of few channels do not see it."""
    spec = next(s for s in _runs("gmrf_mcvae/table2", "overnight") if precision_of(s) == "bfloat16")
    found = cost(spec)
    assert found is not None
    tiles = replace(REFERENCE, convolutions_bfloat16=8 * REFERENCE.convolutions)
    twice = replace(REFERENCE, convolutions_bfloat16=2 * REFERENCE.convolutions)
    assert training_seconds(found, tiles) == training_seconds(found, twice) < training_seconds(found, REFERENCE)


def test_records_took_what_is_estimated() -> None:
    """By the median and by the shortest of each kind of run: work beside it makes a run longer, never shorter."""
    took: dict[str, list[float]] = {}
    for path in RECORDS:
        record = Record.from_json(path.read_text())
        found = cost(record.spec)
        if found is not None and record.training_seconds > 3:
            ratio = record.training_seconds / training_seconds(found, REFERENCE)
            took.setdefault(f"{kind_of(record.spec)}/{found.steps}", []).append(ratio)
    ratios = [statistics.median(values) for values in took.values()]
    assert len(ratios) > 40
    assert 1 / 1.5 < statistics.median(ratios) < 1.5
    assert sum(0.5 < r < 2 for r in ratios) > 0.8 * len(ratios)
    assert sum(r > 0.5 for r in ratios) > 0.95 * len(ratios)
    shortest = [min(values) for values in took.values()]
    assert sum(1 / 1.5 < r < 1.5 for r in shortest) > 0.75 * len(shortest)
    assert sum(r > 1 / 1.5 for r in shortest) > 0.95 * len(shortest)


def test_a_step_takes_as_many_times_the_rates_as_it_did_where_it_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = next(s for s in _runs("gmrf_mcvae/table2") if s.method == "mvae")
    plain = with_precision(spec, "float32")
    entry = {**read_table()[kind_of(spec)], "timed": {"bfloat16": {"train": 0.5}}}
    monkeypatch.setattr("repro.engine.cost.read_table", lambda: {kind_of(spec): entry})
    half, single = cost(spec), cost(plain)
    assert half is not None
    assert single is not None
    assert training_seconds(half, REFERENCE) == pytest.approx(
        LOOP * 0.5 * at_rates(half.stages["train"], REFERENCE, reduced=True)
    )
    assert training_seconds(single, REFERENCE) == pytest.approx(
        LOOP * at_rates(single.stages["train"], REFERENCE, reduced=False)
    )


def test_steps_are_timed_in_the_run_s_precision() -> None:
    """What is too long is said, not waited for."""
    from repro.artifacts.counting import time_run

    spec = next(s for s in _runs("gmrf_mcvae/table1", "smoke") if s.method == "mvae")
    counted = read_table()[kind_of(spec)]["steps"]
    found = time_run(spec, counted, REFERENCE)
    assert list(found) == list(counted) == ["train"]
    assert found["train"] > 0
    slow = replace(REFERENCE, operation=10.0)
    with pytest.raises(ValueError, match=r"a step takes about \d+ s"):
        time_run(spec, counted, slow)


def test_what_is_measured_of_a_record_s_kind_is_what_its_evaluation_takes() -> None:
    """Runs of one model that are measured otherwise have seconds of their own."""
    spec = next(s for s in _runs("gmrf_mcvae/table1", "paper") if kind_of(s) in read_table())
    known = read_table()[kind_of(spec)]["evaluation"]
    found = cost(spec)
    assert found is not None
    assert found.evaluation == known[measured_as(spec)]
    other = replace(spec, params={**spec.params, "evaluation": {**spec.params["evaluation"], "num_samples": 7}})
    assert measured_as(other) not in known
    assert cost(replace(spec, seed=spec.seed + 1)).evaluation == found.evaluation


def test_every_quick_and_overnight_model_that_is_short_enough_was_timed() -> None:
    absent = {
        kind_of(s): s.label
        for profile in ("quick", "overnight")
        for specs in all_runs(profile).values()
        for s in specs
        if kind_of(s) in read_table() and not read_table()[kind_of(s)].get("timed")
    }
    assert len(absent) < 20, sorted(absent.values())


def test_an_unknown_model_takes_its_experiment_s_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _runs("gmrf_mcvae/table1")[0]
    monkeypatch.setattr("repro.engine.cost.read_table", dict)
    assert cost(spec) is None
    stated = expected(spec, REFERENCE)[0]
    assert expected(spec, replace(REFERENCE, products=REFERENCE.products / 3))[0] == pytest.approx(3 * stated)


# ---- the machine


def test_speed_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    assert cached_speed() is None
    first = speed()
    assert cached_speed() == first == speed()
    [path] = (tmp_path / "speed").iterdir()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # another machine, as far as this is concerned
    assert cached_speed() is None
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    for damaged in ("", "{}", "[1]", json.dumps({**json.loads(path.read_text()), "products": -1})):
        path.write_text(damaged)
        assert cached_speed() is None
    assert all(x > 0 for x in vars(measure_speed()).values())
    assert len(describe(first)) == 3


def test_an_unwritable_cache_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("repro.engine.speed.measure_speed", lambda: REFERENCE)
    assert speed() == REFERENCE


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"bandwidth is .*must be positive"):
        replace(REFERENCE, bandwidth=value)


def test_estimates_need_no_torch() -> None:
    code = (
        "import sys; from repro.artifacts.render import *; "
        "assert estimate(unique(plan(find('gmrf_mcvae/table2'), 'quick', precision='auto', device='cpu')), 2)[0] > 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code.replace("import *", "import estimate, find, plan, unique")], check=True)


# ---- precision


def test_auto_is_the_plan_s_where_the_device_has_units_else_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    images, copula = _runs("gmrf_mcvae/table2"), _runs("gmrf_mcvae/table1")
    assert {precision_of(s) for s in images} == {"bfloat16"}
    for units in (True, False):
        monkeypatch.setattr(machine, "bfloat16_units", lambda units=units: units)
        auto = _runs("gmrf_mcvae/table2", precision="auto", device="cpu")
        assert auto == (images if units else [with_precision(s, "float32") for s in images])
        assert _runs("gmrf_mcvae/table1", precision="auto", device="cpu") == copula
        assert _runs("pretrained/flow", "paper", precision="auto", device="cpu") == _runs("pretrained/flow", "paper")
        assert _runs("gmrf_mcvae/table2") == images
    assert [resolved(s, "cpu").key for s in _runs("sbm_vae/table5")] != [s.key for s in _runs("sbm_vae/table5")]


@pytest.mark.parametrize(
    ("flags", "limit", "there"),
    [
        ("flags : avx2 avx512_bf16", "", True),
        ("flags : amx_bf16", "", True),
        ("Features : asimd bf16 i8mm", "", True),
        ("flags : avx2 fma", "", False),
        ("flags : avx512_bf16", "AVX2", False),
        ("flags : avx512_bf16", "AVX512_CORE_BF16", True),
    ],
)
def test_units_are_read_from_the_cpu(
    flags: str, limit: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(flags + "\n")
    monkeypatch.setattr(machine, "CPU_FACTS", tmp_path / "cpuinfo")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert machine.bfloat16_units() is there


def test_a_table_takes_whichever_precision_was_recorded(tmp_path: Path) -> None:
    """The plan's own first, then float32; and only that way round."""
    known = [r for p in RECORDS for r in [Record.from_json(p.read_text())] if precision_of(r.spec) == "bfloat16"]
    record = known[0]
    spec, twin = record.spec, with_precision(record.spec, "float32")
    store = RunStore(tmp_path / "runs")

    def put(one: Record) -> None:
        store.directory(one.spec).mkdir(parents=True)
        (store.directory(one.spec) / "record.json").write_text(one.to_json())

    put(replace(record, spec=twin))
    for precision in (None, "auto"):
        assert Sources(store, tmp_path, precision).record(spec).spec == twin
    assert Sources(store, tmp_path, "bfloat16").record(spec) is None
    put(record)
    assert Sources(store, tmp_path).record(spec).spec == spec
    assert Sources(store, tmp_path).record(twin).spec == twin
    both = [record, replace(record, spec=twin)]
    assert "hidden layers in bfloat16 and float32; " in provenance(both)
    assert "hidden layers in bfloat16; " in provenance(both[:1])
    copula = next(s for s in _runs("gmrf_mcvae/table1"))
    assert Sources(store, tmp_path).record(with_precision(copula, "bfloat16")) is None


def test_estimate_of_many_is_the_longest_worker_s() -> None:
    specs = _runs("gmrf_mcvae/table1")
    one, two = estimate(specs, 1)[0], estimate(specs, 2)[0]
    assert one / 2 <= two < one


def _cards(record: str) -> bool:
    return '"device": "cuda' in record


def test_no_time_of_a_gpu_is_listed_that_was_not_measured() -> None:
    recorded = {p.parts[-3] for p in figures_root().glob("*/records/*.json") if _cards(p.read_text(encoding="utf-8"))}
    named = [a for a in artifacts().values() if re.search(r"GPU|[ABH]\d{2,3}|with a card", a.cost)]
    assert len(named) > 20
    for artifact in named:
        if artifact.paper not in recorded:
            assert re.fullmatch(r"[\d,]+ (min|h), GPU not measured(; .*)?", artifact.cost), artifact.name


def test_the_list_names_no_gpu_where_none_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "gmrf_mcvae"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert " 1,800 h " in lines["gmrf_mcvae/table2"]
    for name, line in lines.items():
        assert "GPU" not in line or "GPU not measured" not in artifacts()[name].cost
    assert main(["list", "gmrf_mcvae", "--json"]) == 0
    costs = {e["name"]: e["cost"] for e in json.loads(capsys.readouterr().out)}
    assert "GPU not measured" in costs["gmrf_mcvae/table2"]


TIME = r"([\d,]+) (h|min)\b"
STATED = {"paper": f"^{TIME}", "overnight": f"overnight {TIME}", "quick": f"quick {TIME}"}


@pytest.mark.parametrize(
    ("name", "profile"),
    [(n, p) for n, a in artifacts().items() for p, stated in STATED.items() if re.search(stated, a.cost)],
)
def test_stated_times_on_two_cores_are_those_that_are_counted(name: str, profile: str) -> None:
    found = re.search(STATED[profile], find(name).cost)
    assert found is not None
    specs = unique(plan(find(name), profile, None))
    unit = {"h": 3600, "min": 60}[found[2]]
    counted = sum(expected(s, REFERENCE)[0] for s in specs) / 2 / unit
    rounding = {"h": 0.5, "min": 1.0}[found[2]]
    assert float(found[1].replace(",", "")) == pytest.approx(counted, rel=0.1, abs=rounding)

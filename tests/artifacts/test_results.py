"""A reader's results: beside the recorded and the published ones, from any folder, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.artifacts.gallery import recorded_seeds
from repro.artifacts.inventory import Artifact, artifacts, find
from repro.artifacts.render import Sources, plan, record_path, unique
from repro.artifacts.results import check_versions, standing
from repro.artifacts.running import run
from repro.cli.main import main
from repro.engine import store as store_module
from repro.engine.store import (
    RunStore,
    default_results_root,
    default_runs_root,
    figures_root,
    in_checkout,
    read_record,
    write_atomically,
)
from repro.errors import RunError
from repro.records import Record, RunSpec

if TYPE_CHECKING:
    from tests.support.runs import Smoke

pytest_plugins = ["tests.support.runs"]

Capture = pytest.CaptureFixture[str]
FIGURES = Path(__file__).resolve().parents[2] / "figures"
SHOW = ["show", "gmrf-table1"]


def recorded(spec: RunSpec) -> Record | None:
    return read_record(record_path(spec, FIGURES), spec)


def lay(store: RunStore, name: str, seeds: int, factor: float = 1.0) -> list[RunSpec]:
    """Run directories of an artifact, its metrics the recorded ones times a factor; further seeds repeat seed 0."""
    specs = unique(plan(find(name), "paper", seeds))
    first = {s.method: r for s in specs if (r := recorded(s)) is not None and s.seed == 0}
    for spec in specs:
        record = recorded(spec) or first[spec.method]
        metrics = [replace(m, value=factor * m.value) for m in record.metrics]
        path = store.directory(spec) / "record.json"
        write_atomically(path, replace(record, spec=spec, metrics=metrics).to_json())
    return specs


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """Run directories and a folder of results of one's own, in a working directory with a space in its name."""
    work = tmp_path / "my work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("REPRO_RUNS")
    monkeypatch.setenv("REPRO_RESULTS", "")
    return RunStore(Path("runs"))


def say(capsys: Capture, *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def refused(capsys: Capture, *arguments: str) -> str:
    """The one line of a refusal, which changes nothing below the working directory."""

    def tree() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}

    before = tree()
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert printed.err.count("\n") == 1
    assert tree() == before
    return printed.err


# Yours, recorded, published


def test_without_runs_of_ones_own_it_shows_what_is_recorded(store: RunStore, capsys: Capture) -> None:
    out = say(capsys, *SHOW)
    assert out.splitlines()[2].split() == ["model", "metric", "published", "recorded"]
    assert "Yours: none in the profile paper; `repro run gmrf-table1` makes them." in out
    assert "cells, within two standard errors" not in out
    assert out.splitlines()[-1] == str(FIGURES / "gmrf_mcvae" / "table1.tex")
    assert list(Path().iterdir()) == []
    value = json.loads(say(capsys, *SHOW, "--json"))
    cell = next(c for c in value["cells"] if (c["row"], c["column"]) == ("GMRF MCVAE", "Unconditional Mean"))
    assert cell["published"] == 0.86
    assert cell["recorded"]["n"] == 3
    assert cell["yours"] == {"mean": None, "std": None, "n": 0, "missing": None}
    assert value["verdict"] is None


def test_the_same_results_agree_in_every_cell_and_far_ones_in_none(store: RunStore, capsys: Capture) -> None:
    lay(store, "gmrf-table1", 3)
    out = say(capsys, *SHOW)
    assert "Yours agrees with the recorded value in 30 of 30 cells, within two standard errors" in out
    assert "\nNot: " not in out
    lay(store, "gmrf-table1", 3, factor=3.0)
    out = say(capsys, *SHOW)
    assert "in 0 of 30 cells" in out
    assert "Not: MVAE, Unconditional Dim 1; " in out


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_any_number_of_seeds_is_compared_and_named(seeds: int, store: RunStore, capsys: Capture) -> None:
    lay(store, "gmrf-table1", seeds, factor=1.001)
    value = json.loads(say(capsys, *SHOW, "--json"))
    cells = [c for c in value["cells"] if not c["block"] and "paper's distance" in c["table"]]
    assert len(cells) == 30
    assert {(c["recorded"]["n"], c["yours"]["n"]) for c in cells} == {(3, seeds)}
    assert {c["yours"]["std"] is None for c in cells} == {seeds == 1}
    assert all(c["agree"] is not None for c in cells)
    assert f"(n = {seeds})" in say(capsys, *SHOW)


def test_unfinished_runs_are_counted(store: RunStore, capsys: Capture) -> None:
    specs = lay(store, "gmrf-table1", 3)
    for spec in specs:
        if spec.seed == 0 and spec.method == "mvae":
            shutil.rmtree(store.directory(spec))
    out = say(capsys, *SHOW)
    assert "Yours: 14 of your 15 runs are recorded; `repro run gmrf-table1` continues them." in out
    assert "recorded" in out.splitlines()[2]


def test_run_ends_with_the_table_and_where_the_files_lie(store: RunStore, capsys: Capture) -> None:
    lay(store, "gmrf-table1", 3)
    committed = {p: p.stat().st_mtime_ns for p in FIGURES.rglob("*")}
    assert main(["run", "gmrf-table1", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out.rstrip().endswith(say(capsys, *SHOW).split("\n\n/")[0].split("Its other rows")[1].strip())
    paths = [Path("results/gmrf_mcvae") / name for name in ("table1.md", "table1.tex")]
    assert printed.err.splitlines() == [str(p) for p in paths]
    assert all(p.exists() for p in paths)
    assert len(list(Path("results/gmrf_mcvae/records").glob("*.json"))) == 15
    assert Path("results/README.md").read_text().startswith("# Your results")
    assert {p: p.stat().st_mtime_ns for p in FIGURES.rglob("*")} == committed
    shutil.rmtree(store.root)  # what was written suffices
    assert "in 30 of 30 cells" in say(capsys, *SHOW)


@pytest.mark.parametrize(
    "artifact", [a for a in artifacts().values() if a.built and a.kind == "T" and a.data], ids=lambda a: a.name
)
def test_every_recorded_table_can_be_set_beside_yours(artifact: Artifact, store: RunStore) -> None:
    for profile in ("paper", "quick"):
        try:
            seeds = recorded_seeds(artifact, profile, Sources(None, FIGURES))
        except RunError:
            continue
        for spec in unique(plan(artifact, profile, seeds)):
            if (record := recorded(spec)) is not None:
                write_atomically(store.directory(spec) / "record.json", record.to_json())
        found = standing(artifact, profile, figures=FIGURES, store=store, results=Path("results"))
        assert found.recorded
        if found.yours is None:  # rendered without any record
            assert artifact.unrecorded
            continue
        if found.joint is None:  # seconds and memory of one machine
            assert artifact.name == "gmrf_mcvae/scaling"
            continue
        assert found.joint.to_text()
        assert all(c.agrees in (True, None) for c in found.joint.cells)
        compared = [c for c in found.joint.cells if c.recorded and c.recorded.n and c.yours and c.yours.n]
        assert compared
        assert all(c.recorded.mean == c.yours.mean for c in compared)


def test_smoke_has_no_verdict(smoke: Smoke, capsys: Capture) -> None:
    why = "No verdict: runs of the smoke profile train for an epoch or two"
    assert why in smoke.printed
    page = (smoke.results / "gmrf_mcvae" / "smoke" / "table1.md").read_text()
    for text in (page, smoke.printed, (smoke.results / "gmrf_mcvae" / "smoke" / "table1.tex").read_text()):
        assert why in text
        for word in ("Best model as published", "Rank correlation", "two standard errors", "agrees"):
            assert word not in text
    folders = ["--runs", str(smoke.runs), "--results", str(smoke.results), "--profile", "smoke"]
    assert why in say(capsys, *SHOW, *folders)
    value = json.loads(say(capsys, *SHOW, *folders, "--json"))
    assert value["no_verdict"].startswith(why)
    assert {c["agree"] for c in value["cells"]} == {None}


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SHOW, "--xlsx"], "unrecognized arguments: --xlsx"),
        ([*SHOW, "--csv", "--json"], "argument --json: not allowed with argument --csv"),
        (["show", "gmrf-fig2", "--csv"], "gmrf_mcvae/fig2 is a figure; --csv writes tables"),
        (["show", "gmrf-fig1"], "gmrf_mcvae/fig1 is a drawing of the method, not computed"),
        (["show", "gmrf-table2"], "recorded in overnight: `repro show gmrf-table2 --profile overnight`"),
        (["show", "gmrf-table3"], "recorded in quick: `repro show gmrf-table3 --profile quick`"),
        (["record", "gmrf-table1", "--profile", "smoke"], "nothing of the smoke profile is recorded"),
    ],
)
def test_wrong_calls(arguments: list[str], message: str, store: RunStore, capsys: Capture) -> None:
    assert message in refused(capsys, *arguments)


def put(content: str | Callable[[Record], str], key: str | None = None) -> None:
    """A record's file among the results of Table I."""
    record = recorded(unique(plan(find("gmrf-table1"), "paper"))[0])
    assert record is not None
    path = Path("results/gmrf_mcvae/records") / f"{key or record.spec.key}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else content(record))


def of_another_format(record: Record) -> str:
    return json.dumps({**record.to_dict(), "format": "repro-record/9"})


def of_a_run_that_is_no_more(record: Record) -> str:
    return replace(record, spec=replace(record.spec, params={**record.spec.params, "width": 7})).to_json()


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (of_another_format, None, "has the format 'repro-record/9', here it is 'repro-record/1': results of another"),
        (of_a_run_that_is_no_more, "0" * 16, "is of a run that this version does not have (gmrf_mcvae/"),
        (lambda r: r.to_json().replace("seconds", "Seconds", 1), None, "the file was altered"),
        ("{", None, "not JSON"),
        ("", None, "not JSON"),
    ],
)
def test_results_of_another_version_and_damaged_ones(
    content: str | Callable[[Record], str], key: str | None, message: str, store: RunStore, capsys: Capture
) -> None:
    lay(store, "gmrf-table1", 1)
    put(content, key)
    assert message in refused(capsys, "run", "gmrf-table1", "--seeds", "1", "--device", "cpu")
    if "version" in message:
        assert message in refused(capsys, *SHOW)


def test_a_damaged_record_of_another_artifact_is_no_obstacle(store: RunStore, capsys: Capture) -> None:
    lay(store, "gmrf-table1", 1)
    put("{", "f" * 16)
    assert main(["run", "gmrf-table1", "--seeds", "1", "--device", "cpu"]) == 0


def test_more_seeds_and_another_precision_are_this_version_s(store: RunStore) -> None:
    spec = unique(plan(find("gmrf-table1"), "paper", 12, "bfloat16"))[11]
    record = recorded(unique(plan(find("gmrf-table1"), "paper"))[0])
    assert record is not None
    path = Path("results/gmrf_mcvae/records") / f"{spec.key}.json"
    write_atomically(path, replace(record, spec=spec).to_json())
    check_versions(Path("results"), "gmrf_mcvae")


def test_a_damaged_run_is_one_line(store: RunStore, capsys: Capture) -> None:
    (spec, *_) = lay(store, "gmrf-table1", 1)
    (store.directory(spec) / "record.json").write_text("{")
    for command in (["run", "gmrf-table1", "--seeds", "1"], SHOW):
        assert "record.json: not JSON" in refused(capsys, *command)


@pytest.mark.parametrize("where", ["results", "results/gmrf_mcvae", "results/gmrf_mcvae/records"])
def test_a_folder_that_cannot_be_written_is_refused_before_training(
    where: str, store: RunStore, capsys: Capture
) -> None:
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    Path(where).write_text("a file")
    message = refused(capsys, "run", "gmrf-table1", "--profile", "quick", "--device", "cpu")
    assert message.startswith(f"repro: cannot write results to {where}")
    assert "--results or REPRO_RESULTS names another folder" in message
    assert not store.root.exists()
    with pytest.raises(ValueError, match="cannot write results to"):
        run("gmrf-table1", profile="quick")


def test_another_s_page_is_not_overwritten(store: RunStore, capsys: Capture) -> None:
    lay(store, "gmrf-table1", 1)
    write_atomically(Path("results/README.md"), "# My project\n")
    message = refused(capsys, "run", "gmrf-table1", "--seeds", "1", "--device", "cpu")
    assert "results/README.md was not written by this package" in message


# Where things lie


def test_folders_of_runs_and_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable, root in (("REPRO_RUNS", default_runs_root), ("REPRO_RESULTS", default_results_root)):
        name = variable.removeprefix("REPRO_").lower()
        monkeypatch.delenv(variable)
        assert root() == Path(name)
        monkeypatch.setenv(variable, "")
        assert root() == Path(name)
        monkeypatch.setenv(variable, "~/there")
        assert root() == tmp_path / "there"


def test_recorded_material_of_a_checkout_and_of_an_installed_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert figures_root() == FIGURES
    assert in_checkout(FIGURES)
    package = tmp_path / "site-packages" / "repro"
    monkeypatch.setattr(store_module, "__file__", str(package / "engine" / "store.py"))
    assert figures_root() == tmp_path / "site-packages" / "figures"  # nothing is there
    shipped = package / "figures"
    shipped.mkdir(parents=True)
    assert figures_root() == shipped
    assert not in_checkout(shipped)
    for command in (["report"], ["record", "gmrf-table1"]):
        assert f"{shipped} is inside an installed package" in refused(capsys, *command)
    monkeypatch.setenv("REPRO_FIGURES", "")
    assert figures_root() == shipped
    monkeypatch.setenv("REPRO_FIGURES", str(tmp_path))
    assert figures_root() == tmp_path


def test_recorded_values_are_shown_from_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "else where"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "repro.cli", *SHOW], capture_output=True, text=True, cwd=folder, check=True
    )
    assert "Recorded: Profile paper; seeds 0, 1, 2; 15 records" in done.stdout
    assert list(folder.iterdir()) == []


def test_tests_see_no_results_of_a_reader_s() -> None:
    root = Path(__file__).resolve().parents[2]
    for folder in (default_runs_root(), default_results_root()):
        assert root not in (folder.resolve(), *folder.resolve().parents)

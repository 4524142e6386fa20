"""The command line: answers without torch, one-line errors with near matches, exit codes."""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.artifacts.inventory import artifacts, find
from repro.artifacts.render import plan, unique
from repro.cli import main as cli
from repro.cli.main import main
from repro.datasets.card import load_card
from repro.hub.cite import cite
from repro.papers.gmrf_mcvae.copula.experiment import Copula

if TYPE_CHECKING:
    from tests.support.runs import Smoke

pytest_plugins = ["tests.support.runs"]

Capture = pytest.CaptureFixture[str]

WITHOUT_TORCH = """
import sys
from repro.cli.main import main
for arguments in (["list"], ["list", "covae"], ["cite", "gmrf_mcvae/table1"],
                  ["run", "gmrf-table1", "--dry-run"], ["show", "gmrf-table1"],
                  ["show", "gmrf-table2", "--profile", "quick", "--json"], ["--version"], ["--help"]):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0
heavy = {"torch", "numpy", "scipy", "matplotlib", "multivae"} & set(sys.modules)
assert not heavy, heavy
"""


def call(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit code and what was printed to stdout and stderr."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def refused(capsys: Capture, *arguments: str) -> str:
    """The one line of a wrong call."""
    code, out, error = call(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert error.count("\n") == 1
    assert error.endswith("\n")
    return error


def test_light_commands_import_no_torch(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: repro" in done.stdout
    assert "gmrf_mcvae/table1" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_module_runs_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "repro.cli", "run", "gmrf-tabel1"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("repro: unknown artifact 'gmrf-tabel1'; did you mean ")
    assert done.stderr.count("\n") == 1


def test_help_names_every_command(capsys: Capture) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == 0
    assert all(f"    {name} " in out for name in ("list", "run", "show", "report", "cite", "doctor"))
    code, out, _ = call(capsys, "run", "--help")
    assert code == 0
    assert all(option in out for option in ("--profile", "--seeds", "--executor", "--dry-run", "--force"))
    assert call(capsys, "--version")[1].startswith("repro 0")


def test_list_has_a_line_for_every_artifact_and_fits_100_columns(capsys: Capture, tmp_path: Path) -> None:
    code, out, _ = call(capsys, "list", "--figures", str(tmp_path))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert set(rows) == {"artifact", *artifacts()}
    cost = artifacts()["gmrf_mcvae/table1"].cost
    assert rows["gmrf_mcvae/table1"].split(cost)[1].split() == ["ready"]
    assert rows["sbm_vae/fig28"].endswith("no public data")
    assert rows["mrf_mvae/fig1"].endswith("not computed")
    for name in ("covae/table1", "covae/fig9", "sbm_vae/fig10", "gmrf_mcvae/table3-biked"):  # on the same data alike
        assert rows[name].endswith("needs your files")
    assert rows["gmrf_mcvae/table2"].split()[-2:] == ["h", "ready"]
    for word in ("covae", "gmrf_mcvae", "gmrf"):
        one = call(capsys, "list", word)[1].splitlines()
        assert len(one) == 1 + sum(word in (a.paper, a.target.split("-")[0]) for a in artifacts().values())


def test_list_tells_what_is_recorded_from_what_is_ready(capsys: Capture, tmp_path: Path) -> None:
    for folder in ("gmrf_mcvae", "gmrf_mcvae/quick"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "table1.md").write_text("")
    out = call(capsys, "list", "gmrf", "--figures", str(tmp_path))[1]
    (line,) = [x for x in out.splitlines() if x.startswith("gmrf_mcvae/table1 ")]
    assert line.endswith("recorded paper,quick")
    (tmp_path / "gmrf_mcvae/overnight").mkdir()
    (tmp_path / "gmrf_mcvae/overnight/table1.md").write_text("")
    out = call(capsys, "list", "gmrf", "--figures", str(tmp_path))[1]
    (line,) = [x for x in out.splitlines() if x.startswith("gmrf_mcvae/table1 ")]
    assert line.endswith("recorded in every profile")
    assert max(map(len, call(capsys, "list")[1].splitlines())) <= 100


def test_list_as_json_has_titles_and_reasons(capsys: Capture, tmp_path: Path) -> None:
    entries = {e["name"]: e for e in json.loads(call(capsys, "list", "--json", "--figures", str(tmp_path))[1])}
    assert set(entries) == set(artifacts())
    assert all(entries[a.name]["title"] == a.title for a in artifacts().values())
    assert entries["sbm_vae/fig28"]["reason"] == "SoundNet subset, unpublished"
    assert entries["gmrf_mcvae/table1"]["recorded"] == []
    assert entries["gmrf_mcvae/table1"]["target"] == "gmrf-table1"


def test_without_a_command_it_says_what_one_can_do_next(capsys: Capture) -> None:
    code, out, error = call(capsys)
    assert (code, error) == (0, "")
    assert len(out.splitlines()) == 10
    for line in out.splitlines()[2:]:
        words = line.split("  ")[1].split()
        assert words[0] == "repro"
        assert words[1] in ("list", "show", "run", "weights", "data", "doctor", "--help")


@pytest.mark.parametrize("module", ["repro", "repro.cli"])
def test_it_runs_as_a_module(module: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout[:7]) == (0, "repro 0")


@pytest.mark.parametrize("name", ["covae-fig5", "covae-fig11", "gmrf-table1-sweep", "mrf-table4", "sbm-table6"])
def test_dry_run_rows_can_be_told_apart(name: str, capsys: Capture, tmp_path: Path) -> None:
    code, out, _ = call(capsys, "run", name, "--profile", "smoke", "--dry-run", "--runs", str(tmp_path))
    assert code == 0
    said = [line.split("  ", 1)[1] for line in out.splitlines()[:-1]]
    assert len(set(said)) == len(said) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "unknown command 'lst'; did you mean list?"),
        (["rnu", "gmrf-table1"], "unknown command 'rnu'; did you mean run?"),
        (
            ["qqqq"],
            "unknown command 'qqqq'; one of list, run, new, show, open, record, report, cite, claims, doctor, status",
        ),
        (["show", "gmrf"], "'gmrf' is a paper, not one of its artifacts; `repro list gmrf` shows them"),
        (["list", "gmrf_mcvea"], "unknown paper 'gmrf_mcvea'; did you mean gmrf_mcvae"),
        (["run", "gmrf_mcvae/tabel1"], "gmrf_mcvae has no artifact 'tabel1'; did you mean gmrf_mcvae/table1 or "),
        (
            ["run", "gmrf-table1", "--profile", "quik"],
            "unknown profile 'quik'; one of paper, overnight, quick, smoke; did you mean quick",
        ),
        (
            ["show", "gmrf-table1", "--profile", "papre"],
            "unknown profile 'papre'; one of paper, overnight, quick, smoke; did you mean pap",
        ),
        (["run", "gmrf-table1", "--executor", "lcoal"], "unknown choice 'lcoal'; did you mean local?"),
        (
            ["run", "gmrf-table1", "--precision", "Auto"],
            "--precision is 'Auto', must be one of auto, float32, bfloat16",
        ),
        (["status", "gmrf-table1", "--precision", ""], "--precision is '', must be one of auto, float32, bfloat16"),
        (["run", "gmrf-table1", "--seeds", "two"], "invalid int value: 'two'"),
        (["run", "gmrf-table1", "--seeds", "0"], "--seeds is 0, must be at least 1"),
        (["run", "gmrf-table1", "--workers", "0"], "--workers is 0, must be at least 1"),
        (["run", "gmrf-table1", "--sedes", "3"], "unrecognized arguments: --sedes 3"),
        (["run", "gmrf-fig1"], "gmrf_mcvae/fig1 is a drawing of the method, not computed"),
        (["run", "sbm-fig28"], "sbm_vae/fig28 cannot be computed: SoundNet subset, unpublished"),
        (["cite", "gmrf_mcvae/tabel1"], "did you mean gmrf_mcvae/table1"),
        (["show", "covae/fig55"], "covae has no artifact 'fig55'; did you mean covae/fig"),
    ],
)
def test_wrong_calls(arguments: list[str], message: str, capsys: Capture) -> None:
    assert message in refused(capsys, *arguments)


def test_a_plan_says_what_has_a_committed_record_and_whose_files_are_not_here(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, "run", "gmrf-table1", "--dry-run", "--runs", str(tmp_path))
    *rows, total = out.splitlines()
    assert code == 0
    assert len(rows) == 15
    assert all("  to run    " in row and row.endswith("; a record is in figures/") for row in rows)
    assert "15 runs, 0 recorded" in total
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    monkeypatch.delenv("REPRO_MIRROR", raising=False)
    code, out, _ = call(capsys, "run", "sbm-table1", "--dry-run", "--runs", str(tmp_path))
    *rows, missing, _ = out.splitlines()
    assert code == 0
    assert not any("figures/" in row for row in rows)
    assert missing.startswith("celebamask_hq: data not available: `repro data fetch celebamask_hq` says where")
    monkeypatch.setenv("REPRO_MIRROR", str(tmp_path / "nowhere"))
    code, out, _ = call(capsys, "run", "sbm-table1", "--dry-run", "--runs", str(tmp_path))
    assert code == 0
    assert "data not available" not in out


def test_dry_run_prints_the_runs_and_starts_nothing(capsys: Capture, smoke: Smoke, tmp_path: Path) -> None:
    command = ["run", "gmrf-table1", "--profile", "smoke", "--dry-run", "--workers", "2"]
    code, out, error = call(capsys, *command, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"))
    assert (code, error) == (0, "")
    lines = out.splitlines()
    specs = unique(plan(find("gmrf_mcvae/table1"), "smoke"))
    assert [line.split()[0] for line in lines[:-1]] == [s.key for s in specs]
    assert all(" to run " in line for line in lines[:-1])
    assert lines[-1].startswith("gmrf_mcvae/table1, profile smoke: 10 runs, 0 recorded; about ")
    assert lines[-1].endswith(" GB on 2 cores")
    assert list(tmp_path.iterdir()) == []
    out = call(capsys, *command, "--seeds", "1", "--runs", str(smoke.runs))[1]
    assert "5 runs, 5 recorded; about 0 s and 0.0 GB" in out


def test_show_prints_tables_and_names_pictures(capsys: Capture, smoke: Smoke, tmp_path: Path) -> None:
    folders = ["--runs", str(smoke.runs), "--results", str(smoke.results)]
    code, out, _ = call(capsys, "show", "gmrf-table1", "--profile", "smoke", *folders)
    assert code == 0
    value = smoke.record("mvae").metric("test/unconditional/mean/histogram/mean").value
    (row,) = (line for line in out.splitlines() if line.split()[:3] == ["Unconditional", "Mean", "2.9"])
    assert row.split()[3:] == [f"{value:.2f}", "(n", "=", "1)"]
    assert out.splitlines()[-1].endswith("table1.tex")
    assert "figures" not in out.splitlines()[-1]
    message = refused(capsys, "show", "gmrf-table1", "--figures", str(tmp_path))
    assert (
        "gmrf_mcvae/table1 has no runs in the profile paper, neither recorded nor yours; `make gmrf-table1` " in message
    )
    message = refused(capsys, "show", "gmrf-table2", "--figures", str(tmp_path), "--profile", "quick")
    assert "`make gmrf-table2 PROFILE=quick` makes them" in message
    code, out, _ = call(capsys, "show", "gmrf-table4")
    assert code == 0
    assert (Path(cli.__file__).parents[2] / "figures" / "gmrf_mcvae" / "table4.md").read_text() in out
    code, out, _ = call(capsys, "show", "gmrf-fig2")
    assert [Path(line).name for line in out.splitlines()] == ["fig2.pdf", "fig2.png"]


def test_failed_runs_are_named_and_end_in_1(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_data(self: Copula, spec: object) -> None:
        raise OSError("the data is\nnot there")

    monkeypatch.setattr(Copula, "load", no_data)
    options = ["--profile", "smoke", "--seeds", "1", "--executor", "inline", "--device", "cpu"]
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    code, out, error = call(capsys, "run", "gmrf-table1", *options, *folders)
    assert (code, out) == (1, "")
    last = error.splitlines()[-1]
    assert last.startswith("repro: 5 of 5 runs failed: gmrf_mcvae/")
    assert last.count("gmrf_mcvae/") == 5
    assert last.count(": the data is not there") == 1  # a reason is told once
    assert not (tmp_path / "results").exists()


def test_folder_that_cannot_be_written_to_ends_in_1(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    options = ["--profile", "smoke", "--executor", "inline", "--runs", str(tmp_path / "file" / "runs")]
    code, out, error = call(capsys, "run", "gmrf-table1", *options)
    assert (code, out) == (1, "")
    assert error.count("\n") == 1
    assert "Not a directory" in error
    assert (tmp_path / "file").read_text() == "kept"


def test_long_work_is_not_started_on_a_cpu(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro.cli.run.MOST_CPU_SECONDS", 60.0)
    code, _, error = call(capsys, "run", "gmrf-table1", "--device", "cpu", "--workers", "1", "--runs", str(tmp_path))
    assert code == 2
    assert "would take about " in error.splitlines()[-1]
    assert error.splitlines()[-1].endswith("here; use PROFILE=quick, a GPU, or --long")
    assert list(tmp_path.iterdir()) == []


def test_interrupt_ends_in_130(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("repro.cli.list.list_artifacts", interrupt)
    assert call(capsys, "list") == (130, "", "repro: interrupted\n")
    monkeypatch.setattr("repro.cli.run.run", interrupt)
    code, _, error = call(capsys, "run", "gmrf-table1")
    assert code == 130
    assert error == "repro: interrupted; the same command continues from the last epochs, where there are any\n"


def test_cite_for_biblatex_differs_in_the_packages_own_entry_alone(capsys: Capture) -> None:
    outs = [call(capsys, "cite", "gmrf_mcvae", *option)[1] for option in ([], ["--biblatex"])]
    papers, own = zip(*(out.split("@misc{repro,") for out in outs[:1]), strict=True)
    assert outs[1].startswith(papers[0])
    assert outs[1].removeprefix(papers[0]).startswith("@software{repro,")
    assert "howpublished = {Software}" in own[0]
    kinds = {line.split("{")[0] for line in outs[0].splitlines() if line.startswith("@")}
    assert kinds <= {"@article", "@inproceedings", "@book", "@misc"}  # what BibTeX's plain style knows


@pytest.mark.parametrize("name", ["gmrf_mcvae", "gmrf", "gmrf_mcvae/table2", "gmrf-table1"])
def test_cite(name: str, capsys: Capture) -> None:
    code, out, _ = call(capsys, "cite", name)
    assert code == 0
    assert out == cite(name)
    package = importlib.resources.files("repro.papers.gmrf_mcvae")
    assert (package / "citation.bib").read_text().strip() in out
    assert "@misc{repro," in out
    assert "version 0." in out
    data = {
        "gmrf_mcvae": ["copula", "polymnist", "biked"],
        "gmrf": ["copula", "polymnist", "biked"],
        "gmrf_mcvae/table2": ["polymnist"],
        "gmrf-table1": ["copula"],
    }
    for dataset in data[name]:
        assert load_card(dataset).citations
        assert all(out.count(f"{{{key},") == 1 for key in load_card(dataset).citations)
    assert out.count("{") == out.count("}")
    assert len({line for line in out.splitlines() if line.startswith("@")}) == sum(
        line.startswith("@") for line in out.splitlines()
    )


def test_doctor(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "elsewhere"))
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines()]
    assert {"commit", "dirty", "python", "versions", "device", "threads", "cores", "bfloat16", "runs"} <= set(names)
    assert "torch 2." in out
    assert str(tmp_path / "elsewhere") in out


def test_folders_that_are_none_are_named(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in no folder would be called not run."""
    absent, file = tmp_path / "absent", tmp_path / "file"
    file.write_text("x")
    monkeypatch.setenv("REPRO_FIGURES", str(absent))
    for words in (["claims", "gmrf"], ["show", "gmrf-table1"], ["list"]):
        assert call(capsys, *words) == (2, "", f"repro: there is no folder {absent}, which REPRO_FIGURES names\n")
    assert not absent.exists()
    monkeypatch.delenv("REPRO_FIGURES")
    monkeypatch.setenv("REPRO_RUNS", str(file))
    for words in (["status", "gmrf-table1"], ["run", "gmrf-table1", "--profile", "smoke"], ["show", "gmrf-table1"]):
        code, _, error = call(capsys, *words)
        assert (code, error) == (
            2,
            f"repro: {file} is a file, a folder of runs is needed: --runs or REPRO_RUNS names another\n",
        )


def test_hints_name_make_in_the_checkout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = find("gmrf-table1")
    monkeypatch.chdir(Path(__file__).parents[2])
    assert artifact.command("quick") == "make gmrf-table1 PROFILE=quick"
    assert artifact.command("overnight") == "make gmrf-table1 PROFILE=overnight ARGS=--long"
    monkeypatch.chdir(tmp_path)
    assert artifact.command("quick") == "repro run gmrf-table1 --profile quick"
    assert artifact.command("overnight") == "repro run gmrf-table1 --profile overnight --long"

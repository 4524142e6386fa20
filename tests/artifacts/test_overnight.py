"""The queue of nights: its schedule, a kill at any moment, a second queue, what fails, what waits, a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from repro.artifacts import schedule
from repro.artifacts.inventory import find
from repro.artifacts.planning import Measured, read_measured
from repro.artifacts.render import divergence_path, plan, unique
from repro.artifacts.schedule import Planned, Step, plan_steps, read_steps, render_steps
from repro.cli import overnight
from repro.cli.main import main
from repro.engine.locks import RunLock
from repro.engine.progress import makespan
from repro.engine.store import RunStore, write_atomically
from repro.errors import NotOfferedError, UsageError
from repro.records import Divergence, RunSpec
from tests.support.toy import call, environment, fill, repro_command, same_result, small_disk

if TYPE_CHECKING:
    from tests.support.runs import Smoke

pytest_plugins = ["tests.support.runs"]

TABLE = "gmrf_mcvae/table1"
# Real runs in the size of tests; the second step has no run that the first has not.
STEPS = f"""
[[step]]
part = "1. The copula"
artifact = "{TABLE}"
profile = "smoke"
seeds = 1
[[step]]
artifact = "gmrf_mcvae/fig2"
profile = "smoke"
"""
SPECS = unique(plan(find(TABLE), "smoke", 1))
MOST_HOURS = 12.0
FIGURES = Path(__file__).resolve().parents[2] / "figures"


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    path = tmp_path / "steps.toml"
    path.write_text(STEPS)
    return path


def arguments(steps: Path, runs: Path, *more: str) -> list[str]:
    return ["overnight", "--schedule", str(steps), "--runs", str(runs), "--device", "cpu", "--workers", "1", *more]


def until(what: object, seconds: float = 300.0) -> None:
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def recorded(runs: Path) -> list[RunSpec]:
    return [s for s in SPECS if (RunStore(runs).directory(s) / "record.json").exists()]


def test_schedule_has_the_steps_that_the_package_can_run_in_a_night_each() -> None:
    steps = read_steps()
    parts = [int(s.part.split(".")[0]) for s in steps]
    assert parts == sorted(parts)
    assert set(parts) == {1, 2, 3, 4, 5, 6, 7, 8}
    seen: set[RunSpec] = set()
    measured = read_measured(RunStore(FIGURES / "none"), FIGURES)
    for step in steps:
        try:
            specs = unique(plan(find(step.artifact), step.profile, step.seeds))
        except NotOfferedError:
            assert step.artifact.startswith("mrf_mvae/")
            continue
        own = [s for s in specs if s not in seen]
        seen.update(own)
        nights = (step.seeds or 2) - 1  # further seeds are a night each
        hours = makespan([measured.cost(s).seconds for s in own], 2) / 3600
        assert hours <= MOST_HOURS * nights, step.label
        assert {s.profile for s in specs} == {step.profile}
        for spec in specs:
            training = spec.params["training"]
            pilot = spec.params["evaluation"].get("split") == "validation"  # a fixed number of epochs each
            if spec.paper != "pretrained" and step.profile == "overnight" and not pilot:
                assert training["patience"] >= 1, spec.label
    for paper, number in {"covae": 8, "compare": 14}.items():
        own = [s for s in seen if s.paper == paper and s.dataset == "correlated_mnist" and s.profile == "overnight"]
        assert len({s.method for s in own}) == number
    assert {s.params["data"]["modalities"] for s in seen if s.dataset == "extended_polymnist"} == {2, 3, 4, 5}
    assert {s.seed for s in seen if s.dataset in ("polymnist", "biked_rendered", "extended_polymnist")} == {0, 1, 2}
    trained = {(s.params["training"]["epochs"], s.params["training"]["decay"]) for s in seen if s.method == "vaegan"}
    assert trained == {(36, 0.92)}


@pytest.mark.slow
def test_killed_at_any_moment_it_continues_and_repeats_no_record(steps: Path, tmp_path: Path, smoke: Smoke) -> None:
    runs, kills = tmp_path / "runs", 0
    # The last run has another owner until both kills are done: no queue comes to its end before, however fast it is.
    directory = RunStore(runs).directory(SPECS[-1])
    directory.mkdir(parents=True)
    lock = RunLock(directory)
    lock.acquire()
    for number in (1, 3):
        queue = subprocess.Popen(
            repro_command(*arguments(steps, runs)), env=environment(), stderr=subprocess.PIPE, start_new_session=True
        )
        until(lambda number=number: len(recorded(runs)) >= number)
        os.killpg(queue.pid, signal.SIGKILL)
        queue.communicate()
        kills += queue.returncode == -signal.SIGKILL
    assert kills == 2
    lock.release()
    before = {s: (RunStore(runs).directory(s) / "record.json").read_bytes() for s in recorded(runs)}
    assert 3 <= len(before) < len(SPECS)
    done = call(*arguments(steps, runs))
    assert done.returncode == 0, done.stderr
    assert f"{len(SPECS)} runs, {len(before)} recorded" in done.stderr
    assert "5 runs recorded" in done.stdout
    for spec in SPECS:
        assert same_result(RunStore(runs).record(spec), smoke.store.record(spec))
    assert {s: (RunStore(runs).directory(s) / "record.json").read_bytes() for s in before} == before
    again = call(*arguments(steps, runs))  # nothing is left to do
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.slow
def test_second_queue_on_the_same_runs_is_refused(steps: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    queue = subprocess.Popen(
        repro_command(*arguments(steps, runs)), env=environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        until(lambda: (runs / "gmrf_mcvae").exists())
        os.killpg(queue.pid, signal.SIGSTOP)  # so that it holds its runs however fast this machine is
        second = call(*arguments(steps, runs))
        assert second.returncode == 2
        assert second.stderr.startswith(f"repro: a queue on {runs} is being executed by another process")
        assert second.stderr.count("\n") == 1
        assert call(*arguments(steps, runs, "--dry-run")).returncode == 0  # to look is allowed
        other = call(*arguments(steps, tmp_path / "other", "--max-minutes", "0.001"))
        assert other.returncode == 75
        assert "0 of 5 runs recorded; the same command continues" in other.stderr
        assert queue.poll() is None
    finally:
        queue.terminate()
        os.killpg(queue.pid, signal.SIGCONT)
        _, said = queue.communicate()
    assert queue.returncode == 75  # stopped as asked, with checkpoints
    assert "stopped by SIGTERM" in said.decode()


@pytest.mark.slow
def test_a_failure_stops_no_other_run_and_is_told_at_the_end(steps: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs")
    store.directory(SPECS[1]).mkdir(parents=True)
    (store.directory(SPECS[1]) / "spec.json").write_text("no specification")
    done = call(*arguments(steps, store.root))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"repro: 1 of 5 runs failed: {SPECS[1].label}: ")
    assert "not JSON" in last
    assert set(recorded(store.root)) == set(SPECS) - {SPECS[1]}


@pytest.mark.slow
def test_full_disk_is_one_line_and_nothing_is_lost(steps: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 20_000) as disk:
        filling = fill(disk, leave=60)
        done = call(*arguments(steps, disk / "runs"))
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"repro: the disk of {disk / 'runs'} is full; ")
        assert last.endswith("nothing is lost; make space and start again")
        assert done.stderr.count("No space left on device") <= 2  # not once for every run
        filling.unlink()
        done = call(*arguments(steps, disk / "runs"))
        assert done.returncode == 0, done.stderr
        assert len(recorded(disk / "runs")) == len(SPECS)


def test_a_step_waits_until_what_its_data_need_has_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schedule, "package_folder", lambda: tmp_path)
    steps = [
        Step("pretrained/vaegan", profile="smoke", ships=["decoder"]),
        Step("covae/fig7", profile="smoke", after=["decoder"]),
        Step("gmrf_mcvae/fig2", profile="smoke"),
    ]
    store, manifest = RunStore(tmp_path / "runs"), tmp_path / "manifest.toml"
    vaegan = unique(plan(find("pretrained/vaegan"), "smoke"))[0]
    for key, waits in (("0" * 16, True), (vaegan.key, False)):
        manifest.write_text(f'[decoder]\nrecord = "{key}"\n')
        planned = plan_steps(steps, store)
        assert [bool(p.waits) for p in planned] == [False, waits, False]
        assert all(p.todo for p in planned)
        text = render_steps(planned, Measured([]), 2)
        line = (
            f"covae/fig7 (smoke) cannot start yet: its data need decoder of {vaegan.label}: ship it, then start again"
        )
        assert (line in text.splitlines()) == waits
    # One that has no such profile waits too, and the others go on.
    (unoffered,) = plan_steps([Step(TABLE)], store)
    assert unoffered.waits == f"{TABLE} has no profile 'overnight'; it has paper, quick, smoke"


def test_what_is_on_record_is_left_out_unless_it_has_yet_to_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(tmp_path / "runs")
    step = Step("mrf_mvae/table4")
    (again,), (rest,) = plan_steps([step], store), plan_steps([step], store, FIGURES)
    done = {s for s in again.specs if (FIGURES / "mrf_mvae/records" / f"{s.key}.json").exists()}
    assert done
    assert set(again.todo) - set(rest.todo) == done
    assert again.specs == rest.specs
    path = tmp_path / "steps.toml"
    path.write_text('[[step]]\nartifact = "mrf_mvae/table4"\n')
    for more, recorded in (([], len(done)), (["--again"], 0)):
        call = ["overnight", "--schedule", str(path), "--runs", str(store.root), "--figures", str(FIGURES), "--dry-run"]
        assert main([*call, *more]) == 0
        (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("mrf_mvae/table4"))
        assert line.split()[2:4] == [str(len(again.specs)), str(recorded)]
    # So is a training that diverged: it is not tried again each night.
    lost, figures = again.specs[0], tmp_path / "figures"
    note = Divergence(lost, "epoch 1 of 2: the loss is not finite", {"commit": "a" * 40, "dirty": False})
    write_atomically(divergence_path(lost, figures), note.to_json())
    (rest,) = plan_steps([step], store, figures)
    assert set(again.todo) - set(rest.todo) == {lost}
    # A building block is shipped from its run's own directory.
    step = Step("pretrained/vaegan", profile="quick", ships=["decoder"])
    (vaegan,) = unique(plan(find(step.artifact), step.profile))
    monkeypatch.setattr(schedule, "package_folder", lambda: tmp_path)
    for key, todo in (("0" * 16, [vaegan]), (vaegan.key, [])):
        (tmp_path / "manifest.toml").write_text(f'[decoder]\nrecord = "{key}"\n')
        (planned,) = plan_steps([step], store, FIGURES)
        assert planned.todo == todo


@pytest.mark.slow
def test_waiting_steps_are_told_after_the_others_have_run(tmp_path: Path) -> None:
    path = tmp_path / "steps.toml"
    path.write_text(f'{STEPS}\n[[step]]\nartifact = "{TABLE}"\n')
    runs = tmp_path / "runs"
    done = call(*arguments(path, runs))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{TABLE} (overnight) cannot start yet: {TABLE} has no profile 'overnight'; it has paper, quick, smoke",
        "5 runs recorded; `repro run ID --profile smoke` renders each table and figure",
    ]


@pytest.mark.parametrize(
    ("profiles", "said"),
    [
        (["smoke", "smoke"], "--profile smoke` renders each table and figure"),
        (["paper", "quick"], "--profile P` renders each table and figure, P being its step's: paper or quick"),
    ],
)
def test_the_last_line_names_the_steps_profiles(
    profiles: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = Planned(Step(TABLE, profile="overnight"), waits="a reason")
    overnight._say_what_is_left([*(Planned(Step(TABLE, profile=p)) for p in profiles), waiting], 5)
    assert capsys.readouterr().out.splitlines()[-1] == f"5 runs recorded; `repro run ID {said}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step = 3", "is not a schedule"),
        ("[[step]]\n", "is not a schedule"),
        ("[[step]]\nartefact = 'x'", "is not a schedule"),
        ("[[", "is not a schedule"),
        ("[[step]]\nartifact = 3", "steps.toml: step 1: artifact is 3, must be text"),
        (f"[[step]]\nartifact = '{TABLE}'\nprofile = 1", "step 1: profile is 1, must be text"),
        (f"[[step]]\nartifact = '{TABLE}'\nships = 'x'", "step 1: ships is 'x', must be a list of names"),
        (f"[[step]]\nartifact = '{TABLE}'\nafter = [1]", "step 1: after is [1], must be a list of names"),
        *(
            (f"[[step]]\nartifact = '{TABLE}'\nseeds = {seeds}", "seeds is ")
            for seeds in ("'a'", "1.5", "true", "0", "[1]")
        ),
        ("[[step]]\nartifact = 'gmrf_mcvae/table99'", "gmrf_mcvae has no artifact 'table99'"),
        ("[[step]]\nartifact = 'gmrf_mcvae/table1'\nprofile = 'night'", "unknown profile 'night'"),
        ("[[step]]\nartifact = 'covae/fig5'\nafter = ['vaegan-decoder']", "after vaegan-decoder, which no step before"),
    ],
)
def test_schedules_that_are_none(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "steps.toml"
    path.write_text(text)
    assert main(["overnight", "--schedule", str(path), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_wrong_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overnight", "--workers", "0"]) == 2
    assert "--workers is 0, must be at least 1" in capsys.readouterr().err
    assert main(["overnight", "--max-minutes", "0"]) == 2
    assert "--max-minutes is 0.0, must be positive" in capsys.readouterr().err
    with pytest.raises(UsageError, match="cannot read"):
        read_steps(tmp_path / "none.toml")

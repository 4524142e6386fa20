"""Progress: what is done counts by its cost, the time left follows what was measured, and every worker is named."""

from __future__ import annotations

import pytest

from repro.engine.progress import EVALUATION_SHARE, Progress, duration, makespan
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.records import RunSpec


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def entry(epoch: int, epochs: int = 0, stage: str = "train", loss: float = 1.23456) -> dict[str, object]:
    return {"stage": stage, "epoch": epoch, "epochs": epochs, "loss": loss}


def spec(method: str = "mvae", epochs: int = 4) -> RunSpec:
    return copula_spec(method, 0, "smoke", epochs=epochs)


def test_runs_weigh_by_their_cost() -> None:
    cheap, dear = spec("mvae"), spec("mmvae")
    progress = Progress([cheap, dear], {cheap: 10.0, dear: 30.0}.__getitem__)
    assert progress.share == 0
    progress.epoch(cheap, entry(2, 4))
    progress.finished(cheap, None)
    assert progress.share == pytest.approx(0.25)
    progress.epoch(dear, entry(1, 4))
    progress.epoch(dear, entry(2, 4))
    assert progress.share == pytest.approx(0.25 + 0.75 * (1 - EVALUATION_SHARE) / 2)
    progress.epoch(dear, entry(2, 4))  # an epoch that is repeated after an interruption counts once
    assert progress.share == pytest.approx(0.25 + 0.75 * (1 - EVALUATION_SHARE) / 2)
    progress.finished(dear, "the disk is full")
    assert progress.share == 1


def test_a_stage_that_the_specification_does_not_tell_of_counts_too() -> None:
    run = spec(epochs=3)
    progress = Progress([run], lambda s: 1.0)
    progress.epoch(run, entry(1, 7, "first"))
    assert progress.share == pytest.approx((1 - EVALUATION_SHARE) / 7)
    progress.epoch(run, entry(7, 7, "first"))
    progress.epoch(run, entry(1, 3, "second"))
    assert progress.share == pytest.approx((1 - EVALUATION_SHARE) * 8 / 10)


def test_the_time_left_is_the_estimate_before_anything_was_measured() -> None:
    runs = [copula_spec("mvae", s, "smoke") for s in range(3)]
    assert Progress(runs, lambda s: 60.0, workers=2, clock=Clock()).remaining == pytest.approx(120.0)


@pytest.mark.parametrize("slower", [0.25, 1.0, 8.0])
def test_the_time_left_follows_what_was_measured(slower: float) -> None:
    """On a machine that is slower or faster than estimated, two workers on runs of equal cost."""
    clock, runs = Clock(), [copula_spec("mvae", s, "smoke", epochs=10) for s in range(4)]
    progress = Progress(runs, lambda s: 100.0, workers=2, clock=clock)
    for epoch in range(1, 6):
        clock.now += 10 * (1 - EVALUATION_SHARE) * slower
        for run in runs[:2]:
            progress.epoch(run, entry(epoch, 10))
    left = (100 + 100 - 50 * (1 - EVALUATION_SHARE)) * slower
    assert progress.remaining == pytest.approx(left, rel=0.01)


def test_what_an_earlier_process_did_does_not_make_this_one_look_fast() -> None:
    clock, run = Clock(), spec(epochs=100)
    progress = Progress([run], lambda s: 100.0, clock=clock)
    for epoch in range(91, 96):
        clock.now += 10
        progress.epoch(run, entry(epoch, 100))
    assert progress.share == pytest.approx(0.95 * (1 - EVALUATION_SHARE))
    assert progress.remaining == pytest.approx((100 - 95 * 0.95) * 10 / 0.95, rel=0.05)


def test_plain_lines_come_every_so_often_and_name_each_worker(capsys: pytest.CaptureFixture[str]) -> None:
    clock, one, other = Clock(), spec("mvae"), spec("mmvae")
    progress = Progress([one, other], lambda s: 50.0, workers=2, clock=clock)
    progress.began(one)
    progress.began(other)
    clock.now += 29
    progress.epoch(one, entry(1, 4))
    assert capsys.readouterr().err == ""
    clock.now += 1
    progress.tick()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("     30 s  12% of the work, 30 s elapsed, ")
    assert " left, 0 of 2 runs done" in lines[0]
    assert lines[1].strip() == f"{one.label}: train, epoch 1 of 4, loss 1.235"
    assert lines[2].strip() == f"{other.label}: starts"
    progress.tick()
    assert capsys.readouterr().err == ""
    progress.retried(other, "its process ended")
    progress.finished(one, None)
    progress.finished(other, "the disk is full")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("its process ended; it is tried once more")
    assert lines[1].endswith(f"[1/2] {one.label}: recorded")
    assert lines[2].endswith("the disk is full")
    progress.close()


def test_a_terminal_shows_share_time_and_workers_in_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    clock, one, other = Clock(), spec("mvae"), spec("mmvae")
    progress = Progress([one, other], lambda s: 50.0, workers=2, clock=clock)
    progress.began(one)
    progress.began(other)
    clock.now += 10
    progress.epoch(one, entry(2, 4))
    text = capsys.readouterr().err
    assert "24%" in text
    assert "10 s elapsed" in text
    assert "epoch 2 of 4" in text
    assert f"{other.label}: starts" in text
    progress.finished(one, None)
    progress.close()
    assert "recorded" in capsys.readouterr().err


def test_nothing_to_do_is_done() -> None:
    progress = Progress([])
    assert (progress.share, progress.remaining) == (1.0, 0.0)


def test_makespan_and_durations() -> None:
    assert makespan([3, 3, 2, 2, 2], 2) == 7
    assert makespan([], 2) == 0
    assert [duration(x) for x in (0, 89, 2400, 19080, 3.6e6)] == ["0 s", "89 s", "40 min", "5.3 h", "1,000.0 h"]

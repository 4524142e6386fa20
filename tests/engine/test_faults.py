"""A small fault campaign; `make faults` is the whole one."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.faults import Campaign, fill
from tests.support.toy import environment, small_disk

pytestmark = pytest.mark.slow

KINDS = (
    "SIGKILL at a random moment",
    "full disk during checkpoint",
    "full disk during record",
    "read-only results folder",
    "damaged checkpoint",
    "both checkpoints damaged (refused, then begun anew)",
    "record edited by hand (refused)",
    "clock that jumps",
    "two machines on one run at once",
    "machine lost, its run taken over, and back",
    "out of memory (half the batch is proposed, not taken)",
)


def test_every_kind_of_fault_is_survived() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.faults", "--kills", "6", "--others", "1", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["fault", "tried", "survived", "lost"]
    found = {" ".join(words[:-3]): [int(w) for w in words[-3:]] for words in map(str.split, rows)}
    assert list(found) == [*KINDS, "all"]
    assert found.pop("SIGKILL at a random moment") == [6, 6, 0]
    assert found.pop("all") == [16, 16, 0]
    assert set(map(tuple, found.values())) == {(1, 1, 0)}


def test_campaign_counts_what_is_lost(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, random.Random(0))

    def failing() -> bool:
        raise OSError("gone")

    for attempt in (lambda: True, lambda: False, failing):
        campaign.trial("a fault", attempt)
    assert campaign.table().splitlines()[1].split() == ["a", "fault", "3", "1", "2"]
    assert campaign.table().splitlines()[-1].split() == ["all", "3", "1", "2"]
    assert campaign.errors == ["a fault: not the record of the run without a fault", "a fault: OSError: gone"]


def test_small_disk_is_full_when_it_is_filled(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 500) as disk:
        filling = fill(disk, leave=8)
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(b"1" * 20_000)
        filling.unlink()
        (disk / "more").write_bytes(b"1" * 20_000)
    assert not (tmp_path / "disk" / "more").exists()

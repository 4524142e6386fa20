"""Fixtures of the tests that start processes and daemons."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.slurm import Slurm, missing_programs
from tests.support.toy import environment

__all__ = ["slurm", "toy_paper"]


@pytest.fixture
def toy_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started by the tested code know the toy paper."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """The cluster, with SLURM_CONF set for whoever calls its commands."""
    if missing := missing_programs():
        text = (
            f"NOTHING OF SLURM IS TESTED HERE: {', '.join(missing)} not installed; "
            "apt-get install --no-install-recommends slurm-wlm munge"
        )
        (pytest.fail if os.environ.get("REPRO_SLURM") == "required" else pytest.skip)(text)
    cluster = Slurm(Path(tempfile.mkdtemp(prefix="slurm")))  # a socket's path is short, pytest's folders may not be
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.configuration))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
            shutil.rmtree(cluster.folder, ignore_errors=True)

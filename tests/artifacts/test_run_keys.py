"""Every run that was ever planned keeps its key: records, run directories and published weights are found by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro.artifacts.inventory import artifacts
from repro.artifacts.render import plan
from repro.errors import UsageError
from repro.records import PROFILES, RunSpec

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "tests" / "data" / "run_keys.json"
PLANNED = [a for a in artifacts().values() if a.built and a.kind not in "DX"]


def planned_keys() -> dict[str, dict[str, list[str]]]:
    """Keys of all runs, by profile and artifact, each once, sorted."""
    found: dict[str, dict[str, list[str]]] = {}
    for profile in PROFILES:
        for artifact in PLANNED:
            try:
                rows = plan(artifact, profile)
            except UsageError:
                continue  # not every artifact has every profile
            if keys := sorted({s.key for specs in rows.values() for s in specs}):
                found.setdefault(profile, {})[artifact.name] = keys
    return found


HELD = json.loads(PATH.read_text())


@pytest.mark.parametrize("profile", HELD)
def test_planned_runs_keep_their_keys(profile: str) -> None:
    # A figure may come to show other runs; but what was planned is planned still, under the same key.
    now = {key for keys in planned_keys()[profile].values() for key in keys}
    lost = {name: sorted(set(keys) - now) for name, keys in HELD[profile].items()}
    assert {name: keys for name, keys in lost.items() if keys} == {}


def test_every_profile_of_before_is_held() -> None:
    assert {"paper", "quick", "smoke"} <= set(HELD)
    assert sum(len(keys) for keys in HELD["paper"].values()) > 1000


def test_committed_records_lie_under_their_keys() -> None:
    paths = sorted((ROOT / "figures").glob("*/records/*.json"))
    assert len(paths) > 100
    for path in paths:
        spec = RunSpec.from_dict(json.loads(path.read_text())["spec"], str(path))
        assert (spec.key, spec.paper) == (path.stem, path.parent.parent.name)


if __name__ == "__main__":  # adds what is planned now to what is held; nothing that is held is dropped
    for profile, rows in planned_keys().items():
        for name, keys in rows.items():
            before = HELD.setdefault(profile, {}).get(name, [])
            HELD[profile][name] = sorted({*before, *keys})
    PATH.write_text(json.dumps(HELD, indent=0) + "\n")

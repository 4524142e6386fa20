"""Records of data that have changed since: they stay readable, are told apart everywhere, and settle nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro.artifacts.claims import Claim, assess
from repro.artifacts.inventory import find
from repro.artifacts.render import Sources, export_records, missing_runs, plan, unique, unsettled
from repro.artifacts.schedule import Step, plan_steps
from repro.cli.main import main
from repro.datasets import former
from repro.datasets.card import Former, card_names, card_text, load_card, parse_card
from repro.datasets.former import changes, changes_of
from repro.engine.store import RunStore, sound_record, write_atomically
from repro.errors import RunError
from repro.papers.gmrf_mcvae.copula.experiment import copula_spec
from repro.records import Divergence, Metric, Record, RunSpec, provenance
from repro.weights.folder import package_folder

OLD, NEW, WHAT = "a" * 64, "b" * 64, "whose tail was another"
FIGURES = Path(__file__).resolve().parents[2] / "figures"
PLACE = {"commit": "0" * 40, "dirty": False, "device": "cpu", "device_name": "a machine", "versions": {"torch": "2"}}
PLACE |= {"training": {"dirty": False}}
METRIC = "test/unconditional/mean/histogram/mean"
SAID = f"data that have changed since: copula, {WHAT}"


@pytest.fixture(autouse=True)
def _changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copula as it would be if its data had changed."""
    card = replace(load_card("copula"), former=(Former(WHAT, frozenset({OLD})),))
    monkeypatch.setattr(former, "load_card", lambda name: card if name == "copula" else load_card(name))


def record(spec: RunSpec, digest: str, value: float = 1.0) -> Record:
    metrics = [Metric(METRIC, value, "1", 100, "as the test says")]
    return Record(spec, metrics, PLACE, {"copula/train": digest, "copula/test": NEW}, "0" * 64, 1.0, 1.0, [])


def spec_of(seed: int = 0) -> RunSpec:
    return copula_spec("mvae", seed, "paper")


def test_what_has_changed_is_known_by_the_hash_of_the_training_split() -> None:
    assert changes({"copula/train": OLD, "copula/test": NEW}) == {"copula": WHAT}
    assert changes({"copula/train": NEW, "mine/train": OLD}) == {}
    assert changes_of([{"copula/train": OLD}, {"copula/train": NEW}]) == f"1 of 2 runs is on {SAID}"
    assert changes_of([{"copula/train": NEW}]) == changes_of([]) == ""


def test_a_table_says_so_first_and_names_no_best_model() -> None:
    found = [record(spec_of(seed), OLD) for seed in range(2)]
    assert f"2 of 2 runs are on {SAID}" in provenance(found)
    assert unsettled("paper", found) == f"2 of 2 runs are on {SAID}"
    now = [record(spec_of(seed), NEW) for seed in range(2)]
    assert "changed since" not in provenance(now)
    assert unsettled("paper", now) == ""


class Lookup:
    def __init__(self, digest: str) -> None:
        self.digest = digest

    def record(self, spec: RunSpec) -> Record | None:
        value = (1.0 if spec.method == "gmrf_mcvae" else 2.0) + 0.01 * spec.seed
        return record(spec, self.digest, value) if spec.profile == "paper" and spec.dataset == "copula" else None

    def diverged(self, spec: RunSpec) -> str:
        return ""


@pytest.mark.parametrize(("digest", "verdict"), [(NEW, "reproduced"), (OLD, "inconclusive")])
def test_a_claim_is_not_settled_by_them(digest: str, verdict: str) -> None:
    rule = {"kind": "best", "row": "gmrf_mcvae", "better": "lower", "metrics": [METRIC]}
    claim = Claim(
        "gmrf_mcvae", "made-up", text="It is best", place="section 1", artifact="gmrf_mcvae/table1", rule=rule
    )
    found = assess(claim, Lookup(digest))
    assert found.verdict == verdict
    assert any("data that have changed since" in reason for reason in found.reasons) == (digest == OLD)


def keep(store: RunStore, found: Record) -> None:
    folder = store.directory(found.spec)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "record.json", found.to_json())


def test_a_committed_record_of_today_s_data_goes_before_a_run_directory_s_of_former_ones(tmp_path: Path) -> None:
    spec, own, other = spec_of(), RunStore(tmp_path / "own"), RunStore(tmp_path / "other")
    figures = tmp_path / "figures"
    sources = Sources(own, figures)
    keep(own, record(spec, OLD, 1.0))
    assert sources.record(spec).metric(METRIC).value == 1.0
    assert not sources.is_current(spec)
    keep(other, record(spec, NEW, 2.0))
    export_records([spec], other, figures)
    assert sources.record(spec).metric(METRIC).value == 2.0
    assert sources.is_current(spec)
    keep(own, record(spec, NEW, 3.0))  # recorded anew
    assert sources.record(spec).metric(METRIC).value == 3.0


def test_what_is_committed_of_today_s_data_stays_where_a_run_directory_has_former_ones(tmp_path: Path) -> None:
    spec, own, figures = spec_of(), RunStore(tmp_path / "own"), tmp_path / "figures"
    keep(own, record(spec, OLD, 1.0))
    export_records([spec], own, figures)
    assert Sources(None, figures).record(spec).metric(METRIC).value == 1.0
    keep(own, record(spec, NEW, 2.0))
    export_records([spec], own, figures)
    keep(own, record(spec, OLD, 1.0))
    export_records([spec], own, figures)
    assert Sources(None, figures).record(spec).metric(METRIC).value == 2.0


def test_a_divergence_on_today_s_data_takes_the_place_of_a_record_of_former_ones(tmp_path: Path) -> None:
    spec, own, figures = spec_of(), RunStore(tmp_path / "own"), tmp_path / "figures"
    keep(own, record(spec, OLD))
    export_records([spec], own, figures)
    own.discard(spec)
    note = Divergence(spec, "epoch 1 of 2: the loss is not finite", {"commit": "a" * 40, "dirty": False})
    write_atomically(own.directory(spec) / "diverged.json", note.to_json())
    export_records([spec], own, figures)
    sources = Sources(None, figures)
    assert sources.record(spec) is None
    assert sources.diverged(spec) == note.reason


def test_nothing_of_former_data_is_passed_on_or_counted_as_done(tmp_path: Path) -> None:
    spec, store = spec_of(), RunStore(tmp_path)
    keep(store, record(spec, OLD))
    assert store.record(spec) is not None
    assert store.current(spec) is None
    assert missing_runs([spec], store) == [spec]
    with pytest.raises(RunError, match=r"on data that have changed since \(copula, whose tail was another\); run it"):
        sound_record(spec, store)


def test_published_weights_of_former_data_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packaged = json.loads((package_folder() / "gmrf_mcvae/copula/record.json").read_text())["data"]["copula/train"]
    card = replace(load_card("copula"), former=(Former(WHAT, frozenset({packaged})),))
    monkeypatch.setattr(former, "load_card", lambda name: card if name == "copula" else load_card(name))
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert main(["run", "gmrf_mcvae/table1", "--from-weights", *places]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.endswith(f"cannot be measured again: its data have changed since (copula, {WHAT})")
    assert not list(tmp_path.rglob("record.json"))


def test_run_says_what_of_it_is_of_former_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = unique(plan(find("gmrf_mcvae/table1"), "smoke", 1))
    keep(RunStore(tmp_path), record(specs[0], OLD))
    command = ["run", "gmrf_mcvae/table1", "--profile", "smoke", "--seeds", "1", "--dry-run", "--runs", str(tmp_path)]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert told == f"gmrf_mcvae/table1: 1 of 1 runs is on {SAID}; to be run again\n"


@pytest.mark.parametrize(("digest", "left"), [(NEW, 4), (OLD, 5)])
@pytest.mark.parametrize("place", ["figures", "runs"])
def test_the_queue_records_them_anew(place: str, digest: str, left: int, tmp_path: Path) -> None:
    store, other = RunStore(tmp_path / "runs"), RunStore(tmp_path / "other")
    specs = unique(plan(find("gmrf_mcvae/table1"), "smoke", 1))
    keep(other, record(specs[0], digest))
    if place == "figures":
        export_records(specs, other, tmp_path / "figures")
    else:
        keep(store, record(specs[0], digest))
    (planned,) = plan_steps([Step("gmrf_mcvae/table1", profile="smoke", seeds=1)], store, tmp_path / "figures")
    assert (len(planned.specs), len(planned.todo)) == (5, left)


CARD = card_text("copula")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{what: x}", "former"),
        ("{what: x, sha256: []}", "'former' needs what has changed, and a list of sha256"),
        ("{what: '', sha256: [aa]}", "'former' needs what has changed, and a list of sha256"),
        ("{what: x, sha256: [aa]}", "sha256 'aa' is not 64 hexadecimal digits"),
        ("{what: x, sha256: aa}", "'former' needs what has changed, and a list of sha256"),
        ("{what: x, sha256: [aa], when: y}", "former"),
    ],
)
def test_malformed_cards(value: str, message: str) -> None:
    assert "\n  splits:\n" in CARD
    with pytest.raises(ValueError, match=message) as caught:
        parse_card(CARD.replace("\n  splits:\n", f"\n  former:\n  - {value}\n  splits:\n"), "copula")
    assert "\n" not in str(caught.value)


def test_training_data_of_equal_settings_are_one_or_known_as_former() -> None:
    found: dict[tuple[str, str], set[str]] = {}
    for path in FIGURES.glob("*/records/*.json"):
        read = json.loads(path.read_text())
        spec = read["spec"]
        settings = json.dumps([spec["paper"], spec["params"].get("data")], sort_keys=True)
        for place, digest in read["data"].items():
            dataset, _, split = place.partition("/")
            gone = {h for one in load_card(dataset).former for h in one.sha256}
            if split == "train" and digest not in gone:
                found.setdefault((place, settings), set()).add(digest)
    assert len(found) > 10
    assert {key: digests for key, digests in found.items() if len(digests) > 1} == {}


def test_no_card_states_a_hash_as_today_s_and_as_a_former_one() -> None:
    for name in card_names():
        card = load_card(name)
        today: set[Any] = {h for split in card.splits.values() for h in (split.sha256, *split.sha256_of.values())}
        assert not today & {h for one in card.former for h in one.sha256}

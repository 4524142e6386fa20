"""Tables and figures: the inventory, the smoke profile end to end, and the committed records with what they render."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from safetensors.numpy import load_file

from repro.artifacts.gallery import gallery, recorded_seeds, report
from repro.artifacts.inventory import Artifact, artifacts, find, nearest
from repro.artifacts.render import (
    Sources,
    estimate,
    is_unrecorded,
    missing_runs,
    output_folder,
    plan,
    render,
    state,
    unique,
)
from repro.artifacts.running import run
from repro.cli.main import main
from repro.engine.store import RunStore
from repro.errors import NotOfferedError, RecordError, RunError, UsageError
from repro.papers import paper, papers
from repro.papers.gmrf_mcvae.copula.experiment import LABELS
from repro.records import PROFILES, SHOWN, Record, RunSpec

PAPERS = [p.name for p in papers().values() if p.title]

if TYPE_CHECKING:
    from tests.support.runs import Smoke

pytest_plugins = ["tests.support.runs"]

FIGURES = Path(__file__).resolve().parents[2] / "figures"
BUILT = [a for a in artifacts().values() if a.built]
TABLES = [a for a in BUILT if a.kind in "TS"]

# Every numbered figure and table of the papers, and what stands beside them.
IDS = {
    "gmrf_mcvae": (
        6,
        9,
        [
            *(f"table1-{k}" for k in ("ablations", "baselines", "finalists", "sweep")),
            "table2-ablations",
            "table2-constant",
            "table2-sweep",
            "table3-biked",
            "fig4-biked",
            "overview",
            "scaling",
        ],
    ),
    "mrf_mvae": (9, 4, ["table4-ablations", "table4-sweep", "table4-features", "tails", "tails-sweep", "tails-fig"]),
    "sbm_vae": (37, 11, ["fig-nfe", "fig-mhd", "table5-ablations"]),
    "covae": (
        *(17, 3),
        [
            "tableD",
            "calibration",
            "multivae-nll",
            *(f"{a}-tcga" for a in ("table1", "table2", "table3", "fig9", "fig12", "fig13")),
        ],
    ),
}
KINDS = {
    "gmrf_mcvae": {"T": 12, "S": 5, "F": 5, "Q": 3, "D": 1},
    "mrf_mvae": {"T": 8, "S": 1, "F": 4, "Q": 5, "D": 1},
    "sbm_vae": {"T": 9, "S": 2, "F": 19, "Q": 14, "D": 1, "X": 6},
    "covae": {"T": 7, "S": 1, "F": 15, "Q": 4, "D": 2},
}
TOTALS = {"gmrf_mcvae": 26, "mrf_mvae": 19, "sbm_vae": 51, "covae": 29}


# Pictures of a dataset itself, which no model is trained for.
PAGES_OF_DATA = ("sbm_vae/fig2", "covae/fig13", "covae/fig13-tcga")

# The inventory


@pytest.mark.parametrize("name", PAPERS)
def test_every_table_and_figure_is_there(name: str) -> None:
    own = [a for a in artifacts().values() if a.paper == name]
    figures, tables, beside = IDS[name]
    expected = [f"fig{i + 1}" for i in range(figures)] + [f"table{i + 1}" for i in range(tables)] + beside
    assert sorted(a.id for a in own) == sorted(expected)
    assert len(own) == TOTALS[name]
    assert Counter(a.kind for a in own) == KINDS[name]


def test_entries_are_consistent() -> None:
    datasets = {p.stem for p in (FIGURES.parent / "data_cards").glob("*.md")}
    for a in artifacts().values():
        assert a.title
        assert (a.kind == "X") == bool(a.reason)
        assert not (a.built and a.kind in "DX")
        assert bool(a.cost) == a.built
        assert not a.built or set(a.data) <= datasets
        if a.same_as:
            source = find(a.same_as)
            assert (a.kind, a.data, a.built) == (source.kind, source.data, source.built)
    assert find("sbm_vae/table9").reason == "SoundNet subset, unpublished"
    assert find("covae/fig5").data == ("correlated_mnist",)
    assert find("mrf_mvae/table2").same_as == "gmrf_mcvae/table1"


# Whose paper profile takes two cores less than a night, or whose data are placed by hand; triples have none yet.
SHORT_OR_NEEDS_FILES = {"copula", "skewed_copula", "tcga_brca", "mlomics", "mhd", "celebamask_hq"}
SHORT = {"gmrf_mcvae/scaling", "sbm_vae/fig27", "pretrained/classifiers"}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_built_artifact_has_a_plan_and_no_other_has(profile: str) -> None:
    for a in artifacts().values():
        if a.built:
            try:
                specs = unique(plan(a, profile))
            except NotOfferedError:
                assert profile == "overnight"
                assert set(a.data) & SHORT_OR_NEEDS_FILES or a.name in SHORT, a.name
                continue
            assert all(s.profile == profile for s in specs)
            assert bool(specs) == bool(a.data) or a.name in PAGES_OF_DATA
            continue
        with pytest.raises(UsageError, match=r"not built yet|drawing|cannot be computed") as caught:
            plan(a, profile)
        assert a.name in str(caught.value)
        with pytest.raises(KeyError):
            paper(a.paper).plan(a.id, profile)


def test_find_by_name_and_by_make_target() -> None:
    for a in artifacts().values():
        assert find(a.name) is a
        assert find(a.target) is a
    assert find("gmrf-table1").name == "gmrf_mcvae/table1"
    assert len({a.target for a in artifacts().values()}) == len(artifacts())


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gmrf_mcvae/tabel1", "gmrf_mcvae/table1"),
        ("gmrf_mcvae/table1-sweeps", "gmrf_mcvae/table1-sweep"),
        ("gmrf-mcvae/table1", "gmrf_mcvae/table1"),
        ("gmrf-tabel1", "gmrf_mcvae/table1"),
        ("covae/fig99", "covae/fig9"),
    ],
)
def test_unknown_names_have_near_matches(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(name)
    message = str(caught.value)
    assert name.split("/")[-1] in message
    assert near in message.split("did you mean ")[1]
    assert "\n" not in message


def test_names_without_a_near_match_point_to_the_list() -> None:
    with pytest.raises(UsageError, match="unknown artifact 'zzz'; `repro list` shows all"):
        find("zzz")
    assert nearest("quik", PROFILES) == "; did you mean quick?"


# Shapes of stored samples by dataset and first part of the name.
SHAPES: dict[str, dict[str, list[tuple[int, ...]]]] = {
    "copula": {"": [(2000, 2)]},
    "skewed_copula": {"": [(4000, 2)]},
    "mnist": {"": [(100, 1, 28, 28)]},
    "mnist_triples": {"": [(10, 28, 28)]},
    "correlated_mnist": {"terms": [(20, 100)], "true": [(2, 1, 28, 28)], "": [(5, 2, 1, 28, 28)]},
    "tcga_brca": {"labels": [(70,)], "pca": [(70, 2)], "spearman": [(200,), (184,)]},
    "polymnist": {"": [(10, 3, 28, 28)]},
    "biked_rendered": {"": [(10, 1, 32, 32)]},
    "extended_polymnist": {"given": [(4, 10, 3, 28, 28)], "": [(10, 3, 28, 28)]},
}


def test_wrong_plans() -> None:
    with pytest.raises(
        UsageError, match=r"unknown profile 'papr'; one of paper, overnight, quick, smoke; did you mean paper"
    ):
        plan(find("gmrf_mcvae/table1"), "papr")
    with pytest.raises(UsageError, match="--seeds is 0, must be at least 1"):
        plan(find("gmrf_mcvae/table1"), "smoke", 0)


def test_what_is_not_built_is_refused() -> None:
    with pytest.raises(UsageError, match="covae/fig99 is not built yet; `repro list` shows what is"):
        plan(Artifact("covae", "fig99", "F", "A figure to come"), "quick")


def test_states(tmp_path: Path) -> None:
    assert state(find("gmrf_mcvae/fig1"), tmp_path) == "drawing, not computed"
    assert state(find("sbm_vae/fig32"), tmp_path) == "no public material: its weights are not published"
    unbuilt = Artifact("covae", "fig99", "F", "A figure to come")
    assert state(unbuilt, tmp_path) == "not built yet"
    table = find("gmrf_mcvae/table1")
    assert state(table, tmp_path) == "ready"
    for profile in ("paper", "smoke"):
        folder = output_folder(table, profile, tmp_path)
        folder.mkdir(parents=True)
        (folder / "table1.md").write_text("")
    assert state(table, tmp_path) == "rendered (paper, smoke)"
    assert state(find("gmrf_mcvae/table1-sweep"), tmp_path) == "ready"


def test_a_table_of_data_that_is_placed_by_hand_is_rendered_without_records(tmp_path: Path) -> None:
    table = find("sbm_vae/table8")
    assert table.unrecorded
    assert is_unrecorded(table, "paper", Sources(None, tmp_path))
    assert recorded_seeds(table, "paper", Sources(None, tmp_path)) is None
    (page,) = (p for p in render(table, "paper", tmp_path) if p.suffix == ".md")
    text = page.read_text()
    assert "0.853" in text  # published
    assert "data not available: `repro data fetch mhd`" in text
    assert state(table, tmp_path) == "ready"
    with pytest.raises(RunError, match="lacks the record"):
        recorded_seeds(table, "quick", Sources(None, tmp_path))
    one = unique(plan(table, "paper"))[0]
    with pytest.raises(RunError, match="lacks the records"):  # as soon as one run is recorded, all are asked for
        render(
            table,
            "paper",
            tmp_path,
            store=cast(
                RunStore,
                SimpleNamespace(
                    record=lambda s: SimpleNamespace(data={}) if s == one else None, divergence=lambda s: None
                ),
            ),
        )


def test_estimates_spread_runs_over_cores() -> None:
    specs = unique(plan(find("gmrf_mcvae/table1"), "paper"))
    (one, memory), (two, twice) = estimate(specs, 1), estimate(specs, 2)
    assert one / 2 <= two < 0.6 * one
    assert twice == 2 * memory


# The smoke profile, end to end


def data_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_table1_through_the_command_line(smoke: Smoke) -> None:
    assert smoke.code == 0
    folder = smoke.results / "gmrf_mcvae" / "smoke"
    text, latex = (folder / "table1.md").read_text(), (folder / "table1.tex").read_text()
    assert text in smoke.printed
    for label in LABELS.values():
        assert any(label in row.split("|")[1] for row in data_rows(text))
        assert label in latex
    assert "Noise floor: two true samples, N = 500" in text
    assert "Profile smoke; seeds 0; 5 records" in text
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") >= 3
    value = smoke.record("gmrf_mcvae").metric("test/unconditional/mean/histogram/mean").value
    rows = data_rows(text.split("Samples of the likelihood")[0])
    index = [r.split("|")[1].strip() for r in rows].index("GMRF MCVAE")
    assert f"{value:.2f}" in rows[index]
    assert f"0.86 ({value - 0.86:+.2f}".replace("-", "−") in rows[index + 1]  # the published value below it


def test_second_run_renders_without_training(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = smoke.results / "gmrf_mcvae" / "smoke"
    before = {name: (folder / name).read_bytes() for name in ("table1.md", "table1.tex")}
    (folder / "table1.md").unlink()
    monkeypatch.setattr("repro.artifacts.running.run_all", lambda *a, **k: pytest.fail("runs were started"))
    folders = {"runs": smoke.runs, "results": smoke.results}
    paths = run("gmrf_mcvae/table1", profile="smoke", seeds=1, **folders)
    assert sorted(p.name for p in paths) == ["table1.md", "table1.tex"]
    assert {p.name: p.read_bytes() for p in paths} == before
    assert main([*smoke.command, "--runs", str(smoke.runs), "--results", str(smoke.results)]) == 0


def test_exported_records_render_the_same_without_run_directories(smoke: Smoke, tmp_path: Path) -> None:
    shutil.copytree(smoke.results / "gmrf_mcvae" / "records", tmp_path / "gmrf_mcvae" / "records")
    for spec in smoke.specs:
        exported = (tmp_path / "gmrf_mcvae" / "records" / f"{spec.key}.json").read_text()
        assert exported == (smoke.store.directory(spec) / "record.json").read_text()
    (markdown, latex) = render(find("gmrf_mcvae/table1"), "smoke", tmp_path, seeds=1)
    folder = smoke.results / "gmrf_mcvae" / "smoke"
    assert markdown.read_bytes() == (folder / "table1.md").read_bytes()
    assert latex.read_bytes() == (folder / "table1.tex").read_bytes()


def test_the_other_paper_s_table_is_the_same_under_its_name(smoke: Smoke, tmp_path: Path) -> None:
    shutil.copytree(smoke.results / "gmrf_mcvae" / "records", tmp_path / "gmrf_mcvae" / "records")
    (markdown, _) = render(find("mrf_mvae/table2"), "smoke", tmp_path, seeds=1)
    assert markdown == tmp_path / "mrf_mvae" / "smoke" / "table2.md"
    first = {r.split("|")[1].strip(): r for r in data_rows(markdown.read_text().split("Decoder means that")[0])}
    assert "MRF MVAE" in first
    assert "GMRF MCVAE" not in first
    original = (smoke.results / "gmrf_mcvae" / "smoke" / "table1.md").read_text()
    assert first["MVAE"] in original
    assert first["MRF MVAE"].split("|")[2:] in [r.split("|")[2:] for r in data_rows(original)]


@pytest.mark.parametrize("artifact", ["fig2", "fig5", "fig6"])
def test_figures_from_stored_samples(artifact: str, smoke: Smoke, tmp_path: Path) -> None:
    command = ["run", f"gmrf_mcvae/{artifact}", "--profile", "smoke", "--executor", "inline", "--device", "cpu"]
    assert main([*command, "--runs", str(smoke.runs), "--results", str(tmp_path)]) == 0
    folder = tmp_path / "gmrf_mcvae"
    pdf, png = (folder / "smoke" / f"{artifact}.{suffix}" for suffix in ("pdf", "png"))
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert 5_000 < pdf.stat().st_size < 300_000
    assert 5_000 < png.stat().st_size < 300_000
    specs = unique(plan(find(f"gmrf_mcvae/{artifact}"), "smoke"))
    assert {p.stem for p in (folder / "records").glob("*.safetensors")} == {s.key for s in specs}
    assert all(p.stat().st_size < 100_000 for p in (folder / "records").iterdir())
    if artifact == "fig5":  # again from what was exported alone
        before = png.read_bytes()
        render(find("gmrf_mcvae/fig5"), "smoke", tmp_path)
        assert png.read_bytes() == before
        next((folder / "records").glob("*.safetensors")).unlink()
        with pytest.raises(RunError, match="no samples of gmrf_mcvae/"):
            render(find("gmrf_mcvae/fig5"), "smoke", tmp_path)


def test_rendering_names_the_missing_runs(smoke: Smoke, tmp_path: Path) -> None:
    table = find("gmrf_mcvae/table1")
    with pytest.raises(
        RunError, match=r"gmrf_mcvae/table1 lacks the records of .* and 2 more; `make gmrf-table1 PROFILE=smoke`"
    ) as caught:
        render(table, "smoke", tmp_path, seeds=1)
    assert all(s.label in str(caught.value) for s in smoke.specs[:3])
    assert list(tmp_path.iterdir()) == []
    folder = tmp_path / "gmrf_mcvae" / "records"
    shutil.copytree(smoke.results / "gmrf_mcvae" / "records", folder)
    (folder / f"{smoke.specs[2].key}.json").unlink()
    with pytest.raises(RunError) as caught:
        render(table, "smoke", tmp_path, seeds=1)
    assert (
        str(caught.value)
        == f"{table.name} lacks the records of {smoke.specs[2].label}; `make gmrf-table1 PROFILE=smoke`"
    )


def test_records_of_one_profile_never_fill_another_s_cells(smoke: Smoke, tmp_path: Path) -> None:
    table = find("gmrf_mcvae/table1")
    for profile in ("paper", "quick"):
        assert missing_runs(unique(plan(table, profile, 1)), smoke.store)
        with pytest.raises(RunError, match="lacks the records"):
            render(table, profile, smoke.results, store=smoke.store, seeds=1)
    folder = tmp_path / "gmrf_mcvae" / "records"
    folder.mkdir(parents=True)
    for ours, theirs in zip(unique(plan(table, "paper", 1)), smoke.specs, strict=True):
        shutil.copy(smoke.results / "gmrf_mcvae" / "records" / f"{theirs.key}.json", folder / f"{ours.key}.json")
    with pytest.raises(RecordError, match=r"is the record of .*\(smoke, .*, not of .*\(paper, "):
        render(table, "paper", tmp_path, seeds=1)


def test_missing_runs_are_started_longest_first() -> None:
    specs = missing_runs(unique(plan(find("gmrf_mcvae/table1-ablations"), "paper")), RunStore(Path("/nonexistent")))
    seconds = [estimate([s], 1)[0] for s in specs]
    assert seconds == sorted(seconds, reverse=True)
    assert len(specs) == 6


# What needs no runs, and the report


def test_report_draws_what_the_records_allow_and_the_gallery(tmp_path: Path) -> None:
    lines = list(report(tmp_path))
    settings = [a for a in TABLES if not a.data]
    others = {"mrf_mvae/table3", "sbm_vae/table4", "sbm_vae/table10", "covae/tableD"}
    assert {a.name for a in settings} == {f"gmrf_mcvae/table{i}" for i in range(4, 10)} | others
    for a in settings:
        markdown, latex = ((tmp_path / a.paper / f"{a.id}.{s}").read_text() for s in ("md", "tex"))
        assert f"{a.name} (paper): {a.id}.md, {a.id}.tex" in lines
        assert len(data_rows(markdown)) >= 3
        assert r"\begin{tabular}" in latex
        assert rf"\label{{tab:{a.target}}}" in latex
    undrawn = [line for line in lines if ": not drawn, " in line]
    named = {line.split(" (")[0] for line in undrawn}
    assert named - set(PAGES_OF_DATA) == {a.name for a in BUILT if a.data} - set(PAGES_OF_DATA)
    assert all("lacks the record" in line for line in undrawn if line.split(" (")[0] not in PAGES_OF_DATA)
    page = (tmp_path / "README.md").read_text()
    assert page == gallery(tmp_path)
    assert "- **table4** Copula encoders and decoders: [md](gmrf_mcvae/table4.md), [tex](gmrf_mcvae/table4.tex)" in page
    assert re.search(r"Not rendered: fig1, .*table1, .*`repro list gmrf_mcvae` says why", page)


# What is committed


@pytest.fixture(scope="module")
def committed() -> dict[Path, Record]:
    """Every committed record, checked as it is read."""
    paths = sorted(FIGURES.glob("*/records/*.json"))
    assert paths != []
    return {p: Record.from_json(p.read_text(), str(p)) for p in paths}


def every_run(artifact: Artifact) -> set[RunSpec]:
    """The runs of an artifact in all profiles that it has."""
    found: set[RunSpec] = set()
    for profile in PROFILES:
        with suppress(NotOfferedError):
            found.update(unique(plan(artifact, profile)))
    return found


def test_committed_records_are_sound(committed: dict[Path, Record]) -> None:
    known = {s for a in BUILT for s in every_run(a)}
    for path, record in committed.items():
        assert path.stem == record.spec.key, path
        assert path.parent.parent.name == record.spec.paper, path
        assert record.spec in known, f"{path} is in no artifact's plan"
        assert record.spec.profile in SHOWN, path
        assert record.environment["dirty"] is False, path
        assert record.environment["training"]["dirty"] is False, path
        assert re.fullmatch("[0-9a-f]{40}", record.environment["commit"]), path
        assert re.fullmatch("[0-9a-f]{64}", record.weights_sha256), path
        assert record.to_json() == path.read_text(), path


def test_committed_samples_belong_to_records_of_pictures(committed: dict[Path, Record]) -> None:
    # Some are drawn from metrics alone: of time and memory, or beside the samples of a figure that is here as well.
    costs = ["gmrf_mcvae/scaling", "sbm_vae/fig27"]
    costs += [f"compare/priors-{data}-cost" for data in ("copula", "triples", "digits", "correlated", "polymnist")]
    shown = {s for a in BUILT if a.kind in "FQ" and a.name not in (*costs, "gmrf_mcvae/overview") for s in every_run(a)}
    # CoVAE's runs keep samples of the first seed alone.
    kept = {s for s in shown if not (s.paper == "covae" and s.seed)}
    expected = {p for p, r in committed.items() if r.spec in kept}
    found = set(FIGURES.glob("*/records/*.safetensors"))
    assert {p.with_suffix(".json") for p in found} == expected
    for path in found:
        spec = committed[path.with_suffix(".json")].spec
        kinds = SHAPES[spec.dataset]
        if spec.method == "mopoe" and "terms" in kinds:  # its proposal has three components with as many samples each
            kinds = kinds | {"terms": [(18, 100)]}
        for name, x in load_file(path).items():
            assert x.shape in kinds.get(name.split("/")[0], kinds.get("", ())), f"{path.name}: {name}"
        assert path.stat().st_size < 300_000


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("artifact", TABLES, ids=lambda a: a.name)
def test_committed_tables_are_rendered_from_the_committed_records(artifact: Artifact, tmp_path: Path) -> None:
    for records in FIGURES.glob("*/records"):
        shutil.copytree(records, tmp_path / records.parent.name / "records")
    for profile in SHOWN:
        found = {p.name: p.read_bytes() for p in output_folder(artifact, profile, FIGURES).glob(f"{artifact.id}.*")}
        try:
            seeds = recorded_seeds(artifact, profile, Sources(None, tmp_path))
        except (NotOfferedError, RunError):  # a run is missing
            assert not found, f"{artifact.name} was committed without its records"
        else:
            drawn = {p.name: p.read_bytes() for p in render(artifact, profile, tmp_path, seeds=seeds)}
            assert drawn == found or (profile != "paper" and not unique(plan(artifact, profile)))


def test_precision_of_hidden_layers(smoke: Smoke, tmp_path: Path) -> None:
    """The same table from runs in bfloat16: other keys, another folder, named in the provenance."""
    table = find("gmrf_mcvae/table1")
    plain, reduced = (unique(plan(table, "smoke", 1, precision)) for precision in (None, "bfloat16"))
    assert unique(plan(table, "smoke", 1, "float32")) == plain
    assert not {s.key for s in plain} & {s.key for s in reduced}
    assert {s.params["model"]["hidden_dtype"] for s in reduced} == {"bfloat16"}
    store = RunStore(tmp_path / "runs")
    for spec, other in zip(plain, reduced, strict=True):  # records of the available runs under the other specifications
        record = replace(smoke.store.record(spec), spec=other)
        store.directory(other).mkdir(parents=True)
        (store.directory(other) / "record.json").write_text(record.to_json())
    with pytest.raises(RunError, match="lacks the records"):
        render(table, "smoke", tmp_path, store=store, seeds=1)
    paths = render(table, "smoke", tmp_path, store=store, seeds=1, precision="bfloat16")
    assert {p.parent for p in paths} == {tmp_path / "gmrf_mcvae" / "smoke" / "bfloat16"}
    assert "5 records; fixed numbers of epochs; hidden layers in bfloat16; commit" in paths[0].read_text()


def test_bad_precision() -> None:
    with pytest.raises(UsageError, match=r"unknown precision 'bfloat'; one of auto, float32, bfloat16$"):
        plan(find("gmrf_mcvae/table1"), "paper", precision="bfloat")
    with pytest.raises(UsageError, match="has no precision of hidden layers to choose"):
        plan(find("pretrained/flow"), "paper", precision="bfloat16")


def test_table1_is_committed() -> None:
    assert (FIGURES / "gmrf_mcvae" / "table1.md").exists()


@pytest.mark.parametrize("artifact", [a for a in BUILT if a.kind in "FQ"], ids=lambda a: a.name)
def test_committed_figures_are_there_and_small(artifact: Artifact) -> None:
    """Every picture whose runs are recorded is drawn, in each profile, and no other one is."""
    for profile in SHOWN:
        found = list(output_folder(artifact, profile, FIGURES).glob(f"{artifact.id}.*"))
        try:
            recorded_seeds(artifact, profile, Sources(None, FIGURES))
        except (NotOfferedError, RunError):
            assert not found
            continue
        if profile == PROFILES[0] or unique(plan(artifact, profile)):  # what needs no runs is drawn once
            assert {".pdf", ".png"} <= {p.suffix for p in found}
        assert all(p.stat().st_size < 300_000 for p in found)


def test_committed_gallery_shows_what_is_there() -> None:
    assert (FIGURES / "README.md").read_text() == gallery(FIGURES)

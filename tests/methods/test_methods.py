"""A reader's own methods: sources, what is refused before training, runs found by their specification, the row."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repro.artifacts import method_rows as rows
from repro.artifacts import methods
from repro.artifacts.inventory import artifacts, find
from repro.artifacts.render import NotOfferedError, Sources, plan, unique
from repro.cli.main import main
from repro.cli.methods import _settings
from repro.datasets import ModalitySpec
from repro.engine.execute import execute
from repro.engine.store import RunStore, check_spec_file
from repro.errors import UsageError
from repro.experiment import not_diverged
from repro.methods import template
from repro.methods.checks import check_method
from repro.methods.experiment import MethodExperiment
from repro.methods.runs import is_method, measured_as
from repro.methods.source import Source, source_of
from repro.model import isolated_rng
from repro.papers import experiment_of
from repro.papers.compare.copula.tables import FLOORS, HEADINGS
from repro.records import Metric, Record, RunSpec
from repro.report.cells import Cell, Shown
from repro.report.plain_tables import PlainTable
from repro.report.tables import Row, Table
from repro.training import TrainingStopped
from tests.support.compared import MadeUp, named_by
from tests.support.runs import Smoke

pytest_plugins = ["tests.support.runs"]

FIGURES = Path(__file__).parents[2] / "figures"
Capture = pytest.CaptureFixture[str]

THREE_METHODS = """
import torch

class Bias:
    "No module, no class of the package's: its parameter is an attribute."

    def __init__(self, modalities, start):
        self.shapes = {m: s.shape for m, s in modalities.items()}
        self.shift = torch.nn.Parameter(torch.tensor(start))

    def loss(self, batch):
        return sum((x - self.shift).square().mean() for x in batch.values())

    def generate(self, num_samples, given=None, sample_likelihood=False):
        leading = (num_samples,) if given is None else (num_samples, len(next(iter(given.values()))))
        noise = float(sample_likelihood)
        return {m: self.shift + noise * torch.randn(*leading, *s) for m, s in self.shapes.items()}

    def log_likelihood(self, batch, given=None):
        return -sum((x - self.shift).square().flatten(1).sum(1) for x in batch.values())

def build(modalities, start=0.0):
    return Bias(modalities, start)
"""


OWN_MODEL = """
import torch
from repro.model import Loss, MultimodalModel

class Own(MultimodalModel):
    def __init__(self, modalities):
        super().__init__(modalities)
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def loss(self, batch, stage=None):
        return Loss(sum((x - self.shift).square().mean() for x in batch.values()))

    def _generate(self, num_samples, *, given, generator, sample_likelihood):
        leading = (num_samples,)
        if given:
            leading += (len(next(iter(given.values()))),)
            GIVEN
        return {m: self.shift + torch.zeros(*leading, *s.shape) for m, s in self.modalities.items()}

    def _log_likelihood(self, batch, *, given, num_importance_samples, generator):
        found = -sum((x - self.shift).square().flatten(1).sum(1) for x in batch.values())
        LIKELIHOOD
        return found

def build(modalities):
    return Own(modalities)
"""


def own_model(given: str, likelihood: str) -> str:
    """A model of the package's class, with a statement where something is given, and one in the likelihood."""
    return OWN_MODEL.replace("GIVEN", given).replace("LIKELIHOOD", likelihood)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's working directory, with his own runs and results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPRO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("REPRO_RESULTS", str(tmp_path / "results"))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path.name


def spec_of(word: str, name: str = "mine", **changes: object) -> RunSpec:
    _, source = source_of(word)
    (spec,) = methods.method_runs(find("gmrf-table1"), "smoke", 1, name, source, changes)
    return spec


def run(*words: str) -> int:
    return main(
        ["run", "gmrf-table1", "--profile", "smoke", "--seeds", "1", "--executor", "inline", "--device", "cpu", *words]
    )


def test_the_key_changes_with_the_source_and_the_record_says_which(folder: Path) -> None:
    write(folder / "bias.py", THREE_METHODS)
    first = spec_of("bias.py:build")
    assert first == spec_of("bias.py:build")
    write(folder / "bias.py", THREE_METHODS + "\n# edited\n")
    second = spec_of("bias.py:build")
    assert first.key != second.key
    assert {k for k in first.params["model"] if first.params["model"][k] != second.params["model"][k]} == {"sha256"}
    with pytest.raises(UsageError, match=r"bias\.py has changed"):
        experiment_of(first).build(first)
    assert experiment_of(second).build(second).inner.shift == 0.0


def test_a_package_is_hashed_with_all_its_modules(folder: Path) -> None:
    write(folder / "mypack" / "__init__.py", "")
    write(folder / "mypack" / "layers.py", "START = 2.0\n")
    write(folder / "mypack" / "sub" / "__init__.py", "")
    write(folder / "mypack" / "sub" / "model.py", THREE_METHODS + "\nfrom mypack.layers import START\n")
    spec = spec_of("mypack.sub.model:build", start=3.0)
    assert experiment_of(spec).build(spec).inner.shift == 3.0
    write(folder / "mypack" / "layers.py", "START = 1.0\n")
    assert spec_of("mypack.sub.model:build", start=3.0).key != spec.key


def test_folders_without_init_are_hashed_too_and_a_folder_that_is_on_the_path_twice_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "plain" / "__init__.py", "")
    write(folder / "plain" / "inner" / "model.py", THREE_METHODS)
    write(folder / "bare" / "model.py", THREE_METHODS)
    before = [spec_of(f"{module}:build") for module in ("plain.inner.model", "bare.model")]
    assert isinstance(experiment_of(before[1]).build(before[1]).inner.shift, torch.nn.Parameter)
    monkeypatch.syspath_prepend(str(folder))
    assert [spec_of(f"{module}:build") for module in ("plain.inner.model", "bare.model")] == before
    for place in ("plain/inner", "bare"):
        write(folder / place / "model.py", THREE_METHODS + "\n# edited\n")
    after = [spec_of(f"{module}:build") for module in ("plain.inner.model", "bare.model")]
    assert not {s.key for s in before} & {s.key for s in after}


def test_a_file_has_one_path_and_may_import_from_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "start_of_it.py", "START = 2.0\n")
    write(folder / "bias.py", "from start_of_it import START\n" + THREE_METHODS.replace("=0.0", "=START"))
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(folder))])
    spec = spec_of("bias.py:build")
    assert experiment_of(spec).build(spec).inner.shift == 2.0
    for path in (".", "../" + folder.name, str(folder), f"{folder}/nothing/.."):
        assert spec_of(f"{path}/bias.py:build") == spec
    write(folder / "deep" / "er" / "bias.py", THREE_METHODS)
    (folder / "deep" / "bias.py").write_text(THREE_METHODS.replace("0.0", "3.0"))
    (folder / "link").symlink_to(folder / "deep" / "er")
    assert source_of("link/../bias.py:build")[1].module == "deep/bias.py"
    monkeypatch.setenv("HOME", str(folder))
    assert source_of("~/bias.py:build")[1] == source_of(f"{folder}/bias.py:build")[1]


def test_what_is_set_of_one_method_goes_before_what_is_set_of_all() -> None:
    for words in (["a.start=1", "start=2"], ["start=2", "a.start=1"]):
        assert _settings(words, ["a", "b"]) == {"a": {"start": 1}, "b": {"start": 2}}


def test_a_model_of_multivae_has_one_name(folder: Path, capsys: Capture) -> None:
    """In capitals or not; beside the table's own of that name it is called after the library too."""
    sources = {source_of(f"multivae:{name}") for name in ("NEXUS", "Nexus", "nexus")}
    assert {(name, s.function) for name, s in sources} == {("Nexus", "Nexus")}
    assert run("--method", "multivae:mvae", "--dry-run") == 0
    assert "gmrf_mcvae/multivae-MVAE seed 0" in capsys.readouterr().out


def test_samples_of_any_real_type_and_order_are_taken(folder: Path) -> None:
    """Integers, doubles and modalities in another order: tables get floats in the table's order."""
    text = THREE_METHODS.replace("self.shapes.items()}", "reversed(self.shapes.items())}")
    for kind in ("round().long()", "double()"):
        write(folder / "bias.py", text.replace("*leading, *s) for", f"*leading, *s).{kind} for"))
        spec = spec_of("bias.py:build")
        model = experiment_of(spec).build(spec)
        assert check_method("mine", model) == []
        drawn = model.generate(2)
        assert list(drawn) == list(model.modalities)
        assert {x.dtype for x in drawn.values()} == {torch.float32}


def test_a_likelihood_that_takes_no_conditions_is_none(folder: Path) -> None:
    """It would be taken for one given them."""
    write(folder / "bias.py", THREE_METHODS.replace("batch, given=None", "batch"))
    spec = spec_of("bias.py:build")
    model = experiment_of(spec).build(spec)
    assert check_method("mine", model) == ["a likelihood"]
    x = {m: torch.zeros(3, *s.shape) for m, s in model.modalities.items()}
    assert model.log_likelihood(x).shape == (3,)
    with pytest.raises(NotImplementedError, match=r"Bias\.log_likelihood takes no given"):
        model.log_likelihood({"m0": x["m0"]}, given={"m1": x["m1"]})


def test_installed_packages_offer_methods(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = folder / "site"
    write(site / "offered.py", THREE_METHODS)
    write(site / "offering-2.5.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: offering\nVersion: 2.5\n")
    write(site / "offering-2.5.dist-info" / "entry_points.txt", "[repro.methods]\nbias = offered:build\n")
    write(site / "offering-2.5.dist-info" / "top_level.txt", "offered\n")
    monkeypatch.syspath_prepend(str(site))
    name, source = source_of("bias")
    assert (name, source.label, source.version) == ("bias", "offered:build", "2.5")
    with pytest.raises(UsageError, match=r"no installed package offers a method 'bais'; installed .* bias"):
        source_of("bais")
    write(site / "other-1.0.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    entries = "[repro.methods]\nbias = offered:other\nhalf = offered\n"
    write(site / "other-1.0.dist-info" / "entry_points.txt", entries)
    with pytest.raises(UsageError, match=r"several .* offer a method 'bias': offered:build, offered:other; name one"):
        source_of("bias")
    with pytest.raises(UsageError, match=r"the entry point 'half', 'offered' names no function"):
        source_of("half")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def build(modalities):\n    raise RuntimeError('out of\\nideas')", "RuntimeError: out of ideas"),
        ("def build(modalities):\n    return 3", "returns int, which has no loss, generate, log_likelihood"),
        ("def make(modalities):\n    return 3", "has no function 'build'"),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("def build(modalities:\n", "cannot be imported: SyntaxError"),
        (
            THREE_METHODS.replace("(num_samples,) if", "(num_samples + 1,) if"),
            r"generate returns 'm0' of shape \(4, 2\)",
        ),
        (THREE_METHODS.replace("*leading, *s", "*leading, 1, *s"), r"of shape \(3, 1, 2\), must be \(3, 2\)"),
        (THREE_METHODS.replace("self.shift + noise", "self.shift / 0 + noise"), "values that are not finite"),
        (
            THREE_METHODS.replace("for m, s in self.shapes.items()}", "for m, s in [*self.shapes.items()][1:]}"),
            "must be",
        ),
        (THREE_METHODS.replace(".mean() for", ".mean((0,)) for"), "loss must be a scalar with a gradient"),
        (THREE_METHODS.replace("return sum(", "return 0.0 / (0.0 * self.shift) + sum("), "loss is nan at the start"),
        (THREE_METHODS.replace(".flatten(1).sum(1)", ".sum()"), "must give 8 finite values for 8 points"),
        (  # what only the table's own protocol asks for
            THREE_METHODS.replace("leading =", "assert not given or 'm0' in given, 'only m0'; leading ="),
            r"cannot be measured as gmrf_mcvae/table1 is: AssertionError: only m0",
        ),
        (THREE_METHODS.replace("torch.nn.Parameter", ""), "Bias has no parameter to train"),
        (THREE_METHODS.replace("return Bias(modalities, start)", "return Bias"), "returns the class Bias"),
        (THREE_METHODS + "\nraise SystemExit(2)", "cannot be imported: SystemExit: 2"),
        (THREE_METHODS.replace("    return Bias(", "    raise SystemExit\n    return Bias("), "built: SystemExit"),
        (THREE_METHODS.replace("{m: self.shift", "{m: 3.0 or self.shift"), "of type float"),
        (
            THREE_METHODS.replace("(x - self.shift).square().mean()", "(0 * self.shift).sqrt()"),
            "gradient .* not finite",
        ),
        (
            THREE_METHODS.replace("x - self.shift).square().mean", "x - START).square().mean")
            + "\nSTART = torch.zeros((), requires_grad=True)",
            "no gradient in any parameter",
        ),
        (THREE_METHODS.replace("given=None, sample", "sample").replace("given is None", "True"), "takes no given"),
        (THREE_METHODS.replace("return -sum(", "return 3.0 or sum("), "must give 8 finite values for 8 points, in a"),
        (
            THREE_METHODS.replace("return -sum(", "return (1.0 if given is None else float('nan')) * sum("),
            "log_likelihood given 'm0' must give 8",
        ),
        (THREE_METHODS.replace("return sum(", "raise SystemExit(0)\n        return sum("), "bad: SystemExit: 0"),
        (
            THREE_METHODS.replace("leading =", "assert not sample_likelihood or exit(3); leading ="),
            "method bad: SystemExit: 3",
        ),
        (
            THREE_METHODS.replace("torch.tensor(start)", "torch.tensor(start, dtype=torch.bfloat16)"),
            r"parameters are torch.bfloat16; training takes torch.float32 or torch.float64",
        ),
        (
            THREE_METHODS.replace("given=None, sample_likelihood=False", "given=None").replace(
                "float(sample_likelihood)", "1"
            ),
            "takes no sample_likelihood",
        ),
        (
            THREE_METHODS.replace("return sum(", "[x.zero_() for x in batch.values()]\n        return sum("),
            "bad: ValueError: loss writes into the values of 'm0'",
        ),
        (own_model("[x.zero_() for x in given.values()]", "pass"), "generate writes into the values of 'm0'"),
        (own_model("pass", "[x.zero_() for x in batch.values()]"), "likelihood writes into the values of 'm0'"),
        (  # an error of torch's own in the table's protocol
            THREE_METHODS.replace("leading =", "torch.zeros(2 if num_samples > 30 else 3) + torch.zeros(3); leading ="),
            "cannot be measured as gmrf_mcvae/table1 is: RuntimeError",
        ),
    ],
)
def test_what_is_wrong_is_one_line_before_any_training(folder: Path, capsys: Capture, text: str, said: str) -> None:
    write(folder / "bad.py", text)
    assert run("--method", "bad.py:build", "--only-methods") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if " to run; about " not in line]
    assert len(lines) == 1
    assert lines[0].startswith("repro: ")
    assert re.search(said, lines[0]), lines[0]
    assert not (folder / "runs").exists()
    assert not (folder / "results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "nowhere.py:build"], "cannot read nowhere.py"),
        (["--method", "no_such_module:build"], "no module 'no_such_module'"),
        (["--method", "bias.py:build", "--set", "depth=3"], "no setting ['depth']; it has ['start']"),
        (["--method", "bias.py:build", "--set", "epochs=0"], "epochs is 0"),
        (["--method", "bias.py:build", "--set", "epochs"], "such as --set epochs=50"),
        (["--method", "bias.py:build", "--set", "other.epochs=3"], "no --method has the name 'other'"),
        (["--method", "mvae=bias.py:build"], "has a method 'mvae'"),
        (["--method", "MVAE=bias.py:build"], "has a method 'MVAE'"),
        (["--method", "mopoe-vae=bias.py:build"], "has a method 'mopoe-vae'"),
        (["--method", "bias.py:build", "--set", "depth=3", "--dry-run"], "no setting ['depth']; it has ['start']"),
        (["--method", "bias.py:make", "--dry-run"], "bias.py has no function 'make'"),
        (["--method", "epochs.py:build", "--set", "epochs=1"], "an argument 'epochs', a setting of training too"),
        (["--method", "../x=bias.py:build"], "is no name"),
        (["--method", "bias.py:build", "--method", "bias.py:build"], "two methods have the name 'bias'"),
        (["--method", "a=bias.py:build", "--method", "A=bias.py:build"], "two methods have the name 'A'"),
        (["--method", "x" * 65 + "=bias.py:build"], "is no name; a letter (A to Z), then up to 63 letters"),
        (["--method", "bias.py"], "which function of bias.py? Such as bias.py:build"),
        (["--method", "x=~nobody-of-that-name/bias.py:build"], "cannot read ~nobody-of-that-name/bias.py"),
        (["--method", "bias.py:build", "--set", "epochs="], "epochs is '', must be a whole number"),
        (["--method", "bias.py:build", "--set", "epochs=null"], "epochs is None, must be a whole number"),
        (["--method", "bias.py:build", "--set", "epochs=[1]", "--dry-run"], "epochs is [1], must be a whole number"),
        (["--method", "bias.py:build", "--set", "learning_rate=Infinity"], "not a finite number"),
        (["--method", "bias.py:build", "--set", "start=1e400"], "not a finite number"),
        (["--method", "bias.py:build", "--set", "start=\udcff"], "not UTF-8"),
        (["--method", "bias.py:build", "--set", "start=1", "--set", "start=2"], "start is set twice"),
        (["--method", "multivae:MVAE", "--set", "name=JMVAE"], "multivae:MVAE has no setting ['name']"),
        (["--method", "multivae:MVAE", "--set", "like=3"], "multivae:MVAE has no setting ['like']"),
        (["--method", "bias.py:build", "--results", "/proc/none"], "cannot write results to /proc/none/own/bias"),
        (["--method", "bias.py:build", "--from-weights"], "do not go together"),
        (["--method", "bias.py:build", "--key", "0" * 16], "do not go together"),
        (["--set", "epochs=3"], "are for --method"),
    ],
)
def test_wrong_calls_are_refused(folder: Path, capsys: Capture, words: list[str], said: str) -> None:
    write(folder / "bias.py", THREE_METHODS)
    write(folder / "epochs.py", THREE_METHODS.replace("start=0.0", "start=0.0, epochs=9"))
    assert run(*words) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("pretrained/flow", "trains no multimodal models"),
        ("pretrained/classifiers", "trains no multimodal models"),
        ("compare/priors-copula", "fits latent structures to the same autoencoders"),
        ("sbm_vae/table8", "trains digit classifiers beside its models"),
    ],
)
def test_tables_of_other_models_take_none(folder: Path, capsys: Capture, table: str, reason: str) -> None:
    write(folder / "bias.py", THREE_METHODS)
    assert main(["run", table, "--profile", "smoke", "--method", "bias.py:build"]) == 2
    printed = capsys.readouterr().err
    assert printed == f"repro: {table} {reason}, so no method can be added\n"


def test_a_table_without_a_row_for_one_refuses_it_before_any_training() -> None:
    source = Source("nowhere.py", "build", "0" * 64, "")
    metrics = [Metric(f"test/floor/{n}/mean", 0.0, "1", 1, "none") for n in ("coherence", "frechet")]
    table7 = find("sbm-table7")  # compares latents that a method has not
    with pytest.raises(UsageError, match="method mine: sbm_vae/table7 shows nothing of mine"):
        rows.check_shown(table7, "mine", methods.method_runs(table7, "smoke", 1, "mine", source, {}), metrics)
    for name in ("mrf-table4", "mrf-table4-features"):  # which average what they have
        table4 = find(name)
        with pytest.raises(UsageError, match=f"method mine: {table4.name} cannot show mine: "):
            rows.check_shown(table4, "mine", methods.method_runs(table4, "smoke", 1, "mine", source, {}), metrics)
    table1 = find("gmrf-table1")
    with pytest.raises(UsageError, match=r"method mine: gmrf_mcvae/table1 cannot show mine: record .* has no metric"):
        rows.check_shown(table1, "mine", methods.method_runs(table1, "smoke", 1, "mine", source, {}), metrics)


def test_rows_that_differ_in_their_own_model_alone_are_one_row_of_a_method(smoke: Smoke) -> None:
    sweep, source = find("gmrf-table2-sweep"), Source("nowhere.py", "build", "0" * 64, "")
    (spec,) = methods.method_runs(sweep, "smoke", 1, "mine", source, {})
    names = [f"validation/{name}" for name in ("reconstruction/coherence", "conditional/coherence")]
    record = replace(smoke.record("mvae"), spec=spec, metrics=[Metric(n, 0.5, "1", 1, "none") for n in names])
    (table,) = rows.method_tables(sweep, "smoke", {"mine": [spec]}, {spec: record}.get, 1)
    assert [row.label for row in table.rows] == ["mine"]
    values = [Shown("0.5", Cell(None, [0.5])), Shown("1.0", Cell(None, [1.0]))]
    plain = PlainTable("A sweep", ("reading", "weight", "value"), (), ("measured",))
    other = replace(plain, rows=(("a", values[0], values[1]),))
    (row,) = rows._changed([other], replace(plain, rows=(("a", values[1], values[1]),)))
    assert row == ["a", values[1], "—"]  # another model's, beside it
    for texts, made in (
        ([("a", "1"), ("a", "2")], [("mine", "", values[0])]),
        ([("a", "MVAE")], [("mine", "", values[0])]),
        ([("a", "1"), ("b", "1")], [("mine (a)", "1", values[0]), ("mine (b)", "1", values[0])]),
    ):
        shown = rows._with_plain_row(plain, [(*t, values[0]) for t in texts], "mine", "MVAE", ["a note"])
        assert shown.rows == tuple(made)
        assert shown.notes == ("a note", "measured")


def test_runs_of_a_method_have_a_row_each_where_those_of_the_tables_own_differ_in_their_model(folder: Path) -> None:
    """Of ablations that leave data and training as they are one row, of those that do not another; the note says so."""
    table, source = find("gmrf-table1-ablations"), Source("nowhere.py", "build", "0" * 64, "")
    recorded = Sources(None, FIGURES, "auto")
    made = {}
    plain = methods.method_runs(table, "paper", 1, "mine", source, {})
    for i, spec in enumerate(methods.method_runs(table, "paper", 1, "mine", source, {"epochs": 3})):
        record = recorded.record(measured_as(plain[i]))
        assert record is not None
        made[spec] = replace(record, spec=spec, metrics=[replace(m, value=m.value + i + 1) for m in record.metrics])
    (shown,) = rows.method_tables(table, "paper", {"mine": list(made)}, lambda s: made.get(s) or recorded.record(s), 1)
    best = "− best of the table's rows"
    more = "mine (50,000 training samples)"
    assert [r.label for r in shown.groups[-1].rows] == ["mine", f"mine {best}", more, f"{more} {best}"]
    assert "epochs 3 instead of 200; epochs 3 instead of 40" in shown.to_markdown()


def test_runs_of_equal_values_have_a_row_each() -> None:
    """Two settings of the data that a method does not tell apart; and seeds of one of them are one row."""
    one, few = Row("rho 0.1", {"x": Cell(None, [0.0, 1.0])}), Row("rho 0.1, sub-sampling", {"x": Cell(None, [0.0])})
    two = Row("rho 0.9", {"x": Cell(None, [0.0, 1.0])})
    own, under = rows._own_rows("mine", [("", one, {0}), ("", two, {1})])
    assert ([r.label for r in own], under) == (["mine (rho 0.1)", "mine (rho 0.9)"], [])
    own, under = rows._own_rows("mine", [("", few, {0}), ("", one, {0}), ("Others", two, {1})])
    assert ([r.label for r in own], [r.label for r in under]) == (["mine"], ["mine (Others)"])
    assert own[0].cells == one.cells


def test_a_method_among_models_with_chains_has_none(folder: Path) -> None:
    """In MRF MVAE's Table 4 it is measured as the variants without, has a rank, and a row for either reading."""
    table, source = find("mrf-table4"), Source("nowhere.py", "build", "0" * 64, "")
    recorded = Sources(None, FIGURES, "auto")
    specs = methods.method_runs(table, "overnight", 2, "mine", source, {})
    assert not {measured_as(s).method for s in specs} & {"nnmrf"}
    made = {s: replace(r, spec=s) for s in specs if (r := recorded.record(measured_as(s))) is not None}
    (shown,) = rows.method_tables(
        table, "overnight", {"mine": list(made)}, lambda s: made.get(s) or recorded.record(s), 2
    )
    own = shown.groups[-1].rows
    assert own[0].label == "mine"
    assert not any(c.caveat for c in own[0].cells.values())
    assert "Rank of mine by its mean, with the table's rows: Unconditional coherence" in shown.to_markdown()


def test_a_method_whose_every_value_is_zero_has_a_row() -> None:
    """Rows are told by values that are changed a little, by a factor that leaves 0 as it is."""
    table3, source = find("covae-table3-tcga"), Source("nowhere.py", "build", "0" * 64, "")
    (spec,) = methods.method_runs(table3, "smoke", 1, "mine", source, {})
    names = [f"test/spearman/{n}" for n in ("mrna-to-mirna", "mirna-to-mrna", "joint/mrna", "joint/mirna")]
    place = {
        "commit": "0" * 40,
        "dirty": False,
        "device": "cpu",
        "device_name": "a machine",
        "versions": {"torch": "2"},
    }
    record = Record(spec, [Metric(n, 0.0, "1", 1, "none") for n in names], place, {}, "0" * 64, 1.0, 1.0)
    (table,) = rows.method_tables(table3, "smoke", {"mine": [spec]}, {spec: record}.get, 1)  # and no table of ranks
    assert [row.label for row in table.rows] == ["mine"]
    assert {c.mean for c in table.rows[0].cells.values()} == {0.0}


def test_a_table_has_to_be_named(capsys: Capture) -> None:
    assert main(["run", "--all", "--method", "bias.py:build"]) == 2
    assert "--method needs a table" in capsys.readouterr().err


def test_it_is_run_and_stands_under_the_tables_own_rows(
    folder: Path, smoke: Smoke, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRO_RUNS", str(smoke.runs))
    write(folder / "bias.py", THREE_METHODS)
    chosen = ["--method", "first=bias.py:build", "--method", "second=bias.py:build"]
    assert run(*chosen, "--set", "learning_rate=0.01", "--set", "second.start=0.5") == 0
    printed = capsys.readouterr()
    assert "2 to run" in printed.err
    text = (folder / "results" / "own" / "first" / "gmrf_mcvae" / "smoke" / "table1.md").read_text()
    assert "second" not in text
    assert "| first | obtained |" in text
    assert "learning\\_rate 0.01 instead of 0.001" in text
    assert "start 0.5" in printed.out
    (path,) = (folder / "results" / "own" / "first" / "gmrf_mcvae" / "records").glob("*.json")
    record = Record.from_json(path.read_text())
    model = record.spec.params["model"]
    assert (model["module"], model["function"], len(model["sha256"])) == ("bias.py", "build", 64)
    assert record.spec.method == "first"
    # The method's cells are those of its own record, and the others' are unchanged.
    value = record.metric("test/unconditional/mean/histogram/mean").value
    line = next(x for x in text.splitlines() if x.startswith("| first | obtained |"))
    assert f" {value:.2f} " in line
    assert f" {smoke.record('mvae').metric('test/unconditional/mean/histogram/mean').value:.2f} " in text
    best = min(smoke.record(s.method).metric("test/unconditional/mean/histogram/mean").value for s in smoke.specs)
    line = next(x for x in text.splitlines() if x.startswith("| first − best"))
    assert f" {value - best:.2f} " in line
    assert not (folder / "results" / "gmrf_mcvae").exists()
    assert run(*chosen, "--set", "learning_rate=0.01", "--set", "second.start=0.5") == 0  # nothing is trained again
    assert "0 to run" not in capsys.readouterr().err


def test_status_tells_of_methods_beside_the_tables_own_runs(folder: Path, smoke: Smoke, capsys: Capture) -> None:
    write(folder / "bias.py", THREE_METHODS)
    store = RunStore(folder / "runs")
    own, source = spec_of("bias.py:build"), source_of("bias.py:build")[1]
    (other,) = methods.method_runs(find("gmrf-table1"), "quick", 1, "mine", source, {})
    for spec in (own, other):
        store.directory(spec).mkdir(parents=True)
        check_spec_file(store.directory(spec), spec)
    damaged = store.root / "gmrf_mcvae" / ("0" * 16)
    damaged.mkdir()
    write(damaged / "spec.json", "{")
    command = ["status", "gmrf-table1", "--profile", "smoke", "--seeds", "1", "--runs", str(store.root)]
    assert main(command) == 0
    *lines, mine, table = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "mine" in line] == [f"{own.key}  to run   {own.label}"]
    assert mine == "your method mine in it: 1 run: 0 done, 1 to run"
    assert table == "gmrf_mcvae/table1, profile smoke: 5 runs: 0 done, 5 to run"


def test_a_run_is_found_by_its_key_alone_and_refused_with_another_source(folder: Path, capsys: Capture) -> None:
    write(folder / "bias.py", THREE_METHODS)
    spec, store = spec_of("bias.py:build"), RunStore(folder / "runs")
    store.directory(spec).mkdir(parents=True)
    check_spec_file(store.directory(spec), spec)  # what a cluster's task finds
    key = ["run", "--key", spec.key, "--device", "cpu"]
    write(folder / "bias.py", THREE_METHODS + "#")
    assert main(key) != 0
    assert "bias.py has changed" in capsys.readouterr().err
    write(folder / "bias.py", THREE_METHODS)
    assert main(key) == 0
    record = store.record(spec)
    assert record is not None
    assert record.weights_sha256
    assert isinstance(experiment_of(spec), MethodExperiment)


def test_it_continues_bit_for_bit(folder: Path) -> None:
    write(folder / "bias.py", THREE_METHODS)
    spec = spec_of("bias.py:build", epochs=4)
    steps = []

    def late() -> bool:
        steps.append(1)
        return len(steps) > 5

    whole = execute(spec, RunStore(folder / "whole"))
    with pytest.raises(TrainingStopped):
        execute(spec, RunStore(folder / "parts"), stop=late)
    parts = execute(spec, RunStore(folder / "parts"))
    assert parts.weights_sha256 == whole.weights_sha256
    assert [m.value for m in parts.metrics] == [m.value for m in whole.metrics]


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        ("return [][1]", "IndexError: list index out of range (bias.py, line 16)"),
        ("return {}['a']", "KeyError: 'a' (bias.py, line 16)"),
        ("torch.zeros(2) + torch.zeros(3)", "RuntimeError: The size of tensor a (2) must match"),
        ("raise SystemExit", "SystemExit: exit(None) (bias.py, line 16)"),
        ("raise ArithmeticError", ": ArithmeticError (bias.py, line 16)"),
    ],
)
def test_code_that_fails_while_training_is_one_line_with_its_place(
    folder: Path, capsys: Capture, failing: str, said: str
) -> None:
    text = "    calls = 0\n\n    def loss(self, batch):\n        self.calls += 1\n        if self.calls > 2:\n"
    text += f"            {failing}\n"
    write(folder / "bias.py", THREE_METHODS.replace("    def loss(self, batch):\n", text))
    assert run("--method", "bias.py:build", "--only-methods", "--set", "batch_size=20") == 1
    error = capsys.readouterr().err
    lines = [x for x in error.splitlines() if x.startswith("repro: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in error


def test_values_that_measurements_refuse_are_not_tried_once_more(folder: Path, capsys: Capture) -> None:
    """Trained, the model generates nothing finite: as it does again."""
    write(folder / "bias.py", THREE_METHODS.replace("self.shift + noise", "self.shift / (self.shift == 0) + noise"))
    assert run("--method", "bias.py:build", "--only-methods") == 1
    error = capsys.readouterr().err
    assert "not finite" in error.splitlines()[-1]
    assert "once more" not in error


@pytest.mark.slow
def test_code_that_ends_its_process_fails_alone(folder: Path, capsys: Capture) -> None:
    """Whatever the code is that it ends with, and be it the only run; the other method's row is written."""
    dies = "    calls = 0\n\n    def loss(self, batch):\n        self.calls += 1\n        if self.calls > 2:\n"
    dies += "            import os\n            os._exit(0)\n"
    write(folder / "dies.py", THREE_METHODS.replace("    def loss(self, batch):\n", dies))
    write(folder / "bias.py", THREE_METHODS)
    own = ["--seeds", "1", "--device", "cpu", "--only-methods", "--workers", "1", "--set", "batch_size=20"]
    words = ["run", "gmrf-table1", "--profile", "smoke", *own, "--method", "dies.py:build"]
    for more in ([], ["--method", "bias.py:build"]):
        assert main([*words, *more]) == 1
        assert "dies seed 0 (smoke, " in (said := capsys.readouterr().err)
        assert "its process ended with code 0" in said.splitlines()[-1]
    assert (folder / "results" / "own" / "bias" / "gmrf_mcvae" / "smoke" / "table1.md").exists()
    assert not (folder / "results" / "own" / "dies").exists()


def test_what_an_object_is_given_is_a_copy(folder: Path) -> None:
    """A method that writes into what it is given would change the data that all are measured by."""
    written = THREE_METHODS.replace("leading =", "[x.zero_() for x in (given or {}).values()]; leading =")
    likelihood = "-sum((x - self.shift).square().flatten(1).sum(1) for x in batch.values())"
    zeroed = f"found = {likelihood}; [x.zero_() for x in batch.values()]; return found"
    written = written.replace(f"return {likelihood}", zeroed)
    assert written.count("zero_") == 2
    values = {}
    for name, text in (("reads", THREE_METHODS), ("writes", written)):
        write(folder / f"{name}.py", text)
        spec = spec_of(f"{name}.py:build")
        values[name] = [(m.name, m.value) for m in execute(spec, RunStore(folder / "runs")).metrics]
    assert [x for x in values["reads"] if "seconds" not in x[0]] == [
        x for x in values["writes"] if "seconds" not in x[0]
    ]


TIED = """
        self.first = torch.nn.Linear(2, 2)
        self.keys = torch.nn.Linear(2, 2)
        self.values = self.first
        self.keys.weight = self.first.weight
"""


@pytest.mark.parametrize("slots", [False, True])
def test_attributes_of_any_name_and_tied_parameters_are_trained_and_saved(folder: Path, slots: bool) -> None:
    text = THREE_METHODS.replace("        self.shift =", f"{TIED}        self.shift =")
    text = text.replace("return sum(", "return self.first.weight.square().sum() + sum(")
    if slots:
        names = "__slots__ = ('shapes', 'shift', '__first', 'keys', 'values')"
        text = text.replace("self.first", "self.__first")
        text = text.replace("    def __init__", f"    {names}\n\n    def __init__", 1)
    write(folder / "bias.py", text)
    spec, store = spec_of("bias.py:build"), RunStore(folder / "runs")
    execute(spec, store)
    model = experiment_of(spec).build(spec)
    model.load_state_dict(load_file(store.directory(spec) / "weights.safetensors"))
    first = model.inner._Bias__first if slots else model.inner.first
    assert torch.equal(model.inner.keys.weight, first.weight)
    assert len(list(model.parameters())) == 4  # shift, a weight and two biases
    with isolated_rng(spec.seed):
        fresh = experiment_of(spec).build(spec).inner
    assert not torch.equal(first.weight, (fresh._Bias__first if slots else fresh.first).weight)


def test_without_the_tables_records_its_row_stands_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "bias.py", THREE_METHODS)
    assert run("--method", "bias.py:build", "--only-methods", "--dry-run") == 0
    states = [line.rsplit("  ", 1)[-1] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert states == ["to run", *["left out"] * 5]
    assert run("--method", "bias.py:build", "--only-methods") == 0
    text = (folder / "results" / "own" / "bias" / "gmrf_mcvae" / "smoke" / "table1.md").read_text()
    assert text.count("| bias | obtained |") == 3  # by each of the three distances
    assert "MMVAE" not in text
    assert "The table's own rows are not recorded" in text


def test_a_table_of_which_a_training_diverged_has_its_other_rows() -> None:
    artifact, made = find("compare/copula"), MadeUp("smoke", named_by(HEADINGS, FLOORS))
    runs = methods.method_runs(artifact, "smoke", 1, "mine", Source("nowhere.py", "build", "0" * 64, ""), {})

    def lookup(spec: RunSpec) -> Record | None:
        return None if spec.method == "jmvae" else made.record(spec)

    def diverged(spec: RunSpec) -> str:
        return "epoch 1 of 2: the loss is not finite" if spec.method == "jmvae" else ""

    for lost, whole in ((diverged, True), (not_diverged, False)):
        first, *_ = rows.method_tables(artifact, "smoke", {"mine": runs}, lookup, 1, lost)
        assert isinstance(first, Table)
        labels = [r.label for r in (*first.rows, *(r for g in first.groups for r in g.rows))]
        assert "mine" in labels
        assert ({"GMRF MCVAE", "JMVAE"} <= set(labels)) is whole
        assert any("rows are not recorded" in str(n) for n in first.notes) is not whole


def test_ranks_and_differences(smoke: Smoke) -> None:
    """With the values of another row and a little, the rank is the one behind it."""
    source = Source("nowhere.py", "build", "0" * 64, "")
    (spec,) = methods.method_runs(find("gmrf-table1"), "smoke", 1, "mine", source, {})
    by_value = sorted(
        (smoke.record(s.method) for s in smoke.specs),
        key=lambda r: r.metric("test/unconditional/mean/histogram/mean").value,
    )
    second = by_value[1]
    known = {m.name: m for m in second.metrics}
    record = replace(
        smoke.record("mvae"),
        spec=spec,
        metrics=[replace(m, value=known[m.name].value + 1e-7) for m in smoke.record("mvae").metrics],
    )

    def lookup(asked: RunSpec) -> Record | None:
        return record if asked == spec else smoke.store.record(asked)

    table = rows.method_tables(find("gmrf-table1"), "smoke", {"mine": [spec]}, lookup, 1)[0]
    group = table.groups[-1]
    assert [r.label for r in group.rows] == ["mine", "mine − best of the table's rows"]
    best = by_value[0].metric("test/unconditional/mean/histogram/mean").value
    own = second.metric("test/unconditional/mean/histogram/mean").value
    assert math.isclose(group.rows[1].cells["uncond_mean"].mean, own - best, abs_tol=1e-6)
    assert rows._ranks(group.rows[0], table).count("Unconditional Mean 3 of 6") == 1
    assert table.rows == rows._drawn(find("gmrf-table1"), "smoke", lookup, 1)[0].rows


def test_a_method_of_the_values_of_the_row_that_it_is_measured_as_has_a_row_too(smoke: Smoke) -> None:
    """As one has that is the same model of the same seed."""
    source = Source("nowhere.py", "build", "0" * 64, "")
    (spec,) = methods.method_runs(find("gmrf-table1"), "smoke", 1, "mine", source, {})
    twin = next(s for s in smoke.specs if s.method == measured_as(spec).method)
    record = replace(smoke.record(twin.method), spec=spec)

    def lookup(asked: RunSpec) -> Record | None:
        return record if asked == spec else smoke.store.record(asked)

    before = rows._drawn(find("gmrf-table1"), "smoke", lookup, 1)
    for was, table in zip(
        before, rows.method_tables(find("gmrf-table1"), "smoke", {"mine": [spec]}, lookup, 1), strict=True
    ):
        own = next(r for r in table.rows if r.label == "MVAE")
        assert table.groups[-1].rows[0].label == "mine"
        assert {k: c.mean for k, c in table.groups[-1].rows[0].cells.items()} == {
            k: c.mean for k, c in own.cells.items()
        }
        assert table.rows == was.rows


def test_ranks_of_the_other_rows_are_not_a_methods() -> None:
    """Where it stands for one row, ranks in the table of ranks change in the others: none of these is its row."""
    table1, source = find("covae-table1-tcga"), Source("nowhere.py", "build", "0" * 64, "")
    recorded = Sources(None, FIGURES)
    made = {}
    for spec in methods.method_runs(table1, "paper", None, "mine", source, {}):
        record = recorded.record(measured_as(spec))
        assert record is not None
        made[spec] = replace(record, spec=spec, metrics=[replace(m, value=m.value / 2) for m in record.metrics])
    values, ranks, likelihoods = rows.method_tables(
        table1, "paper", {"mine": list(made)}, lambda s: made.get(s) or recorded.record(s)
    )
    before = rows._drawn(table1, "paper", recorded.record, None)
    assert [row.label for row in values.groups[-1].rows] == ["mine", "mine − best of the table's rows"]
    assert ranks.rows == before[1].rows
    assert "mine" not in ranks.to_markdown()
    assert [row.label for row in likelihoods.groups[-1].rows] == ["mine"]  # neither direction is better
    assert sum("Rank of mine" in table.to_markdown() for table in (values, ranks, likelihoods)) == 1


def test_a_value_with_a_caveat_has_no_rank(smoke: Smoke) -> None:
    table = rows._drawn(find("gmrf-table1"), "smoke", smoke.store.record, 1)[0]
    row = table.rows[0]
    assert "Unconditional Mean" in rows._ranks(row, table)
    unmixed = replace(row, cells={k: replace(c, caveat="chains do not mix") for k, c in row.cells.items()})
    assert rows._ranks(unmixed, table).endswith(": none.")


def test_every_table_of_trained_models_has_a_row_to_add_one_to() -> None:
    """Runs of a method exist for each of them, are told from the table's own, and lead back to its experiment."""
    source, found = Source("nowhere.py", "build", "0" * 64, ""), 0
    for artifact in artifacts().values():
        if artifact.kind != "T" or not artifact.built or not artifact.data:
            continue
        for profile in ("smoke", "quick", "paper"):
            try:
                specs = unique(plan(artifact, profile))
            except NotOfferedError:
                continue
            if not specs or experiment_of(specs[0]).no_methods:
                continue
            made = methods.method_runs(artifact, profile, None, "mine", source, {"epochs": 7, "width": 3})
            found += 1
            assert len({s.key for s in made}) == len(made) > 0
            assert not {s.key for s in made} & {s.key for s in specs}
            for s in made:
                assert is_method(s)
                assert measured_as(s).method in {x.method for x in specs}
                assert s.params["model"]["settings"] == {"width": 3}
                experiment = experiment_of(s)
                assert isinstance(experiment, MethodExperiment)
                assert experiment.training(s).epochs == 7
                assert experiment.cost(s).seconds > 0
                assert RunSpec.from_dict(json.loads(json.dumps(s.to_dict()))) == s
    assert found > 20


def test_a_new_method_is_one_short_file_that_runs_at_once(folder: Path, capsys: Capture) -> None:
    assert main(["new", "method", "lingauss"]) == 0
    text = (folder / "lingauss.py").read_text()
    assert len(text.splitlines()) < 60
    assert "NAME" not in text
    assert "FILE" not in text
    assert main(["new", "method", "lingauss"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (folder / "lingauss.py").read_text() == text
    for name in ("../away", "class", "_x", "é", "x" * 65):
        assert main(["new", "method", name]) == 2
        assert "is no name of a Python module" in capsys.readouterr().err
    for name, said in (("json", "there is a module 'json'"), ("mvae", "gmrf-table1 has a method 'mvae'")):
        assert main(["new", "method", name]) == 2
        assert said in capsys.readouterr().err
    assert [p.name for p in folder.iterdir()] == ["lingauss.py"]
    assert run("--method", "lingauss.py:build", "--only-methods", "--set", "latent_dim=2") == 0


def test_the_templates_conditional_is_the_closed_form() -> None:
    """Moments of many samples of b given a against Gaussian conditioning of the joint covariance."""
    torch.manual_seed(0)
    model = template.build({"a": ModalitySpec((2,)), "b": ModalitySpec((1, 3))}, latent_dim=2)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.7)
    x = torch.tensor([[0.3, -1.0]])
    drawn = model.generate(200_000, given={"a": x}, sample_likelihood=True, generator=torch.Generator().manual_seed(1))
    b = drawn["b"].flatten(1)
    with torch.no_grad():
        joint = model._density(["a", "b"])
        c, mean = joint.covariance_matrix, joint.mean
    gain = c[2:, :2] @ torch.linalg.inv(c[:2, :2])
    assert torch.allclose(b.mean(0), mean[2:] + gain @ (x[0] - mean[:2]), atol=0.02)
    assert torch.allclose(torch.cov(b.T), c[2:, 2:] - gain @ c[:2, 2:], atol=0.03)
    given = model.log_likelihood({"b": torch.zeros(1, 1, 3)}, given={"a": x})
    density = torch.distributions.MultivariateNormal(mean[2:] + gain @ (x[0] - mean[:2]), c[2:, 2:] - gain @ c[:2, 2:])
    assert torch.allclose(given, density.log_prob(torch.zeros(1, 3)), atol=1e-4)

"""The layers: imports go up only, none in a circle, none of a private name; the lower layers leave the machine
alone.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import repro
from repro.cli.main import COMMANDS, parser

ROOT = Path(repro.__file__).resolve().parent
# From the library up; what stands on one line may import of one another what BESIDE says.
LAYERS = (
    ("errors",),
    ("distributions", "metrics", "networks", "weights", "datasets"),
    ("model", "records"),
    ("experiment", "training", "baselines", "report"),
    ("methods",),
    ("papers",),
    ("engine",),
    ("artifacts",),
    ("hub",),
    ("cli",),
    ("__main__",),
)
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
ENGINE = LAYER["engine"]
# (importer, imported) within a layer: networks ship trained, and correlated MNIST is drawn by one of them.
BESIDE = {("weights", "networks"), ("datasets", "networks"), ("datasets", "weights"), ("experiment", "training")}
BESIDE |= {("experiment", "report")}
# Papers that build on others.
PAPERS = {("mrf_mvae", "gmrf_mcvae")} | {("compare", p) for p in ("covae", "gmrf_mcvae", "mrf_mvae", "sbm_vae")}
# What fetches, caches and reads data; the loaders beside them read the files that these hand out.
DATA_IO = {f"repro.datasets.{m}" for m in ("archive", "cache", "card", "download", "fetch", "places")}
MACHINE = {"time", "datetime", "os", "shutil", "subprocess", "socket", "tempfile", "platform", "requests", "urllib"}
MACHINE |= {"timeit", "resource"}
FILE_CALLS = {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rmdir", "iterdir", "glob"}
FILE_CALLS |= {"rglob", "exists", "is_file", "is_dir", "stat", "touch", "rename", "load_file", "save_file", "safe_open"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if "data_cards" not in path.parts}
IMPORTERS = [m for m in MODULES if m != "repro"]  # the package itself names modules lazily


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[tuple[str, str, int]]:
    """Every imported module, at the top or within functions, with the name taken from it and its line.

    Constant dynamic imports too, and those of a package's lazy names.
    """
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full, "", node.lineno) if full in MODULES else (node.module or "", alias.name, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            text = ast.unparse(node.args[0]).strip("f").strip("'\"")
            if text.startswith("repro."):
                yield text.split("{")[0].rstrip("."), "", node.lineno
    beside = module.removesuffix("experiment") + "evaluation"  # what an experiment's ``code`` imports
    if module.endswith(".experiment") and beside in MODULES:
        yield beside, "", 0


def within_package(module: str) -> list[tuple[str, str, int]]:
    return [i for i in imports(module) if i[0] == "repro" or i[0].startswith("repro.")]


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    """A module's layer; the package itself imports nothing and may be named by all."""
    return LAYER[package(module)] if "." in module else -1


def allowed(importer: str, imported: str) -> bool:
    here, there = package(importer), package(imported)
    if layer(imported) != layer(importer):
        return layer(imported) < layer(importer)
    if here != there:
        return (here, there) in BESIDE
    papers = [m.split(".")[2] for m in (importer, imported) if here == "papers" and m.count(".") > 1]
    return len(papers) < 2 or papers[0] == papers[1] or (papers[0], papers[1]) in PAPERS


def test_every_module_has_a_layer() -> None:
    assert len(MODULES) > 100
    assert [m for m in IMPORTERS if package(m) not in LAYER] == []


def test_the_root_holds_what_everything_shares() -> None:
    root = {p.name for p in ROOT.glob("*.py")}
    assert root <= {"__init__.py", "__main__.py", "errors.py", "model.py", "records.py", "experiment.py"}


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module in IMPORTERS
        for name, _, line in within_package(module)
        if not allowed(module, name)
    ]
    assert wrong == []


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two and more modules that reach one another."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        seen, todo = set(), [start]
        while todo:
            for target in edges.get(todo.pop(), set()) - seen:
                seen.add(target)
                todo.append(target)
        reached[start] = seen
    groups = {frozenset(m for m in reached[n] if n in reached[m]) for n in edges if n in reached[n]}
    return sorted(sorted(g) for g in groups)


def for_types_alone(module: str) -> set[int]:
    """Lines that only a type checker reads."""
    blocks = [n for n in ast.walk(tree(module)) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {child.lineno for block in blocks for child in ast.walk(block) if isinstance(child, ast.stmt)}


def test_no_two_files_import_each_other() -> None:
    edges = {
        m: {n for n, _, line in within_package(m) if n in MODULES and n != m and line not in for_types_alone(m)}
        for m in IMPORTERS
    }
    assert circles(edges) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_file_imports_a_private_name_of_another() -> None:
    wrong = [
        f"{module}:{line} imports {name}.{leaf}"
        for module in IMPORTERS
        for name, leaf, line in within_package(module)
        if leaf.startswith("_") and not leaf.startswith("__")
    ]
    assert wrong == []


def test_the_walk_sees_what_is_imported() -> None:
    found = {name for name, _, _ in within_package("repro.papers.gmrf_mcvae.copula.experiment")}
    assert {"repro.records", "repro.experiment", "repro.papers.gmrf_mcvae.copula.evaluation"} <= found
    assert "repro.papers" in {name for name, _, _ in within_package("repro.engine.execute")}
    assert not allowed("repro.metrics.transport", "repro.datasets.base")
    assert not allowed("repro.training.loop", "repro.engine.execute")
    assert not allowed("repro.baselines.models", "repro.papers.gmrf_mcvae.model")
    assert not allowed("repro.papers.gmrf_mcvae.model", "repro.papers.mrf_mvae.base")
    assert not allowed("repro.artifacts.citation", "repro.hub.registry")
    assert allowed("repro.papers.mrf_mvae.base", "repro.papers.gmrf_mcvae.model")


def test_only_the_baselines_import_multivae() -> None:
    found = {package(m) for m in MODULES for name, _, _ in imports(m) if name.split(".")[0] == "multivae"}
    assert found == {"baselines"}


def lower(*, loaders: bool) -> list[str]:
    """Modules under the engine that have no leave to reach out; with or without the loaders of data."""
    free = DATA_IO | {"repro.training.checkpoints", "repro", "repro.metrics.inception", "repro.weights.folder"}
    free |= {"repro.papers"}  # reads what paper packages state
    free |= {"repro.networks.cost"}  # the one clock, for experiments that measure seconds
    # save_pretrained, from_pretrained and push_to_hub
    free |= {"repro.weights.endpoint", "repro.weights.saved", "repro.weights.shared"}
    below = [m for m in MODULES if m not in free and layer(m) < ENGINE]
    return [m for m in below if loaders or package(m) != "datasets"]


def test_nobody_below_the_engine_imports_the_machine() -> None:
    wrong = [
        f"{m}:{line} imports {name}"
        for m in lower(loaders=True)
        for name, _, line in imports(m)
        if name.split(".")[0] in MACHINE
    ]
    assert wrong == []


def file_calls(module: str) -> Iterator[str]:
    """Calls that reach the disk; files of the package, by importlib.resources, are part of the code."""
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.Call):
            continue
        text = ast.unparse(node.func)
        if text == "open" or (text.split(".")[-1] in FILE_CALLS and "files(" not in text):
            yield f"{module}:{node.lineno} calls {text}"


def test_nobody_below_the_engine_reads_or_writes_files() -> None:
    found = [call for m in lower(loaders=False) for call in file_calls(m)]
    assert found == []


def test_the_walk_sees_file_calls() -> None:
    found = "".join(file_calls("repro.engine.execute"))
    assert "calls open" in found
    assert "path.read_text" in found
    assert list(file_calls("repro.papers.gmrf_mcvae.copula.experiment")) == []


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled(module: str) -> None:
    banned = {"cloudpickle", "dill", "joblib", "shelve", "marshal"}
    assert [name for name, _, _ in imports(module) if name.split(".")[0] in banned] == []
    # These are published as files of torch: read with weights_only, whose refusals are pickle's exception.
    exempt = module in ("repro.datasets.mhd", "repro.datasets.polymnist", "repro.metrics.inception")
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "pickle"
        if isinstance(node, ast.Import):
            assert exempt or all(alias.name != "pickle" for alias in node.names)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            assert node.attr == "UnpicklingError"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert exempt
            assert options.get("weights_only") == "True"
        if isinstance(node, ast.Call):
            assert "allow_pickle" not in {k.arg for k in node.keywords if ast.unparse(k.value) != "False"}


def test_global_random_state_is_seeded_in_one_place() -> None:
    names = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed_all", "np.random.seed", "random.seed"}
    found = {
        f"{m} {ast.unparse(node.func)}"
        for m in MODULES
        for node in ast.walk(tree(m))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    }
    assert found == {"repro.model torch.manual_seed", "repro.model np.random.seed", "repro.model random.seed"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_name_what_they_offer(module: str) -> None:
    body = [n for n in tree(module).body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    offers = any(isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__" for n in tree(module).body)
    assert offers or not body


# Imports within functions: of what takes long to import where most calls do without, and of optional libraries.
MOST_LOCAL_IMPORTS = 60


def local_imports(source: ast.Module) -> list[int]:
    """Lines of the imports within functions, each once however deep the functions are nested."""
    functions = [n for n in ast.walk(source) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    kinds = ast.Import | ast.ImportFrom
    return sorted({n.lineno for function in functions for n in ast.walk(function) if isinstance(n, kinds)})


def test_imports_stand_at_the_top() -> None:
    found = [f"{module}:{line}" for module in MODULES for line in local_imports(tree(module))]
    assert len(found) <= MOST_LOCAL_IMPORTS, f"{len(found)} imports within functions: {', '.join(found)}"


def test_the_walk_sees_local_imports() -> None:
    text = "import os\ndef f():\n    import sys\n    def g():\n        from re import match\nclass C:\n    import io\n"
    assert local_imports(ast.parse(text)) == [3, 5]


def test_every_command_has_a_module_and_a_function() -> None:
    """What the table of commands names is there, and every command that the parser knows is in the table."""
    for module, _, function in (place.partition(":") for place in COMMANDS.values()):
        assert any(isinstance(n, ast.FunctionDef) and n.name == function for n in tree(f"repro.cli.{module}").body)
    (commands,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    known = {""}
    for name, sub in commands.choices.items():
        actions = [a for a in sub._actions if isinstance(a, argparse._SubParsersAction)]
        known |= {f"{name} {word}" for a in actions for word in a.choices} or {name}
    assert known == set(COMMANDS)

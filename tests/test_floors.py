"""The house's floors: imports go down only, and below floor 3 nobody reads the clock, the environment or the disk."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import repro

ROOT = Path(repro.__file__).resolve().parent
FLOOR_0 = ("metrics", "datasets", "networks", "distributions")
FLOORS = {
    **dict.fromkeys((*FLOOR_0, "weights"), 0),
    **dict.fromkeys(("checkpoints", "distributed"), 1),
    **dict.fromkeys(("model", "training", "records", "evidence", "tables", "tables_cells", "plotting"), 1),
    **dict.fromkeys(("tables_joined", "tables_plain"), 1),
    **dict.fromkeys(("papers", "pretrained", "baselines", "baselines_inference", "baselines_joint"), 2),
    **dict.fromkeys(
        ("runs", "executors", "artifacts", "inventory", "gallery", "citation", "shipping", "hub", "bench", "compare"), 3
    ),
    **dict.fromkeys(("hub_card", "hub_manifest", "hub_models", "hub_pull", "hub_push", "loading", "reevaluation"), 3),
    **dict.fromkeys(
        (
            "store",
            "machine",
            "locks",
            "launch",
            "seats",
            "progress",
            "slurm",
            "status",
            "planning",
            "schedule",
            "speed",
        ),
        3,
    ),
    **dict.fromkeys(("results", "recording", "claims", "cost", "counting"), 3),
    **dict.fromkeys(("__main__", "cli", "cli_claims", "cli_cluster", "cli_data", "cli_list", "cli_overnight"), 4),
    **dict.fromkeys(("cli_push", "cli_results", "cli_weights"), 4),
}
# What fetches, caches and reads data; the loaders beside them read the files that these hand out.
DATA_IO = {f"repro.datasets.{m}" for m in ("archive", "cache", "card", "download", "fetch", "places")}
MACHINE = {"time", "datetime", "os", "shutil", "subprocess", "socket", "tempfile", "platform", "requests", "urllib"}
FILE_CALLS = {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rmdir", "iterdir", "glob"}
FILE_CALLS |= {"rglob", "exists", "is_file", "is_dir", "stat", "touch", "rename", "load_file", "save_file", "safe_open"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py")) if "data_cards" not in path.parts}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Every imported module, at the top or within functions, with its line; constant dynamic imports too."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in MODULES else node.module or "", node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            text = ast.unparse(node.args[0]).strip("f").strip("'\"")
            if text.startswith("repro."):
                yield text.split("{")[0].rstrip("."), node.lineno


def floor(module: str) -> int:
    """A module's floor; the package itself imports nothing and may be named by all."""
    parts = module.split(".")
    return -1 if len(parts) == 1 else FLOORS[parts[1]]


def room(module: str) -> str:
    """Floor 0 and papers are divided into rooms, the other floors are one each."""
    parts = module.split(".")
    if parts[1] in FLOOR_0:
        return parts[1]
    if parts[1] == "papers":
        return ".".join(parts[1:3])
    return "baselines" if parts[1].startswith("baselines") else f"floor {FLOORS[parts[1]]}"


def allowed(importer: str, imported: str) -> bool:
    if floor(imported) < floor(importer):
        return True
    if floor(imported) > floor(importer):
        return False
    here, there = room(importer), room(imported)
    if here == there or (importer == "repro.datasets.correlated_mnist" and there == "networks"):
        return True
    # Papers measure themselves against the baselines; MRF MVAE extends GMRF MCVAE.
    papers = here.startswith("papers.") and there == "baselines"
    return papers or (here, there) == ("papers.mrf_mvae", "papers.gmrf_mcvae")


def within_package(module: str) -> list[tuple[str, int]]:
    return [(name, line) for name, line in imports(module) if name == "repro" or name.startswith("repro.")]


def test_every_module_has_a_floor() -> None:
    assert len(MODULES) > 40
    assert [m for m in MODULES if m != "repro" and m.split(".")[1] not in FLOORS] == []


def test_imports_go_down_only() -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        if module != "repro"
        for name, line in within_package(module)
        if not allowed(module, name)
    ]
    assert wrong == []


def test_the_walk_sees_what_is_imported() -> None:
    found = {name for name, _ in within_package("repro.papers.gmrf_mcvae.experiments")}
    assert {"repro.records", "repro.baselines", "repro.papers.gmrf_mcvae.evaluation"} <= found
    assert "repro.papers" in {name for name, _ in within_package("repro.store")}
    assert not allowed("repro.metrics.transport", "repro.datasets.base")
    assert not allowed("repro.training", "repro.runs")
    assert not allowed("repro.baselines", "repro.papers.gmrf_mcvae.model")
    assert not allowed("repro.papers.gmrf_mcvae.model", "repro.papers.mrf_mvae.model")
    assert allowed("repro.papers.mrf_mvae.model", "repro.papers.gmrf_mcvae.model")


def test_only_the_baselines_import_multivae() -> None:
    found = {m for m in MODULES for name, _ in imports(m) if name.split(".")[0] == "multivae"}
    assert found == {"repro.baselines", "repro.baselines_joint"}


def lower(*, loaders: bool) -> list[str]:
    """Modules under floor 3 that have no leave to reach out; with or without the loaders of data."""
    free = DATA_IO | {"repro.checkpoints", "repro", "repro.metrics.inception"}
    below = [m for m in MODULES if m not in free and floor(m) < 3]
    return [m for m in below if loaders or room(m) != "datasets"]


def test_nobody_below_floor_3_imports_the_machine() -> None:
    wrong = [
        f"{m}:{line} imports {name}"
        for m in lower(loaders=True)
        for name, line in imports(m)
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


def test_nobody_below_floor_3_reads_or_writes_files() -> None:
    found = [call for m in lower(loaders=False) for call in file_calls(m)]
    # save_figure writes where its caller says, and reads nothing.
    assert [c for c in found if not c.startswith("repro.plotting:")] == []
    plotting = {c.split(" calls ")[1] for c in found if c.startswith("repro.plotting:")}
    assert plotting <= {"path.parent.mkdir", "target.write_bytes"}


def test_the_walk_sees_file_calls() -> None:
    found = "".join(file_calls("repro.runs"))
    assert "calls open" in found
    assert "path.read_text" in found
    assert list(file_calls("repro.papers.gmrf_mcvae.experiments")) == []


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled(module: str) -> None:
    banned = {"cloudpickle", "dill", "joblib", "shelve", "marshal"}
    assert [name for name, _ in imports(module) if name.split(".")[0] in banned] == []
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
    assert found == {"repro.model torch.manual_seed", "repro.model np.random.seed"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_name_what_they_offer(module: str) -> None:
    body = [n for n in tree(module).body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    offers = any(isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__" for n in tree(module).body)
    assert offers or not body

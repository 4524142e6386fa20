"""Where a method comes from: a function of a module, of a file, of an installed package's entry point, or multivae.

A :class:`Source` names the function and the SHA-256 of its source, so that the key of a run changes with the source
and no record stands for a source that was edited since.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import import_module, invalidate_caches
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from repro.errors import UsageError

__all__ = ["GROUP", "MULTIVAE", "NAME", "NAMED", "Source", "load", "source_of"]

GROUP = "repro.methods"  # of the entry points that offer methods
MULTIVAE = "multivae"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{,63}")  # of a method, and of its folder
NAMED = "a letter (A to Z), then up to 63 letters, digits, '_', '+' and '-'"


@dataclass(frozen=True)
class Source:
    """A function that builds a model, and what its source was.

    Arguments:
        module: A dotted name, or a file's path that ends in ``.py``, relative to the working directory or absolute.
        function: Its name in the module; a model's name for multivae.
        sha256: Of the file, or of all Python files of the module's top-level package, with their names.
        version: Of the distribution that the module was installed by, or its ``__version__``; empty without either.
    """

    module: str
    function: str
    sha256: str
    version: str

    @property
    def label(self) -> str:
        """``module:function``."""
        return f"{self.module}:{self.function}"

    def to_dict(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def _python_files(spec: ModuleSpec) -> Iterator[tuple[str, bytes]]:
    """Name and text of a module, and of all modules below it where it is a package; nothing is imported."""
    loader, origin = spec.loader, spec.origin
    if spec.submodule_search_locations is not None:
        for location in spec.submodule_search_locations:
            yield from _below(spec.name, partial(Path, location))
    elif isinstance(loader, SourceFileLoader) and origin is not None:
        yield spec.name, loader.get_data(origin)


def _below(name: str, files: Callable[[], Path]) -> Iterator[tuple[str, bytes]]:
    """The same of a package's folder; from folders without ``__init__.py`` modules are imported too."""
    for inner in [item.name for item in files().iterdir()]:
        if inner == "__init__.py":
            yield name, files().joinpath(inner).read_bytes()
        elif inner.endswith(".py"):
            yield f"{name}.{inner.removesuffix('.py')}", files().joinpath(inner).read_bytes()
        elif inner.isidentifier() and files().joinpath(inner).is_dir():
            yield from _below(f"{name}.{inner}", partial(files().joinpath, inner))


def _spec_of(module: str) -> ModuleSpec:
    """How a module or file would be imported.

    Raises:
        UsageError: If there is none.
    """
    if "" not in sys.path:
        sys.path.append("")  # the working directory, last: nothing there hides an installed module
    invalidate_caches()
    if module.endswith(".py"):
        name = "repro_method_" + hashlib.sha256(module.encode()).hexdigest()[:12]
        found = spec_from_file_location(name, module)
    else:
        try:
            found = find_spec(module.partition(".")[0])
        except ValueError:  # a module that was made by hand
            found = None
    if found is None:
        raise UsageError(f"there is no module {module!r}, neither installed nor in the working directory")
    return found


def _sha256(module: str) -> str:
    digest = hashlib.sha256()
    try:
        for name, text in sorted({*_python_files(_spec_of(module))}):  # a folder may be on the path twice
            digest.update(f"{'' if module.endswith('.py') else name} {len(text)}\n".encode())
            digest.update(text)
    except OSError as error:
        raise UsageError(f"cannot read {module}: {error.strerror or error}") from None
    return digest.hexdigest()


def _version(module: str) -> str:
    if module.endswith(".py"):
        return ""
    top = module.partition(".")[0]
    for name in packages_distributions().get(top, ()):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def source_of(text: str) -> tuple[str, Source]:
    """The default name and the source that a reader's word stands for.

    Arguments:
        text: ``"my_package.my_model:build"``, ``"my_model.py:build"``, ``"multivae:NAME"``, or the name of an installed
            package's entry point of the group ``repro.methods``.

    Raises:
        UsageError: If there is no such module, file or entry point.
    """
    name = ""
    if ":" not in text:
        if text.endswith(".py"):
            raise UsageError(f"which function of {text}? Such as {text}:build")
        entries = entry_points(group=GROUP)
        offered = {entry.name: entry.value for entry in entries}
        if len(values := {entry.value for entry in entries if entry.name == text}) > 1:
            raise UsageError(
                f"several installed packages offer a method {text!r}: {', '.join(sorted(values))}; name one"
            )
        if text not in offered:
            have = f"; installed packages offer {', '.join(sorted(offered))}" if offered else ""
            raise UsageError(
                f"no installed package offers a method {text!r}{have}; name a function, as my_package.model:build or "
                "my_model.py:build"
            )
        name, text = text, offered[text]
    module, _, function = text.rpartition(":")
    if module.endswith(".py"):
        module = _path(module)
    if not module or not function.isidentifier():
        entry = f"the entry point {name!r}, " if name else ""
        raise UsageError(f"{entry}{text!r} names no function; such as my_package.my_model:build or my_model.py:build")
    if module == MULTIVAE:
        from repro.baselines.named import named_models

        function = next((n for n in named_models() if n.lower() == function.lower()), function)
    default = function if module == MULTIVAE else module.removesuffix(".py").replace("\\", "/").split("/")[-1]
    return name or default.split(".")[-1], Source(module, function, _sha256(module), _version(module))


def _path(text: str) -> str:
    """A file's path in one spelling, relative where it lies in the working directory.

    Shells leave the ``~`` of ``NAME=~/model.py`` as it is.
    """
    try:
        given, here = Path(text).expanduser(), Path.cwd().resolve()
        path = given.parent.resolve() / given.name
    except (OSError, RuntimeError):  # no working directory; no such user
        return text
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


@cache
def _module(module: str, sha256: str) -> Any:
    if not module.endswith(".py"):
        _spec_of(module)
        return import_module(module)
    spec = _spec_of(module)
    made = module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses and pickle look a class's module up
    assert spec.loader is not None
    spec.loader.exec_module(made)
    return made


def load(source: Source) -> Callable[..., Any]:
    """The function itself; its module is imported.

    Raises:
        UsageError: If the source is another one than it was, cannot be imported, or has no such function.
    """
    if (found := _sha256(source.module)) != source.sha256:
        raise UsageError(
            f"{source.module} has changed: its source has the hash {found[:12]}, this run's had {source.sha256[:12]}; "
            "the command with --method plans it anew"
        )
    try:
        made = _module(source.module, source.sha256)
    except (Exception, SystemExit) as error:  # a script without a guard parses our command line, and exits
        raise UsageError(f"{source.module} cannot be imported: {type(error).__name__}: {error}") from None
    function = getattr(made, source.function, None)
    if not callable(function):
        raise UsageError(f"{source.module} has no function {source.function!r}")
    return function

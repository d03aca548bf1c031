"""Discovery: from files, folders and modules to the workflows they define. Importing is the only way; nothing is run twice."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from flux.decorators import Workflow
from flux.errors import DiscoveryError

AnyWorkflow = Workflow[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a file gave no workflows; the others are served all the same. `summary` is one line, `traceback` may be empty."""

    path: Path
    summary: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """`sources` are the files and folders that were read. Two workflows of one name are both in `workflows`: the Registry
    that takes them up refuses the second and names both."""

    workflows: list[AnyWorkflow] = field(default_factory=list[AnyWorkflow])
    problems: list[Problem] = field(default_factory=list[Problem])
    sources: list[Path] = field(default_factory=list[Path])


def discover(targets: Sequence[str | Path]) -> Discovery:
    """Import what `targets` name (.py files, folders, dotted modules and packages) and collect the workflows.

    Of a folder or package, only files that mention `flux` and `workflow` are imported, and no tests, hidden folders or
    virtual environments. What fails to import is a Problem. Raises DiscoveryError for a target that does not exist.
    While files are imported, what they print goes to stderr."""
    search = _Search()
    for target in targets:
        _look_into(search, target)
    return Discovery(
        workflows=list(search.workflows.values()),
        problems=list(search.problems.values()),
        sources=list(search.sources),
    )


class _Search:
    """What has been found so far, everything once."""

    def __init__(self) -> None:
        self.workflows: dict[int, AnyWorkflow] = {}
        self.problems: dict[Path, Problem] = {}
        self.sources: dict[Path, None] = {}
        self._read: set[tuple[Path, bool]] = set()

    def add(self, path: Path, name: str | None = None, *, explicit: bool) -> None:
        """Import one file. `name` is its module's name where that is known; `explicit` when the user named this very file."""
        self.sources[path] = None
        if path in self.problems or {(path, True), (path, explicit)} & self._read:
            return
        self._read.add((path, explicit))
        try:
            with contextlib.redirect_stdout(sys.stderr):  # on stdio, fd 1 belongs to the protocol
                module = _imported(path, name)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - users' code may raise anything; the other files are served
            self.problems[path] = _problem(path, exc)
            return
        found = list(_workflows_of(module, explicit=explicit))
        self.workflows |= {id(workflow): workflow for workflow in found}
        if explicit and not found and path.name != "__init__.py":
            self.problems[path] = Problem(path=path, summary="It defines no workflow: no function has `@workflow`.")


# --- targets ----------------------------------------------------------------------------------------------------------


def _look_into(search: _Search, target: str | Path) -> None:
    path = Path(target).expanduser()
    if path.is_dir():
        _add_folder(search, path.resolve())
    elif path.is_file():
        if path.suffix != ".py":
            raise DiscoveryError(f"{target} is no Python file. Give a .py file, a folder, or a module's dotted name.")
        search.add(path.resolve(), explicit=True)
    elif isinstance(target, str) and not target.endswith(".py") and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", target):
        _add_module(search, target)
    else:
        raise DiscoveryError(f"There is no {target} (looked in {Path.cwd()}). Check the path, or make the file first.")


def _add_folder(search: _Search, folder: Path, package: str | None = None) -> None:
    search.sources[folder] = None
    for path in _python_files(folder):
        if not _may_define_workflows(path):
            continue
        name = None if package is None else _dotted(package, path.relative_to(folder))
        search.add(path.resolve(), name, explicit=False)


def _add_module(search: _Search, name: str) -> None:
    _make_importable(Path.cwd())
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec = importlib.util.find_spec(name)  # this imports the parents of a dotted name
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            search.problems[Path(name)] = _problem(Path(name), exc)
            return
        spec = None
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a parent package may raise anything
        search.problems[Path(name)] = _problem(Path(name), exc)
        return
    if spec is None:
        raise DiscoveryError(
            f"There is no file, folder or module {name} (looked in {Path.cwd()} and among the installed packages). "
            "Give a .py file, a folder, or the dotted name of a module that Python can import."
        )
    folders = [Path(folder).resolve() for folder in spec.submodule_search_locations or ()]
    if spec.has_location and spec.origin is not None:
        search.add(Path(spec.origin).resolve(), name, explicit=True)
    for folder in folders:
        _add_folder(search, folder, name)


# --- folders ----------------------------------------------------------------------------------------------------------

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist", "test", "tests"})
_SKIPPED_FILES = frozenset({"conftest.py", "setup.py", "__main__.py"})


def _python_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_skipped_folder(Path(parent, name)))
        yield from (Path(parent, name) for name in sorted(files) if name.endswith(".py") and not _is_skipped_file(name))


def _is_skipped_folder(path: Path) -> bool:
    name = path.name
    return (
        name.startswith(".")
        or name in _SKIPPED_FOLDERS
        or name.endswith(".egg-info")
        or path.joinpath("pyvenv.cfg").exists()
    )


def _is_skipped_file(name: str) -> bool:
    return name.startswith((".", "test_")) or name.endswith("_test.py") or name in _SKIPPED_FILES


def _may_define_workflows(path: Path) -> bool:
    """A cheap look at the text, so that scripts which have nothing to do with Flux are not run."""
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return b"flux" in text and b"workflow" in text


# --- modules ----------------------------------------------------------------------------------------------------------


def _workflows_of(module: ModuleType, *, explicit: bool) -> Iterator[AnyWorkflow]:
    values = list(vars(module).values())
    for workflow in (cast(AnyWorkflow, value) for value in values if isinstance(value, Workflow)):
        if explicit or not _is_only_imported(workflow, module):
            yield workflow


def _is_only_imported(workflow: AnyWorkflow, module: ModuleType) -> bool:
    home = sys.modules.get(workflow.func.__module__)
    return home is not None and home is not module and any(value is workflow for value in list(vars(home).values()))


def _imported(path: Path, name: str | None) -> ModuleType:
    known = _already_imported(path)
    if known is not None:
        return known
    before = set(sys.modules)
    try:
        return _load(name or _name_for(path), path)
    except BaseException:  # whatever it was, nothing half-imported stays
        # parents before children: a failed package takes along what it had imported of its own
        for new in sorted(set(sys.modules) - before):
            if "." in new and new.rpartition(".")[0] not in sys.modules:
                del sys.modules[new]
        raise


def _already_imported(path: Path) -> ModuleType | None:
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and os.path.basename(file) == path.name and Path(file).resolve() == path:
            return module
    return None


def _load(name: str, path: Path) -> ModuleType:
    if _is_found_as(name, path):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported as {name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:  # whatever it was, nothing half-imported stays
        sys.modules.pop(name, None)
        raise
    return module


def _name_for(path: Path) -> str:
    """The dotted name inside a package, else the file's own name; another readable one where that is taken."""
    top = _package_root(path)
    if top is None:
        _make_importable(path.parent)
        return _free_name(path.stem, path)
    _make_importable(top.parent)
    package = _free_name(top.name, top / "__init__.py")
    name = _dotted(package, path.relative_to(top))
    if name != package and package not in sys.modules:
        _load(package, top / "__init__.py")
    return name


def _package_root(path: Path) -> Path | None:
    """The outermost folder of the package that `path` is in, None for a lone file."""
    top = None
    for folder in path.parents:
        if not folder.name.isidentifier() or not folder.joinpath("__init__.py").is_file():
            break
        top = folder
    return top


def _dotted(package: str, relative: Path) -> str:
    parts = [part for part in relative.with_suffix("").parts if part != "__init__"]
    return ".".join([package, *parts])


def _free_name(wanted: str, path: Path) -> str:
    """Stable as long as the same files are read: values are stored under the names of their classes' modules."""
    plain = _identifier(wanted)
    longer = f"{_identifier(path.parent.parent.name if path.name == '__init__.py' else path.parent.name)}_{plain}"
    names = [plain, longer, *(f"{longer}_{number}" for number in range(2, 1000))]
    return next(name for name in names if _is_free(name, path))


def _is_free(name: str, path: Path) -> bool:
    if name in sys.modules:
        return _file_of(getattr(sys.modules[name], "__spec__", None)) == path
    return _spec_of(name) is None or _is_found_as(name, path)


def _is_found_as(name: str, path: Path) -> bool:
    return _file_of(_spec_of(name)) == path


def _file_of(spec: ModuleSpec | None) -> Path | None:
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve()


def _spec_of(name: str) -> ModuleSpec | None:
    importlib.invalidate_caches()  # the file may be younger than what the finders remember of its folder
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: an imported module without a spec
        return None


def _identifier(name: str) -> str:
    plain = re.sub(r"\W", "_", name)
    return plain if plain.isidentifier() else f"_{plain}"


def _make_importable(folder: Path) -> None:
    # at the end: a user's `types.py` must not hide the standard library's
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


# --- problems ---------------------------------------------------------------------------------------------------------


def _problem(path: Path, error: BaseException) -> Problem:
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
    said = str(error).strip().splitlines()
    summary = type(error).__name__ + (f": {said[0]}" if said else "")
    if isinstance(error, SystemExit):
        summary += " (the file ends the program while it is imported; put that under `if __name__ == '__main__':`)"
    if line is not None:
        summary += f" ({path.name}:{line})"
    return Problem(path=path, summary=summary, traceback=_users_part(error))


def _users_part(error: BaseException) -> str:
    """The traceback without the frames of the import machinery and of this module."""
    shown = traceback.TracebackException.from_exception(error)
    machinery = {
        __file__,
        importlib.__file__,
        "<frozen importlib._bootstrap>",
        "<frozen importlib._bootstrap_external>",
    }
    own = [frame for frame in shown.stack if frame.filename not in machinery]
    shown.stack = traceback.StackSummary.from_list(own)
    return "".join(shown.format())

"""The rooms of the house, and which may import which. A module that is new needs a room, else a test here fails."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Room:
    """`modules` are modules and packages below `flux` unless they begin with it; `may_import` names rooms, its own is free."""

    modules: str
    may_import: str


ROOMS: dict[str, Room] = {
    # what is so, without clock, loop or disk
    "errors": Room("errors", ""),
    "domain": Room("domain", "errors"),
    # the seven rules; knows its ports, not who implements them
    "engine": Room("engine", "errors domain"),
    # what the user's code is given
    "context": Room("context events", "errors domain engine"),
    # values: written down exactly or refused, checked and described by their types
    "codec": Room("codec", "errors domain"),
    "schema": Room("schema", "errors context"),
    # the ports' implementations
    "tracing": Room("tracing", "errors domain engine"),
    "stores": Room("stores", "errors domain engine"),
    "machine": Room("clock host settings", "errors engine"),
    # what tasks may ask for: secrets, configuration, a cache, room for large values
    "provisions": Room("cache config provisions secrets storage", "errors domain engine codec machine"),
    # what the user writes
    "decorators": Room(
        "decorators options placing registry discovery schedules", "errors domain engine context schema"
    ),
    "tasks": Room("tasks", "errors domain engine context codec schema tracing decorators"),
    # the one place where all of it meets
    "service": Room(
        "service moving", "errors domain engine context codec schema tracing stores machine provisions decorators tasks"
    ),
    "flux": Room("flux", "errors domain context decorators tasks service"),
    # the ways in
    "testing": Room("testing", "errors domain engine context codec stores machine decorators tasks service flux"),
    "cli": Room("cli", "errors domain context schema machine provisions decorators tasks service flux"),
    "server": Room(
        "flux_mcp_server", "errors domain engine context codec schema machine decorators tasks service flux"
    ),
}

PURE = {"errors", "domain"}
"""Rooms that import nothing but each other and the standard library, and of that neither time nor concurrency."""
IMPURE_STDLIB = {"asyncio", "time", "threading", "socket", "sqlite3", "subprocess", "os", "random", "secrets"}

ENGINE_THIRD_PARTY = {"anyio"}
"""The engine's only foreign import: `anyio.to_thread` runs plain functions."""


@dataclass(frozen=True, slots=True)
class Import:
    """`target` is one of our modules, or the top name of a foreign one."""

    importer: str
    target: str
    line: int
    in_function: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path
    for package in ("flux", "flux_mcp_server")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk(node: ast.AST, *, in_function: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, in_function
        elif not is_type_checking(child):
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, in_function=inside)


def targets(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        named = [alias.name for alias in node.names]
    else:
        assert node.level == 0, f"{module}:{node.lineno}: imports are absolute here"
        base = node.module or ""
        submodules = [f"{base}.{alias.name}" for alias in node.names]
        named = [name if name in SOURCES else base for name in submodules]
    return [name if name in SOURCES else name.split(".")[0] for name in named]


def imports_of(module: str) -> list[Import]:
    tree = ast.parse(SOURCES[module].read_text("utf-8"))
    return [
        Import(module, target, node.lineno, in_function)
        for node, in_function in walk(tree)
        for target in targets(module, node)
    ]


IMPORTS = [found for module in SOURCES for found in imports_of(module)]


def room_of(module: str) -> str | None:
    homes = {
        name if name.startswith("flux") else f"flux.{name}": room
        for room, described in ROOMS.items()
        for name in described.modules.split()
    }
    if module in homes:
        return homes[module]
    return next((room for home, room in homes.items() if home != "flux" and module.startswith(f"{home}.")), None)


def lines(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def test_every_module_stands_in_a_room() -> None:
    assert [module for module in SOURCES if room_of(module) is None] == [], "give it a place in ROOMS"


def test_no_room_imports_one_that_it_may_not_know() -> None:
    def forbidden(found: Import) -> bool:
        own, other = room_of(found.importer), room_of(found.target)
        return own is not None and other not in {None, own, *ROOMS[own].may_import.split()}

    wrong = [found for found in IMPORTS if found.target in SOURCES and forbidden(found)]
    assert not wrong, lines(wrong)


def test_rooms_stand_in_an_order_without_circles() -> None:
    seen: set[str] = set()
    for name, room in ROOMS.items():
        assert set(room.may_import.split()) <= seen, f"{name} may only import rooms above it"
        seen.add(name)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {i.target for i in IMPORTS if i.importer == module and i.target in SOURCES} for module in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))


def test_the_innermost_rooms_are_pure() -> None:
    wrong = [
        found
        for found in IMPORTS
        if room_of(found.importer) in PURE
        and found.target not in SOURCES
        and (found.target not in sys.stdlib_module_names or found.target in IMPURE_STDLIB)
    ]
    assert not wrong, lines(wrong)


def test_the_engine_knows_no_driver_and_no_library_but_anyio() -> None:
    wrong = [
        found
        for found in IMPORTS
        if room_of(found.importer) == "engine"
        and found.target not in SOURCES
        and (found.target == "sqlite3" or found.target not in sys.stdlib_module_names | ENGINE_THIRD_PARTY)
    ]
    assert not wrong, lines(wrong)


def test_an_import_inside_a_function_says_why_on_its_line() -> None:
    def unexplained(found: Import) -> bool:
        line = SOURCES[found.importer].read_text("utf-8").splitlines()[found.line - 1]
        comment = line.partition("#")[2].removeprefix(" noqa: PLC0415").strip(" -#")
        return not comment

    wrong = [found for found in IMPORTS if found.in_function and unexplained(found)]
    assert not wrong, lines(wrong)


def test_a_forbidden_import_would_be_found() -> None:
    tree = ast.parse("def late():\n    from flux.stores import open_store\n    import flux.service as service")
    found = [(target, inside) for node, inside in walk(tree) for target in targets("flux.engine.run", node)]
    assert found == [("flux.stores", True), ("flux.service", True)]
    assert "stores" not in ROOMS["engine"].may_import.split()

"""`flux doctor`: what could be wrong on this machine, each as one line."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rich.text import Text

from flux.cli import screen
from flux.cli.loading import database_file, is_interrupted
from flux.errors import FluxError
from flux.service import Flux

Grade = Literal["ok", "warn", "fail"]
_MARKS: dict[Grade, tuple[str, str]] = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}

EXTRAS = {"ai": "pydantic_ai", "keyring": "keyring", "otel": "opentelemetry.distro"}
MOST = 100_000  # executions that are counted


@dataclass(frozen=True, slots=True)
class Check:
    grade: Grade
    what: str
    said: str


def doctor(*, as_json: bool, database: str | None) -> int:
    checks = list(_checks(database))
    if as_json:
        screen.print_json([asdict(check) for check in checks])
    else:
        for check in checks:
            mark, style = _MARKS[check.grade]
            screen.out().print(
                Text.assemble((mark, style), " ", (check.what, "bold"), f"  {screen.printable(check.said)}")
            )
    return 1 if any(check.grade == "fail" for check in checks) else 0


def _checks(database: str | None) -> Iterator[Check]:
    yield Check("ok", "versions", _versions())
    yield _extras()
    path = database_file(database)
    if path is None:
        yield Check("ok", "database", "in memory")
    elif not path.exists():
        yield _absent(path)
    else:
        yield from _database(path)
    yield _clients()


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("flux-mcp-server", "mcp", "pydantic"))
    return f"{packages}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"


def _extras() -> Check:
    there = {name: importlib.util.find_spec(module) is not None for name, module in EXTRAS.items()}
    words = ", ".join(f"{name} {'is there' if found else 'is not installed'}" for name, found in there.items())
    return Check("ok", "extras", words)


# -- the database ------------------------------------------------------------------------------------------------------


def _absent(path: Path) -> Check:
    folder = next(parent for parent in path.parents if parent.exists())
    if os.access(folder, os.W_OK):
        return Check("ok", "database", f"{path} will be made by the first run")
    return Check("fail", "database", f"{path} cannot be made: {folder} is not writable. Choose another --database.")


def _database(path: Path) -> Iterator[Check]:
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    size = f"{path.stat().st_size / 1_000_000:,.1f} MB"
    yield Check("ok" if writable else "fail", "database", f"{path}, {size}{'' if writable else ', not writable'}")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            (integrity,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as exc:
        yield Check("fail", "integrity", f"{exc}: bring back a copy, or choose another --database.")
        return
    yield Check("ok" if integrity == "ok" else "fail", "integrity", integrity)
    if mode != "wal":
        yield Check("warn", "journal", f"mode {mode}, not wal: slower, and readers wait for writers")
    try:
        yield from asyncio.run(_executions(path))
    except FluxError as exc:
        yield Check("fail", "executions", str(exc))


async def _executions(path: Path) -> list[Check]:
    async with Flux(path, recover=False) as flux:
        rows = await flux.list(limit=MOST)
    counted = Counter(row.status.value for row in rows)
    said = ", ".join(f"{number:,} {status}" for status, number in sorted(counted.items())) or "none yet"
    checks = [Check("ok", "executions", said)]
    left = [row.id for row in rows if is_interrupted(row)]
    if left:
        more = ", ..." if len(left) > 3 else ""
        said = f"{len(left):,} that no process runs ({', '.join(left[:3])}{more}): a server takes them up, or `flux resume` does"
        checks.append(Check("warn", "left behind", said))
    return checks


# -- who calls ---------------------------------------------------------------------------------------------------------


def _clients() -> Check:
    found = [name for name, path in _configurations() if _names_flux(path)]
    said = (
        ", ".join(found) if found else "no client's file names flux-mcp-server; `flux-mcp-server install` sets one up"
    )
    return Check("ok", "MCP clients", said)


def _configurations() -> Iterator[tuple[str, Path]]:
    home = Path.home()
    desktop = {
        "darwin": home / "Library" / "Application Support" / "Claude",
        "win32": Path(os.environ.get("APPDATA", home)) / "Claude",
    }.get(sys.platform, Path(os.environ.get("XDG_CONFIG_HOME", home / ".config")) / "Claude")
    yield "Claude Desktop", desktop / "claude_desktop_config.json"
    yield "Claude Code", home / ".claude.json"
    yield "Claude Code here", Path(".mcp.json")
    yield "Cursor", home / ".cursor" / "mcp.json"
    yield "Cursor here", Path(".cursor") / "mcp.json"
    yield "VS Code here", Path(".vscode") / "mcp.json"


def _names_flux(path: Path) -> bool:
    try:
        return "flux-mcp-server" in path.read_text("utf-8", errors="replace")
    except OSError:
        return False

"""`--reload`: the files that workflows came from are watched, and read again when one of them has changed."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flux.decorators import Workflow
from flux.discovery import Discovery, discover
from flux.errors import FluxError

log = logging.getLogger("flux.mcp")

LOOK = 0.5  # seconds between two looks at the files
MOST_FILES = 2000

Stamps = Mapping[Path, tuple[int, int]]


async def watch(targets: Sequence[str], found: Discovery, changed: Callable[[Discovery], Awaitable[None]]) -> None:
    """Calls `changed` with what is found after each change, for ever. What cannot be served is logged, and all stays as it was."""
    sources = found.sources
    before = await asyncio.to_thread(stamps_of, sources)
    while True:
        await asyncio.sleep(LOOK)
        now = await asyncio.to_thread(stamps_of, sources)
        if now == before:
            continue
        before = now
        try:
            again = read_again(targets, sources)
            await changed(again)
        except FluxError as exc:
            log.error("not reloaded: %s", exc)
        else:
            sources = again.sources
            log.info("reloaded: %d workflows", len(again.workflows))


def stamps_of(sources: Iterable[Path]) -> Stamps:
    """When each file was written last, and its size; of folders, of the files in them."""
    files = [file for source in sources for file in (source.rglob("*.py") if source.is_dir() else [source])]
    found: dict[Path, tuple[int, int]] = {}
    for file in files[:MOST_FILES]:
        try:
            seen = file.stat()
        except OSError:  # it was deleted a moment ago
            continue
        found[file] = (seen.st_mtime_ns, seen.st_size)
    return found


def read_again(targets: Sequence[str], sources: Sequence[Path]) -> Discovery:
    """Import all of it anew. Files that cannot be imported any more stay what they were: so do their workflows."""
    before = {name: module for name, module in sys.modules.items() if _comes_from(module, sources)}
    for name in before:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        found = discover(targets)
    except FluxError:
        sys.modules.update(before)
        raise
    broken = {str(problem.path) for problem in found.problems}
    old = {name: module for name, module in before.items() if module.__file__ in broken and name not in sys.modules}
    sys.modules.update(old)
    kept: list[Any] = [
        value for module in old.values() for value in vars(module).values() if isinstance(value, Workflow)
    ]
    return replace(found, workflows=[*found.workflows, *kept])


def _comes_from(module: object, sources: Sequence[Path]) -> bool:
    file = getattr(module, "__dict__", {}).get("__file__")
    if not isinstance(file, str):
        return False
    path = Path(file)
    return any(path == source or source in path.parents for source in sources)

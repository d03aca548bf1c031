"""Where the facts are kept. `open_store(url)` picks the store; each implements `flux.engine.ports.Store`."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from flux.engine.ports import Store
from flux.errors import StoreError
from flux.stores.memory import MemoryStore
from flux.stores.sqlite import SQLiteStore, Synchronous

__all__ = ["MemoryStore", "SQLiteStore", "open_store"]

_SUPPORTED = "sqlite:///folder/flux.db, sqlite:////absolute/folder/flux.db, a plain path, memory:"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters or more: `C:\flux.db` is a path


@asynccontextmanager
async def open_store(url: str, *, synchronous: Synchronous = "full") -> AsyncGenerator[Store]:
    """The store that `url` names, closed at the end of the block.

    `synchronous` is for SQLite: "full" loses nothing, "normal" may lose the last commits when the machine loses its power."""
    path = _sqlite_path(url)
    store: Store = MemoryStore() if path is None else await SQLiteStore.open(path, synchronous=synchronous)
    try:
        yield store
    finally:
        await store.aclose()


def _sqlite_path(url: str) -> str | None:
    """The path of a SQLite file, None for memory. What is wrong is told by the scheme alone: a URL may hold a password."""
    if url in ("memory:", "memory://", ":memory:", "sqlite:///:memory:"):
        return None
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else ""
    if not scheme and url:
        return url
    if scheme == "sqlite":
        rest = url[len("sqlite:") :]
        if rest.startswith("///") and len(rest) > len("///"):
            return rest[len("///") :]
        raise StoreError(f"A SQLite URL has three slashes before the path, as in sqlite:///flux.db, not {url!r}.")
    if scheme.partition("+")[0] in ("postgres", "postgresql"):
        raise StoreError(f"PostgreSQL is not in this version. Supported: {_SUPPORTED}.")
    raise StoreError(f"No store for {scheme + ':' if scheme else 'an empty URL'!r}. Supported: {_SUPPORTED}.")

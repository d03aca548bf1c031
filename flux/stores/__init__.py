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

_SUPPORTED = "sqlite:///folder/flux.db, sqlite:////absolute/folder/flux.db, a plain path, postgresql://user@host/database, memory:"
_POSTGRES = ("postgresql://", "postgres://")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters or more: `C:\flux.db` is a path


@asynccontextmanager
async def open_store(url: str, *, synchronous: Synchronous = "full") -> AsyncGenerator[Store]:
    """The store that `url` names, closed at the end of the block.

    `synchronous` is for SQLite: "full" loses nothing, "normal" may lose the last commits when the machine loses its power."""
    store = await _opened(url, synchronous)
    try:
        yield store
    finally:
        await store.aclose()


async def _opened(url: str, synchronous: Synchronous) -> Store:
    if url.startswith(_POSTGRES):
        return await _postgres(url)
    path = _sqlite_path(url)
    return MemoryStore() if path is None else await SQLiteStore.open(path, synchronous=synchronous)


async def _postgres(url: str) -> Store:
    try:
        from flux.stores.postgres import PostgresStore  # noqa: PLC0415 - of the optional extra `postgres`
    except ImportError as exc:
        raise StoreError(f"PostgreSQL needs the extra: pip install 'flux-mcp-server[postgres]' ({exc}).") from exc
    return await PostgresStore.open(url)


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
    raise StoreError(f"No store for {scheme + ':' if scheme else 'an empty URL'!r}. Supported: {_SUPPORTED}.")

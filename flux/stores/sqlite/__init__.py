"""One SQLite file, through aiosqlite."""

from flux.stores.sqlite.opening import Synchronous
from flux.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore", "Synchronous"]

"""What the databases themselves can do: rows a second, one a commit, durable. Every other figure stands beside these."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

SQLITE_COMMITS = "raw sqlite3 commits"


def sqlite_commits(folder: Path, count: int = 2_000) -> float:
    """One writer on the disk of this folder, WAL and synchronous=FULL."""
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER, body TEXT)")
    began = time.perf_counter()
    for number in range(count):
        connection.execute("INSERT INTO rows VALUES (?, ?)", (number, "x" * 100))
    taken = time.perf_counter() - began
    connection.close()
    return count / taken

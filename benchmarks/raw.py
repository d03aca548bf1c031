"""What the databases themselves can do: rows a second, one a commit, durable. Every other figure stands beside these."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import psycopg

SQLITE_COMMITS = "raw sqlite3 commits"
POSTGRES_COMMITS = "raw PostgreSQL commits"


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


def postgres_commits(url: str, count: int = 2_000) -> float:
    """One connection to this database, synchronous_commit as the server has it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS rows (number bigint, body text)")
        began = time.perf_counter()
        for number in range(count):
            connection.execute("INSERT INTO rows VALUES (%s, %s)", (number, "x" * 100), prepare=True)
        return count / (time.perf_counter() - began)

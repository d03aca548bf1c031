"""Opening a SQLite file: folders, settings, schema - and what to say when that fails."""

from __future__ import annotations

import logging
import sqlite3
import time
from importlib import resources
from pathlib import Path
from typing import Literal

from flux.errors import SchemaTooNew, StoreError

Synchronous = Literal["full", "normal"]

BUSY_SECONDS = 30.0
"""How long a writer waits for the writers of other processes."""

APPLICATION_ID = 0x464C5558  # "FLUX", in the header of the file
_CHECKPOINT_PAGES = 400  # shorter is better for one caller (the WAL is written over in place), longer for many

_log = logging.getLogger(__name__)

_HINTS = {
    sqlite3.SQLITE_BUSY: f"Another program has kept it locked for {BUSY_SECONDS:g} s: see who has the file open.",
    sqlite3.SQLITE_FULL: "The disk is full: free some space; nothing is half-written.",
    sqlite3.SQLITE_READONLY: "It is read-only here: check who may write to the file and to its folder.",
    sqlite3.SQLITE_PERM: "Check who may write to the file and to its folder.",
    sqlite3.SQLITE_CANTOPEN: "Check that it is a file, not a folder, and who may write to it and to its folder.",
    sqlite3.SQLITE_NOTADB: "It is some other kind of file: choose another --database.",
    sqlite3.SQLITE_CORRUPT: "The file is damaged: bring back a copy of it, or choose another --database.",
    sqlite3.SQLITE_IOERR: "The disk failed to read or write: check it, and that the folder is still there.",
    sqlite3.SQLITE_TOOBIG: "A single value is larger than SQLite can hold (1 GB).",
}


def store_error(path: Path, doing: str, exc: Exception) -> StoreError:
    """`exc` as one of ours: what was tried, on which file, what SQLite said, what to do."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    hint = _HINTS.get(code, "")
    return StoreError(f"Could not {doing} the database {path}: {exc}. {hint}".rstrip())


def open_writer(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """A connection that writes; makes the file, its folder and its tables when they are missing."""
    if path.is_dir():
        raise StoreError(f"Could not open the database {path}: it is a folder. Name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(f"Could not make the folder of the database {path}: {exc.strerror}.") from exc
    connection = _connect(path, synchronous)
    try:
        connection.execute("BEGIN")  # one view of the file, while another process may be making its tables
        _check_version(connection, path)
        connection.execute("COMMIT")
        _use_wal(connection, path)
        _migrate(connection, path)
    except BaseException:  # whatever it was, the file is closed
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    connection = _connect(path, "full")
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    return connection


def _use_wal(connection: sqlite3.Connection, path: Path) -> None:
    """The switch to WAL is the one lock SQLite does not wait for, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        _log.warning(
            "%s cannot use write-ahead logging here (it stays in mode %r, as on network disks): slower, and readers wait "
            "for writers",
            path,
            mode,
        )


def _check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version: 0 for a new file. Refuses newer ones, and files that are not ours."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    known = len(_migrations())
    if found > known:
        raise SchemaTooNew(str(path), found, known)
    if application != APPLICATION_ID:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables or application:
            raise StoreError(f"{path} is the database of another program. Choose another --database.")
    return found


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date. The version is read again under the lock: another process may have been quicker."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _check_version(connection, path)
        for script in _migrations()[found:]:
            for statement in script.split(";"):
                connection.execute(statement)
        if found < len(_migrations()):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(_migrations())}")
        connection.execute("COMMIT")
    except BaseException:  # whatever it was, nothing half-written stays
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrations() -> list[str]:
    folder = resources.files("flux.stores.sqlite") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [file.read_text("utf-8") for file in files]

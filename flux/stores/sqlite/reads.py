"""Everything that reads the SQLite file, as plain functions over a connection in its own thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from flux.domain.events import Event
from flux.domain.execution import Status
from flux.domain.queues import QueueState
from flux.engine.ports import Listing
from flux.errors import ExecutionNotFound
from flux.stores.columns import LISTING, listing_from
from flux.stores.rows import FIRST_JOURNAL_KIND, from_row

_PAGE_ROWS = 256

# A page of facts comes as one JSON text: fetched row by row, each row would wait for the interpreter's lock anew, which
# beside a busy event loop makes a long history ten times slower to load.
_PAGE = """
SELECT '[' || group_concat(
  '[' || seq || ',' || kind || ',' || at || ',' || json_quote(call) || ',' || json_quote(value) || ','
  || ifnull(facts, '{}') || ']', ','
) || ']' FROM (
  SELECT * FROM events %s WHERE execution = ? AND seq > ? AND seq <= ? %s ORDER BY seq LIMIT ?
)
"""
_ALL = _PAGE % ("", "")
_LIFECYCLE = _PAGE % ("INDEXED BY events_of_lifecycle", f"AND kind < {FIRST_JOURNAL_KIND}")


def load(connection: sqlite3.Connection, id: str, after: int) -> list[Event]:
    number, last = _stream(connection, id)
    return _events(connection, _ALL, number, after, last)


def lifecycle(connection: sqlite3.Connection, id: str) -> list[Event]:
    number, last = _stream(connection, id)
    return _events(connection, _LIFECYCLE, number, 0, last)


def last(connection: sqlite3.Connection, id: str) -> int:
    return _stream(connection, id)[1]


def _stream(connection: sqlite3.Connection, id: str) -> tuple[int, int]:
    """The execution's number, and that of its last fact."""
    row = connection.execute(
        "SELECT number, (SELECT max(seq) FROM events WHERE execution = number) FROM executions WHERE id = ?", (id,)
    ).fetchone()
    if row is None:
        raise ExecutionNotFound(id)
    return row


def _events(connection: sqlite3.Connection, sql: str, number: int, after: int, upto: int) -> list[Event]:
    events: list[Event] = []
    size = _PAGE_ROWS
    while after < upto:
        try:
            (page,) = connection.execute(sql, (number, after, upto, size)).fetchone()
        except sqlite3.DataError:  # a page of huge values is more than SQLite's longest text
            if size == 1:
                raise
            size //= 2
            continue
        if page is None:
            break
        rows = sorted(json.loads(page))
        events += map(from_row, rows)
        after = rows[-1][0]
    return events


# --- lists of executions


def find(
    connection: sqlite3.Connection,
    workflow: str | None,
    status: Collection[Status] | None,
    principal: str | None,
    parent: str | None,
    before: tuple[float, str] | None,
    limit: int,
) -> list[Listing]:
    tests: list[str] = []
    parameters: list[Any] = []
    for column, wanted in (("workflow", workflow), ("principal", principal), ("parent", parent)):
        if wanted is not None:
            tests.append(f"{column} = ?")
            parameters.append(wanted)
    if status is not None:
        tests.append(f"status IN ({','.join('?' * len(status))})")
        parameters += status
    if before is not None:
        tests.append("(created_at, id) < (?, ?)")
        parameters += before
    where = f"WHERE {' AND '.join(tests)}" if tests else ""
    sql = f"{LISTING} {where} ORDER BY created_at DESC, id DESC LIMIT ?"
    return _listings(connection, sql, [*parameters, limit])


def find_key(connection: sqlite3.Connection, key: str, since: float) -> Listing | None:
    sql = f"{LISTING} WHERE key = ? AND created_at >= ? ORDER BY created_at DESC, id DESC LIMIT 1"
    return next(iter(_listings(connection, sql, [key, since])), None)


# the plus keeps SQLite to the short indexes (what runs, what wakes) instead of all a workflow has ever done
_DUE = f"""
SELECT * FROM (
  {LISTING} WHERE status = 'running'
  AND +workflow IN (SELECT value FROM json_each(:workflows))
  AND CASE WHEN owner_token IS NULL THEN queue IS NULL ELSE lease_until <= :now END
  UNION ALL
  {LISTING} WHERE wake_at <= :now AND +status IN ('paused', 'sleeping')
  AND +workflow IN (SELECT value FROM json_each(:workflows)) AND (owner_token IS NULL OR lease_until <= :now)
) ORDER BY coalesce(wake_at, updated_at), id LIMIT :limit
"""
_AWAITED = f"""
{LISTING} AS parked WHERE status IN ('paused', 'sleeping') AND +workflow IN (SELECT value FROM json_each(:workflows))
AND EXISTS (
  SELECT 1 FROM executions AS child WHERE child.parent = parked.id
  AND child.status IN ('completed', 'failed', 'cancelled') AND child.updated_at >= parked.updated_at - 60
) LIMIT :limit
"""
_OWNED = f"""
{LISTING} WHERE status = 'running' AND owner_token IS NOT NULL
AND +workflow IN (SELECT value FROM json_each(:workflows)) ORDER BY created_at, id
"""


def due(connection: sqlite3.Connection, workflows: Collection[str], now: float, limit: int) -> list[Listing]:
    return _listings(connection, _DUE, {"workflows": json.dumps(list(workflows)), "now": now, "limit": limit})


def recall(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT text FROM notes WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]


def notes(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT key, text FROM notes").fetchall())


def awaited(connection: sqlite3.Connection, workflows: Collection[str], limit: int) -> list[Listing]:
    return _listings(connection, _AWAITED, {"workflows": json.dumps(list(workflows)), "limit": limit})


def owned(connection: sqlite3.Connection, workflows: Collection[str]) -> list[Listing]:
    return _listings(connection, _OWNED, {"workflows": json.dumps(list(workflows))})


def is_waiting(connection: sqlite3.Connection, queue: str) -> bool:
    """Whether anything waits for its turn in the queue."""
    sql = "SELECT EXISTS (SELECT 1 FROM executions WHERE queue = ? AND status = 'running' AND owner_token IS NULL)"
    (waiting,) = connection.execute(sql, (queue,)).fetchone()
    return bool(waiting)


_QUEUES = """
SELECT queue, sum(running), sum(waiting) FROM (
  SELECT queue, 1 AS running, 0 AS waiting FROM executions WHERE queue IS NOT NULL AND owner_token IS NOT NULL AND status = 'running'
  UNION ALL
  SELECT queue, 0, 1 FROM executions WHERE queue IS NOT NULL AND status = 'running' AND owner_token IS NULL
) GROUP BY queue ORDER BY queue
"""


def queues(connection: sqlite3.Connection) -> list[QueueState]:
    rows = connection.execute(_QUEUES).fetchall()
    return [QueueState(name=name, running=running, waiting=waiting) for name, running, waiting in rows]


def _listings(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> list[Listing]:
    return [listing_from(row) for row in connection.execute(sql, parameters).fetchall()]

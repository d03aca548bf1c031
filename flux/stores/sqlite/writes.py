"""Everything that writes to the SQLite file, as plain functions over a connection in its own thread.

Python's sqlite3 gives the interpreter lock up, and has to win it back, at every statement and at every row fetched: beside
a busy event loop that is what costs. So a group of appends is one statement when it can be, and a handful when it cannot,
whatever its size; and what they have to tell comes back in one row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import count
from typing import Any

from flux.domain.queues import Queue, Room
from flux.engine.ports import Lease, Owner
from flux.errors import ExecutionNotFound, LeaseLost, QueueFull, StreamMoved
from flux.stores.columns import lease_columns, owner_columns, owner_from, place_columns
from flux.stores.plan import (
    Append,
    Create,
    Known,
    Outcome,
    Plan,
    Post,
    Stream,
    Write,
    marks_of,
    plain_streams,
    unique_keys,
)

MAX_ROWS = 1024
"""Rows of one statement at most. SQLite takes 32,766 parameters, a fact of an append has ten."""


def write_group(connection: sqlite3.Connection, group: Sequence[Write]) -> list[Outcome]:
    """All of `group` in one commit. What is wrong with one of them is its own outcome; the database's errors are raised."""
    try:
        return _write(connection, group)
    except sqlite3.OperationalError:
        raise
    except (sqlite3.Error, OverflowError) as exc:  # a value SQLite cannot take: find out whose it is
        if len(group) == 1:
            return [exc]
        return [write_group(connection, [one])[0] for one in group]


def _write(connection: sqlite3.Connection, group: Sequence[Write]) -> list[Outcome]:
    streams = plain_streams(group, most=MAX_ROWS)
    if streams is not None:
        refused = _append_plain(connection, streams)
        return [refused.get(write.id) for write in group]
    with _Transaction(connection):
        return _carry_out(connection, group)


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        try:
            if exc_type is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


# --- the common case: facts only, one statement


_APPEND = """
INSERT INTO events (execution, seq, kind, at, call, value, facts)
SELECT e.number, v.column5, v.column6, v.column7, v.column8, v.column9, v.column10
FROM ({values}) AS v CROSS JOIN executions AS e ON e.id = v.column1
WHERE e.epoch = v.column2 AND e.owner_token = v.column3 AND v.column4 = (SELECT max(seq) FROM events WHERE execution = e.number)
"""


def _append_plain(connection: sqlite3.Connection, streams: dict[str, Stream]) -> dict[str, Exception]:
    """Add the facts of every stream that is as its writers believe. Returns why the others were refused."""
    parameters: list[Any] = []
    size = 0
    for id, stream in streams.items():
        expected = stream.first.expected
        fence = (id, stream.first.lease.epoch, stream.first.lease.owner.token, expected)
        for seq, row in enumerate(stream.rows, expected + 1):
            parameters += (*fence, seq, *row)
        size += len(stream.rows)
    cursor = connection.execute(*_with_values(_APPEND, 10, size, parameters))
    if cursor.rowcount == size:
        return {}
    written = _streams_just_written(connection, cursor)
    return {id: _why_refused(connection, stream.first) for id, stream in streams.items() if id not in written}


def _streams_just_written(connection: sqlite3.Connection, cursor: sqlite3.Cursor) -> set[str]:
    """Whose rows the last INSERT made: rows made by one statement have rowids that follow one another."""
    if not cursor.rowcount:
        return set()
    (last,) = connection.execute("SELECT last_insert_rowid()").fetchone()
    rows = connection.execute(
        "SELECT DISTINCT executions.id FROM events JOIN executions ON number = execution "
        "WHERE events.rowid BETWEEN ? AND ?",
        (last - cursor.rowcount + 1, last),
    )
    return {id for (id,) in rows}


def _why_refused(connection: sqlite3.Connection, append: Append) -> Exception:
    row = connection.execute("SELECT epoch, owner_token FROM executions WHERE id = ?", (append.id,)).fetchone()
    if row != (append.lease.epoch, append.lease.owner.token):
        return LeaseLost(append.id)
    return StreamMoved(append.id, append.expected)


# --- the general case: one transaction, decided here


_KNOWN = """
SELECT json_group_array(json_array(
         id, number, epoch, owner_token,
         (SELECT max(seq) FROM events WHERE execution = number),
         CASE WHEN v.column2 THEN
           (SELECT count(*) FROM events INDEXED BY events_of_lifecycle WHERE execution = number AND kind < 50)
         ELSE 0 END
       )),
       (SELECT coalesce(max(number), 0) FROM executions)
FROM ({values}) AS v CROSS JOIN executions ON id = v.column1
"""
_STANDS = """
SELECT queue, deduplication, id FROM executions
WHERE queue = ? AND deduplication = ? AND status NOT IN ('completed', 'failed', 'cancelled')
"""
_TAKEN = """
SELECT json_group_object(v.column1, (
  SELECT id FROM executions WHERE key = v.column1 AND created_at >= v.column2 ORDER BY created_at DESC, id DESC LIMIT 1
)) FROM ({values}) AS v WHERE v.column1 IS NOT NULL
"""
_INSERT_EXECUTIONS = """
INSERT INTO executions (number, id, workflow, status, created_at, updated_at, wake_at, principal, parent, key,
                        queue, partition, priority, deduplication, epoch,
                        owner_host, owner_pid, owner_started, owner_token, lease_until)
SELECT * FROM ({values}) WHERE column1 IS NOT NULL
"""
_INSERT_EVENTS = """
INSERT INTO events (execution, seq, kind, at, call, value, facts)
SELECT * FROM ({values}) WHERE column1 IS NOT NULL
"""
_UPDATE_EXECUTIONS = """
UPDATE executions SET
  status = coalesce(v.column2, status), updated_at = coalesce(v.column3, updated_at),
  wake_at = CASE WHEN v.column2 IS NULL THEN wake_at ELSE v.column4 END,
  owner_host = CASE WHEN v.column5 THEN NULL ELSE owner_host END,
  owner_pid = CASE WHEN v.column5 THEN NULL ELSE owner_pid END,
  owner_started = CASE WHEN v.column5 THEN NULL ELSE owner_started END,
  owner_token = CASE WHEN v.column5 THEN NULL ELSE owner_token END,
  lease_until = CASE WHEN v.column5 THEN NULL ELSE lease_until END
FROM ({values}) AS v WHERE number = v.column1
"""


def _carry_out(connection: sqlite3.Connection, group: Sequence[Write]) -> list[Outcome]:
    plan = _plan(connection, group)
    outcomes = plan.judge(group)
    changed = [known for known in plan.changed.values() if known.head or known.release]
    _in_chunks(connection, _INSERT_EXECUTIONS, [_execution_row(*one) for one in plan.created])
    _in_chunks(connection, _UPDATE_EXECUTIONS, [_change_row(known) for known in changed])
    _in_chunks(connection, _INSERT_EVENTS, [(number, seq, *row) for number, seq, row in plan.events])
    return outcomes


def _plan(connection: sqlite3.Connection, group: Sequence[Write]) -> Plan:
    ids = dict.fromkeys((write.id for write in group), False)
    # lifecycle facts are counted where it matters
    ids |= {write.id: True for write in group if isinstance(write, Post)}
    sql, parameters = _with_values(_KNOWN, 2, len(ids), [column for item in ids.items() for column in item])
    found, highest = connection.execute(sql, parameters).fetchone()
    stands = [row for mark in set(marks_of(group)) for row in connection.execute(_STANDS, mark)]
    return Plan(
        known={id: Known(*rest) for id, *rest in json.loads(found)},
        numbers=count(highest + 1),
        stands={(queue, mark): id for queue, mark, id in stands},
        taken=_taken(connection, keys) if (keys := unique_keys(group)) else {},
    )


def _taken(connection: sqlite3.Connection, keys: Sequence[tuple[str, float]]) -> dict[str, str]:
    sql, parameters = _with_values(_TAKEN, 2, len(keys), [column for key in keys for column in key])
    (found,) = connection.execute(sql, parameters).fetchone()
    return {key: id for key, id in json.loads(found).items() if id is not None}


def _execution_row(create: Create, known: Known) -> tuple[Any, ...]:
    head, owner = create.head, create.owner
    return (
        *(
            known.number,
            create.id,
            create.workflow,
            head.status.value,
            create.created_at,
            head.updated_at,
            head.wake_at,
        ),
        *(create.principal, create.parent, create.key),
        *place_columns(create.place),
        *(known.epoch, *owner_columns(owner), head.updated_at + create.ttl if owner else None),
    )


def _change_row(known: Known) -> tuple[Any, ...]:
    head = known.head
    of_head = (head.status.value, head.updated_at, head.wake_at) if head else (None, None, None)
    return (known.number, *of_head, known.release)


# --- notes


def remember(connection: sqlite3.Connection, key: str, text: str) -> None:
    with _Transaction(connection):
        connection.execute(
            "INSERT INTO notes VALUES (?, ?) ON CONFLICT DO UPDATE SET text = excluded.text", (key, text)
        )


def agree(connection: sqlite3.Connection, key: str, text: str) -> str:
    with _Transaction(connection):
        connection.execute("INSERT INTO notes VALUES (?, ?) ON CONFLICT DO NOTHING", (key, text))
        (kept,) = connection.execute("SELECT text FROM notes WHERE key = ?", (key,)).fetchone()
    return kept


# --- retention


_PRUNED = """
SELECT number FROM executions AS old WHERE status IN ('completed', 'failed', 'cancelled') AND updated_at < ?
AND NOT EXISTS (
  SELECT 1 FROM executions AS parent WHERE parent.id = old.parent AND parent.status NOT IN ('completed', 'failed', 'cancelled')
) LIMIT 100
"""


def prune(connection: sqlite3.Connection, before: float) -> int:
    """Delete some executions that ended before then; how many it were, 0 when none is left."""
    with _Transaction(connection):
        numbers = [number for (number,) in connection.execute(_PRUNED, (before,))]
        marks = ",".join("?" * len(numbers))
        connection.execute(f"DELETE FROM events WHERE execution IN ({marks})", numbers)
        connection.execute(f"DELETE FROM executions WHERE number IN ({marks})", numbers)
    return len(numbers)


# --- many rows in one statement


@lru_cache(maxsize=64)
def _statement(template: str, columns: int, rows: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return template.format(values="VALUES " + ",".join([row] * rows))


def _with_values(template: str, columns: int, size: int, parameters: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """The statement for `size` rows, filled up with NULLs to a power of two: few statements to prepare and to keep."""
    rows = 1 << max(size - 1, 0).bit_length()
    return _statement(template, columns, rows), [*parameters, *(None,) * ((rows - size) * columns)]


def _in_chunks(connection: sqlite3.Connection, template: str, rows: Sequence[tuple[Any, ...]]) -> None:
    for start in range(0, len(rows), MAX_ROWS):
        chunk = rows[start : start + MAX_ROWS]
        parameters = [column for row in chunk for column in row]
        connection.execute(*_with_values(template, len(chunk[0]), len(chunk), parameters))


# --- leases


def claim(
    connection: sqlite3.Connection,
    id: str,
    owner: Owner,
    ttl: float,
    now: float,
    dead: Collection[Owner],
    queues: Collection[Queue],
) -> Lease | Owner:
    with _Transaction(connection):
        row = connection.execute(
            "SELECT number, epoch, queue, partition, admitted_at, lease_until, "
            "owner_host, owner_pid, owner_started, owner_token FROM executions WHERE id = ?",
            (id,),
        ).fetchone()
        if row is None:
            raise ExecutionNotFound(id)
        number, epoch, queue_name, partition, admitted_at, lease_until, *held_by = row
        holder = owner_from(held_by)
        if holder and holder != owner and lease_until > now and holder not in dead:
            return holder
        queue = next((queue for queue in queues if queue.name == queue_name), None)
        if queue and not _room(connection, queue, now, but=number).take(partition, is_new=admitted_at is None):
            raise QueueFull(id, queue.name)
        _give(connection, [number], owner, until=now + ttl, now=now)
        taken_from = holder if holder != owner else None
        return Lease(execution_id=id, owner=owner, epoch=epoch + 1, taken_from=taken_from)


def _give(connection: sqlite3.Connection, numbers: Sequence[int], owner: Owner, *, until: float, now: float) -> None:
    connection.execute(
        "UPDATE executions SET epoch = epoch + 1, owner_host = ?, owner_pid = ?, owner_started = ?, owner_token = ?, "
        "lease_until = ?, admitted_at = CASE WHEN queue IS NULL THEN NULL ELSE coalesce(admitted_at, ?) END "
        f"WHERE number IN ({','.join('?' * len(numbers))})",
        (*owner_columns(owner), until, now, *numbers),
    )


# --- queues


_WAITING = """
SELECT number, id, epoch, partition, admitted_at IS NULL FROM executions
WHERE queue = :queue AND status = 'running' AND owner_token IS NULL
AND +workflow IN (SELECT value FROM json_each(:workflows))
AND (:only IS NULL OR id IN (SELECT value FROM json_each(:only)))
AND (partition IS NULL OR partition NOT IN (SELECT value FROM json_each(:full)))
AND (:may_begin OR admitted_at IS NOT NULL)
ORDER BY admitted_at IS NULL, priority DESC, created_at, number LIMIT :most
"""


def admit(
    connection: sqlite3.Connection,
    queue: Queue,
    owner: Owner,
    workflows: Collection[str],
    ttl: float,
    now: float,
    most: int,
    only: Collection[str] | None,
) -> list[Lease]:
    leases: list[Lease] = []
    with _Transaction(connection):
        room = _room(connection, queue, now)
        while len(leases) < most and not room.is_full:
            wanted = {
                "queue": queue.name,
                "workflows": json.dumps(list(workflows)),
                "only": None if only is None else json.dumps(list(only)),
                "full": json.dumps(room.full_partitions),
                "may_begin": room.may_begin,
                "most": most - len(leases),
            }
            rows = connection.execute(_WAITING, wanted).fetchall()
            taken = [row for row in rows if room.take(row[3], is_new=bool(row[4]))]
            if not taken:
                break
            _give(connection, [row[0] for row in taken], owner, until=now + ttl, now=now)
            leases += [Lease(execution_id=id, owner=owner, epoch=epoch + 1) for _, id, epoch, *_ in taken]
    return leases


def _room(connection: sqlite3.Connection, queue: Queue, now: float, *, but: int | None = None) -> Room:
    """What the queue has room for, one execution not counted."""
    running = connection.execute(
        "SELECT partition, count(*) FROM executions WHERE queue = ? AND owner_token IS NOT NULL AND status = 'running' "
        "AND number IS NOT ? GROUP BY partition",
        (queue.name, but),
    )
    counts: dict[str | None, int] = dict(running.fetchall())
    begun = 0
    if queue.rate is not None:
        (begun,) = connection.execute(
            "SELECT count(*) FROM executions WHERE queue = ? AND admitted_at > ?", (queue.name, now - queue.period)
        ).fetchone()
    return Room(queue, counts, begun)


_RENEW = """
UPDATE executions SET lease_until = v.column4 FROM ({values}) AS v
WHERE id = v.column1 AND epoch = v.column2 AND owner_token = v.column3
RETURNING id, (SELECT max(seq) FROM events WHERE execution = number)
"""


def renew(connection: sqlite3.Connection, leases: Sequence[Lease], until: float) -> dict[str, int]:
    held: dict[str, int] = {}
    for start in range(0, len(leases), MAX_ROWS):
        chunk = leases[start : start + MAX_ROWS]
        parameters = [column for lease in chunk for column in (*lease_columns(lease), until)]
        held.update(connection.execute(*_with_values(_RENEW, 4, len(chunk), parameters)).fetchall())
    return held


def release(connection: sqlite3.Connection, lease: Lease) -> None:
    connection.execute(
        "UPDATE executions SET owner_host = NULL, owner_pid = NULL, owner_started = NULL, owner_token = NULL, "
        "lease_until = NULL WHERE id = ? AND epoch = ? AND owner_token = ?",
        lease_columns(lease),
    )

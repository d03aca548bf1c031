"""Everything that reads from PostgreSQL, as functions over a connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from psycopg import AsyncConnection, sql

from flux.domain.events import Event
from flux.domain.execution import Status
from flux.domain.queues import QueueState
from flux.engine.ports import Listing
from flux.errors import ExecutionNotFound
from flux.stores.columns import LISTING, listing_from
from flux.stores.rows import FIRST_JOURNAL_KIND, from_json_row

_PAGE_ROWS = 5000

_PAGE = """
SELECT seq, kind, at, call, value, facts FROM events
WHERE execution = (SELECT number FROM executions WHERE id = %s) AND seq > %s AND kind < %s ORDER BY seq LIMIT %s
"""
_ALL_KINDS = 32767


async def load(connection: AsyncConnection, id: str, after: int) -> list[Event]:
    return await _events(connection, id, after, _ALL_KINDS)


async def lifecycle(connection: AsyncConnection, id: str) -> list[Event]:
    return await _events(connection, id, 0, FIRST_JOURNAL_KIND)


async def _events(connection: AsyncConnection, id: str, after: int, kinds: int) -> list[Event]:
    events: list[Event] = []
    while True:
        found = await connection.execute(_PAGE, (id, after, kinds, _PAGE_ROWS))
        rows = await found.fetchall()
        events += [from_json_row(row[1:]) for row in rows]
        if len(rows) < _PAGE_ROWS:
            break
        after = rows[-1][0]
    if not events:  # nothing new - or no such execution
        await last(connection, id)
    return events


async def last(connection: AsyncConnection, id: str) -> int:
    """The number of the execution's last fact."""
    found = await connection.execute("SELECT last FROM executions WHERE id = %s", (id,))
    row = await found.fetchone()
    if row is None:
        raise ExecutionNotFound(id)
    return row[0]


# --- lists of executions


async def find(
    connection: AsyncConnection,
    *,
    workflow: str | None,
    status: Collection[Status] | None,
    principal: str | None,
    parent: str | None,
    before: tuple[float, str] | None,
    limit: int,
) -> list[Listing]:
    tests = [sql.SQL("true")]
    parameters: list[Any] = []
    for column, wanted in (("workflow", workflow), ("principal", principal), ("parent", parent)):
        if wanted is not None:
            tests.append(sql.SQL("{} = %s").format(sql.Identifier(column)))  # pyright: ignore[reportArgumentType] - a composed text is one, too
            parameters.append(wanted)
    if status is not None:
        tests.append(sql.SQL("status = ANY(%s)"))
        parameters.append([each.value for each in status])
    if before is not None:
        tests.append(sql.SQL("(created_at, id) < (%s, %s)"))
        parameters += before
    query = sql.SQL(LISTING + "WHERE {} ORDER BY created_at DESC, id DESC LIMIT %s").format(
        sql.SQL(" AND ").join(tests)
    )
    return await _listings(connection, query, [*parameters, limit])


async def find_key(connection: AsyncConnection, key: str, since: float) -> Listing | None:
    query = sql.SQL(LISTING + "WHERE key = %s AND created_at >= %s ORDER BY created_at DESC, id DESC LIMIT 1")
    return next(iter(await _listings(connection, query, [key, since])), None)


_DUE = sql.SQL(f"""
SELECT * FROM (
  {LISTING} WHERE status = 'running' AND workflow = ANY(%(workflows)s)
  AND CASE WHEN owner_token IS NULL THEN queue IS NULL ELSE lease_until <= %(now)s END
  UNION ALL
  {LISTING} WHERE wake_at <= %(now)s AND status IN ('paused', 'sleeping') AND workflow = ANY(%(workflows)s)
  AND (owner_token IS NULL OR lease_until <= %(now)s)
) AS due ORDER BY coalesce(wake_at, updated_at), id LIMIT %(limit)s
""")
_AWAITED = sql.SQL(f"""
{LISTING} AS parked WHERE status IN ('paused', 'sleeping') AND workflow = ANY(%(workflows)s)
AND EXISTS (
  SELECT FROM executions AS child WHERE child.parent = parked.id
  AND child.status IN ('completed', 'failed', 'cancelled') AND child.updated_at >= parked.updated_at - 60
) LIMIT %(limit)s
""")
_OWNED = sql.SQL(f"""
{LISTING} WHERE status = 'running' AND owner_token IS NOT NULL AND workflow = ANY(%(workflows)s) ORDER BY created_at, id
""")


async def due(connection: AsyncConnection, workflows: Collection[str], now: float, limit: int) -> list[Listing]:
    return await _listings(connection, _DUE, {"workflows": list(workflows), "now": now, "limit": limit})


async def awaited(connection: AsyncConnection, workflows: Collection[str], limit: int) -> list[Listing]:
    return await _listings(connection, _AWAITED, {"workflows": list(workflows), "limit": limit})


async def owned(connection: AsyncConnection, workflows: Collection[str]) -> list[Listing]:
    return await _listings(connection, _OWNED, {"workflows": list(workflows)})


async def recall(connection: AsyncConnection, key: str) -> str | None:
    row = await (await connection.execute("SELECT text FROM notes WHERE key = %s", (key,))).fetchone()
    return None if row is None else row[0]


async def notes(connection: AsyncConnection) -> dict[str, str]:
    return dict(await (await connection.execute("SELECT key, text FROM notes")).fetchall())


async def is_waiting(connection: AsyncConnection, queue: str) -> bool:
    """Whether anything waits for its turn in the queue."""
    found = await connection.execute(
        "SELECT FROM executions WHERE queue = %s AND status = 'running' AND owner_token IS NULL LIMIT 1", (queue,)
    )
    return await found.fetchone() is not None


_QUEUES = """
SELECT queue, count(*) FILTER (WHERE owner_token IS NOT NULL), count(*) FILTER (WHERE owner_token IS NULL) FROM executions
WHERE queue IS NOT NULL AND status = 'running' GROUP BY queue ORDER BY queue
"""


async def queues(connection: AsyncConnection) -> list[QueueState]:
    rows = await (await connection.execute(_QUEUES)).fetchall()
    return [QueueState(name=name, running=running, waiting=waiting) for name, running, waiting in rows]


async def _listings(
    connection: AsyncConnection, query: sql.SQL | sql.Composed, parameters: Sequence[Any] | dict[str, Any]
) -> list[Listing]:
    return [listing_from(row) for row in await (await connection.execute(query, parameters)).fetchall()]

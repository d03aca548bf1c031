"""Everything that writes to PostgreSQL, as functions over a connection.

Whoever writes to a stream locks its row in `executions` first, rows of several streams in the order of their ids: so two
processes never both find a stream as they believe it to be, and never wait for each other.

Texts are sent as `%b`, binary: to quote an array of them takes psycopg fifty times as long."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from flux.domain.queues import Queue, Room
from flux.engine.ports import Head, Lease, Owner
from flux.errors import ExecutionNotFound, QueueFull
from flux.stores.columns import lease_columns, owner_columns, owner_from, place_columns
from flux.stores.plan import (
    Append,
    Create,
    Known,
    Mark,
    Outcome,
    Plan,
    Post,
    Stream,
    Write,
    marks_of,
    plain_streams,
    unique_keys,
)
from flux.stores.postgres.driver import Connection, Statement, array
from flux.stores.rows import is_lifecycle

_MOST_ROWS = 8192  # facts of one statement
_FEW_ROWS = 8  # facts that are sent value by value; for each number up to this one there is a statement
_LONGEST_PAYLOAD = 7000  # bytes: PostgreSQL takes 7999

# --- groups of writes

_TAKEN = """
SELECT DISTINCT ON (key) key, id FROM executions JOIN unnest(%b::text[], %b::float8[]) AS wanted (key, since) USING (key)
WHERE created_at >= since ORDER BY key, created_at DESC, id DESC
"""
_LOCK_MARKS = """
SELECT pg_advisory_xact_lock(key) FROM (
  SELECT DISTINCT hashtextextended(mark, 1) AS key FROM unnest(%b::text[]) AS mark ORDER BY key
) AS keys
"""
_STANDS = """
SELECT queue, deduplication, id FROM executions JOIN unnest(%b::text[], %b::text[]) AS mark (queue, deduplication)
USING (queue, deduplication) WHERE status NOT IN ('completed', 'failed', 'cancelled')
"""
_KNOWN = """
SELECT id, number, epoch, owner_token, last, lifecycle FROM executions WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE
"""
_NUMBERS = "SELECT nextval(pg_get_serial_sequence('executions', 'number')) FROM generate_series(1, %s)"
_INSERT_EXECUTIONS = """
INSERT INTO executions (number, id, workflow, status, created_at, updated_at, wake_at, principal, parent, key, last,
  lifecycle, epoch, owner_host, owner_pid, owner_started, owner_token, lease_until, queue, partition, priority, deduplication)
SELECT * FROM unnest(%s::bigint[], %b::text[], %b::text[], %b::text[], %s::float8[], %s::float8[], %s::float8[], %b::text[],
  %b::text[], %b::text[], %s::bigint[], %s::bigint[], %s::bigint[], %b::text[], %s::bigint[], %s::float8[], %b::text[],
  %s::float8[], %b::text[], %b::text[], %s::int[], %b::text[])
"""
_UPDATE_EXECUTIONS = """
UPDATE executions SET last = v.last, lifecycle = v.lifecycle,
  status = coalesce(v.status, executions.status), updated_at = coalesce(v.updated_at, executions.updated_at),
  wake_at = CASE WHEN v.status IS NULL THEN executions.wake_at ELSE v.wake_at END,
  owner_host = CASE WHEN v.release THEN NULL ELSE owner_host END,
  owner_pid = CASE WHEN v.release THEN NULL ELSE owner_pid END,
  owner_started = CASE WHEN v.release THEN NULL ELSE owner_started END,
  owner_token = CASE WHEN v.release THEN NULL ELSE owner_token END,
  lease_until = CASE WHEN v.release THEN NULL ELSE lease_until END
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %b::text[], %s::float8[], %s::float8[], %s::bool[])
  AS v (number, last, lifecycle, status, updated_at, wake_at, release)
WHERE executions.number = v.number
"""
_INSERT_EVENTS = """
INSERT INTO events (execution, seq, kind, at, call, value, facts)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::smallint[], %b::text[], %b::text[], %b::text[], %b::text[])
"""
_APPEND = Statement(
    b"append",
    b"""
WITH streams AS (
  SELECT executions.number, executions.id, stream.* FROM executions JOIN unnest(
    $1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[]
  ) AS stream (name, by_epoch, by_token, expected, added, added_lifecycle) ON executions.id = stream.name
  ORDER BY executions.id FOR NO KEY UPDATE OF executions
), accepted AS (
  UPDATE executions SET last = expected + added, lifecycle = lifecycle + added_lifecycle FROM streams
  WHERE executions.number = streams.number AND epoch = by_epoch AND owner_token = by_token AND last = expected
  RETURNING executions.number, executions.id
), facts AS (
  INSERT INTO events (execution, seq, kind, at, call, value, facts)
  SELECT number, seq, kind, at, call, value, facts FROM unnest(
    $7::text[], $8::bigint[], $9::smallint[], $10::text[], $11::text[], $12::text[], $13::text[]
  ) AS fact (id, seq, kind, at, call, value, facts) JOIN accepted USING (id)
)
SELECT id FROM accepted
""",
)
_APPEND_TO_ONE = """
WITH accepted AS (
  UPDATE executions SET last = last + $1, lifecycle = lifecycle + $2
  WHERE id = $3 AND epoch = $4 AND owner_token = $5 AND last = $6 RETURNING number, id
), facts AS (
  INSERT INTO events (execution, seq, kind, at, call, value, facts)
  SELECT number, fact.* FROM accepted, (VALUES {}) AS fact
)
SELECT id FROM accepted
"""
_FACT = "(${}::bigint, ${}::smallint, ${}, ${}, ${}, ${})"
_NOTIFY = "SELECT pg_notify('flux:' || current_schema(), text) FROM unnest(%b::text[]) AS text"


async def write_group(connection: Connection, group: Sequence[Write]) -> list[Outcome]:
    """All of `group` in one transaction. What is wrong with one of them is its own outcome."""
    streams = plain_streams(group, most=_MOST_ROWS)
    if streams is None:
        return await _write(connection, group)
    accepted = await _append_plain(connection, streams)
    refused = [write for write in group if write.id not in accepted]
    reasons = iter(await _write(connection, refused) if refused else [])
    return [None if write.id in accepted else next(reasons) for write in group]


async def _append_plain(connection: Connection, streams: Mapping[str, Stream]) -> Collection[str]:
    """The common case, facts only: one statement, one round trip. The streams that were as they were believed to be; what
    is refused, the other way finds the reason for."""
    if len(streams) == 1:
        (stream,) = streams.values()
        if len(stream.rows) <= _FEW_ROWS:
            return await _append_to_one(connection, stream)
    heads = [_stream_row(id, stream) for id, stream in streams.items()]
    facts = [
        (id, seq, *row)
        for id, stream in streams.items()
        for seq, row in enumerate(stream.rows, stream.first.expected + 1)
    ]
    arrays = [array(column) for column in (*_columns(heads, 6), *_columns(facts, 7))]
    return set(await connection.send(_APPEND, arrays))


async def _append_to_one(connection: Connection, stream: Stream) -> Collection[str]:
    """The most common case, which is worth a statement of its own: to send and to take apart arrays costs both ends as
    much as all the rest."""
    first, rows = stream.first, stream.rows
    fence = (first.id, first.lease.epoch, first.lease.owner.token, first.expected)
    facts = chain.from_iterable((seq, *row) for seq, row in enumerate(rows, first.expected + 1))
    count = len(rows)
    return await connection.send(_append_of(count), (count, sum(map(is_lifecycle, rows)), *fence, *facts))


@cache
def _append_of(facts: int) -> Statement:
    places = (range(first, first + 6) for first in range(7, 7 + 6 * facts, 6))
    return Statement(
        b"append%d" % facts, _APPEND_TO_ONE.format(", ".join(_FACT.format(*six) for six in places)).encode()
    )


def _stream_row(id: str, stream: Stream) -> tuple[Any, ...]:
    lease, added = stream.first.lease, stream.rows
    return (id, lease.epoch, lease.owner.token, stream.first.expected, len(added), sum(map(is_lifecycle, added)))


async def _write(connection: AsyncConnection, group: Sequence[Write]) -> list[Outcome]:
    """In two round trips."""
    try:
        plan = await _plan(connection, group)
        outcomes = plan.judge(group)
        async with connection.pipeline():
            await _carry_out(connection, plan)
            await connection.execute("COMMIT")
    finally:
        if not connection.closed and connection.info.transaction_status is not TransactionStatus.IDLE:
            await connection.rollback()
    return outcomes


async def _plan(connection: AsyncConnection, group: Sequence[Write]) -> Plan:
    marks, keys = marks_of(group), unique_keys(group)
    creates = sum(isinstance(write, Create) for write in group)
    async with connection.pipeline():
        await connection.execute("BEGIN")
        stands = await _stands(connection, marks) if marks else {}
        taken = await connection.execute(_TAKEN, _columns(keys, 2)) if keys else None
        known = await connection.execute(_KNOWN, ([write.id for write in group],))
        numbers = await connection.execute(_NUMBERS, (creates,)) if creates else None
    return Plan(
        known={id: Known(*rest) for id, *rest in await known.fetchall()},
        numbers=iter([number for (number,) in await numbers.fetchall()] if numbers else []),
        stands=stands,
        taken=dict(await taken.fetchall()) if taken else {},
    )


async def _stands(connection: AsyncConnection, marks: Sequence[Mark]) -> dict[Mark, str]:
    """Who stands for something in its queue; nobody else gets to, before this transaction has ended."""
    await connection.execute(_LOCK_MARKS, ([f"{queue}\n{mark}" for queue, mark in marks],))
    found = await connection.execute(_STANDS, _columns(marks, 2))
    return {(queue, mark): id for queue, mark, id in await found.fetchall()}


async def _carry_out(connection: AsyncConnection, plan: Plan) -> None:
    if plan.created:
        await connection.execute(_INSERT_EXECUTIONS, _columns([_execution_row(*one) for one in plan.created], 22))
    if plan.changed:
        await connection.execute(_UPDATE_EXECUTIONS, _columns([_change_row(one) for one in plan.changed.values()], 7))
    if plan.events:
        rows = [(number, seq, *row) for number, seq, row in plan.events]
        await connection.execute(_INSERT_EVENTS, _columns(rows, 7))
    if news := _news(plan):
        await connection.execute(_NOTIFY, (news,))


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
        *(create.principal, create.parent, create.key, known.last, known.lifecycle, known.epoch),
        *(*owner_columns(owner), head.updated_at + create.ttl if owner else None),
        *place_columns(create.place),
    )


def _change_row(known: Known) -> tuple[Any, ...]:
    head = known.head
    of_head = (head.status.value, head.updated_at, head.wake_at) if head else (None, None, None)
    return (known.number, known.last, known.lifecycle, *of_head, known.release)


def _news(plan: Plan) -> list[str]:
    """What other processes want to know: which executions have changed as a whole, and which nobody runs."""
    heads: list[tuple[str, Known, Head]] = [(id, known, known.head) for id, known in plan.changed.items() if known.head]
    heads += [(create.id, known, create.head) for create, known in plan.created if known.token is None]
    texts = [
        f"{'r' if head.status.value == 'running' and known.token is None else 'c'}{id}" for id, known, head in heads
    ]
    return [text for text in texts if len(text.encode()) <= _LONGEST_PAYLOAD]


def _columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    return [[row[index] for row in rows] for index in range(count)]


# --- leases

_HELD = """
SELECT number, epoch, queue, partition, admitted_at, lease_until, owner_host, owner_pid, owner_started, owner_token
FROM executions WHERE id = %s FOR NO KEY UPDATE
"""
_GIVE = """
UPDATE executions SET epoch = epoch + 1, owner_host = %s, owner_pid = %s, owner_started = %s, owner_token = %s,
  lease_until = %s, admitted_at = CASE WHEN queue IS NULL THEN NULL ELSE coalesce(admitted_at, %s) END
WHERE number = ANY(%s)
"""


_CLAIM = """
WITH free AS (
  SELECT number FROM executions WHERE id = %(id)s AND queue IS NULL AND owner_token IS NULL FOR NO KEY UPDATE SKIP LOCKED
), given AS (
  UPDATE executions SET epoch = epoch + 1, owner_host = %(host)s, owner_pid = %(pid)s, owner_started = %(started)s,
    owner_token = %(token)s, lease_until = %(until)s
  FROM free WHERE executions.number = free.number RETURNING executions.number, epoch
)
SELECT given.epoch, lease_until, owner_host, owner_pid, owner_started, owner_token
FROM executions LEFT JOIN given USING (number) WHERE id = %(id)s
"""


async def claim(
    connection: AsyncConnection,
    id: str,
    owner: Owner,
    *,
    ttl: float,
    now: float,
    dead: Collection[Owner],
    queues: Collection[Queue],
) -> Lease | Owner:
    """One statement where it is free, in no queue, or safely in the hands of another, which it then only reads; all else takes a
    closer look - also what somebody else is at this very moment."""
    host, pid, started, token = owner_columns(owner)
    wanted = {"id": id, "host": host, "pid": pid, "started": started, "token": token, "until": now + ttl}
    row = await (await connection.execute(_CLAIM, wanted)).fetchone()
    if row is None:
        raise ExecutionNotFound(id)
    epoch, lease_until, *held_by = row
    if epoch is not None:
        return Lease(execution_id=id, owner=owner, epoch=epoch)
    holder = owner_from(held_by)
    if holder and _is_kept(holder, lease_until, owner, now=now, dead=dead):
        return holder
    return await _claim(connection, id, owner, ttl=ttl, now=now, dead=dead, queues=queues)


def _is_kept(holder: Owner, lease_until: float, owner: Owner, *, now: float, dead: Collection[Owner]) -> bool:
    return holder != owner and lease_until > now and holder not in dead


async def _claim(
    connection: AsyncConnection,
    id: str,
    owner: Owner,
    *,
    ttl: float,
    now: float,
    dead: Collection[Owner],
    queues: Collection[Queue],
) -> Lease | Owner:
    async with connection.transaction():
        if queues:
            await _lock_queues(connection, await _queue_of(connection, id))
        row = await (await connection.execute(_HELD, (id,))).fetchone()
        if row is None:
            raise ExecutionNotFound(id)
        number, epoch, queue_name, partition, admitted_at, lease_until, *held_by = row
        holder = owner_from(held_by)
        if holder and _is_kept(holder, lease_until, owner, now=now, dead=dead):
            return holder
        queue = next((queue for queue in queues if queue.name == queue_name), None)
        if queue:
            room = await _room(connection, queue, now, but=number)
            if not room.take(partition, is_new=admitted_at is None):
                raise QueueFull(id, queue.name)
        await connection.execute(_GIVE, (*owner_columns(owner), now + ttl, now, [number]))
        taken_from = holder if holder != owner else None
        return Lease(execution_id=id, owner=owner, epoch=epoch + 1, taken_from=taken_from)


async def _queue_of(connection: AsyncConnection, id: str) -> list[str]:
    found = await connection.execute("SELECT queue FROM executions WHERE id = %s AND queue IS NOT NULL", (id,))
    return [queue for (queue,) in await found.fetchall()]


_RENEW = """
WITH held AS (
  SELECT number FROM executions JOIN unnest(%b::text[], %s::bigint[], %b::text[]) AS lease (id, epoch, token)
  ON executions.id = lease.id AND executions.epoch = lease.epoch AND executions.owner_token = lease.token
  ORDER BY executions.id FOR NO KEY UPDATE OF executions
)
UPDATE executions SET lease_until = %s FROM held WHERE executions.number = held.number RETURNING id, last
"""


async def renew(connection: AsyncConnection, leases: Sequence[Lease], until: float) -> dict[str, int]:
    columns = _columns([lease_columns(lease) for lease in leases], 3)
    found = await connection.execute(_RENEW, (*columns, until))
    return dict(await found.fetchall())


async def release(connection: AsyncConnection, lease: Lease) -> None:
    """Whoever is free to run it hears of it at once, if it is not at rest."""
    async with connection.transaction():
        released = await connection.execute(
            "UPDATE executions SET owner_host = NULL, owner_pid = NULL, owner_started = NULL, owner_token = NULL, "
            "lease_until = NULL WHERE id = %s AND epoch = %s AND owner_token = %s RETURNING status",
            lease_columns(lease),
        )
        if await released.fetchone() == ("running",) and len(lease.execution_id.encode()) < _LONGEST_PAYLOAD:
            await connection.execute(_NOTIFY, ([f"r{lease.execution_id}"],))


# --- queues

_WAITING = """
SELECT number, id, epoch, partition, admitted_at IS NULL FROM executions
WHERE queue = %(queue)s AND status = 'running' AND owner_token IS NULL AND workflow = ANY(%(workflows)s)
AND (%(only)s::text[] IS NULL OR id = ANY(%(only)s))
AND (partition IS NULL OR partition <> ALL(%(full)s)) AND (%(may_begin)s OR admitted_at IS NOT NULL)
ORDER BY (admitted_at IS NULL), priority DESC, created_at, number LIMIT %(most)s FOR NO KEY UPDATE SKIP LOCKED
"""


async def admit(
    connection: AsyncConnection,
    queue: Queue,
    owner: Owner,
    *,
    workflows: Collection[str],
    ttl: float,
    now: float,
    most: int,
    only: Collection[str] | None,
) -> list[Lease]:
    leases: list[Lease] = []
    async with connection.transaction():
        await _lock_queues(connection, [queue.name])
        room = await _room(connection, queue, now)
        while len(leases) < most and not room.is_full:
            wanted = {
                "queue": queue.name,
                "workflows": list(workflows),
                "only": None if only is None else list(only),
                "full": room.full_partitions,
                "may_begin": room.may_begin,
                "most": most - len(leases),
            }
            rows = await (await connection.execute(_WAITING, wanted)).fetchall()
            taken = [row for row in rows if room.take(row[3], is_new=row[4])]
            if not taken:
                break
            numbers = [row[0] for row in taken]
            await connection.execute(_GIVE, (*owner_columns(owner), now + ttl, now, numbers))
            leases += [Lease(execution_id=id, owner=owner, epoch=epoch + 1) for _, id, epoch, *_ in taken]
    return leases


async def _lock_queues(connection: AsyncConnection, names: Sequence[str]) -> None:
    """Nobody else takes a place in these queues before this transaction has ended."""
    for name in names:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))", (name,))


async def _room(connection: AsyncConnection, queue: Queue, now: float, *, but: int | None = None) -> Room:
    """What the queue has room for, one execution not counted."""
    running = await connection.execute(
        "SELECT partition, count(*) FROM executions WHERE queue = %s AND owner_token IS NOT NULL AND status = 'running' "
        "AND number IS DISTINCT FROM %s GROUP BY partition",
        (queue.name, but),
    )
    counts: dict[str | None, int] = dict(await running.fetchall())
    begun = 0
    if queue.rate is not None:
        found = await connection.execute(
            "SELECT count(*) FROM executions WHERE queue = %s AND admitted_at > %s", (queue.name, now - queue.period)
        )
        begun = sum(count for (count,) in await found.fetchall())
    return Room(queue, counts, begun)


# --- notes and retention


async def remember(connection: AsyncConnection, key: str, text: str) -> None:
    await connection.execute(
        "INSERT INTO notes VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET text = excluded.text", (key, text)
    )


async def agree(connection: AsyncConnection, key: str, text: str) -> str:
    await connection.execute("INSERT INTO notes VALUES (%s, %s) ON CONFLICT DO NOTHING", (key, text))
    found = await connection.execute("SELECT text FROM notes WHERE key = %s", (key,))
    return next(kept for (kept,) in await found.fetchall())


_PRUNED = """
SELECT number FROM executions AS old WHERE status IN ('completed', 'failed', 'cancelled') AND updated_at < %s
AND NOT EXISTS (
  SELECT FROM executions AS parent WHERE parent.id = old.parent AND parent.status NOT IN ('completed', 'failed', 'cancelled')
) LIMIT 100 FOR UPDATE SKIP LOCKED
"""


async def prune(connection: AsyncConnection, before: float) -> int:
    """Delete some executions that ended before then; how many it were, 0 when none is left."""
    async with connection.transaction():
        found = await connection.execute(_PRUNED, (before,))
        numbers = [number for (number,) in await found.fetchall()]
        await connection.execute("DELETE FROM events WHERE execution = ANY(%s)", (numbers,))
        await connection.execute("DELETE FROM executions WHERE number = ANY(%s)", (numbers,))
    return len(numbers)


# --- writes whose commit was in doubt

_ROWS = "SELECT kind, at, call, value, facts FROM events JOIN executions ON number = execution WHERE id = %s "


async def landed(connection: AsyncConnection, write: Write) -> bool:
    """Whether the facts of this write are in the database, where it would have put them. Times tell them from all others."""
    match write:
        case Create():
            sql, place = _ROWS + "AND seq > %s ORDER BY seq LIMIT %s", 0
        case Append():
            sql, place = _ROWS + "AND seq > %s ORDER BY seq LIMIT %s", write.expected
        case Post():
            sql, place = _ROWS + "AND kind < 50 ORDER BY seq OFFSET %s LIMIT %s", write.seen
    found = await connection.execute(sql, (write.id, place, len(write.rows)))
    return await found.fetchall() == list(write.rows)

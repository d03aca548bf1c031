"""The store for more than one machine: a PostgreSQL database.

Streams are written by group commit over one connection, everything else goes over a few more. What other processes write is
heard of at once, by LISTEN; who misses it finds it a moment later by looking."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import ParamSpec, TypeVar

import psycopg
from psycopg import AsyncConnection, sql

from flux.domain.events import Event
from flux.domain.execution import Status
from flux.domain.queues import Place, Queue, QueueState
from flux.engine.ports import Head, Heard, Lease, Listing, Owner
from flux.errors import StoreError
from flux.stores.grouping import GroupCommit
from flux.stores.plan import Append, Create, Outcome, Post, Write, create_of
from flux.stores.postgres import reads, writes
from flux.stores.postgres.connections import Line, Pool, Work, patiently
from flux.stores.postgres.opening import Target, migrate, store_error
from flux.stores.rows import to_rows

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)

_RECONNECT = 1.0  # seconds between two attempts to listen


class PostgresStore:
    """Made by `await PostgresStore.open(url)`; close it with `aclose`. It belongs to the event loop it was opened in."""

    def __init__(self, target: Target, pool: Pool) -> None:
        self.name = target.name
        self._target = target
        self._pool = pool
        self._writer = Line(target)
        self._group = GroupCommit(self._commit, fault=self._fault, name=target.name)
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str) -> PostgresStore:
        """Opens the database, making the schema and its tables when they are missing.

        `url` is `postgresql://user:password@host:port/database`, with `?schema=NAME` for another schema than "flux", and
        whatever else libpq takes. Raises SchemaTooNew, and StoreError for what cannot be reached, or is not ours."""
        target = Target.of(url)
        try:
            await migrate(target)
        except psycopg.Error as exc:
            raise store_error(target.name, "open", exc) from exc
        return cls(target, Pool(target))

    # -- streams ----------------------------------------------------------------------------------------------------

    async def create(
        self,
        id: str,
        events: Sequence[Event],
        *,
        head: Head,
        owner: Owner | None,
        ttl: float,
        key: str | None = None,
        unique_since: float | None = None,
        place: Place | None = None,
    ) -> Lease | None:
        return await self._group.write(
            create_of(id, events, head=head, owner=owner, ttl=ttl, key=key, unique_since=unique_since, place=place)
        )

    async def append(
        self,
        id: str,
        events: Sequence[Event],
        *,
        expected: int,
        lease: Lease,
        head: Head | None = None,
        release: bool = False,
    ) -> None:
        rows = to_rows(events)
        await self._group.write(Append(id=id, rows=rows, expected=expected, lease=lease, head=head, release=release))

    async def post(self, id: str, events: Sequence[Event], *, seen: int, head: Head) -> None:
        await self._group.write(Post(id=id, rows=to_rows(events), seen=seen, head=head))

    async def load(self, id: str, *, after: int = 0) -> list[Event]:
        return await self._read(reads.load, id, after)

    async def lifecycle(self, id: str) -> list[Event]:
        return await self._read(reads.lifecycle, id)

    async def last(self, id: str) -> int:
        return await self._read(reads.last, id)

    async def find(
        self,
        *,
        workflow: str | None = None,
        status: Collection[Status] | None = None,
        principal: str | None = None,
        parent: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[Listing]:
        find = partial(reads.find, workflow=workflow, status=status, principal=principal, parent=parent)
        return await self._read(partial(find, before=before, limit=limit))

    async def find_key(self, key: str, *, since: float) -> Listing | None:
        return await self._read(reads.find_key, key, since)

    # -- leases and queues ------------------------------------------------------------------------------------------

    async def claim(
        self,
        id: str,
        owner: Owner,
        *,
        ttl: float,
        now: float,
        dead: Collection[Owner] = (),
        queues: Collection[Queue] = (),
    ) -> Lease | Owner:
        return await self._write(partial(writes.claim, ttl=ttl, now=now, dead=dead, queues=queues), id, owner)

    async def admit(
        self,
        queue: Queue,
        owner: Owner,
        *,
        workflows: Collection[str],
        ttl: float,
        now: float,
        most: int,
        only: Collection[str] | None = None,
    ) -> list[Lease]:
        if not await self._read(reads.is_waiting, queue.name):  # a look that takes no lock
            return []
        admit = partial(writes.admit, workflows=workflows, ttl=ttl, now=now, most=most, only=only)
        return await self._write(admit, queue, owner)

    async def queues(self) -> list[QueueState]:
        return await self._read(reads.queues)

    async def renew(self, leases: Sequence[Lease], *, ttl: float, now: float) -> Mapping[str, int]:
        return await self._write(writes.renew, leases, now + ttl)

    async def release(self, lease: Lease) -> None:
        await self._write(writes.release, lease)

    async def due(self, *, workflows: Collection[str], now: float, limit: int) -> list[Listing]:
        return await self._read(reads.due, workflows, now, limit)

    async def awaited(self, *, workflows: Collection[str], limit: int) -> list[Listing]:
        return await self._read(reads.awaited, workflows, limit)

    async def owned(self, *, workflows: Collection[str]) -> list[Listing]:
        return await self._read(reads.owned, workflows)

    # -- the rest ---------------------------------------------------------------------------------------------------

    async def remember(self, key: str, text: str) -> None:
        await self._write(writes.remember, key, text)

    async def notes(self) -> dict[str, str]:
        return await self._read(reads.notes)

    async def agree(self, key: str, text: str) -> str:
        return await self._write(writes.agree, key, text)

    async def recall(self, key: str) -> str | None:
        return await self._read(reads.recall, key)

    async def prune(self, *, before: float) -> int:
        pruned = 0
        while some := await self._write(writes.prune, before):  # not all at once: others get their turn in between
            pruned += some
        return pruned

    async def aclose(self) -> None:
        """Commits what was handed in before, then hangs up. May be called again."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        await self._group.aclose()
        await self._writer.hang_up()
        await self._pool.close()

    # -- group commit -----------------------------------------------------------------------------------------------

    async def _commit(self, group: Sequence[Write]) -> list[Outcome]:
        """One commit, made again when the connection was lost - which may have been after the server had done it."""
        in_doubt = False

        async def once() -> list[Outcome]:
            nonlocal in_doubt
            try:
                outcomes = await self._writer.run(writes.write_group, group)
            except psycopg.Error:
                in_doubt = True
                raise
            return await self._writer.run(self._settled, group, outcomes) if in_doubt else outcomes

        return await patiently(once)

    async def _settled(
        self, connection: AsyncConnection, group: Sequence[Write], outcomes: Sequence[Outcome]
    ) -> list[Outcome]:
        """What is refused the second time because it is there since the first is no failure."""
        settled: list[Outcome] = []
        for write, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, StoreError) and await writes.landed(connection, write):
                outcome = write.lease if isinstance(write, Create) else None
            settled.append(outcome)
        return settled

    # -- what other processes write ---------------------------------------------------------------------------------

    def listen(self, heard: Heard) -> None:
        self._listening = asyncio.get_running_loop().create_task(self._listen(heard), name="flux listener")

    async def _listen(self, heard: Heard) -> None:
        channel = sql.Identifier(f"flux:{self._target.schema}")
        while True:
            try:
                async with await self._target.connect() as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(channel))
                    async for notice in connection.notifies():
                        if notice.pid != self._writer.backend:
                            heard(notice.payload[1:], notice.payload.startswith("r"))
            except psycopg.Error as exc:
                _log.info("%s does not tell what others write: %s", self.name, str(exc).partition("\n")[0])
            await asyncio.sleep(_RECONNECT)

    # -- errors made ours -------------------------------------------------------------------------------------------

    async def _read(self, work: Work[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._run("read", work, *args, **kwargs)

    async def _write(self, work: Work[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._run("write to", work, *args, **kwargs)

    async def _run(self, doing: str, work: Work[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._group.check_open()
        try:
            return await self._pool.run(work, *args, **kwargs)
        except psycopg.Error as exc:
            raise store_error(self.name, doing, exc) from exc

    def _fault(self, exc: Exception) -> Exception:
        return store_error(self.name, "write to", exc) if isinstance(exc, psycopg.Error) else exc

"""The store that needs nothing: one SQLite file, shared by as many processes as like to.

Writes go through one writer. Appends that arrive while a commit runs wait and are committed together in the next one, so
the disk is asked once for all of them; each await returns only after its own commit. Reads have a connection of their own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from flux.domain.events import Event, ExecutionStarted
from flux.domain.execution import Status
from flux.domain.queues import Place, Queue, QueueState
from flux.engine.ports import Head, Lease, Listing, Owner
from flux.errors import StoreError
from flux.stores import reads, writes
from flux.stores.connection import Connection
from flux.stores.opening import Synchronous, open_reader, open_writer, store_error
from flux.stores.rows import storable, to_rows
from flux.stores.writes import Append, Create, Outcome, Post, Write

P = ParamSpec("P")
R = TypeVar("R")

_GROUP = 1024
"""Writes of one commit at most."""


class SQLiteStore:
    """Made by `await SQLiteStore.open(path)`; close it with `aclose`. It belongs to the event loop it was opened in."""

    def __init__(self, path: Path, writer: Connection, reader: Connection) -> None:
        self.path = path
        self._write_connection = writer
        self._read_connection = reader
        self._closed = False
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        # from the start, not on demand: a task made inside somebody's append would be a child of the caller's context
        self._committing = asyncio.create_task(self._commit_groups(), name="flux-sqlite-writer")

    @classmethod
    async def open(cls, path: Path | str, *, synchronous: Synchronous = "full") -> SQLiteStore:
        """Opens the file, making it and its folder when they are missing.

        `synchronous="normal"` is faster and may lose the last commits when the machine (not the process) goes down.
        Raises SchemaTooNew, and StoreError for what is not a database of ours or cannot be written."""
        path = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: ASYNC240 - neither waits for a disk
        try:
            writer = await Connection.open(lambda: open_writer(path, synchronous))
            try:
                reader = await Connection.open(lambda: open_reader(path))
            except BaseException:  # whatever it was, the file is closed
                await writer.close()
                raise
        except (sqlite3.Error, ValueError) as exc:
            raise store_error(path, "open", exc) from exc
        return cls(path, writer, reader)

    async def create(
        self,
        id: str,
        events: Sequence[Event],
        *,
        head: Head,
        owner: Owner | None,
        ttl: float,
        key: str | None = None,
        place: Place | None = None,
    ) -> Lease | None:
        started = events[0]
        if not isinstance(started, ExecutionStarted):
            raise ValueError(f"a stream begins with ExecutionStarted, not {type(started).__name__}")
        create = Create(
            id=id,
            rows=to_rows(events),
            workflow=started.workflow,
            created_at=started.at,
            principal=started.principal,
            parent=started.parent,
            key=key,
            head=head,
            owner=owner,
            ttl=ttl,
            place=place,
        )
        of_place = (place.queue, place.partition, place.deduplication) if place else ()
        for text in (started.workflow, started.principal, started.parent, key, *of_place):
            if text is not None:
                storable(text, "an execution's workflow, principal, parent, key or queue")
        return await self._commit(create)

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
        await self._commit(Append(id=id, rows=rows, expected=expected, lease=lease, head=head, release=release))

    async def post(self, id: str, events: Sequence[Event], *, seen: int, head: Head) -> None:
        await self._commit(Post(id=id, rows=to_rows(events), seen=seen, head=head))

    async def load(self, id: str, *, after: int = 0) -> list[Event]:
        return await self._read(reads.load, id, after)

    async def lifecycle(self, id: str) -> list[Event]:
        return await self._read(reads.lifecycle, id)

    async def remember(self, key: str, text: str) -> None:
        await self._write(writes.remember, key, text)

    async def recall(self, key: str) -> str | None:
        return await self._read(reads.recall, key)

    async def prune(self, *, before: float) -> int:
        pruned = 0
        while some := await self._write(
            writes.prune, before
        ):  # not all at once: other writers get their turn in between
            pruned += some
        return pruned

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
        return await self._read(reads.find, workflow, status, principal, parent, before, limit)

    async def find_key(self, key: str, *, since: float) -> Listing | None:
        return await self._read(reads.find_key, key, since)

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
        return await self._write(writes.claim, id, owner, ttl, now, dead, queues)

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
        return await self._write(writes.admit, queue, owner, workflows, ttl, now, most, only)

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

    async def aclose(self) -> None:
        """Commits what was handed in before, then closes the file. May be called again."""
        self._closed = True
        self._arrived.set()
        await asyncio.wait([self._committing])
        await self._write_connection.close()
        await self._read_connection.close()

    # --- one hop to a connection's thread, errors made ours

    async def _read(
        self, work: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await self._run(self._read_connection, "read", work, *args, **kwargs)

    async def _write(
        self, work: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return await self._run(self._write_connection, "write to", work, *args, **kwargs)

    async def _run(
        self,
        connection: Connection,
        doing: str,
        work: Callable[Concatenate[sqlite3.Connection, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        self._check_open()
        try:
            return await connection.run(work, *args, **kwargs)
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as exc:
            raise store_error(self.path, doing, exc) from exc

    def _check_open(self) -> None:
        if self._closed or self._committing.done():
            raise StoreError(f"The database {self.path} has been closed.")

    # --- group commit

    async def _commit(self, write: Write) -> Lease | None:
        """Hand in one write and wait until it is on disk, or refused."""
        self._check_open()
        storable(write.id, "an execution's id")
        waiting = _Waiting(write)
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.done

    async def _commit_groups(self) -> None:
        try:
            while not self._closed or self._waiting:
                await self._arrived.wait()
                self._arrived.clear()
                while group := self._next_group():
                    await self._commit_group(group)
        finally:
            self._refuse_the_rest()

    def _next_group(self) -> list[_Waiting]:
        """Whoever was cancelled before its turn is left out: nothing of it is written."""
        waiting = [one for one in self._waiting if not one.done.done()]
        self._waiting = waiting[_GROUP:]
        return waiting[:_GROUP]

    async def _commit_group(self, group: list[_Waiting]) -> None:
        outcomes: list[Outcome]
        try:
            outcomes = list(await self._write_connection.run(writes.write_group, [one.write for one in group]))
        except Exception as exc:  # noqa: BLE001 - whatever it is, everybody in the group is told, and the writer goes on
            outcomes = [exc] * len(group)
        except BaseException:  # not to be handled, but nobody may wait for ever
            self._waiting = group + self._waiting  # our loop ends: `finally` tells everybody
            raise
        for one, outcome in zip(group, outcomes, strict=True):
            self._tell(one, outcome)

    def _tell(self, one: _Waiting, outcome: Outcome) -> None:
        if one.done.done():
            return
        if not isinstance(outcome, Exception):
            one.done.set_result(outcome)
        elif isinstance(outcome, (sqlite3.Error, OverflowError)):
            error = store_error(self.path, "write to", outcome)
            error.__cause__ = outcome
            one.done.set_exception(error)
        else:
            one.done.set_exception(outcome)

    def _refuse_the_rest(self) -> None:
        self._closed = True
        for one in self._waiting:
            self._tell(one, StoreError(f"The database {self.path} was closed in the middle of a write."))
        self._waiting = []


class _Waiting:
    """A write, and the caller who waits for it."""

    __slots__ = ("done", "write")

    def __init__(self, write: Write) -> None:
        self.write = write
        self.done: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()

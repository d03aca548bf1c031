"""The store that needs nothing: one SQLite file, shared by as many processes as like to.

Streams are written by group commit, over one connection; reads have a connection of their own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from flux.domain.events import Event
from flux.domain.execution import Status
from flux.domain.queues import Place, Queue, QueueState
from flux.engine.ports import Head, Heard, Lease, Listing, Owner
from flux.stores.grouping import GroupCommit
from flux.stores.plan import Append, Outcome, Post, Write, create_of
from flux.stores.rows import to_rows
from flux.stores.sqlite import reads, writes
from flux.stores.sqlite.connection import Connection
from flux.stores.sqlite.opening import Synchronous, open_reader, open_writer, store_error

P = ParamSpec("P")
R = TypeVar("R")


class SQLiteStore:
    """Made by `await SQLiteStore.open(path)`; close it with `aclose`. It belongs to the event loop it was opened in."""

    def __init__(self, path: Path, writer: Connection, reader: Connection) -> None:
        self.path = path
        self._write_connection = writer
        self._read_connection = reader
        self._group = GroupCommit(self._commit, fault=self._fault, name=str(path))

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

    def listen(self, heard: Heard) -> None:
        """SQLite tells nobody of what other processes write."""

    async def aclose(self) -> None:
        """Commits what was handed in before, then closes the file. May be called again."""
        await self._group.aclose()
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
        self._group.check_open()
        try:
            return await connection.run(work, *args, **kwargs)
        except (sqlite3.Error, UnicodeEncodeError, OverflowError) as exc:
            raise store_error(self.path, doing, exc) from exc

    # --- group commit

    def _commit(self, group: Sequence[Write]) -> asyncio.Future[list[Outcome]]:
        return self._write_connection.submit(writes.write_group, group)

    def _fault(self, exc: Exception) -> Exception:
        if not isinstance(exc, (sqlite3.Error, OverflowError)):
            return exc
        error = store_error(self.path, "write to", exc)
        error.__cause__ = exc
        return error

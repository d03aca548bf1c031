"""One sqlite3 connection living in aiosqlite's thread. Every touch of aiosqlite's private names is here."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import aiosqlite

P = ParamSpec("P")
R = TypeVar("R")

# seconds
_LATE = 0.002
_RARELY = 0.05
_MOMENT = 0.000_05


class Connection:
    def __init__(self, thread: aiosqlite.Connection, raw: sqlite3.Connection) -> None:
        self._thread = thread
        self._raw = raw
        self._closing = asyncio.Lock()
        self._giving_way = _GivingWay()

    @classmethod
    async def open(cls, connect: Callable[[], sqlite3.Connection]) -> Connection:
        """`connect` runs in the new thread, as does everything done with what it returns."""
        failed: list[Exception] = []
        made: list[sqlite3.Connection] = []

        def connector() -> sqlite3.Connection:
            try:
                made.append(connect())
            except Exception as exc:  # noqa: BLE001 - raised below: aiosqlite would leave its thread to end by itself
                failed.append(exc)
                made.append(sqlite3.connect(":memory:"))
            return made[0]

        thread = aiosqlite.Connection(connector, iter_chunk_size=64)
        # a program that ends without closing its store must end all the same; what was acknowledged is on disk
        thread._thread.daemon = True  # pyright: ignore[reportPrivateUsage] - aiosqlite has no public switch
        await thread
        if failed:
            await thread.close()
            raise failed[0]
        return cls(thread, made[0])

    async def run(self, work: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`work(connection, ...)` in the thread: many statements for the price of one hop."""
        return await self.submit(work, *args, **kwargs)

    def submit(
        self, work: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[R]:
        """The same as a future: whoever has a callback for it saves the turns of the loop that a task would take."""
        thread = cast(Any, self._thread)  # its public calls hop once a statement
        if not thread._running:
            raise ValueError("the connection is closed")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._giving_way.begin()
        future.add_done_callback(self._giving_way.end)
        # as a closure, since aiosqlite logs what it calls: no user's value may end up in a log
        thread._tx.put_nowait((future, lambda: work(self._raw, *args, **kwargs)))
        return future

    async def close(self) -> None:
        async with self._closing:  # aiosqlite waits for ever when it is closed twice at once
            await self._thread.close()


class _GivingWay:
    """Lets the thread get at the interpreter's lock while the loop is busy.

    A loop that is never idle gives the lock up for a microsecond in each of its turns and has it back before a waiting
    thread has woken; turns shorter than the switch interval keep the thread out for seconds. So when an answer is late, the
    loop sleeps for a moment, now and then - ever more rarely, since it may be the disk that is slow."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls = 0
        self._due = 0.0  # when to give way next, if there is no answer until then
        self._pause = _LATE
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._calls += 1
        if self._calls == 1:  # it is late only after a while of its own
            self._due, self._pause = self._loop.time() + _LATE, _LATE
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._look)

    def end(self, _: object = None) -> None:
        """The timer is left to ring: to stop it and to set it anew for every call costs more."""
        self._calls -= 1

    def _look(self) -> None:
        self._timer = None
        if not self._calls:
            return
        if self._loop.time() >= self._due:
            time.sleep(_MOMENT)
            self._pause = min(self._pause * 1.1, _RARELY)
            self._due = self._loop.time() + self._pause
        self._timer = self._loop.call_at(self._due, self._look)

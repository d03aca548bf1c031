"""Connections to PostgreSQL that come back: what fails because one was lost is tried again, for a bounded time."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from flux.stores.postgres.driver import Connection
from flux.stores.postgres.opening import Target

P = ParamSpec("P")
R = TypeVar("R")

# seconds
ANSWER_WITHIN = 30.0
"""How long the server may take for one piece of work: then the connection is given up."""
PATIENCE = 30.0
"""How long work is tried again while the server cannot be reached."""
_FIRST_DELAY, _LONGEST_DELAY = 0.02, 1.0

POOLED = 4
"""Connections for all that is not written by group commit, at most."""

_log = logging.getLogger(__name__)

_PASSING = ("08", "57P", "25P03", "53300", "40", "25006", "23505")
"""Beginnings of the SQLSTATEs of errors that another attempt may not meet: the connection is lost, we stood still for too long,
the server stops or starts, has no connection left or only reads by now, or somebody else was quicker."""

Work = Callable[Concatenate[Connection, P], Awaitable[R]]


class Line:
    """One connection that is opened anew when it was lost."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection: Connection | None = None

    async def run(self, work: Work[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Raises what the server says, and what psycopg says when the connection is lost meanwhile."""
        connection = await self._usable()
        with answering(connection):
            return await work(connection, *args, **kwargs)

    async def _usable(self) -> Connection:
        """Whoever was cancelled in the middle of something may have left a connection that is good for nothing more."""
        known = self._connection
        if known is not None and not known.closed and known.info.transaction_status is TransactionStatus.IDLE:
            return known
        await self.hang_up()
        self._connection = made = await self._target.connect()
        return made

    @property
    def backend(self) -> int | None:
        """The server's process at the other end."""
        return None if self._connection is None or self._connection.closed else self._connection.info.backend_pid

    async def hang_up(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                await self._connection.close()


class Busy(psycopg.OperationalError):
    """No connection has become free in time."""


class Pool:
    """Lines for many at once, each lent for one piece of work, the one that was used last first."""

    def __init__(self, target: Target) -> None:
        self._lines = [Line(target) for _ in range(POOLED)]
        self._free: asyncio.LifoQueue[Line] = asyncio.LifoQueue()
        for line in self._lines:
            self._free.put_nowait(line)

    async def run(self, work: Work[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Everything that is done this way may be done twice: it is tried again when a connection was lost."""

        async def once() -> R:
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    line = await self._free.get()
            except TimeoutError as exc:
                raise Busy(f"all {POOLED} connections have been busy for {ANSWER_WITHIN:g} seconds") from exc
            try:
                return await line.run(work, *args, **kwargs)
            finally:
                self._free.put_nowait(line)

        return await patiently(once)

    async def close(self) -> None:
        for line in self._lines:
            await line.hang_up()


@contextmanager
def answering(connection: Connection) -> Generator[None]:
    """Give the connection up when the server does not answer: whoever waits is told that it is lost.

    Cancelling would not do: psycopg then waits for the same server to say that it has stopped."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(ANSWER_WITHIN, _cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: Connection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


async def patiently(work: Callable[[], Awaitable[R]]) -> R:
    """Try again what fails by an error that may pass, for PATIENCE seconds."""
    loop = asyncio.get_running_loop()
    deadline, delay = loop.time() + PATIENCE, _FIRST_DELAY
    while True:
        try:
            return await work()
        except psycopg.Error as exc:
            if not _may_pass(exc) or loop.time() + delay > deadline:
                raise
            _log.info("PostgreSQL: %s; trying again", str(exc).strip().partition("\n")[0])
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY)


def _may_pass(exc: psycopg.Error) -> bool:
    if isinstance(exc, Busy):
        return False  # it has waited already
    if isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError)) and exc.sqlstate is None:
        return True  # the connection was lost, or could not be made
    return exc.sqlstate is not None and exc.sqlstate.startswith(_PASSING)

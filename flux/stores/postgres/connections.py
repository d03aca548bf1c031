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
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

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
the server stops or starts,
has no connection left or only reads by now, or somebody else was quicker."""

Work = Callable[Concatenate[AsyncConnection, P], Awaitable[R]]


class Line:
    """One connection that is opened anew when it was lost."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection: AsyncConnection | None = None

    async def run(self, work: Work[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Raises what the server says, and what psycopg says when the connection is lost meanwhile."""
        if self._connection is None or self._connection.closed:
            self._connection = await self._target.connect()
        with answering(self._connection):
            return await work(self._connection, *args, **kwargs)

    @property
    def is_lost(self) -> bool:
        return self._connection is None or self._connection.closed

    @property
    def backend(self) -> int | None:
        """The server's process at the other end."""
        return None if self._connection is None or self._connection.closed else self._connection.info.backend_pid

    async def hang_up(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                await self._connection.close()


class Pool:
    """Connections for many at once, each lent for one piece of work."""

    def __init__(self, target: Target) -> None:
        self._pool = AsyncConnectionPool(
            target.conninfo,
            kwargs={"autocommit": True},
            min_size=1,
            max_size=POOLED,
            timeout=ANSWER_WITHIN,
            max_waiting=0,
            open=False,
            name="flux",
        )

    async def open(self) -> None:
        await self._pool.open()

    async def run(self, work: Work[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Everything that is done this way may be done twice: it is tried again when a connection was lost."""

        async def once() -> R:
            async with self._pool.connection() as connection:
                with answering(connection):
                    return await work(connection, *args, **kwargs)

        return await patiently(once)

    async def close(self) -> None:
        await self._pool.close(timeout=5.0)


@contextmanager
def answering(connection: AsyncConnection) -> Generator[None]:
    """Give the connection up when the server does not answer: whoever waits is told that it is lost.

    Cancelling would not do: psycopg then waits for the same server to say that it has stopped."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(ANSWER_WITHIN, _cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: AsyncConnection) -> None:
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
    if isinstance(exc, PoolTimeout):
        return False  # it has waited already
    if isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError)) and exc.sqlstate is None:
        return True  # the connection was lost, or could not be made
    return exc.sqlstate is not None and exc.sqlstate.startswith(_PASSING)

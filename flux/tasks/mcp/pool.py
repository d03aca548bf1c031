"""The connections of one client, in each event loop: which one serves whom.

Servers of the protocol of 2026-07-28 say to which call a question belongs, so one connection serves everybody. The older
protocols do not say it: there, no two executions have calls open on the same connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from typing import cast
from weakref import WeakKeyDictionary

from mcp import MCPError

from flux.engine.run import Run
from flux.errors import FluxError, NotAuthorized, ServerUnreachable
from flux.tasks.mcp.connection import Connection, Terms
from flux.tasks.mcp.faults import NotSent, innermost, sorted_out

MOST_IDLE = 4
"""Connections of the older protocols that are kept for later, of those which were needed at the same time."""


class Pool:
    """`per_call`: a new connection each time, closed after the answer."""

    def __init__(self, terms: Terms, *, per_call: bool) -> None:
        self._terms = terms
        self._per_call = per_call
        self._standing: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Connection]] = WeakKeyDictionary()
        self._is_old = False  # as far as is known

    @asynccontextmanager
    async def connected(self, run: Run, *, alone: bool = False) -> AsyncGenerator[Connection]:
        """One that stands. `alone`: for a call over which the server may ask. Raises ServerUnreachable and the like."""
        while True:
            connection = self._free_for(run, alone=alone)
            if connection is None:
                connection = self._opened(run)
            else:
                await connection.settled()
                if not connection.is_usable:
                    continue
            with connection.reserved_for(run.id) if alone else nullcontext():
                await self._ready(connection)
                if alone and self._is_old and not connection.is_for(run.id):
                    continue  # somebody was here first, and one can tell only now that it matters
                connection.hide_secrets(run)
                try:
                    yield connection
                finally:
                    connection.hide_secrets(run)  # they may have been renewed
                    if self._per_call:
                        connection.release()
                return

    async def aclose(self) -> None:
        """Close those of this event loop; the next call opens another one."""
        for connection in self._standing.pop(asyncio.get_running_loop(), []):
            await connection.aclose()

    def _free_for(self, run: Run, *, alone: bool) -> Connection | None:
        loop = asyncio.get_running_loop()
        standing = self._standing[loop] = [each for each in self._standing.get(loop, []) if each.is_usable]
        if not (alone and self._is_old):
            return standing[0] if standing else None
        free = sorted((each for each in standing if each.is_for(run.id)), key=lambda each: each.last_for != run.id)
        for surplus in free[MOST_IDLE:]:
            surplus.release()
        return free[0] if free else None

    def _opened(self, run: Run) -> Connection:
        connection = Connection(self._terms, run.provisions.secrets)
        if not self._per_call:
            self._standing[asyncio.get_running_loop()].append(connection)
            run.opened(connection)
        return connection

    async def _ready(self, connection: Connection) -> None:
        try:
            await connection.ready()
        except Exception as exc:  # the SDK's errors are told apart below
            connection.release()
            raise not_open(exc, self._terms.server) from exc
        self._is_old = not connection.is_modern


def not_open(exc: Exception, server: str) -> Exception:
    """What it means for whoever wanted to connect. The SDK tries the protocols one after the other: a server that wants to know
    who we are has said so to the first, and may have said something else to the last."""
    cause = cast(Exception, innermost(exc))
    if isinstance(cause, FluxError):
        return cause
    each: BaseException | None = cause
    while each is not None:
        meant = sorted_out(each, server) if isinstance(each, MCPError) else None
        if isinstance(meant, NotAuthorized):
            return meant
        each = each.__cause__ or each.__context__
    return ServerUnreachable(server, f"it cannot be reached: {_said(cause)}")


def _said(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) and not isinstance(exc, NotSent) else str(exc)

"""What is kept open for parked executions, for a while: an answer takes its time.

The older protocols ask over the call, which has to stay open. And a server that wants an address to be visited before it is called
again may know of the visit in its session alone, with stdio in its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flux.domain.calls import CallId
from flux.tasks.mcp.connection import Connection
from flux.tasks.mcp.exchange import Exchange

KEEP = 600.0  # seconds

Place = tuple[str, CallId]
"""An execution, and the call in it."""


@dataclass(slots=True)
class _Kept:
    exchange: Exchange[Any]
    end: asyncio.TimerHandle


@dataclass(slots=True)
class _Session:
    connection: Connection
    end: asyncio.TimerHandle


open_calls: dict[Place, _Kept] = {}
_sessions: dict[Place, _Session] = {}


def keep(place: Place, exchange: Exchange[Any]) -> None:
    open_calls[place] = _Kept(exchange, _later(lambda: drop_open_call(*place)))


def taken_up(place: Place) -> Exchange[Any] | None:
    kept = open_calls.get(place)
    if kept is None or not _is_of_this_loop(kept.exchange.connection.lost):
        return None
    kept.end.cancel()
    return open_calls.pop(place).exchange


def keep_session(place: Place, connection: Connection) -> None:
    """It stays reserved for the execution."""
    connection.reserve(place[0])
    _sessions[place] = _Session(connection, _later(lambda: _drop_session(place)))


def taken_session(place: Place) -> Connection | None:
    """Whoever takes it frees it in the end."""
    kept = _sessions.get(place)
    if kept is None or not _is_of_this_loop(kept.connection.lost):
        return None
    kept.end.cancel()
    return _sessions.pop(place).connection


def drop_open_call(execution: str, call: CallId) -> None:
    """Nobody goes on with it any more."""
    exchange = taken_up((execution, call))
    if exchange is not None:
        exchange.abandon()
    _drop_session((execution, call))


def _drop_session(place: Place) -> None:
    connection = taken_session(place)
    if connection is not None:
        connection.unreserve(place[0])


def _later(drop: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(KEEP, drop)


def _is_of_this_loop(future: asyncio.Future[str]) -> bool:
    return future.get_loop() is asyncio.get_running_loop()

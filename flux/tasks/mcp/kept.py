"""Open calls of parked executions: the older protocols ask over the call, and an answer takes its time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from flux.domain.calls import CallId
from flux.tasks.mcp.exchange import Exchange

KEEP = 600.0  # seconds that an open call outlives its run when a question that the server asked over it is not answered yet


@dataclass(slots=True)
class _Kept:
    exchange: Exchange[Any]
    end: asyncio.TimerHandle


open_calls: dict[tuple[str, CallId], _Kept] = {}


def keep(key: tuple[str, CallId], exchange: Exchange[Any]) -> None:
    def drop() -> None:
        open_calls.pop(key, None)
        exchange.abandon()

    open_calls[key] = _Kept(exchange, asyncio.get_running_loop().call_later(KEEP, drop))


def taken_up(key: tuple[str, CallId]) -> Exchange[Any] | None:
    kept = open_calls.get(key)
    if kept is None or kept.exchange.connection.lost.get_loop() is not asyncio.get_running_loop():
        return None
    kept.end.cancel()
    return open_calls.pop(key).exchange


def drop_open_call(execution: str, call: CallId) -> None:
    """Nobody goes on with it any more."""
    exchange = taken_up((execution, call))
    if exchange is not None:
        exchange.abandon()

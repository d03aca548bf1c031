"""Requests about what a server does for us by itself: they may be made as often as it takes to reach it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

import mcp_types as types

from flux.errors import ConnectionLost, OutcomeUnknown, RequestRefused, ServerUnreachable
from flux.tasks.mcp.asking import Wire, request
from flux.tasks.mcp.errand import Errand
from flux.tasks.mcp.faults import Lost, NotSent, sorted_out

TRIES = 8  # to reach a server which has a task of ours under way, further and further apart
REACH_WITHIN = 75.0  # seconds that a server may take to say how its work for us goes
STOP_WITHIN = 3.0  # seconds that telling a server to stop may take


async def reached(errand: Errand, method: str, params: Wire) -> Wire:
    async def ask_once() -> Wire:
        async with errand.peers.connected(errand.run) as connection:
            return await connection.request(request(method, params), timeout=REACH_WITHIN, tell=errand.tell)

    return await persistently(errand, ask_once)


async def persistently(errand: Errand, ask_once: Callable[[], Awaitable[Wire]]) -> Wire:
    """Ask until the server is there: what it does for us goes on meanwhile."""
    pause = 0.5
    for left in reversed(range(TRIES)):
        try:
            return await ask_once()
        except Exception as exc:  # the SDK's errors are told apart below
            meant = sorted_out(exc, errand.asking.server)
            if isinstance(meant, RequestRefused) and meant.code == types.INVALID_PARAMS:
                raise errand.unknown(f"the server no longer knows {errand.its_work}") from exc
            if not isinstance(meant, NotSent | Lost | ServerUnreachable | ConnectionLost):
                raise meant from exc
            if not left:
                why = f"{errand.its_work} is under way, but the server cannot be reached: {meant}"
                raise OutcomeUnknown(errand.asking.server, errand.asking.what, why) from exc
        await errand.run.clock.sleep_until(errand.run.clock.now() + pause)
        pause = min(2 * pause, 15.0)
    raise AssertionError("the last try ends the loop")


async def stop(errand: Errand) -> None:
    """Tell the server to stop what it does for us by itself."""
    if errand.note.task:
        await _within(STOP_WITHIN, _stop(errand, "tasks/cancel", {"taskId": errand.note.task}))
    if errand.note.handle:
        arguments = {"execution_id": errand.note.handle}
        await _within(STOP_WITHIN, _stop(errand, "tools/call", {"name": "cancel_execution", "arguments": arguments}))


async def _stop(errand: Errand, method: str, params: Wire) -> None:
    async with errand.peers.connected(errand.run) as connection:
        await connection.request(request(method, params), timeout=STOP_WITHIN)


async def _within(seconds: float, work: Coroutine[Any, Any, Any]) -> None:
    """Finish something while being cancelled, or leave it: outside of the workflow, which is over."""
    task = asyncio.get_running_loop().create_task(work, context=Context())
    await asyncio.wait({task}, timeout=seconds)
    if task.done() and not task.cancelled():
        task.exception()  # looked at: that it could not be told changes nothing

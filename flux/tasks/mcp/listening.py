"""Waiting for the reply to a request, and answering what the server asks over the open call meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from mcp import MCPError

from flux.errors import Suspend
from flux.tasks.mcp.asking import Wire
from flux.tasks.mcp.connection import Connection
from flux.tasks.mcp.errand import Errand
from flux.tasks.mcp.exchange import Exchange, Pushed, Send
from flux.tasks.mcp.faults import NotSent
from flux.tasks.mcp.kept import keep, keep_session

DECLINED_WITHIN = 3.0  # seconds that a task may take to end after its question was declined, before it is looked at


def begun(errand: Errand, connection: Connection, send: Send[Wire]) -> Exchange[Wire]:
    return connection.begin(send, execution=errand.run.id, tell=errand.tell)


async def reply_to(errand: Errand, exchange: Exchange[Wire]) -> Wire:
    """Raises NotSent, and the errors of `flux.errors.RemoteError`. An execution that parks leaves the call open."""
    pushed: Pushed | None = None
    try:
        while isinstance(step := await exchange.step(_patience(errand)), Pushed):
            pushed = step
            await _put(errand, exchange, pushed)
            pushed = None
    except Suspend:
        if pushed is not None and errand.run.stopped is None:
            keep(errand.place, exchange)
            raise
        exchange.abandon()
        raise
    except asyncio.CancelledError:
        exchange.abandon()
        raise
    except Exception as exc:  # the SDK's errors are told apart below
        if pushed is not None:
            exchange.abandon()  # the server waits for an answer that will not come
        meant = errand.meant(exc)
        if isinstance(meant, MCPError):  # it wants an address to be visited, and will remember in this session
            keep_session(errand.place, exchange.connection)
        if isinstance(meant, NotSent) and meant.stale:
            exchange.connection.release()
        raise meant from exc
    finally:
        exchange.connection.hide_secrets(errand.run)  # they may have been renewed
    return step


def _patience(errand: Errand) -> float | None:
    """A task of 2025-11-25 whose question was declined may wait for a better answer, and never say so."""
    return DECLINED_WITHIN if errand.note.old and errand.declined else errand.asking.timeout


async def _put(errand: Errand, exchange: Exchange[Wire], pushed: Pushed) -> None:
    """Ask what the server asks over the open call, and hand the answer back."""
    pushed.shown = True
    key = f"pushed {errand.note.round} {errand.note.given}"
    answer = await errand.answer_to(pushed.request, key=key, name=errand.asking.what)
    await errand.write(replace(errand.note, given=errand.note.given + 1))
    exchange.answered()
    if not pushed.answer.done():
        pushed.answer.set_result(answer)
    elif "action" in answer:  # the server did not wait so long
        errand.unused[str(pushed.request["params"].get("message", ""))] = answer

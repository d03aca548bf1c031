"""One request to a server as a durable step, from the first word to the last: rounds of questions, tasks and crashes between.

Before a request goes out that must not be made twice, that it does is written down; so is everything that a server answers
short of the end. Whoever goes on with the execution later - the same process, or another one after a crash - reads how far it
has come, and takes it up there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

from mcp import MCPError

from flux.errors import (
    ConnectionLost,
    RequestRefused,
    ServerUnreachable,
    TaskTimeout,
    ToolExecutionError,
    UnusableResult,
)
from flux.tasks.mcp.asking import Note, Wire, request, task_request
from flux.tasks.mcp.connection import Connection
from flux.tasks.mcp.errand import Errand
from flux.tasks.mcp.exchange import Exchange
from flux.tasks.mcp.faults import NotSent
from flux.tasks.mcp.handles import result_of, unless_handle
from flux.tasks.mcp.kept import taken_session, taken_up
from flux.tasks.mcp.listening import begun, reply_to
from flux.tasks.mcp.questions import Answer
from flux.tasks.mcp.reaching import stop
from flux.tasks.mcp.remote_tasks import RemoteTask, old_result

MOST_ROUNDS = 100  # of questions in one call

IDEMPOTENCY_KEY = "flux/idempotencyKey"


async def answer_of(errand: Errand) -> Wire:
    """What the server answers in the end. Raises the errors of `flux.errors.RemoteError`."""
    errand.recall()
    try:
        while True:
            reply = await _step(errand)
            if reply is not None:
                return reply
    except asyncio.CancelledError:
        if not errand.run.unwinding:
            await stop(errand)
        raise
    except (ConnectionLost, TaskTimeout, ServerUnreachable, RequestRefused, ToolExecutionError, UnusableResult):
        errand.forget()
        raise


async def _step(errand: Errand) -> Wire | None:
    if errand.note.task:
        return await (old_result(errand) if errand.note.old else RemoteTask(errand).result())
    if errand.note.handle:
        return await result_of(errand, errand.note.handle)
    return await _round(errand)


async def _round(errand: Errand) -> Wire | None:
    """Make the request, with the answers to what was asked before. None when the server has asked something more."""
    answers = await _answers(errand)
    try:
        reply = await _exchanged(errand, answers)
    except MCPError as exc:  # it wants somebody to visit an address before
        await errand.write(replace(errand.note, sent=False, round=_next_round(errand), links=True, asked=_links(exc)))
        return None
    match reply.get("resultType"):
        case None if isinstance(reply.get("task"), dict):
            await errand.write(Note(task=str(reply["task"]["taskId"]), old=True))
            return None
        case "input_required":
            asked = cast("Mapping[str, Wire]", reply.get("inputRequests") or {})
            state: str | None = reply.get("requestState")
            await errand.write(Note(round=_next_round(errand), asked=asked, state=state))
            return None
        case "task":
            await errand.write(Note(task=str(reply["taskId"])))
            return None
        case None | "complete":
            return await unless_handle(errand, reply)
        case other:
            raise UnusableResult(errand.asking.server, f"it answered with {other!r}, which is not known here")


def _next_round(errand: Errand) -> int:
    if errand.note.round >= MOST_ROUNDS:
        raise UnusableResult(errand.asking.server, f"it has asked {MOST_ROUNDS} times and still wants to know more")
    return errand.note.round + 1


async def _answers(errand: Errand) -> dict[str, Answer]:
    """What is answered to the questions of the last round; all are open at once."""
    note = errand.note
    if not note.asked:
        return {}
    errand.declined = {}
    asking = [
        errand.answer_to(asked, key=f"{note.round} {key}", name=errand.asking.what if note.links else key)
        for key, asked in note.asked.items()
    ]
    given = [await asking[0]] if len(asking) == 1 else await asyncio.gather(*asking)
    if not note.links:
        return dict(zip(note.asked, given, strict=True))
    if errand.declined:
        raise ToolExecutionError(errand.asking.what, "the address was not visited", errand.asking.server)
    return {}


async def _exchanged(errand: Errand, answers: Mapping[str, Answer]) -> Wire:
    """The reply. A connection that turns out to have ended is replaced once."""
    exchange = taken_up(errand.place)
    if exchange is None and errand.note.sent and not errand.asking.safe:
        raise errand.unknown("the process that made the call has ended")
    for is_new in (False, True):
        try:
            return await reply_to(errand, exchange or await _sent(errand, answers))
        except NotSent as exc:
            if is_new or not exc.stale:
                raise ServerUnreachable(errand.asking.server, str(exc)) from exc
            exchange = None
    raise AssertionError("the second try ends the loop")


async def _sent(errand: Errand, answers: Mapping[str, Answer]) -> Exchange[Wire]:
    """A new request, on a connection that is known to stand."""
    asking = errand.asking
    params = dict(asking.params)
    if answers:
        params["inputResponses"] = answers
    if errand.note.state is not None:
        params["requestState"] = errand.note.state
    params["_meta"] = {IDEMPOTENCY_KEY: asking.key}
    async with _connected(errand) as connection:
        errand.definition = await errand.peers.current(connection, asking)
        if not asking.safe:
            await errand.write(replace(errand.note, sent=True))
        as_task = connection.makes_old_tasks_of(asking.what)
        return begun(errand, connection, task_request(params) if as_task else request(asking.method, params))


@asynccontextmanager
async def _connected(errand: Errand) -> AsyncGenerator[Connection]:
    """The session in which the server wanted an address to be visited, or any."""
    kept = taken_session(errand.place)
    if kept is None or kept.lost.done():
        async with errand.peers.connected(errand.run, alone=True) as connection:
            yield connection
        return
    try:
        yield kept
    finally:
        kept.unreserve(errand.run.id)


def _links(exc: MCPError) -> dict[str, Wire]:
    data = cast("Mapping[str, Any]", exc.error.data or {})
    found = cast("list[Wire]", data.get("elicitations") or [])
    return {str(each.get("elicitationId", number)): {"mode": "url", **each} for number, each in enumerate(found)}

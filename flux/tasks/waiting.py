"""Waiting for people and for time."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar, overload

from flux.codec.classes import type_ref
from flux.domain.calls import Json
from flux.domain.events import CallReturned, PauseExpired, PauseOpened, TimerSet
from flux.engine.invoke import recall, replayed
from flux.engine.run import Run
from flux.engine.scope import Site, require_scope
from flux.errors import InvalidAnswer, NotReadable, TaskTimeout
from flux.schema import ValueType

T = TypeVar("T")


@overload
def pause(
    name: str, *, output: Any = None, message: str | None = None, timeout: float | None = None
) -> Coroutine[Any, Any, Any]: ...
@overload
def pause(
    name: str, *, response: type[T], output: Any = None, message: str | None = None, timeout: float | None = None
) -> Coroutine[Any, Any, T]: ...
@overload
def pause(
    name: str, *, response: Any, output: Any = None, message: str | None = None, timeout: float | None = None
) -> Coroutine[Any, Any, Any]: ...
def pause(
    name: str,
    *,
    response: Any = Any,
    output: Any = None,
    message: str | None = None,
    timeout: float | None = None,
) -> Coroutine[Any, Any, Any]:
    """Ask something and wait for the answer, for as long as it takes: meanwhile the process may end.

    `response` is the type of the answer (a pydantic model, a dataclass, `bool`, `Literal["yes", "no"]`, ...): it makes the
    form that people fill in, and an answer that does not fit is refused. `output` is shown with the question, `message` is
    the question in words. After `timeout` seconds without an answer TaskTimeout is raised. Several pauses may be open at
    once, in branches; each is answered by its own name or id."""
    scope = require_scope(f"pause({name!r})")
    return _pause(scope.name_call(), name, ValueType(response), output, message, timeout)


def sleep(duration: float | timedelta) -> Coroutine[Any, Any, None]:
    """Wait for a while, `duration` in seconds or as a timedelta. The wake time is recorded: a crash does not start the
    sleep again, and during a long one nothing stays in memory."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    return _sleep(require_scope("sleep()").name_call(), seconds)


async def _sleep(site: Site, seconds: float) -> None:
    run = site.scope.run
    record = recall(site, "sleep")
    if record is not None and record.is_finished:
        await replayed(site, record, None)
        return
    if record is None or record.wake_at is None:
        run.check_going()
        wake_at = run.clock.now() + seconds
        await run.journal.record(TimerSet(at=run.clock.now(), call=site.id, name="sleep", wake_at=wake_at))
    else:
        wake_at = record.wake_at
    await run.wait_until(site.id, wake_at)
    await run.journal.record(CallReturned(at=run.clock.now(), call=site.id, value=Json("null")))


async def _pause(
    site: Site, name: str, response: ValueType, output: Any, message: str | None, timeout: float | None
) -> Any:
    run = site.scope.run
    record = recall(site, name)
    if record is not None and record.is_finished:
        return _typed(name, response, await replayed(site, record, response.annotation))
    if record is None:
        run.check_going()
        opened = _opened(run, site, name, response, output, message, timeout)
        await run.journal.record(opened)
        expires_at = opened.expires_at
    else:
        expires_at = record.wake_at
    answer = await run.wait_for_answer(site.id, expires_at)
    if answer is None:
        answer = await _expired(run, site, name, timeout)
    await run.journal.order.drained()
    return _typed(name, response, run.codec.decode(answer, response.annotation))


def _opened(
    run: Run, site: Site, name: str, response: ValueType, output: Any, message: str | None, timeout: float | None
) -> PauseOpened:
    now = run.clock.now()
    owner = f"pause {name!r}"
    schema = response.json_schema() if response.annotation is not Any else None
    return PauseOpened(
        at=now,
        call=site.id,
        name=name,
        output=None if output is None else run.codec.encode(output, owner=owner),
        schema=None if schema is None else run.codec.encode(schema, owner=owner),
        response=_type_name(response.annotation),
        message=message,
        expires_at=None if timeout is None else now + timeout,
    )


def _type_name(annotation: Any) -> Json | None:
    """The type by name, so that whoever takes the answer can check it by the very type; None where it has none."""
    try:
        return Json(json.dumps(type_ref(annotation)))
    except NotReadable:
        return None


async def _expired(run: Run, site: Site, name: str, timeout: float | None) -> Json:
    """Nobody answered in time: TaskTimeout, unless an answer was written before the expiry could be."""
    error = run.codec.encode_error(TaskTimeout(name, timeout or 0.0))
    await run.journal.record(PauseExpired(at=run.clock.now(), call=site.id, error=error))
    answer = run.answer_of(site.id)
    if answer is None:
        raise run.codec.decode_error(error)
    return answer


def _typed(name: str, response: ValueType, answer: Any) -> Any:
    if response.annotation is Any:
        return answer
    return response.validate(answer, f"The answer to pause {name!r}", error=InvalidAnswer)

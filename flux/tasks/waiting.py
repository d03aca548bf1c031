"""Waiting for people and for time."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, overload

from flux.codec.classes import type_ref
from flux.domain.calls import Json
from flux.domain.events import CallReturned, PauseExpired, PauseOpened, TimerSet
from flux.engine.fence import check_may_ask
from flux.engine.invoke import recall, replayed
from flux.engine.run import Run
from flux.engine.scope import Site, require_scope
from flux.errors import DefinitionError, InvalidAnswer, NotReadable, TaskTimeout
from flux.schema import ValueType, value_type

T = TypeVar("T")


@overload
def pause(
    name: str,
    output: Any = None,
    *,
    message: str | None = None,
    timeout: float | None = None,
    until: datetime | None = None,
    after: float | timedelta | None = None,
    channel: Literal["human"] | None = None,
) -> Coroutine[Any, Any, Any]: ...
@overload
def pause(
    name: str,
    output: Any = None,
    *,
    response: type[T],
    message: str | None = None,
    timeout: float | None = None,
    channel: Literal["human"] | None = None,
) -> Coroutine[Any, Any, T]: ...
@overload
def pause(
    name: str,
    output: Any = None,
    *,
    response: Any,
    message: str | None = None,
    timeout: float | None = None,
    until: datetime | None = None,
    after: float | timedelta | None = None,
    channel: Literal["human"] | None = None,
) -> Coroutine[Any, Any, Any]: ...
def pause(
    name: str,
    output: Any = None,
    *,
    response: Any = Any,
    message: str | None = None,
    timeout: float | None = None,
    until: datetime | None = None,
    after: float | timedelta | None = None,
    channel: Literal["human"] | None = None,
) -> Coroutine[Any, Any, Any]:
    """Ask something and wait for the answer, for as long as it takes: meanwhile the process may end.

    `response` is the type of the answer (a pydantic model, a dataclass, `bool`, `Literal["yes", "no"]`, ...): it makes the
    form that people fill in, and an answer that does not fit is refused. `output` is shown with the question, `message` is
    the question in words. Several pauses may be open at once, in branches; each is answered by its own name or id. With
    `channel="human"` the answer has to come from a person: a model that is connected as an MCP client cannot give it.

    When no answer has come, at most one of these says what happens: after `timeout` seconds TaskTimeout is raised; at the
    time `until` (local where it has no zone), or `after` so many seconds, the workflow goes on with None."""
    if sum(limit is not None for limit in (timeout, until, after)) > 1:
        raise DefinitionError(f"pause({name!r}): give one of timeout, until and after.")
    question = _Question(
        site=require_scope(f"pause({name!r})").name_call(),
        name=name,
        response=value_type(response),
        output=output,
        message=message,
        timeout=timeout,
        wake=until if until is not None else after,
        channel=channel,
    )
    return question.ask()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    site: Site
    name: str
    response: ValueType
    output: Any
    message: str | None
    timeout: float | None
    wake: datetime | float | timedelta | None
    channel: Literal["human"] | None

    @property
    def run(self) -> Run:
        return self.site.scope.run

    async def ask(self) -> Any:
        record = recall(self.site, self.name)
        if record is not None and record.is_finished:
            return self._typed(await replayed(self.site, record, self.response.annotation))
        expires_at = record.wake_at if record is not None else await self._open()
        answer = await self.run.wait_for_answer(self.site.id, expires_at)
        if answer is None:
            answer = await self._expired()
        await self.run.journal.order.drained()
        return self._typed(self.run.codec.decode(answer, self.response.annotation))

    async def _open(self) -> float | None:
        check_may_ask(self.site.scope.fences, f"pause {self.name!r}")
        await self.run.ready()
        encode, now = self.run.codec.encode, self.run.clock.now()
        owner = f"pause {self.name!r}"
        schema = self.response.json_schema() if self.response.annotation is not Any else None
        opened = PauseOpened(
            at=now,
            call=self.site.id,
            name=self.name,
            output=None if self.output is None else encode(self.output, owner=owner),
            schema=None if schema is None else encode(schema, owner=owner),
            response=_type_name(self.response.annotation),
            message=self.message,
            expires_at=self._expiry(now),
            channel=self.channel,
        )
        await self.run.journal.record(opened)
        self.run.asks(self.name)
        return opened.expires_at

    def _expiry(self, now: float) -> float | None:
        match self.wake:
            case None:
                return None if self.timeout is None else now + self.timeout
            case datetime():
                return self.wake.timestamp()
            case _:
                return now + _seconds(self.wake)

    async def _expired(self) -> Json:
        """Nobody answered in time, unless an answer was written before the expiry could be."""
        codec, now = self.run.codec, self.run.clock.now()
        error = None if self.wake is not None else codec.encode_error(TaskTimeout(self.name, self.timeout or 0.0))
        await self.run.journal.record(PauseExpired(at=now, call=self.site.id, error=error))
        answer = self.run.answer_of(self.site.id)
        if answer is None and error is not None:
            raise codec.decode_error(error)
        return answer or Json("null")

    def _typed(self, answer: Any) -> Any:
        if self.response.annotation is Any or (answer is None and self.wake is not None):
            return answer
        return self.response.validate(answer, f"The answer to pause {self.name!r}", error=InvalidAnswer)


def _type_name(annotation: Any) -> Json | None:
    """The type by name, so that whoever takes the answer can check it by the very type; None where it has none."""
    try:
        return Json(json.dumps(type_ref(annotation)))
    except NotReadable:
        return None


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def sleep(duration: float | timedelta) -> Coroutine[Any, Any, None]:
    """Wait for a while, `duration` in seconds or as a timedelta. The wake time is recorded: a crash does not start the
    sleep again, and during a long one nothing stays in memory."""
    return _sleep(require_scope("sleep()").name_call(), _seconds(duration))


async def _sleep(site: Site, seconds: float) -> None:
    run = site.scope.run
    record = recall(site, "sleep")
    if record is not None and record.is_finished:
        await replayed(site, record, None)
        return
    if record is None or record.wake_at is None:
        await run.ready()
        wake_at = run.clock.now() + seconds
        await run.journal.record(TimerSet(at=run.clock.now(), call=site.id, name="sleep", wake_at=wake_at))
    else:
        wake_at = record.wake_at
    await run.wait_until(site.id, wake_at)
    await run.journal.record(CallReturned(at=run.clock.now(), call=site.id, value=Json("null")))

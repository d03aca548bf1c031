"""An execution's history as people read it: one entry for each thing that happened, with decoded values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from flux.domain import events as facts
from flux.domain.calls import Json
from flux.engine.ports import Codec
from flux.errors import NotReadable


class ExecutionEventType(StrEnum):
    WORKFLOW_STARTED = "WORKFLOW_STARTED"
    WORKFLOW_RECOVERED = "WORKFLOW_RECOVERED"
    WORKFLOW_PAUSED = "WORKFLOW_PAUSED"
    WORKFLOW_SLEEPING = "WORKFLOW_SLEEPING"
    WORKFLOW_SUSPENDING = "WORKFLOW_SUSPENDING"
    WORKFLOW_SUSPENDED = "WORKFLOW_SUSPENDED"
    WORKFLOW_RESUMED = "WORKFLOW_RESUMED"
    WORKFLOW_CANCELLING = "WORKFLOW_CANCELLING"
    WORKFLOW_CANCELLED = "WORKFLOW_CANCELLED"
    WORKFLOW_COMPLETED = "WORKFLOW_COMPLETED"
    WORKFLOW_FAILED = "WORKFLOW_FAILED"
    TASK_STARTED = "TASK_STARTED"
    TASK_COMPLETED = "TASK_COMPLETED"
    TASK_FAILED = "TASK_FAILED"
    TASK_CANCELLED = "TASK_CANCELLED"
    TASK_RETRY_FAILED = "TASK_RETRY_FAILED"
    TASK_PAUSED = "TASK_PAUSED"
    TASK_RESUMED = "TASK_RESUMED"
    TASK_NOTED = "TASK_NOTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionEvent:
    """`name` is the workflow's or the task's, `source_id` the execution's id or the place of the call, `value` what came
    in or out: arguments, result, exception, question, answer. `number` is its place in the history, from 1."""

    type: ExecutionEventType
    name: str
    source_id: str
    value: Any = None
    time: datetime
    number: int
    fact: facts.Event = field(repr=False)


Type = ExecutionEventType


def shown(execution_id: str, history: Iterable[facts.Event], codec: Codec) -> list[ExecutionEvent]:
    """The history of an execution, as people read it."""
    return list(_Reader(execution_id, codec).read(history))


class _Reader:
    """Remembers the names of calls, which their outcomes do not repeat, and which questions are open."""

    def __init__(self, execution_id: str, codec: Codec) -> None:
        self._id = execution_id
        self._codec = codec
        self._workflow = ""
        self._names: dict[str, str] = {}
        self._questions: dict[str, dict[str, Any]] = {}

    def read(self, history: Iterable[facts.Event]) -> Iterator[ExecutionEvent]:
        for number, fact in enumerate(history, 1):
            type, value = self._told(fact)
            call: str | None = getattr(fact, "call", None)
            yield ExecutionEvent(
                type=type,
                name=self._workflow if call is None else self._names.get(call, call),
                source_id=self._id if call is None else call,
                value=value,
                time=datetime.fromtimestamp(fact.at, UTC),
                number=number,
                fact=fact,
            )

    def _told(self, fact: facts.Event) -> tuple[ExecutionEventType, Any]:
        match fact:
            case facts.ExecutionStarted():
                self._workflow = fact.workflow
                return Type.WORKFLOW_STARTED, self._value(fact.input)
            case facts.ExecutionRecovered():
                return Type.WORKFLOW_RECOVERED, fact.owner
            case facts.ExecutionParked():
                return self._parked(fact)
            case facts.SuspendRequested():
                return Type.WORKFLOW_SUSPENDING, None
            case facts.ExecutionSuspended():
                return Type.WORKFLOW_SUSPENDED, None
            case facts.ExecutionResumed():
                return Type.WORKFLOW_RESUMED, fact.reason
            case facts.CancelRequested():
                return Type.WORKFLOW_CANCELLING, fact.reason
            case facts.ExecutionCompleted():
                return Type.WORKFLOW_COMPLETED, self._value(fact.output)
            case facts.ExecutionFailed():
                return Type.WORKFLOW_FAILED, self._codec.decode_error(fact.error)
            case facts.ExecutionCancelled():
                return Type.WORKFLOW_CANCELLED, fact.reason
            case _:
                return self._told_of_call(fact)

    def _told_of_call(self, fact: Any) -> tuple[ExecutionEventType, Any]:
        match fact:
            case facts.CallStarted():
                self._names[fact.call] = fact.name
                return Type.TASK_STARTED, self._arguments(fact.arguments)
            case facts.TimerSet():
                self._names[fact.call] = fact.name
                return Type.TASK_STARTED, datetime.fromtimestamp(fact.wake_at, UTC)
            case facts.CallNoted():
                self._names[fact.call] = fact.name
                return Type.TASK_NOTED, self._value(fact.note)
            case facts.CallReturned():
                return Type.TASK_COMPLETED, self._value(fact.value)
            case facts.CallRaised():
                return Type.TASK_FAILED, self._codec.decode_error(fact.error)
            case facts.CallCancelled():
                return Type.TASK_CANCELLED, None
            case facts.AttemptFailed():
                return Type.TASK_RETRY_FAILED, self._codec.decode_error(fact.error)
            case facts.PauseOpened():
                self._names[fact.call] = fact.name
                self._questions[fact.call] = question = {"name": fact.name, "output": self._value(fact.output)}
                return Type.TASK_PAUSED, question
            case facts.PauseAnswered():
                self._questions.pop(fact.call, None)
                return Type.TASK_RESUMED, self._value(fact.answer)
            case facts.PauseExpired():
                self._questions.pop(fact.call, None)
                if fact.error is None:
                    return Type.TASK_RESUMED, None
                return Type.TASK_FAILED, self._codec.decode_error(fact.error)
            case _:
                raise TypeError(f"{fact!r} is no fact")

    def _parked(self, fact: facts.ExecutionParked) -> tuple[ExecutionEventType, Any]:
        if self._questions:
            return Type.WORKFLOW_PAUSED, next(iter(self._questions.values()))
        return Type.WORKFLOW_SLEEPING, None if fact.wake_at is None else datetime.fromtimestamp(fact.wake_at, UTC)

    def _arguments(self, text: Json | None) -> Any:
        """As values where they could be kept, else as the readable copy has them."""
        try:
            return self._value(text)
        except NotReadable:
            return json.loads(text or "null")

    def _value(self, text: Json | None) -> Any:
        return None if text is None else self._codec.decode(text)

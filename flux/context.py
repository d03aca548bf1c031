"""ExecutionContext: what a workflow's body is given, and what `run`, `resume` and `get` give back."""

from __future__ import annotations

import json
import logging
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, cast

from pydantic_core import to_jsonable_python

from flux.domain.calls import Json, Pause
from flux.domain.events import Event
from flux.domain.execution import Execution, Status
from flux.engine.ports import Codec
from flux.engine.scope import is_replaying, require_scope
from flux.events import ExecutionEvent, shown

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPause:
    """A question that waits for its answer. `schema` is the JSON Schema of the answer, None for any answer. `for_human` when the
    answer has to come from a person: no model may give it."""

    id: str
    name: str
    output: Any = None
    schema: dict[str, Any] | None = None
    message: str | None = None
    expires_at: datetime | None = None
    for_human: bool = False


class ExecutionContext(Generic[T]):
    """One execution as it was when it was read; inside a workflow's body, as it is now.

    `ExecutionContext[T]` declares the type of the workflow's input: it is validated and converted before anything runs."""

    __slots__ = ("_codec", "_execution", "_history", "_input", "_input_type", "_output_type")

    def __init__(
        self,
        execution: Execution,
        codec: Codec,
        *,
        input_type: Any = Any,
        output_type: Any = Any,
        history: Sequence[Event] = (),
    ) -> None:
        self._execution = execution
        self._codec = codec
        self._input_type = input_type
        self._output_type = output_type
        self._history = history
        self._input: list[T] = []

    @staticmethod
    async def get() -> ExecutionContext[Any]:
        """The execution that runs here: for tasks, which are not given it. Raises NotInWorkflow."""
        return require_scope("ExecutionContext.get()").run.context

    @property
    def execution_id(self) -> str:
        return self._execution.id

    @property
    def workflow_name(self) -> str:
        return self._execution.workflow

    @property
    def name(self) -> str:
        return self._execution.workflow

    @property
    def status(self) -> Status:
        return self._execution.status

    @property
    def state(self) -> Status:
        return self._execution.status

    @property
    def input(self) -> T:
        if not self._input:  # decoded once, so that the body always sees the same object
            self._input.append(cast(T, self._codec.decode(self._execution.input, self._input_type)))
        return self._input[0]

    @property
    def output(self) -> Any:
        """What the workflow returned; the exception when it failed; None while it has not ended."""
        if self._execution.output is not None:
            return self._codec.decode(self._execution.output, self._output_type)
        return self.error

    @property
    def error(self) -> BaseException | None:
        """The exception that ended the execution, None unless it failed."""
        failure = self._execution.error
        return None if failure is None else self._codec.decode_error(failure)

    @property
    def traceback(self) -> str | None:
        """The recorded traceback of `error`, as text."""
        failure = self._execution.error
        return None if failure is None else failure.traceback

    @property
    def pauses(self) -> list[OpenPause]:
        """The questions that are open, oldest first."""
        if self.has_finished:
            return []
        return [self._open_pause(pause) for pause in self._execution.pauses]

    @property
    def events(self) -> list[ExecutionEvent]:
        """What has happened, where the execution was read with its history: by `run` and `resume`, by
        `Flux.get(..., events=True)`, and inside the workflow's body, up to the moment this run began."""
        return shown(self.execution_id, self._history, self._codec)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """The logger `flux.workflow.<name>`, whose messages name the execution. It is silent while the execution is
        replayed: what it says then has been said before."""
        return _Log(logging.getLogger(f"flux.workflow.{self.workflow_name}"), {"execution_id": self.execution_id})

    @property
    def created_at(self) -> datetime:
        return _time(self._execution.created_at)

    @property
    def updated_at(self) -> datetime:
        return _time(self._execution.updated_at)

    @property
    def wake_at(self) -> datetime | None:
        """When a sleeping execution goes on by itself."""
        wake_at = self._execution.wake_at
        return None if wake_at is None else _time(wake_at)

    @property
    def recoveries(self) -> int:
        """How often the execution was taken over from a process that had died, or was frozen for too long."""
        return self._execution.recoveries

    @property
    def principal(self) -> str | None:
        """Who started the execution, None when nobody was identified."""
        return self._execution.principal

    @property
    def has_started(self) -> bool:
        return True

    @property
    def has_finished(self) -> bool:
        return self._execution.status.is_final

    @property
    def has_succeeded(self) -> bool:
        return self._execution.status is Status.COMPLETED

    @property
    def has_failed(self) -> bool:
        return self._execution.status is Status.FAILED

    @property
    def is_paused(self) -> bool:
        return self._execution.status is Status.PAUSED

    @property
    def is_cancelled(self) -> bool:
        return self._execution.status is Status.CANCELLED

    @property
    def is_cancelling(self) -> bool:
        """Somebody has asked it to end, and it has not yet."""
        return self._execution.cancel_requested and not self.has_finished

    @property
    def is_running(self) -> bool:
        return self._execution.status is Status.RUNNING

    @property
    def is_at_rest(self) -> bool:
        return self._execution.status.is_at_rest

    def summary(self) -> dict[str, Any]:
        """What is known about the execution but its history, as JSON has it."""
        error = self._execution.error
        return {
            "execution_id": self.execution_id,
            "workflow_name": self.workflow_name,
            "state": self.status.value,
            "input": to_jsonable_python(self.input, fallback=str),
            "output": to_jsonable_python(self.output, fallback=str) if error is None else None,
            "error": None if error is None else {"type": error.type, "message": error.message},
            "pauses": [to_jsonable_python(pause, fallback=str) for pause in self.pauses],
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }

    def to_dict(self) -> dict[str, Any]:
        """`summary()`, and the events where they were read."""
        fields = ("type", "name", "source_id", "value", "time")
        events = [{field: getattr(event, field) for field in fields} for event in self.events]
        return {**self.summary(), "events": to_jsonable_python(events, fallback=str)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def __repr__(self) -> str:
        return f"<ExecutionContext {self.workflow_name} {self.execution_id} {self.status.value}>"

    def _open_pause(self, pause: Pause) -> OpenPause:
        return OpenPause(
            id=pause.id,
            name=pause.name,
            output=self._decode(pause.output),
            schema=self._decode(pause.schema),
            message=pause.message,
            expires_at=None if pause.expires_at is None else _time(pause.expires_at),
            for_human=pause.channel == "human",
        )

    def _decode(self, value: Json | None) -> Any:
        return None if value is None else self._codec.decode(value)


class _Log(logging.LoggerAdapter[logging.Logger]):
    def isEnabledFor(self, level: int) -> bool:
        return not is_replaying() and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        assert self.extra is not None, "it is made with the execution's id"
        return f"[{self.extra['execution_id']}] {msg}", {**kwargs, "extra": {**self.extra, **kwargs.get("extra", {})}}


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)

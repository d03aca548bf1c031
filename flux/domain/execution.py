"""An execution's state, which is only ever made by folding its facts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from flux.domain.calls import CallId, Failure, Json, Pause
from flux.domain.events import (
    CancelRequested,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionParked,
    ExecutionRecovered,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    PauseAnswered,
    PauseExpired,
    PauseOpened,
    SuspendRequested,
)


class Status(StrEnum):
    """RUNNING means "should be making progress", PAUSED waits for an answer, SLEEPING for a timer, SUSPENDED for a person
    who says `resume`. The last three are final."""

    RUNNING = "running"
    PAUSED = "paused"
    SLEEPING = "sleeping"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL

    @property
    def is_at_rest(self) -> bool:
        """Nothing more happens without a timer, an answer or a request."""
        return self is not Status.RUNNING


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """`began_at` is when it was started, or retried after a failure: from then on its timeout counts."""

    id: str
    workflow: str
    input: Json
    status: Status
    created_at: float
    updated_at: float
    began_at: float
    principal: str | None = None
    parent: str | None = None
    trace: str | None = None
    output: Json | None = None
    error: Failure | None = None
    pauses: tuple[Pause, ...] = ()
    wake_at: float | None = None
    children: tuple[str, ...] = ()
    cancel_requested: bool = False
    cancel_reason: str | None = None
    suspend_requested: bool = False
    recoveries: int = 0

    def pause(self, id: CallId) -> Pause | None:
        return next((pause for pause in self.pauses if pause.id == id), None)


def fold(id: str, events: Iterable[Event]) -> Execution | None:
    """The state after all of `events`, None when there are none."""
    state: Execution | None = None
    for event in events:
        state = apply(id, state, event)
    return state


def apply(id: str, state: Execution | None, event: Event) -> Execution:
    """The state after one more fact. Journal facts change nothing but are welcome."""
    if isinstance(event, ExecutionStarted):
        return Execution(
            id=id,
            workflow=event.workflow,
            input=event.input,
            status=Status.RUNNING,
            created_at=event.at,
            updated_at=event.at,
            began_at=event.at,
            principal=event.principal,
            parent=event.parent,
            trace=event.trace,
        )
    if state is None:
        raise ValueError(f"execution {id!r} has no ExecutionStarted before {type(event).__name__}")
    match event:
        case ExecutionRecovered():
            return replace(state, updated_at=event.at, recoveries=state.recoveries + 1)
        case ExecutionParked():
            status = Status.PAUSED if state.pauses else Status.SLEEPING
            return replace(state, status=status, updated_at=event.at, wake_at=event.wake_at, children=event.children)
        case SuspendRequested():
            return replace(state, updated_at=event.at, suspend_requested=True)
        case ExecutionSuspended():
            return replace(state, status=Status.SUSPENDED, updated_at=event.at, suspend_requested=False, wake_at=None)
        case ExecutionResumed():
            return replace(
                state,
                status=Status.RUNNING,
                updated_at=event.at,
                wake_at=None,
                began_at=event.at if event.reason in ("retry", "fork") else state.began_at,
                children=(),
                error=None,
                suspend_requested=False,
            )
        case CancelRequested():
            # a parked execution has to run once more, to roll back and to end as cancelled
            return replace(
                state,
                status=Status.RUNNING,
                updated_at=event.at,
                wake_at=None,
                children=(),
                cancel_requested=True,
                cancel_reason=event.reason,
            )
        case ExecutionCompleted():
            return _ended(state, Status.COMPLETED, at=event.at, output=event.output)
        case ExecutionFailed():
            return _ended(state, Status.FAILED, at=event.at, error=event.error)
        case ExecutionCancelled():
            return replace(_ended(state, Status.CANCELLED, at=event.at), cancel_reason=event.reason)
        case PauseOpened():
            return replace(state, updated_at=event.at, pauses=(*state.pauses, _pause(event)))
        case PauseExpired():
            return replace(state, updated_at=event.at, pauses=_without(state, event.call))
        case PauseAnswered():
            # an answer sets a parked execution running again; a suspended one stays put until it is resumed
            status = state.status if state.status is Status.SUSPENDED else Status.RUNNING
            left = _without(state, event.call)
            return replace(state, status=status, updated_at=event.at, pauses=left, wake_at=None, children=())
        case _:
            return state


def _without(state: Execution, pause: CallId) -> tuple[Pause, ...]:
    return tuple(each for each in state.pauses if each.id != pause)


def _ended(
    state: Execution, status: Status, *, at: float, output: Json | None = None, error: Failure | None = None
) -> Execution:
    return replace(state, status=status, updated_at=at, output=output, error=error, wake_at=None, children=())


def _pause(event: PauseOpened) -> Pause:
    return Pause(
        id=event.call,
        name=event.name,
        output=event.output,
        schema=event.schema,
        response=event.response,
        message=event.message,
        expires_at=event.expires_at,
        channel=event.channel,
        opened_at=event.at,
    )

"""What can happen to an execution: a closed union of frozen facts in the past tense.

`at` is seconds since the epoch (UTC). Facts are of two kinds: *lifecycle* facts, from which an execution's state is folded,
and *journal* facts, which say how each call of a run went. A fact about a pause is both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flux.domain.calls import CallId, Failure, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted:
    """`trace` says in which trace it was started: a `traceparent` of W3C Trace Context."""

    at: float
    workflow: str
    input: Json
    principal: str | None = None
    parent: str | None = None
    forked_from: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecovered:
    """Another process took over after the owner of the run died or froze."""

    at: float
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionParked:
    """Nothing can go on before a pause is answered, a timer is due or a child has ended; nothing of the run stays in memory.

    `children` are the ids of the child executions that the workflow waits for."""

    at: float
    wake_at: float | None = None
    children: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendRequested:
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSuspended:
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResumed:
    """`forget` are calls whose recorded outcomes do not count any more: they are to be made again."""

    at: float
    reason: Literal["timer", "child", "asked", "retry", "fork"]
    forget: tuple[CallId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    at: float
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCompleted:
    at: float
    output: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFailed:
    at: float
    error: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCancelled:
    at: float
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseOpened:
    """`schema` is the JSON Schema of the answer, `response` its Python type by name, where it has one. `channel` is None when
    the answer may come by any way, "human" when it has to come from a person."""

    at: float
    call: CallId
    name: str
    output: Json | None = None
    schema: Json | None = None
    response: Json | None = None
    message: str | None = None
    expires_at: float | None = None
    channel: Literal["human"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseAnswered:
    at: float
    call: CallId
    answer: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseExpired:
    """Nobody answered in time; `error` is what the workflow saw, None when it went on with the answer None."""

    at: float
    call: CallId
    error: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted:
    """`digest` is a check on the arguments, `arguments` a bounded copy for people to read."""

    at: float
    call: CallId
    name: str
    digest: str = ""
    arguments: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReturned:
    at: float
    call: CallId
    value: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRaised:
    at: float
    call: CallId
    error: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCancelled:
    """The workflow's own code cancelled the call (a timeout, a failed sibling). On replay the call waits to be cancelled
    again, so that the code around it takes the same turn."""

    at: float
    call: CallId


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    """Attempt number `attempt` (from 1) failed; the next one may start at `retry_at`. After a `final` one there is none:
    what runs next is the fallback or the rollback."""

    at: float
    call: CallId
    attempt: int
    error: Failure
    retry_at: float
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerSet:
    at: float
    call: CallId
    name: str
    wake_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNoted:
    """How far a call under way has come, for whoever goes on with it after a crash: the last note counts, `null` takes it
    back."""

    at: float
    call: CallId
    name: str
    note: Json


LifecycleEvent = (
    ExecutionStarted
    | ExecutionRecovered
    | ExecutionParked
    | SuspendRequested
    | ExecutionSuspended
    | ExecutionResumed
    | CancelRequested
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionCancelled
    | PauseOpened
    | PauseAnswered
    | PauseExpired
)
JournalEvent = CallStarted | CallReturned | CallRaised | CallCancelled | AttemptFailed | TimerSet | CallNoted
Event = LifecycleEvent | JournalEvent

EVENT_TYPES: tuple[type[Event], ...] = (
    ExecutionStarted,
    ExecutionRecovered,
    ExecutionParked,
    SuspendRequested,
    ExecutionSuspended,
    ExecutionResumed,
    CancelRequested,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionCancelled,
    PauseOpened,
    PauseAnswered,
    PauseExpired,
    CallStarted,
    CallReturned,
    CallRaised,
    CallCancelled,
    AttemptFailed,
    TimerSet,
    CallNoted,
)
LIFECYCLE_TYPES: tuple[type[Event], ...] = EVENT_TYPES[:13]

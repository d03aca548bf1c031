"""What can be made of a history besides going on with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flux.domain.calls import CallId, Failure
from flux.domain.events import (
    CallCancelled,
    CallRaised,
    CancelRequested,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    SuspendRequested,
)

_ENDS = (ExecutionCompleted, ExecutionFailed, ExecutionCancelled)
_REQUESTS = (CancelRequested, SuspendRequested, ExecutionSuspended)


def forked(id: str, history: Sequence[Event], *, at: int | None, now: float) -> list[Event]:
    """The history of a new execution that begins as `id` did up to fact number `at` (None: up to its end).

    Raises ValueError when there is no such fact."""
    if at is not None and not 1 <= at <= len(history):
        raise ValueError(f"Execution {id!r} has facts 1 to {len(history)}, not {at}.")
    kept = list(history[:at])
    while isinstance(kept[-1], _ENDS):
        kept.pop()
    started = kept[0]
    assert isinstance(started, ExecutionStarted)
    began = replace(started, at=now, parent=None, forked_from=f"{id}#{len(kept)}")
    rest = [event for event in kept[1:] if not isinstance(event, _REQUESTS)]
    return [began, *rest, ExecutionResumed(at=now, reason="fork")]


def to_be_retried(history: Sequence[Event]) -> tuple[CallId, ...]:
    """The calls whose outcomes made the execution fail: they are to be made again.

    These are the call that raised the execution's error (with the calls it came up through), and those that the code
    cancelled because of it."""
    failure = next((event.error for event in reversed(history) if isinstance(event, ExecutionFailed)), None)
    if failure is None:
        return ()
    blamed = [event for event in history if isinstance(event, CallRaised) and _is_cause(event.error, failure)]
    if not blamed:
        return ()
    last = blamed[-1].call
    kin = [event for event in blamed if _are_kin(event.call, last)]
    since = history.index(kin[0])
    cancelled = [event.call for event in history[since:] if isinstance(event, CallCancelled)]
    return (*(event.call for event in kin), *cancelled)


def _is_cause(error: Failure, failure: Failure) -> bool:
    """Errors are the same by what they say: a traceback grows on the way up."""
    cause: Failure | None = failure
    while cause is not None:
        if (error.type, error.message, error.args) == (cause.type, cause.message, cause.args):
            return True
        cause = cause.cause
    return False


def _are_kin(call: CallId, other: CallId) -> bool:
    """One was made inside the other."""
    return call == other or call.startswith((f"{other}.", f"{other}~")) or other.startswith((f"{call}.", f"{call}~"))

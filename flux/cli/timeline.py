"""What each call of an execution did, and when: computed from the facts, drawn as bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from flux.domain.events import (
    AttemptFailed,
    CallCancelled,
    CallRaised,
    CallReturned,
    CallStarted,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionResumed,
    PauseAnswered,
    PauseExpired,
    PauseOpened,
    TimerSet,
)

State = Literal["running", "done", "failed", "cancelled", "paused", "sleeping"]


@dataclass(slots=True, kw_only=True)
class CallLine:
    """One call. `end` is None while it goes on; `depth` says inside how many other calls it was made."""

    call: str
    name: str
    start: float
    end: float | None = None
    attempts: int = 1
    state: State = "running"
    depth: int = 0


def lines_of(history: Iterable[Event]) -> list[CallLine]:
    """The calls in the order in which they were made."""
    lines: dict[str, CallLine] = {}

    def line(call: str, name: str, at: float, state: State = "running") -> CallLine:
        return lines.setdefault(call, CallLine(call=call, name=name, start=at, state=state))

    def ended(call: str, at: float, state: State) -> None:
        found = line(call, call, at)
        found.end, found.state = at, state

    for fact in history:
        match fact:
            case CallStarted():
                line(fact.call, fact.name, fact.at)
            case TimerSet():
                line(fact.call, fact.name, fact.at, "sleeping")
            case PauseOpened():
                line(fact.call, fact.name, fact.at, "paused")
            case CallReturned() | PauseAnswered():
                ended(fact.call, fact.at, "done")
            case CallRaised():
                ended(fact.call, fact.at, "failed")
            case PauseExpired():
                ended(fact.call, fact.at, "done" if fact.error is None else "failed")
            case CallCancelled():
                ended(fact.call, fact.at, "cancelled")
            case AttemptFailed():
                line(fact.call, fact.call, fact.at).attempts = fact.attempt + (0 if fact.final else 1)
            case ExecutionResumed():
                for call in fact.forget:  # a retry: they are made again
                    if call in lines:
                        lines[call].end, lines[call].state = None, "running"
            case ExecutionCompleted() | ExecutionFailed() | ExecutionCancelled():
                for left in lines.values():
                    if left.end is None:
                        left.end, left.state = fact.at, "cancelled"
            case _:
                pass
    return _nested(lines)


def _nested(lines: dict[str, CallLine]) -> list[CallLine]:
    for line in lines.values():
        line.depth = sum(prefix in lines for prefix in _prefixes(line.call))
    return list(lines.values())


def _prefixes(call: str) -> list[str]:
    return [call[:place] for place, char in enumerate(call) if char in ".~"]


def bar(line: CallLine, *, start: float, end: float, width: int) -> tuple[str, str]:
    """Spaces up to the call's start, and its bar: at least one character."""
    span = max(end - start, 1e-9)
    left = min(int((line.start - start) / span * width), width - 1)
    right = round(((end if line.end is None else line.end) - start) / span * width)
    return " " * left, "━" * max(1, min(right, width) - left)


def span_of(lines: Sequence[CallLine], *, start: float, now: float) -> tuple[float, float]:
    """From the execution's start to the end of its last call, or until now while one goes on."""
    ends = [now if line.end is None else line.end for line in lines]
    return start, max([start, *ends])

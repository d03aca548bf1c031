"""Telling whoever waits how far the work is."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, cast

from flux.engine.scope import require_scope

PIECE = 80
"""Characters of a streamed text that make a message of their own, unless its line ends before."""

_KINDS = {"token": "", "reasoning": "thinks: "}
_TOOLS = {"tool_start": "calls {}", "tool_done": "has called {}"}


def progress(value: Any) -> None:
    """Report progress: a text, a number, or any value that makes sense to a person. It reaches whoever follows the
    execution now, is not recorded, and is not repeated on replay. Works in async and in plain functions."""
    scope = require_scope("progress()")
    scope.run.tell(scope.task, value, call=scope.call)


class Told(Protocol):
    """What the engine tells an observer. `value` None says that `task` has finished; `call` tells calls of one task apart."""

    @property
    def task(self) -> str | None: ...
    @property
    def call(self) -> str | None: ...
    @property
    def value(self) -> Any: ...


class Message(NamedTuple):
    """What there is to say to a person; `by_agent` where it is about `task`, and nothing without it."""

    task: str | None
    value: Any
    by_agent: bool = True


class Spoken:
    """Progress as messages: what an agent tells token by token is gathered to lines, or to pieces of them."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str | None, str], tuple[str | None, str]] = {}

    def messages(self, told: Told) -> list[Message]:
        """What there is to say by now."""
        kind = stream_of(told.value)
        if kind is None:
            said = in_words(told.value)
            return [*self._rest(told.call), Message(told.task, said, said is not told.value)]
        _, before = self._streams.get((told.call, kind), (None, ""))
        ready, rest = _cut(before + told.value[kind])
        self._streams[told.call, kind] = told.task, rest
        return [Message(told.task, _KINDS[kind] + piece) for piece in ready]

    def _rest(self, call: str | None) -> list[Message]:
        """What is left of its texts once a call tells something else."""
        streams = {kind: self._streams.pop((call, kind), (None, "")) for kind in _KINDS}
        return [Message(task, _KINDS[kind] + text.strip()) for kind, (task, text) in streams.items() if text.strip()]


def stream_of(value: Any) -> str | None:
    """Of which stream an agent tells a part: "token", "reasoning", or None for any other value."""
    if not isinstance(value, dict):
        return None
    told = cast("dict[Any, Any]", value)
    return next((kind for kind in _KINDS if len(told) == 1 and isinstance(told.get(kind), str)), None)


def in_words(value: Any) -> Any:
    """What an agent tells of its work, in words; any other value as it is."""
    match value:
        case {"type": "tool_start" | "tool_done" as what, "tool": str() as tool}:
            return _TOOLS[what].format(tool)
        case {"type": "broken_off"}:
            return "was broken off"
        case _:
            return value


def _cut(text: str) -> tuple[list[str], str]:
    """The pieces that are long enough to be told, and what is left."""
    *lines, last = text.split("\n")
    if len(last) >= PIECE:
        line, space, rest = last.rpartition(" ")
        lines, last = [*lines, line if space else last], rest if space else ""
    return [line.strip() for line in lines if line.strip()], last

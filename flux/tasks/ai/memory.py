"""What agents remember: `working_memory` within one execution, `long_term_memory` beyond it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

from flux.decorators import Task
from flux.engine.run import Run
from flux.engine.scope import require_scope
from flux.errors import DefinitionError
from flux.tasks.ai.ledger import REMEMBERED, Entry, ledger_of, own_place
from flux.tasks.ai.longterm import LongTermMemory, MemoryProvider, in_memory, long_term_memory, sqlite
from flux.tasks.ai.postgres import postgresql

__all__ = [
    "LongTermMemory",
    "MemoryProvider",
    "Message",
    "WorkingMemory",
    "in_memory",
    "long_term_memory",
    "postgresql",
    "sqlite",
    "working_memory",
]

EPOCH = "1970-01-01T00:00:00Z"
"""The time of messages that we make: that of the facts which hold them says when."""

Role = Literal["user", "assistant", "system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation. `key` is for `forget`; `raw` is the message as pydantic-ai writes it."""

    key: str
    role: str
    content: str
    raw: dict[str, Any]


def working_memory(
    *,
    window: int | None = None,
    max_tokens: int | None = None,
    compact_model: Any = None,
    compact_threshold: float = 0.7,
    compact_preserve: int = 4,
    name: str | None = None,
) -> WorkingMemory:
    """A memory of the messages of an execution, for one agent or shared by several.

    An agent is shown at most the last `window` messages, and at most about `max_tokens` tokens of them, from a message of
    the user on. With `compact_model`, messages are summed up by that model once they reach `compact_threshold` of
    `max_tokens`; the last `compact_preserve` stay as they are. `name` tells the memories of one execution apart in its
    history, by default the name of the agent that first uses it."""
    for limit, value in (("window", window), ("max_tokens", max_tokens)):
        if value is not None and value < 1:
            raise DefinitionError(f"working_memory({limit}={value!r}): it has to be at least 1.")
    if compact_model is not None and max_tokens is None:
        raise DefinitionError("working_memory(compact_model=...) needs max_tokens: it says when to compact.")
    return WorkingMemory(
        window=window,
        max_tokens=max_tokens,
        compact_model=compact_model,
        compact_threshold=compact_threshold,
        compact_preserve=compact_preserve,
        name=name,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkingMemory:
    """Made by `working_memory`. What is in it belongs to the execution; the object only says how it is used."""

    window: int | None = None
    max_tokens: int | None = None
    compact_model: Any = None
    compact_threshold: float = 0.7
    compact_preserve: int = 4
    name: str | None = None

    async def memorize(self, role: Role, content: str) -> str:
        """Add a message; its key."""
        return (await self.remember([_message(role, content)]))[0]

    async def recall(self) -> list[Message]:
        """The messages as an agent would see them now, oldest first."""
        return self.visible(await self.messages())

    async def forget(self, key: str) -> None:
        """Remove a message, and with one that calls tools the results, with results the calls."""
        await self._record({"op": "forget", "key": key})

    async def keys(self) -> list[str]:
        return [message.key for message in await self.messages()]

    # -- for agents -------------------------------------------------------------------------------------------------

    def called_by(self, agent: str) -> None:
        """Settle by which name the memory goes in this execution: at the call, which a replay makes again, in order."""
        _name_in(require_scope("working_memory").run, self, agent)

    async def messages(self) -> list[Message]:
        """All that is in the memory at this place of the execution. How much that was is recorded."""
        scope = require_scope("working_memory")
        kind = _name_in(scope.run, self, "memory")

        async def recall() -> int:
            return len((await ledger_of(scope.run)).of(kind))

        seen = await Task[[], int](recall, name=f"recall:{kind.removeprefix(REMEMBERED)}")()
        return folded((await ledger_of(scope.run)).of(kind)[:seen])

    async def remember(self, raw: Sequence[dict[str, Any]]) -> list[str]:
        """Add messages as pydantic-ai writes them; their keys."""
        entry = await self._record({"op": "add", "messages": list(raw)})
        return [f"{entry['id']}/{index}" for index in range(len(raw))]

    async def compact(self, upto: str, summary: str) -> None:
        """Put `summary` in the place of the messages up to that of key `upto`."""
        await self._record({"op": "compact", "upto": upto, "messages": [_message("user", summary)]})

    def due(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages that should be summed up now."""
        if self.compact_model is None or self.max_tokens is None:
            return ()
        if sum(map(_tokens, messages)) < self.compact_threshold * self.max_tokens:
            return ()
        kept = len(messages) - self.compact_preserve
        while kept > 0 and kept < len(messages) and not _begins(messages[kept].raw):
            kept -= 1  # what stays begins with the user, and no pair is split
        return messages[:kept] if kept > 1 else ()

    def visible(self, messages: Sequence[Message]) -> list[Message]:
        """The last messages that the limits allow, as a history that every provider takes."""
        first = 0 if self.window is None else max(0, len(messages) - self.window)
        if self.max_tokens is not None:
            left = self.max_tokens
            for index in range(len(messages) - 1, first - 1, -1):
                left -= _tokens(messages[index])
                if left < 0:
                    first = index + 1
                    break
        return legal(messages[first:])

    async def _record(self, change: dict[str, Any]) -> Entry:
        scope = require_scope("working_memory")
        kind = _name_in(scope.run, self, "memory")

        async def memory(change: dict[str, Any]) -> Entry:
            return {"id": own_place(), **change}

        entry = await Task[[dict[str, Any]], Entry](memory, name=_literal(kind))(change)
        (await ledger_of(scope.run)).add(kind, entry)
        return entry


# -- names --------------------------------------------------------------------------------------------------------------

_names: WeakKeyDictionary[Run, dict[WorkingMemory, str]] = WeakKeyDictionary()


def _name_in(run: Run, memory: WorkingMemory, agent: str) -> str:
    """By what name the memory's facts go in this execution: two objects never share one."""
    names = _names.setdefault(run, {})
    if memory not in names:
        wanted = f"{REMEMBERED}{memory.name or agent}"
        name, number = wanted, 1
        while name in names.values():
            number += 1
            name = f"{wanted}#{number}"
        names[memory] = name
    return names[memory]


def _literal(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


# -- from facts to messages ---------------------------------------------------------------------------------------------


def folded(entries: Sequence[Entry]) -> list[Message]:
    """The messages that these facts leave in the memory."""
    messages: list[Message] = []
    for entry in entries:
        match entry["op"]:
            case "forget":
                messages = [message for message in messages if message.key != entry["key"]]
            case "compact":
                keys = [message.key for message in messages]
                end = keys.index(entry["upto"]) + 1 if entry["upto"] in keys else 0
                messages = [*_messages_of(entry), *messages[end:]]
            case _:
                messages += _messages_of(entry)
    return messages


def _messages_of(entry: Entry) -> Iterator[Message]:
    for index, raw in enumerate(entry["messages"]):
        yield Message(key=f"{entry['id']}/{index}", role=_role(raw), content=_text(raw), raw=raw)


def legal(messages: Sequence[Message]) -> list[Message]:
    """The messages from the first of the user's on, without tool calls that have no result and results without a call."""
    kept: list[Message] = []
    for index, message in enumerate(messages):
        calls, results = _ids(message.raw, "tool-call"), _ids(message.raw, "tool-return")
        after = messages[index + 1].raw if index + 1 < len(messages) else {}
        if calls and calls != _ids(after, "tool-return"):
            continue
        if results and (not kept or results != _ids(kept[-1].raw, "tool-call")):
            continue
        if kept or _begins(message.raw):
            kept.append(message)
    return kept


def _begins(raw: dict[str, Any]) -> bool:
    kinds = {part["part_kind"] for part in raw["parts"]}
    return raw["kind"] == "request" and "tool-return" not in kinds


def _ids(raw: dict[str, Any], kind: str) -> set[str]:
    return {part["tool_call_id"] for part in raw.get("parts", ()) if part["part_kind"] == kind}


def _role(raw: dict[str, Any]) -> str:
    kinds = {part["part_kind"] for part in raw["parts"]}
    if raw["kind"] == "response":
        return "tool_call" if "tool-call" in kinds else "assistant"
    if "tool-return" in kinds:
        return "tool_result"
    return "system" if kinds == {"system-prompt"} else "user"


def _text(raw: dict[str, Any]) -> str:
    return "\n".join(filter(None, map(_part_text, raw["parts"])))


def _part_text(part: dict[str, Any]) -> str:
    match part["part_kind"]:
        case "thinking":
            return ""
        case "tool-call":
            args = part["args"]
            return f"{part['tool_name']}({args if isinstance(args, str) else json.dumps(args)})"
        case _:
            content = part.get("content", "")
            return content if isinstance(content, str) else json.dumps(content)


def _tokens(message: Message) -> int:
    """A guess: four characters to a token, and some for the message itself."""
    return len(message.content) // 4 + 4


def _message(role: Role, content: str) -> dict[str, Any]:
    match role:
        case "assistant":
            return {"kind": "response", "parts": [{"part_kind": "text", "content": content}], "timestamp": EPOCH}
        case "user" | "system":
            kind = "user-prompt" if role == "user" else "system-prompt"
            return {"kind": "request", "parts": [{"part_kind": kind, "content": content, "timestamp": EPOCH}]}
        case _:
            raise DefinitionError(
                f"A message is from the user, the assistant or the system, not from {cast(Any, role)!r}."
            )

"""Calls: where one stands, how it ended, and when it may be tried again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NewType

Json = NewType("Json", str)
"""A value as the codec wrote it: JSON text with type tags. The domain carries it and never looks inside."""

CallId = NewType("CallId", str)
"""A call's place in the call tree: `2` is the third call of the workflow's body, `2.0` the first call made inside it,
`f1.0` the first call of the second asyncio task that the body created. It never depends on timing or on values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An exception as data: enough to show it, and to raise it again where its class can be rebuilt.

    `rebuilt` was decided when the failure was recorded: True means `type` could be imported and made again from `args`.
    `args` is the codec's JSON of a list, empty text when the arguments could not be stored."""

    type: str
    message: str
    args: Json = Json("")
    rebuilt: bool = False
    traceback: str = ""
    cause: Failure | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    value: Json


@dataclass(frozen=True, slots=True)
class Raised:
    error: Failure


Outcome = Returned | Raised


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how long apart, a failed attempt is made again. Delays in seconds; `jitter` is the part of a delay,
    0 to 1, that is left to chance."""

    max_attempts: int = 0
    delay: float = 1.0
    backoff: float = 2.0
    max_delay: float = 600.0
    jitter: float = 0.0

    def delay_after(self, failed: int, *, luck: float = 0.0) -> float | None:
        """Seconds to wait after `failed` attempts have failed (1 or more); None when the policy gives up.

        `luck`, from 0 to 1, says how much of the jitter is taken off: delays are never longer than without."""
        if failed > self.max_attempts:
            return None
        try:
            delay = min(self.delay * self.backoff ** (failed - 1), self.max_delay)
        except OverflowError:
            delay = self.max_delay
        return delay * (1 - self.jitter * luck)


NO_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A question an execution has asked and nobody has answered yet.

    `id` is the pause's call id, unique in its execution for ever. `schema` is the JSON Schema of the answer, None for any
    answer; `response` names its Python type, where it has a name. `expires_at` is in seconds since the epoch. `channel` is
    "human" when the answer has to come from a person."""

    id: CallId
    name: str
    output: Json | None = None
    schema: Json | None = None
    response: Json | None = None
    message: str | None = None
    expires_at: float | None = None
    channel: Literal["human"] | None = None
    opened_at: float = field(default=0.0, compare=False)

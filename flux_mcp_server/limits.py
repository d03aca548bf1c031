"""How much at once, and how much a minute: what is too much is refused, with a word on when to come back."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mcp_types as types
from mcp import MCPError

from flux_mcp_server.auth import Caller

MOST_KNOWN = 10_000  # principals whose rates are remembered


@dataclass
class Limits:
    """`most` calls may be under way at once, `most_each` for one principal who is known, who may make `per_minute` in a row."""

    most: int = 1000
    most_each: int = 100
    per_minute: float | None = None
    _under_way: Counter[str] = field(default_factory=Counter[str])
    _total: int = 0
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict[str, tuple[float, float]])

    @property
    def under_way(self) -> int:
        return self._total

    @contextmanager
    def admitted(self, caller: Caller) -> Generator[None]:
        """Raises MCPError for one call too many."""
        who = caller.principal
        if self._total >= self.most:
            raise _refused(f"{self.most} calls are under way here, which is all this server takes", seconds=5)
        if caller.is_known and self._under_way[who] >= self.most_each:
            raise _refused(f"You have {self.most_each} calls under way, which is all you may have", seconds=5)
        if caller.is_known and self.per_minute is not None:
            self._spend(who, self.per_minute)
        self._total += 1
        self._under_way[who] += 1
        try:
            yield
        finally:
            self._total -= 1
            self._under_way[who] -= 1
            if not self._under_way[who]:
                del self._under_way[who]

    def _spend(self, who: str, per_minute: float) -> None:
        """One of the calls that a principal has left; they come back evenly, up to a minute's worth."""
        now = time.monotonic()
        left, since = self._left.get(who, (per_minute, now))
        left = min(per_minute, left + (now - since) * per_minute / 60)
        if left < 1:
            seconds = math.ceil((1 - left) * 60 / per_minute)
            raise _refused(f"You may make {per_minute:g} calls a minute", seconds=seconds)
        self._left[who] = (left - 1, now)
        self._left.move_to_end(who)
        while len(self._left) > MOST_KNOWN:
            self._left.popitem(last=False)


def _refused(why: str, *, seconds: int) -> MCPError:
    said = f"{why}. Nothing has been done: try again in {seconds} s."
    return MCPError(types.INTERNAL_ERROR, said, {"retryAfterSeconds": seconds})

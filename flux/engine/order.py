"""Delivers recorded outcomes in the order in which they were recorded.

Who finished first is something the workflow's code can see (`asyncio.wait`, `as_completed`, a `TaskGroup` that fails). Live,
outcomes reach the code in the order of their commits, all of one commit in one turn of the loop. A replay does the same:
an outcome waits until every outcome of the earlier commits has been delivered and the code has had the time to react.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import groupby

from flux.domain.calls import CallId

HOPS = 8  # turns of the loop from an outcome to the last code that can react to it: task, gather or wait, its caller
STALL = 1.0  # seconds without any progress, after which an outcome that nobody asks for is passed over


class Order:
    """`outcomes` are (call, time of its commit), in recorded order."""

    def __init__(self, outcomes: Iterable[tuple[CallId, float]]) -> None:
        self._groups = [{call for call, _ in group} for _, group in groupby(outcomes, key=lambda outcome: outcome[1])]
        self._place = {call: place for place, group in enumerate(self._groups) for call in group}
        self._next = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._advancing = False
        self._stall: asyncio.TimerHandle | None = None

    @property
    def is_drained(self) -> bool:
        return self._next >= len(self._groups)

    def is_next(self, call: CallId) -> bool:
        """For code that runs alone, with no other asyncio task beside it: True, and delivered, when `call` is the whole
        of the next commit. Nobody can be overtaken then, so nobody has to wait."""
        if self._place.get(call, -1) != self._next or len(self._groups[self._next]) > 1 or self._waiting:
            return False
        self._next += 1
        return True

    async def turn(self, call: CallId) -> None:
        """Wait until it is time for this recorded outcome."""
        place = self._place.get(call)
        if place is None or place < self._next:
            return  # its commit was passed over
        self._groups[place].discard(call)
        waiter = self._wait_for(place)
        self._advance_if_complete()
        await waiter

    async def drained(self) -> None:
        """Wait until every recorded outcome has been delivered: new outcomes come after them."""
        if not self.is_drained:
            await self._wait_for(len(self._groups))

    def _wait_for(self, place: int) -> asyncio.Future[None]:
        if place not in self._waiting:
            self._waiting[place] = asyncio.get_running_loop().create_future()
        self._watch_for_stall()
        return _shared(self._waiting[place])

    def _advance_if_complete(self) -> None:
        if self._advancing or self.is_drained or self._groups[self._next]:
            return
        self._advancing = True
        self._deliver(self._next)
        self._hop(HOPS)

    def _hop(self, left: int) -> None:
        loop = asyncio.get_running_loop()
        if left:
            loop.call_soon(self._hop, left - 1)
            return
        self._advancing = False
        self._next += 1
        if self.is_drained:
            self._deliver(self._next)
        else:
            self._advance_if_complete()

    def _deliver(self, place: int) -> None:
        waiter = self._waiting.pop(place, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        self._watch_for_stall()

    def _watch_for_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._waiting:
            self._stall = asyncio.get_running_loop().call_later(STALL, self._pass_over)

    def _pass_over(self) -> None:
        self._stall = None
        if self._advancing or not self._waiting:
            return
        first = min(self._waiting)
        if first > self._next:  # nobody asks for what comes before
            self._next = first
            self._deliver(first) if self.is_drained else self._advance_if_complete()
        if self._waiting and not self._advancing:
            # part of the commit is never asked for: deliver the part that is
            self._groups[self._next] = set()
            self._advance_if_complete()
        self._watch_for_stall()


def _shared(waiter: asyncio.Future[None]) -> asyncio.Future[None]:
    """Many callers wait for one future; cancelling one of them must not cancel it for the others."""
    return asyncio.shield(waiter)

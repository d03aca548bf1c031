"""Delivers recorded outcomes in the order in which they were recorded.

Who finished first is something the workflow's code can see (`asyncio.wait`, `as_completed`, a `TaskGroup` that fails). Live,
outcomes reach the code in the order of their commits, all of one commit in one turn of the loop. A replay does the same:
an outcome waits until every outcome of the earlier commits has been delivered and the code has had the time to react.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from itertools import groupby
from operator import itemgetter

from flux.domain.calls import CallId

HOPS = 8  # turns of the loop from an outcome to the last code that can react to it: task, gather or wait, its caller
STALL = 1.0  # seconds without any progress, after which an outcome that nobody asks for is passed over


class Order:
    """`outcomes` are (call, what tells its commit from the ones before and behind), in recorded order."""

    def __init__(self, outcomes: Iterable[tuple[CallId, Hashable]]) -> None:
        self._commits = [[call for call, _ in commit] for _, commit in groupby(outcomes, key=itemgetter(1))]
        self._place = {call: place for place, commit in enumerate(self._commits) for call in commit}
        self._next = 0
        self._asked: dict[CallId, asyncio.Future[None]] = {}
        self._after: list[asyncio.Future[None]] = []
        self._advancing = False
        self._stall: asyncio.TimerHandle | None = None

    @property
    def is_drained(self) -> bool:
        return self._next >= len(self._commits)

    def is_next(self, call: CallId) -> bool:
        """For code that runs alone, with no other asyncio task beside it: True, and delivered, when `call` is the whole
        of the next commit. Nobody can be overtaken then, so nobody has to wait."""
        if self._place.get(call, -1) != self._next or len(self._commits[self._next]) > 1 or self._asked or self._after:
            return False
        self._next += 1
        return True

    async def turn(self, call: CallId) -> None:
        """Wait until it is time for this recorded outcome."""
        if self._place.get(call, -1) < self._next:
            return  # its commit was passed over
        self._asked[call] = turn = asyncio.get_running_loop().create_future()
        self._advance()
        await turn

    async def drained(self) -> None:
        """Wait until every recorded outcome has been delivered: new outcomes come after them."""
        if not self.is_drained:
            drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._after.append(drained)
            self._watch_for_stall()
            await drained

    def _advance(self) -> None:
        """Deliver the next commit once all of it has been asked for."""
        if not self._advancing and not self.is_drained and self._asked.keys() >= set(self._commits[self._next]):
            self._advancing = True
            # not now: whoever asked last must not overtake those that wait already
            asyncio.get_running_loop().call_soon(self._deliver)
        self._watch_for_stall()

    def _deliver(self) -> None:
        self._advancing = True
        for call in self._commits[self._next]:  # in recorded order, whoever asked first
            _arrive(self._asked.pop(call, None))
        self._hop(HOPS)

    def _hop(self, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._hop, left - 1)
            return
        self._advancing = False
        self._next += 1
        if self.is_drained:
            for drained in self._after:
                _arrive(drained)
            self._after.clear()
        self._advance()

    def _watch_for_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._asked or self._after:
            self._stall = asyncio.get_running_loop().call_later(STALL, self._pass_over)

    def _pass_over(self) -> None:
        """Nobody asks for the rest of the next commit: go on with the first one of which something is asked for."""
        self._stall = None
        if self._advancing:
            return
        places = [self._place[call] for call in self._asked]
        self._next = min(places, default=len(self._commits) - 1)
        self._deliver()


def _arrive(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

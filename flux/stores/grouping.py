"""Group commit: writes that arrive while a commit runs wait, and are committed together in the next one.

So the disk is asked once for all of them, and each `write` returns only after its own commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial

from flux.engine.ports import Lease
from flux.errors import StoreError
from flux.stores.plan import Outcome, Write
from flux.stores.rows import storable

_GROUP = 1024
"""Writes of one commit at most."""

Commit = Callable[[Sequence[Write]], "asyncio.Future[list[Outcome]]"]


class GroupCommit:
    """`commit` makes a group durable and gives the outcome of each write. `fault` makes an error of the database one of
    ours; `name` is the database's, for errors."""

    def __init__(self, commit: Commit, *, fault: Callable[[Exception], Exception], name: str) -> None:
        self._commit = commit
        self._fault = fault
        self._name = name
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Future[list[Outcome]] | None = None
        self._called = False
        self._closed = False

    async def write(self, write: Write) -> Lease | None:
        """Hand in one write and wait until it is on disk, or refused."""
        self.check_open()
        storable(write.id, "an execution's id")
        waiting = _Waiting(write)
        self._waiting.append(waiting)
        self._call()
        return await waiting.done

    def check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The database {self._name} has been closed.")

    async def aclose(self) -> None:
        """Commit what was handed in before, and take no more."""
        self._closed = True
        while self._waiting or self._running is not None:
            self._begin()
            if self._running is not None:
                await asyncio.wait([self._running])
                await asyncio.sleep(0)  # the callback of its end comes first

    def _call(self) -> None:
        """Begin in the next turn of the loop: whatever else arrives in this one is of the same group.

        In a context of its own: nothing here is a part of the workflow that happens to write."""
        if not self._called and self._running is None:
            self._called = True
            asyncio.get_running_loop().call_soon(self._begin, context=Context())

    def _begin(self) -> None:
        self._called = False
        group = self._next_group()
        if group and self._running is None:
            self._running = self._commit([one.write for one in group])
            self._running.add_done_callback(partial(self._end, group), context=Context())

    def _next_group(self) -> list[_Waiting]:
        """Whoever was cancelled before its turn is left out: nothing of it is written."""
        if self._running is not None:
            return []
        waiting = [one for one in self._waiting if not one.done.done()]
        self._waiting = waiting[_GROUP:]
        return waiting[:_GROUP]

    def _end(self, group: list[_Waiting], commit: asyncio.Future[list[Outcome]]) -> None:
        self._running = None
        for one, outcome in zip(group, self._outcomes(group, commit), strict=True):
            one.tell(outcome)
        self._begin()

    def _outcomes(self, group: list[_Waiting], commit: asyncio.Future[list[Outcome]]) -> Sequence[Outcome]:
        """Whatever has happened, everybody in the group is told."""
        if commit.cancelled():
            return [StoreError(f"The database {self._name} was closed in the middle of a write.")] * len(group)
        error = commit.exception()
        if error is None:
            return [self._fault(one) if isinstance(one, Exception) else one for one in commit.result()]
        if isinstance(error, Exception):
            return [self._fault(error) for _ in group]
        return [StoreError(f"A write to the database {self._name} was broken off: {error!r}.") for _ in group]


class _Waiting:
    """A write, and the caller who waits for it."""

    __slots__ = ("done", "write")

    def __init__(self, write: Write) -> None:
        self.write = write
        self.done: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()

    def tell(self, outcome: Outcome) -> None:
        if self.done.done():
            return
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)

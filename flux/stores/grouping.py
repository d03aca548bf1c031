"""Group commit: writes that arrive while a commit runs wait, and are committed together in the next one.

So the disk is asked once for all of them, and each `write` returns only after its own commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context

from flux.engine.ports import Lease
from flux.errors import StoreError
from flux.stores.plan import Outcome, Write
from flux.stores.rows import storable

_GROUP = 1024
"""Writes of one commit at most."""

Commit = Callable[[Sequence[Write]], Awaitable[list[Outcome]]]


class GroupCommit:
    """`commit` makes a group durable and gives the outcome of each write. `fault` makes an error of the database one of
    ours; `name` is the database's, for errors."""

    def __init__(self, commit: Commit, *, fault: Callable[[Exception], Exception], name: str) -> None:
        self._commit = commit
        self._fault = fault
        self._name = name
        self._waiting: list[_Waiting] = []
        self._committer: asyncio.Task[None] | None = None
        self._closed = False

    async def write(self, write: Write) -> Lease | None:
        """Hand in one write and wait until it is on disk, or refused."""
        self.check_open()
        storable(write.id, "an execution's id")
        waiting = _Waiting(write)
        self._waiting.append(waiting)
        if self._committer is None:
            # it begins in the next turn of the loop: whatever else arrives in this one is of the same group. In a context
            # of its own: nothing there is a part of the workflow that happens to write
            self._committer = asyncio.get_running_loop().create_task(
                self._commit_all(), name="flux commit", context=Context()
            )
        return await waiting.done

    def check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The database {self._name} has been closed.")

    async def aclose(self) -> None:
        """Commit what was handed in before, and take no more."""
        self._closed = True
        if self._committer is not None:
            await asyncio.wait([self._committer])

    async def _commit_all(self) -> None:
        """One group after the other, until nothing waits."""
        try:
            while group := self._next_group():
                for one, outcome in zip(group, await self._outcomes(group), strict=True):
                    one.tell(outcome)
        finally:
            self._committer = None

    def _next_group(self) -> list[_Waiting]:
        """Whoever was cancelled before its turn is left out: nothing of it is written."""
        waiting = [one for one in self._waiting if not one.done.done()]
        self._waiting = waiting[_GROUP:]
        return waiting[:_GROUP]

    async def _outcomes(self, group: list[_Waiting]) -> Sequence[Outcome]:
        """Whatever has happened, everybody in the group is told."""
        try:
            outcomes = await self._commit([one.write for one in group])
        except asyncio.CancelledError:  # the loop is being closed: what waits has its turn all the same
            return [StoreError(f"The database {self._name} was closed in the middle of a write.") for _ in group]
        except Exception as exc:  # noqa: BLE001 - whatever it was, nobody may wait for ever
            return [self._fault(exc) for _ in group]
        return [self._fault(one) if isinstance(one, Exception) else one for one in outcomes]


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

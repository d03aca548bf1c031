"""What stands around everything that one attempt of a task does: its time limit, and whether it is over.

A scope knows the fences around it, so that a call made deep inside an attempt finds them: a wait for the outside world stops
their clocks, and once an attempt is over nothing that it left behind makes calls or records results any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from typing import Any

from flux.errors import DefinitionError, TaskTimeout

STOP_WITHIN = 10.0  # seconds that the branches of a failed attempt may take to stop before the next attempt begins


class Fence:
    """Around one attempt of `task`. `seconds` is the limit for the time in which it does not wait, None for no limit.
    `is_undoing` stands around a rollback, which may make calls when nothing else of the execution may."""

    __slots__ = ("_branches", "_left", "_limit", "_waits", "is_cached", "is_over", "is_undoing", "seconds", "task")

    def __init__(
        self, task: str, *, seconds: float | None = None, is_cached: bool = False, is_undoing: bool = False
    ) -> None:
        self.task = task
        self.seconds = seconds
        self.is_cached = is_cached
        self.is_undoing = is_undoing
        self.is_over = False
        self._limit: asyncio.Timeout | None = None
        self._left: float | None = None
        self._waits = 0
        self._branches: set[asyncio.Task[Any]] = set()

    async def within(self, work: Awaitable[Any]) -> Any:
        """What `work` gives. Raises TaskTimeout when it took too long, whatever it made of being cancelled for that."""
        if self.seconds is None:
            return await work
        self._limit = limit = asyncio.timeout(self.seconds)
        try:
            async with limit:
                value = await work
        except TimeoutError as exc:
            if limit.expired():
                raise TaskTimeout(self.task, self.seconds) from exc
            raise
        finally:
            self._limit = None
        if limit.expired():  # the body swallowed its cancellation: what it gives now comes too late
            raise TaskTimeout(self.task, self.seconds)
        return value

    def hold(self) -> None:
        """Stop the clock: something inside waits for the outside world."""
        self._waits += 1
        limit = self._limit
        if self._waits == 1 and limit is not None and not limit.expired():
            when = limit.when()
            assert when is not None, "a limit that runs has a time"
            self._left = when - asyncio.get_running_loop().time()
            limit.reschedule(None)

    def go_on(self) -> None:
        self._waits -= 1
        limit = self._limit
        if self._waits == 0 and self._left is not None and limit is not None and not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None

    def adopt(self, branch: asyncio.Task[Any]) -> None:
        """Count an asyncio task that the attempt has created."""
        self._branches.add(branch)
        branch.add_done_callback(self._branches.discard)

    async def close(self) -> None:
        """The attempt has failed: stop what it has left running, so that it cannot meet the next one."""
        self.is_over = True
        left = self._branches - {asyncio.current_task()}
        for branch in left:
            branch.cancel()
        if left:
            await asyncio.wait(left, timeout=STOP_WITHIN)


Fences = tuple[Fence, ...]


@contextmanager
def clocks_stopped(fences: Fences) -> Generator[None]:
    for fence in fences:
        fence.hold()
    try:
        yield
    finally:
        for fence in fences:
            fence.go_on()


def is_undoing(fences: Fences) -> bool:
    return any(fence.is_undoing for fence in fences)


def check_open(fences: Fences) -> None:
    """For what an attempt has left behind: end it as cancelled."""
    if any(fence.is_over for fence in fences) and not is_undoing(fences):
        raise asyncio.CancelledError


def check_may_ask(fences: Fences, what: str) -> None:
    """An answer belongs to one execution: no other one may get it from a cache."""
    cached = next((fence for fence in fences if fence.is_cached), None)
    if cached is not None:
        raise DefinitionError(
            f"{what} is asked inside task {cached.task!r}, whose results are cached: the answer that one execution gets would be "
            "given to all others. Ask outside of the task and pass the answer in, or take `cache` away."
        )

"""Concurrent branches of a workflow: started in order, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from typing import Any


async def run_branches(
    branches: Iterable[Awaitable[Any]], *, max_concurrent: int | None = None, raise_on_error: bool = True
) -> list[Any]:
    """The results in the order of `branches`, at most `max_concurrent` of which run at a time.

    The first failure cancels the rest at once, and the failure with the lowest index is raised. With
    `raise_on_error=False` nothing is cancelled, and each failure stands as an exception in its place.
    Branches may be awaited late or never: an iterator is only asked for one when there is room for it."""
    if max_concurrent is not None and max_concurrent < 1:
        raise ValueError(f"max_concurrent must be at least 1, not {max_concurrent}")
    waiting = enumerate(branches)
    flock = _Flock(waiting, max_concurrent)
    try:
        await flock.run(stop_on_failure=raise_on_error)
    finally:
        await flock.aclose()
    if raise_on_error and flock.failures:
        raise flock.failures[min(flock.failures)]
    return [flock.results[index] for index in range(len(flock.results))]


class _Flock:
    """The branches that run, and what became of those that ran."""

    def __init__(self, waiting: Iterator[tuple[int, Awaitable[Any]]], limit: int | None) -> None:
        self.results: dict[int, Any] = {}
        self.failures: dict[int, Exception] = {}
        self._waiting = waiting
        self._limit = limit
        self._running: dict[asyncio.Future[Any], int] = {}
        self._ended = asyncio.Event()
        self._signal: BaseException | None = None  # a Suspend, which is no failure and outranks them

    async def run(self, *, stop_on_failure: bool) -> None:
        while True:
            self._fill()
            if not self._running:
                break
            await self._ended.wait()
            self._ended.clear()
            if self._signal is not None or (stop_on_failure and self.failures):
                break
        await self._stop()
        if self._signal is not None:
            raise self._signal

    def _fill(self) -> None:
        """Start what there is room for. The order of starting, and so each branch's scope, is that of the branches."""
        while self._limit is None or len(self._running) < self._limit:
            index, branch = next(self._waiting, (-1, None))
            if branch is None:
                return
            task = asyncio.ensure_future(branch)
            self._running[task] = index
            task.add_done_callback(self._left)

    def _left(self, task: asyncio.Future[Any]) -> None:
        index = self._running.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.results[index] = task.result()
        elif isinstance(error, Exception):
            self.failures[index] = self.results[index] = error
        elif not isinstance(error, asyncio.CancelledError) or not self._ended_early:
            self._signal = self._signal or error
        self._ended.set()

    _ended_early = False

    async def _stop(self) -> None:
        self._ended_early = True
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running))

    async def aclose(self) -> None:
        """Leave nothing running and nothing that was never awaited."""
        await self._stop()
        for _, branch in self._waiting:
            if asyncio.iscoroutine(branch):
                branch.close()

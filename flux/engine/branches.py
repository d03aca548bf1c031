"""Concurrent branches of a workflow: started in order, ended together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterable
from dataclasses import dataclass
from typing import Any

from flux.errors import BranchCancelled, TooManyFailures

Branches = Iterable[Awaitable[Any]] | AsyncIterable[Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When branches are enough. `stop_on_error`: the first failure ends all and is raised. `min_successes`: so many are
    enough, the rest is cancelled. `max_failures`: so many are borne, one more ends all."""

    stop_on_error: bool = True
    min_successes: int | None = None
    max_failures: int | None = None

    @property
    def bears_errors(self) -> bool:
        return not self.stop_on_error or self.min_successes is not None or self.max_failures is not None

    def is_over(self, successes: int, failures: int) -> bool:
        if self.min_successes is not None and successes >= self.min_successes:
            return True
        return failures > (self.max_failures if self.max_failures is not None else failures) or (
            failures > 0 and not self.bears_errors
        )


def policy(*, raise_on_error: bool, min_successes: int | None, max_failures: int | None) -> Policy:
    for name, value, least in (("min_successes", min_successes, 1), ("max_failures", max_failures, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    return Policy(stop_on_error=raise_on_error, min_successes=min_successes, max_failures=max_failures)


async def run_branches(
    branches: Branches, *, max_concurrent: int | None = None, policy: Policy | None = None
) -> list[Any]:
    """The results in the order of `branches`, at most `max_concurrent` of which run at a time.

    Where the policy bears errors, a failure stands as an exception in its place, and BranchCancelled where a branch was
    not needed any more. Otherwise the failure with the lowest index is raised, TooManyFailures when a count was given.
    An iterator is only asked for a branch when there is room for it."""
    rules = policy or Policy()
    flock = Flock(branches, max_concurrent)
    try:
        async for _ in flock.ended():
            if rules.is_over(len(flock.results), len(flock.failures)):
                break
    finally:
        await flock.aclose()
    if flock.failures and not rules.bears_errors:
        raise flock.failures[min(flock.failures)]
    if _is_short(rules, flock):
        raise TooManyFailures(len(flock.results), [flock.failures[index] for index in sorted(flock.failures)])
    return [flock.outcome(index) for index in range(flock.started)]


def _is_short(rules: Policy, flock: Flock) -> bool:
    if rules.min_successes is not None:
        return len(flock.results) < rules.min_successes
    return rules.max_failures is not None and len(flock.failures) > rules.max_failures


async def stream_branches(branches: Branches, *, max_concurrent: int) -> AsyncGenerator[Any]:
    """The results as they come; nothing is kept of those that have been taken. The first failure is raised, and ends all."""
    flock = Flock(branches, max_concurrent)
    try:
        async for index in flock.ended():
            if index in flock.failures:
                raise flock.failures[index]
            yield flock.results.pop(index)
    finally:
        await flock.aclose()


class Flock:
    """The branches that run, and what became of those that ran."""

    def __init__(self, branches: Branches, limit: int | None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"max_concurrent must be at least 1, not {limit}")
        self.results: dict[int, Any] = {}
        self.failures: dict[int, Exception] = {}
        self.started = 0
        self._source = branches
        self._waiting = iter(branches) if isinstance(branches, Iterable) else None
        self._limit = limit
        self._running: dict[asyncio.Future[Any], int] = {}
        self._ended: deque[int] = deque()
        self._changed = asyncio.Event()
        self._feeding: asyncio.Task[None] | None = None
        self._signal: BaseException | None = None  # a Suspend, which is no failure and outranks them
        self._stopping = False

    def outcome(self, index: int) -> Any:
        if index in self.results:
            return self.results[index]
        return self.failures.get(index) or BranchCancelled(index)

    async def ended(self) -> AsyncGenerator[int]:
        """The indexes of branches as they end, until all have."""
        if self._waiting is None:
            self._feeding = asyncio.ensure_future(self._feed())
        while True:
            self._fill()
            while self._ended:
                yield self._ended.popleft()
            if self._signal is not None:
                raise self._signal
            if not self._running and self._feeding is None and not self._ended:
                return
            await self._changed.wait()
            self._changed.clear()

    @property
    def _has_room(self) -> bool:
        return self._limit is None or len(self._running) < self._limit

    def _fill(self) -> None:
        """Start what there is room for. The order of starting, and so each branch's scope, is that of the branches."""
        while self._waiting is not None and self._has_room:
            branch = next(self._waiting, None)
            if branch is None:
                self._waiting = None
                return
            self._start(branch)

    async def _feed(self) -> None:
        """Start branches from a source that has to be awaited itself."""
        assert isinstance(self._source, AsyncIterable)
        try:
            async for branch in self._source:
                while not self._has_room:
                    await self._changed.wait()
                    await asyncio.sleep(0)
                self._start(branch)
        except Exception as exc:  # noqa: BLE001 - the source's failure is that of the branch it did not give
            self.failures[self.started] = exc
            self._ended.append(self.started)
        finally:
            self._feeding = None
            self._changed.set()

    def _start(self, branch: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(branch)
        self._running[task] = self.started
        self.started += 1
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Future[Any]) -> None:
        index = self._running.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.results[index] = task.result()
            self._ended.append(index)
        elif isinstance(error, Exception):
            self.failures[index] = error
            self._ended.append(index)
        elif not self._stopping:
            self._signal = self._signal or error
        self._changed.set()

    async def aclose(self) -> None:
        """Leave nothing running and nothing that was never awaited."""
        self._stopping = True
        stopped = [*self._running, *([self._feeding] if self._feeding is not None else [])]
        for task in stopped:
            task.cancel()
        if stopped:
            await asyncio.wait(stopped)
        for branch in self._waiting or ():
            if asyncio.iscoroutine(branch):
                branch.close()

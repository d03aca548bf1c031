"""Who of a run waits for the outside world, and when all of it does: then the execution can be parked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from flux.domain.calls import CallId, Json
from flux.domain.execution import Execution
from flux.engine.fence import clocks_stopped
from flux.engine.order import HOPS
from flux.engine.ports import Clock
from flux.engine.scope import current_scope
from flux.errors import Suspend

IN_PLACE = 5.0  # seconds: a shorter wait keeps the run in memory, a longer one parks it


@dataclass(slots=True)
class _Wait:
    """A call that waits: what will arrive for it, until when, and for which child."""

    arrived: asyncio.Future[Json | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    wake_at: float | None = None
    child: str | None = None

    def arrive(self, value: Json | None) -> bool:
        if self.arrived.done():
            return False
        self.arrived.set_result(value)
        return True

    def fail(self, watching: asyncio.Task[None]) -> None:
        """What was to tell of the arrival has failed: nobody may wait for ever."""
        error = None if watching.cancelled() else watching.exception()
        if error is not None and not self.arrived.done():
            self.arrived.set_exception(error)


class Waits:
    """The asyncio tasks of one run, and which of them wait for what."""

    def __init__(self, clock: Clock) -> None:
        self._quiet: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self._tasks: dict[asyncio.Task[Any], asyncio.Task[Any] | None] = {}  # each with the task that created it
        self._open: dict[CallId, _Wait] = {}
        self._parkable: set[asyncio.Task[Any]] = set()
        self._looking = False

    # -- asyncio tasks ----------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        return list(self._tasks)

    @property
    def count(self) -> int:
        return len(self._tasks)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        parent = asyncio.current_task()
        self._tasks[task] = parent if parent in self._tasks else None

    def drop(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        self.look()

    # -- waiting ----------------------------------------------------------------------------------------------------

    @property
    def wakes(self) -> list[float]:
        return [wait.wake_at for wait in self._open.values() if wait.wake_at is not None]

    @property
    def children(self) -> tuple[str, ...]:
        return tuple(wait.child for wait in self._open.values() if wait.child is not None)

    async def until(self, call: CallId, wake_at: float | None) -> Json | None:
        """What arrives from outside for this call, None when `wake_at` comes first."""
        wait = _Wait(wake_at=wake_at)
        if wake_at is None:
            return await self._on(wait, call)
        # a context of its own: the alarm is no branch of the workflow
        alarm = asyncio.get_running_loop().create_task(self._ring(wait, wake_at), context=Context())
        try:
            return await self._on(wait, call, parkable=wake_at - self._clock.now() > IN_PLACE)
        finally:
            alarm.cancel()

    async def for_ever(self) -> None:
        """Wait to be parked."""
        wait = _Wait()
        await self._on(wait, CallId(f"waiting {id(wait)}"))

    async def for_child(
        self,
        call: CallId,
        child: str,
        *,
        rest: Callable[[str], Awaitable[Execution]],
        unrest: Callable[[Execution], Awaitable[None]],
    ) -> None:
        """Wait until a child has ended. While it is at rest itself (`rest` comes back, until `unrest` does), so is this wait."""
        waiter = _current_task()

        async def watch() -> None:
            while not (execution := await rest(child)).status.is_final:
                self._parkable.add(waiter)
                self.look()
                await unrest(execution)
                self._parkable.discard(waiter)
            wait.arrive(None)

        wait = _Wait(child=child)
        watching = asyncio.get_running_loop().create_task(watch(), context=Context())
        watching.add_done_callback(wait.fail)
        try:
            await self._on(wait, call, parkable=False)
        finally:
            watching.cancel()

    async def _on(self, wait: _Wait, call: CallId, *, parkable: bool = True) -> Json | None:
        task, scope = _current_task(), current_scope()
        self._open[call] = wait
        if parkable:
            self._parkable.add(task)
            self.look()
        try:
            with clocks_stopped(scope.fences if scope is not None else ()):
                return await wait.arrived
        finally:
            del self._open[call]
            self._parkable.discard(task)

    async def _ring(self, wait: _Wait, wake_at: float) -> None:
        await self._clock.sleep_until(wake_at)
        wait.arrive(None)

    def arrive(self, call: CallId, value: Json) -> bool:
        """Something has come for this call. False when nobody waits for it yet."""
        wait = self._open.get(call)
        return wait is not None and wait.arrive(value)

    def end_all(self) -> None:
        """Raise Suspend in every call that waits."""
        for wait in list(self._open.values()):
            if not wait.arrived.done():
                wait.arrived.set_exception(Suspend())

    # -- quiet ------------------------------------------------------------------------------------------------------

    def until_quiet(self) -> asyncio.Future[None]:
        """Done when each asyncio task of the run waits for the outside world, or has children that do."""
        if self._quiet.done():
            self._quiet = asyncio.get_running_loop().create_future()
        self.look()
        return self._quiet

    def wake(self) -> None:
        """Let whoever waits until all is quiet look again, quiet or not."""
        if not self._quiet.done():
            self._quiet.set_result(None)

    def look(self) -> None:
        """Something has changed: see, a moment later, whether all is quiet."""
        if self._open and not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._check, HOPS)

    def _check(self, left: int) -> None:
        """It has to stay quiet for as many turns of the loop as code may need to react to something that has just ended."""
        quiet = self.is_quiet
        if quiet and left:
            asyncio.get_running_loop().call_soon(self._check, left - 1)
            return
        self._looking = False
        if quiet and self._tasks:
            self.wake()

    @property
    def is_quiet(self) -> bool:
        """Whether every task waits for the outside world at this moment, and nothing has come from there that is yet to be seen."""
        parents = {parent for parent in self._tasks.values() if parent is not None}
        news = any(wait.arrived.done() for wait in self._open.values())
        return bool(self._open) and not news and all(task in self._parkable or task in parents for task in self._tasks)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "a workflow runs in asyncio tasks"
    return task

"""Following an execution for somebody who waits: progress, heartbeats, patience."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio

from flux.context import ExecutionContext
from flux.domain.execution import Status
from flux.engine.body import Progress
from flux.errors import LeaseLost
from flux.schema import to_json_value
from flux.service import Flux
from flux.tasks.progress import Message, Spoken

T = TypeVar("T")

HEARTBEAT = 8.0  # seconds of silence at most: clients and proxies drop calls that say nothing
LAST_WORDS = 1.0  # seconds that a call which has its result waits for its last progress to be written
MOST_WAITING = 100  # reports that wait to be written; of more, the oldest are dropped
LONGEST = 180  # characters of what is reported: clients show 200 of a message
LOOK = 0.2  # seconds between two looks at an execution that sleeps or has changed hands

Report = Callable[[float, str], Awaitable[None]]
"""Sends progress: a number that grows, and a message."""


async def at_rest(
    flux: Flux, execution_id: str, *, deadline: float, until: Callable[[ExecutionContext[Any]], bool] | None = None
) -> ExecutionContext[Any]:
    """The execution once it has ended or needs somebody, or as it is at `deadline` (of the monotonic clock), or once it is as `until`
    says.

    A sleeping one is waited for, unless it sleeps past the deadline."""
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            execution = await flux.wait(execution_id, timeout=left, until=until)
        except LeaseLost:  # another process has taken it over
            execution = await flux.get(execution_id)
            if execution.is_at_rest or not left:
                return execution
        else:
            if execution.status is not Status.SLEEPING or not _wakes_within(execution, left):
                return execution
        await asyncio.sleep(min(LOOK, left))


def _wakes_within(execution: ExecutionContext[Any], seconds: float) -> bool:
    return execution.wake_at is None or execution.wake_at.timestamp() <= time.time() + seconds


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. A call that is cancelled meanwhile ends after it: what a lost call has begun is done whole."""
    with anyio.CancelScope(shield=True):
        return await work
    raise AssertionError("a scope that nobody cancels lets every exception through")


@asynccontextmanager
async def relayed(flux: Flux, execution_id: str, report: Report | None) -> AsyncGenerator[Relay]:
    """Meanwhile, report what the execution reports, and at least a heartbeat. Nothing is reported afterwards. None for a client that
    wants to hear nothing."""
    relay = Relay(execution_id)
    with flux.observed(execution_id, relay.hear):
        if report is None:
            yield relay
            return
        writing = asyncio.get_running_loop().create_task(relay.write(report), name=f"progress of {execution_id}")
        try:
            yield relay
            relay.end()
            await asyncio.wait([writing], timeout=LAST_WORDS)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


class Relay:
    """Hears what an execution reports and writes it to one client. The number it sends is the seconds since the call.

    `last` is the last that was heard."""

    def __init__(self, execution_id: str) -> None:
        self._execution_id = execution_id
        self._began = time.monotonic()
        self._said = 0.0
        self.last: str | None = None
        self._waiting = deque[str](maxlen=MOST_WAITING)
        self._news = asyncio.Event()
        self._ending = False
        self._spoken = Spoken()

    def hear(self, progress: Progress) -> None:
        for message in self._spoken.messages(progress):
            self.last = _in_short(message)
            self._waiting.append(self.last)
            self._news.set()

    def end(self) -> None:
        self._ending = True
        self._news.set()

    async def write(self, report: Report) -> None:
        await self._say(report, f"execution {self._execution_id}")
        while True:
            await self._wait_for_news(report)
            while self._waiting:
                await self._say(report, self._waiting.popleft())
            if self._ending:
                return

    async def _wait_for_news(self, report: Report) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._news.wait()
            except TimeoutError:
                await self._say(report, f"{self.last or 'still running'} ({time.monotonic() - self._began:.0f} s)")
            else:
                self._news.clear()
                return

    async def _say(self, report: Report, message: str) -> None:
        self._said = max(round(time.monotonic() - self._began, 3), self._said + 0.001)
        await report(self._said, message)


def _in_short(message: Message) -> str:
    if message.value is None:
        return f"{message.task} finished"
    value = to_json_value(message.value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = f"{message.task}: {text}" if message.by_agent else text
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."

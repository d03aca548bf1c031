"""One request under way on a connection: waited for by one run, left, and waited for by the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mcp.client.session import ClientSession

from flux.tasks.mcp.faults import Lost, Slow
from flux.tracing import detached

if TYPE_CHECKING:
    from flux.tasks.mcp.connection import Connection

PROBE_AFTER = 30.0  # seconds of silence after which a server is asked whether it is still there

Tell = Callable[[Any], None]
T = TypeVar("T")
Send = Callable[[ClientSession, Callable[..., Awaitable[None]]], Awaitable[T]]
"""Makes a request, given the session and what takes its progress."""


@dataclass(slots=True)
class Pushed:
    """What a server of the older protocols asks over the open call. `answer` is the result in wire form, and is cancelled when
    the server does not wait any more; `shown`: somebody has been asked already."""

    request: Mapping[str, Any]
    answer: asyncio.Future[dict[str, Any]]
    shown: bool = False


class Exchange(Generic[T]):
    """One request under way. `execution` says whose it is, `tell` takes what the server says meanwhile."""

    def __init__(self, connection: Connection, send: Send[T], *, execution: str = "", tell: Tell | None = None) -> None:
        self.connection = connection
        self.execution = execution
        self.tell = tell
        self.pushed: deque[Pushed] = deque()
        self._send = send
        loop = asyncio.get_running_loop()
        self._news: asyncio.Future[None] = loop.create_future()
        self._heard = loop.time()
        self._task = loop.create_task(self._run(), context=detached())
        self._task.add_done_callback(self._settled)

    async def _run(self) -> T:
        return await self._send(self.connection.session, self._progressed)

    async def _progressed(self, progress: float, total: float | None, message: str | None) -> None:
        self.heard()
        told = {"progress": progress, "total": total, "message": message}
        self.say({key: value for key, value in told.items() if value is not None})

    def say(self, value: Any) -> None:
        if self.tell is not None:
            self.tell(value)

    def heard(self) -> None:
        self._heard = self._loop_time()

    def ask(self, request: Mapping[str, Any]) -> asyncio.Future[dict[str, Any]]:
        pushed = Pushed(request, asyncio.get_running_loop().create_future())
        self.pushed.append(pushed)
        self._notify()
        return pushed.answer

    def answered(self) -> None:
        """The first of the questions has its answer."""
        self.pushed.popleft()

    def _notify(self) -> None:
        if not self._news.done():
            self._news.set_result(None)

    async def step(self, timeout: float | None = None) -> T | Pushed:
        """The answer, or the next question. Raises what the session raises; Lost, also after `timeout` seconds."""
        deadline = None if timeout is None else self._loop_time() + timeout
        while True:
            self._drop_what_was_withdrawn()
            if self.pushed:
                return self.pushed[0]
            if self._task.done():
                return self._outcome()
            if deadline is not None and self._loop_time() >= deadline:
                self.abandon()
                raise Slow(f"no answer within {timeout:g} s")
            await self._some_news(deadline)

    def _drop_what_was_withdrawn(self) -> None:
        while self.pushed and self.pushed[0].answer.done() and not self.pushed[0].shown:
            self.pushed.popleft()

    async def _some_news(self, deadline: float | None) -> None:
        self._news = asyncio.get_running_loop().create_future()
        limit = self._heard + PROBE_AFTER
        wait = max(0.0, min(limit, deadline or limit) - self._loop_time())
        await asyncio.wait({self._news, self.connection.lost}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done() or self.pushed:
            return
        if self.connection.lost.done():
            self.abandon()
            raise Lost(self.connection.lost.result())
        if self._loop_time() >= limit:
            await self.connection.probe()
            self.heard()

    def _outcome(self) -> T:
        if self._task.cancelled():
            reason = self.connection.lost.result() if self.connection.lost.done() else "the connection was closed"
            raise Lost(reason)
        return self._task.result()

    def abandon(self) -> None:
        """Nobody waits any more: the SDK tells the server so."""
        self._task.cancel()
        for pushed in self.pushed:
            pushed.answer.cancel()

    def _settled(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # looked at: nobody may be left to do so
        self._notify()
        self.connection.ended(self)

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

"""The stream of what a server says, with an ear on it: that it has ended, or that it is no protocol any more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mcp.shared.message import SessionMessage
from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class Streams:
    """`heard` is called for everything that comes, `broken` with the reason why nothing usable comes any more."""

    heard: Callable[[], None]
    broken: Callable[[str], None]


@asynccontextmanager
async def watched(transport: AbstractAsyncContextManager[Any], streams: Streams) -> AsyncGenerator[Any]:
    async with transport as (read, write):
        yield _Watched(read, streams), write


class _Watched:
    """A read stream as the SDK wants one."""

    def __init__(self, inner: Any, streams: Streams) -> None:
        self._inner = inner
        self._streams = streams

    async def receive(self) -> SessionMessage | Exception:
        return await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            message: SessionMessage | Exception = await self._inner.__anext__()
        except StopAsyncIteration:
            self._streams.broken("its process has ended, or has closed its output")
            raise
        self._streams.heard()
        if isinstance(message, Exception) and _was_meant_as_message(message):
            self._streams.broken("it sent a message that is not JSON")
        return message

    async def __aenter__(self) -> _Watched:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(exc_type, exc, traceback)


def _was_meant_as_message(error: Exception) -> bool:
    """Many servers print other things, which do no harm. A broken message does: somebody waits for it."""
    if not isinstance(error, ValidationError):
        return False
    given = str(error.errors(include_url=False)[0]["input"]).lstrip()
    return given.startswith("{") and '"jsonrpc"' in given

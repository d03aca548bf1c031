"""The front door for one client: the lines of two descriptors, on the event loop, until either side is gone."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server

from flux_mcp_server._sdk import CallNext, Context, HandlerReply, add_middleware
from flux_mcp_server.wire import Wire

log = logging.getLogger("flux.mcp")

LONGEST_LINE = 64 * 1024 * 1024  # bytes of one message
CHUNK = 64 * 1024
LAST_ANSWERS = 0.5  # seconds for what is under way when the client says no more
TURN = 0.05  # seconds for what the event loop has still to do
PARENT = 1.0  # seconds between two looks at who our parent is


async def serve_stdio(server: Server[Any], wire: Wire, stopping: asyncio.Event) -> None:
    """Serve one client, until it closes its end or `stopping` is set."""
    under_way = _UnderWay()
    add_middleware(server, under_way)
    reading, writing = _Lines(wire.input, under_way.answered), _Writer(wire.output, stopping)
    await writing.open()
    async with stdio_server(cast(Any, reading), cast(Any, writing)) as (received, sent):
        serving = asyncio.ensure_future(server.run(received, sent, server.create_initialization_options()))
        watching = asyncio.ensure_future(_orphaned(stopping))
        await _until(serving, stopping)
        watching.cancel()
        reading.close()


async def _until(serving: asyncio.Future[None], stopping: asyncio.Event) -> None:
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (serving, stopped):
            each.cancel()
        await asyncio.gather(serving, stopped, return_exceptions=True)
    if not serving.cancelled():
        serving.result()


class _UnderWay:
    """Counts requests, to answer those at the end of the input that take no time: `printf ... | flux-mcp-server` is a way to try it."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()

    async def __call__(self, client: Context, call_next: CallNext) -> HandlerReply:
        self._count += 1
        self._idle.clear()
        try:
            return await call_next(client)
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    async def answered(self) -> None:
        await asyncio.sleep(TURN)  # what was read last has begun by then
        if self._count:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_ANSWERS):
                    await self._idle.wait()
        await asyncio.sleep(TURN)  # and is written


async def _orphaned(stopping: asyncio.Event) -> None:
    """Set `stopping` when our parent is gone, although somebody else still holds the other end of our pipes."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(PARENT)
    log.warning("the process that started the server is gone: stopping")
    stopping.set()


# -- lines of a descriptor ---------------------------------------------------------------------------------------------


@dataclass
class _Lines:
    """The lines of a file descriptor, as the SDK reads them, then `ended`, before it hears that there are no more. Pipes and sockets
    are read by the event loop, anything else by a thread that nobody waits for."""

    descriptor: int
    ended: Callable[[], Awaitable[None]]
    _transport: asyncio.ReadTransport | None = None

    async def __aiter__(self) -> AsyncIterator[str]:
        reader = asyncio.StreamReader(limit=CHUNK)
        if is_pipe(self.descriptor):
            loop = asyncio.get_running_loop()
            pipe = os.fdopen(self.descriptor, "rb", 0)
            self._transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        else:
            threading.Thread(
                target=_feed, args=(self.descriptor, reader, asyncio.get_running_loop()), daemon=True
            ).start()
        async for line in _split(reader):
            yield line.decode("utf-8", "replace")
        await self.ended()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _feed(descriptor: int, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    try:
        while chunk := os.read(descriptor, CHUNK):
            loop.call_soon_threadsafe(reader.feed_data, chunk)
        loop.call_soon_threadsafe(reader.feed_eof)
    except (OSError, RuntimeError):  # the descriptor, or the loop, is closed: the server is gone
        return


async def _split(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    left = bytearray()
    while chunk := await reader.read(CHUNK):
        start = len(left)
        left += chunk
        if left.find(b"\n", start) < 0:
            if len(left) > LONGEST_LINE:
                log.error("the client has sent a message of more than %d bytes", LONGEST_LINE)
                return
            continue
        *lines, rest = left.split(b"\n")
        left = bytearray(rest)
        for line in lines:
            if line.strip():
                yield bytes(line)
    if left.strip():
        yield bytes(left)


@dataclass
class _Writer:
    """What the SDK writes lines to, each whole. A client that reads no more has left: then `gone` is set."""

    descriptor: int
    gone: asyncio.Event
    _stream: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        if not is_pipe(self.descriptor) or _is_same(self.descriptor, 2):  # non-blocking mode would be stderr's too
            return
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(self.descriptor, "wb", 0)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
        self._stream = asyncio.StreamWriter(transport, protocol, None, loop)

    async def write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        with self._noticing():
            if self._stream is None:
                _write_all(self.descriptor, data)
            else:
                self._stream.write(data)

    async def flush(self) -> None:
        with self._noticing():
            if self._stream is not None:
                await self._stream.drain()

    @contextmanager
    def _noticing(self) -> Generator[None]:
        try:
            yield
        except ConnectionError:
            self.gone.set()
            raise anyio.ClosedResourceError from None  # the SDK's writer ends quietly on this one


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return os.name == "posix" and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def _is_same(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False

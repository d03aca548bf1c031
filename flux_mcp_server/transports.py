"""The two front doors: stdio and streamable HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
import uvicorn
from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings

from flux_mcp_server.streams import Sent
from flux_mcp_server.wire import Wire

log = logging.getLogger("flux.mcp")

LONGEST_LINE = 64 * 1024 * 1024  # bytes of one message
CHUNK = 64 * 1024
RETRY = 1000  # milliseconds after which a client whose stream was cut comes back
DRAIN = 1  # seconds that open HTTP calls may take to end when the server stops


async def serve_stdio(server: Server[Any], wire: Wire, stopping: asyncio.Event) -> None:
    """Serve one client, until it closes its end or `stopping` is set."""
    reading, writing = _Lines(wire.input), _Writer(wire.output, stopping)
    await writing.open()
    async with stdio_server(cast(Any, reading), cast(Any, writing)) as (received, sent):
        serving = asyncio.ensure_future(server.run(received, sent, server.create_initialization_options()))
        await _until(serving, stopping)
        reading.close()


async def serve_http(
    server: Server[Any], listening: socket.socket, *, host: str, path: str, stopping: asyncio.Event
) -> None:
    """Serve any number of clients, until `stopping` is set. Hosts and origins are checked: `host` is a name of this machine."""
    names = [f"{name}:*" for name in dict.fromkeys((_bracketed(host), "127.0.0.1", "localhost", "[::1]"))]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=names,
        allowed_origins=[f"http://{name}" for name in names],
    )
    app = server.streamable_http_app(
        streamable_http_path=path,
        host=host,
        transport_security=security,
        event_store=Sent(),
        retry_interval=RETRY,
    )
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=DRAIN, lifespan="on")
    http = _Uvicorn(config)
    serving = asyncio.ensure_future(http.serve(sockets=[listening]))
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    http.should_exit = True
    stopped.cancel()
    await serving


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before the engine is closed."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextmanager
def stop_on_signals(stopping: asyncio.Event, *, then: Callable[[], None]) -> Generator[None]:
    """SIGINT and SIGTERM set `stopping`, and call `then`."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        then()

    def heard(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(stop)

    previous = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def leave_within(seconds: float) -> None:
    """End the process if it has not ended by then: a thread of a task may not listen to anybody."""

    def leave() -> None:
        sys.stderr.flush()
        os._exit(0)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


# -- stdio on the event loop -------------------------------------------------------------------------------------------


@dataclass
class _Lines:
    """The lines of a file descriptor, as the SDK reads them. Pipes and sockets are read by the event loop, anything else by a
    thread that nobody waits for."""

    descriptor: int
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

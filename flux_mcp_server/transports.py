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
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
import uvicorn
from mcp.server import Server
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from flux_mcp_server._sdk import CallNext, Context, HandlerReply, add_middleware
from flux_mcp_server.auth import SCOPES, Needs, StepUp
from flux_mcp_server.streams import Sent
from flux_mcp_server.wire import Wire

log = logging.getLogger("flux.mcp")

LONGEST_LINE = 64 * 1024 * 1024  # bytes of one message
CHUNK = 64 * 1024
RETRY = 1000  # milliseconds after which a client whose stream was cut comes back
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
                await asyncio.wait_for(self._idle.wait(), LAST_ANSWERS)
        await asyncio.sleep(TURN)  # and is written


async def _orphaned(stopping: asyncio.Event) -> None:
    """Set `stopping` when our parent is gone, although somebody else still holds the other end of our pipes."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(PARENT)
    log.warning("the process that started the server is gone: stopping")
    stopping.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """How HTTP is served. `issuer` is whose tokens clients have to bring, where one is known; `public_url` is what clients call us;
    `is_ready` says whether new work is welcome; `drain` is how many seconds open calls may take to end when the server stops."""

    verifier: TokenVerifier | None = None
    issuer: str | None = None
    public_url: str | None = None
    allow_hosts: Sequence[str] = ()
    stateless: bool = False
    most_body: int = 4 * 1024 * 1024
    drain: float = 1.0
    tls_cert: str | None = None
    tls_key: str | None = None
    is_ready: Callable[[], Awaitable[bool]] | None = None


async def serve_http(
    server: Server[Any],
    listening: socket.socket,
    *,
    host: str,
    path: str,
    stopping: asyncio.Event,
    http: Http | None = None,
    ending: Callable[[], None] | None = None,
    needs: Needs | None = None,
) -> None:
    """Serve any number of clients, until `stopping` is set: then `ending` is called, which ends what would never end.

    Hosts and origins are checked: `host` is a name of this machine. `needs` says what a token has to reach."""
    how = http or Http()
    auth = _auth_settings(how)
    app = server.streamable_http_app(
        streamable_http_path=path,
        host=host,
        transport_security=_security(host, how),
        event_store=None if how.stateless else Sent(),
        retry_interval=RETRY,
        stateless_http=how.stateless,
        max_request_body_size=how.most_body,
        auth=auth,
        token_verifier=how.verifier,
        custom_starlette_routes=_health(how, stopping),
    )
    app.router.routes[:0] = _metadata(auth)
    if how.verifier is not None and needs is not None:
        app.user_middleware.append(Middleware(StepUp, needs=needs, metadata=_metadata_url(auth)))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=max(1, round(how.drain)),
        lifespan="on",
        ssl_certfile=how.tls_cert,
        ssl_keyfile=how.tls_key,
    )
    uvicorn_server = _Uvicorn(config)
    serving = asyncio.ensure_future(uvicorn_server.serve(sockets=[listening]))
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    if ending is not None:
        ending()
    uvicorn_server.should_exit = True
    stopped.cancel()
    await serving


def _security(host: str, how: Http) -> TransportSecuritySettings:
    public = [] if how.public_url is None else [urlsplit(how.public_url).netloc]
    names = dict.fromkeys((_bracketed(host), "127.0.0.1", "localhost", "[::1]", *how.allow_hosts))
    ports = [f"{name}:*" for name in names]
    hosts = [*ports, *how.allow_hosts, *public]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=hosts,
        allowed_origins=[f"{scheme}://{name}" for name in hosts for scheme in ("http", "https")],
    )


def _auth_settings(how: Http) -> AuthSettings | None:
    """With an issuer its name is published, so that clients find their way to it; a static token is given by hand."""
    if how.verifier is None:
        return None
    issued = how.issuer is not None and how.public_url is not None
    return AuthSettings(
        issuer_url=cast(Any, how.issuer or how.public_url or "http://localhost"),
        resource_server_url=cast(Any, how.public_url if issued else None),
        validate_token_resource=False,  # the verifier has looked at the audience
    )


def _metadata(auth: AuthSettings | None) -> list[Route]:
    """What leads clients to the issuer. The SDK's own document, which this one hides, lists scopes only if every request needs all of
    them."""
    if auth is None or auth.resource_server_url is None:
        return []
    return create_protected_resource_routes(auth.resource_server_url, [auth.issuer_url], scopes_supported=list(SCOPES))


def _metadata_url(auth: AuthSettings | None) -> AnyHttpUrl | None:
    if auth is None or auth.resource_server_url is None:
        return None
    return build_resource_metadata_url(auth.resource_server_url)


def _health(how: Http, stopping: asyncio.Event) -> list[Route]:
    """`/health`: the process turns. `/ready`: it takes new work, and its database answers."""

    async def health(_: HttpRequest) -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def ready(_: HttpRequest) -> PlainTextResponse:
        if stopping.is_set():
            return PlainTextResponse("stopping", 503)
        if how.is_ready is not None and not await how.is_ready():
            return PlainTextResponse("the database does not answer", 503)
        return PlainTextResponse("ready")

    return [Route("/health", health), Route("/ready", ready)]


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

"""The front door for many: streamable HTTP, with its tokens, its metadata and what says how the server is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import uvicorn
from mcp.server import Server
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flux_mcp_server._sdk import DualServer
from flux_mcp_server.auth import SCOPES, Needs, StepUp
from flux_mcp_server.streams import Sent

RETRY = 1000  # milliseconds after which a client whose stream was cut comes back


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
    if isinstance(server, DualServer):
        server.keeps_connections = not how.stateless
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
        _with_trimmed_headers(app),
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


def _with_trimmed_headers(app: ASGIApp) -> ASGIApp:
    """White space behind a header's value is no part of it (RFC 9110, 5.5). httptools leaves it there."""

    async def trimmed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [(name, value.rstrip(b" \t")) for name, value in scope["headers"]]
        await app(scope, receive, send)

    return trimmed


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


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before the engine is closed."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

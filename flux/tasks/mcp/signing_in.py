"""Signing a person in at another server: the authorization code flow of OAuth 2.1 with PKCE, as the SDK makes it, whose answer
comes to a port of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.utils import union_scopes
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata
from pydantic import AnyUrl, Field

from flux.errors import DefinitionError, NotAuthorized, ServerUnreachable
from flux.tasks.mcp.login import Login
from flux.tasks.mcp.memory import Memory

WAIT = 600.0  # seconds that a person may take
ANSWER_WITHIN = 30.0  # seconds that a server may
PATH = "/callback"
LONGEST_LINE = 16_384  # bytes of what a browser may ask

Show = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """`client_id` is what the server of logins knows us by, where one cannot register: an id, or the https address of a
    document about us (CIMD). `scope` is wanted besides what the server asks for. `port` is where the answer comes to, 0 any."""

    scope: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    port: int = 0


async def sign_in(address: str, show: Show, wish: Wish, *, before: Login | None = None) -> Login | None:
    """A login for whoever visits the address that `show` is given; None when the server asks for none. `before` is an earlier
    login, whose registration is used again. Raises NotAuthorized, ServerUnreachable, TimeoutError."""
    known = before.client if before is not None and wish.client_id in (None, before.client.client_id) else None
    async with _landing([wish.port] if wish.port else [_port_of(known), 0]) as landing:
        here = f"http://127.0.0.1:{landing.port}{PATH}"
        provider = _provider(address, show, landing, here, wish, known)
        try:
            async with httpx2.AsyncClient(auth=provider, timeout=ANSWER_WITHIN) as http:
                await http.post(address, json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=_ACCEPT)
        except OAuthFlowError as exc:
            raise NotAuthorized(address, f"signing in failed: {exc}", 0) from exc
        except httpx2.HTTPError as exc:
            raise ServerUnreachable(address, f"{type(exc).__name__}: {exc}") from exc
    return _login(provider)


_ACCEPT = {"Accept": "application/json, text/event-stream"}


def _provider(
    address: str, show: Show, landing: _Landing, here: str, wish: Wish, known: OAuthClientInformationFull | None
) -> OAuthClientProvider:
    metadata = _Metadata(client_name="Flux", redirect_uris=[AnyUrl(here)], wanted=wish.scope)
    document = wish.client_id if wish.client_id is not None and wish.client_id.startswith("https://") else None
    if wish.client_id is not None and document is None:
        known = OAuthClientInformationFull(
            client_id=wish.client_id,
            client_secret=wish.client_secret,
            redirect_uris=[AnyUrl(here)],
            token_endpoint_auth_method="none" if wish.client_secret is None else "client_secret_basic",
        )
    elif known is not None and not _fits(known, here, wish.scope):
        known = None  # one registers anew
    try:
        return OAuthClientProvider(address, metadata, Memory(known), show, landing.answer, document)
    except ValueError as exc:
        raise DefinitionError(str(exc)) from exc


def _fits(known: OAuthClientInformationFull, here: str, scope: str | None) -> bool:
    """Whether an earlier registration is for this: its port may be taken now, and its scopes may be too few."""
    wanted = set((scope or "").split())
    return here in map(str, known.redirect_uris or []) and (known.scope is None or wanted <= set(known.scope.split()))


class _Metadata(OAuthClientMetadata):
    """The SDK sets the scope to what the server asks for; this keeps what is wanted besides."""

    wanted: str | None = Field(default=None, exclude=True)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, union_scopes(value, self.wanted) if name == "scope" else value)


def _login(provider: OAuthClientProvider) -> Login | None:
    context = provider.context
    if context.current_tokens is None or context.client_info is None:
        return None
    served = context.oauth_metadata
    token_endpoint = served.token_endpoint if served is not None else urljoin(context.server_url, "/token")
    revocation = None if served is None else served.revocation_endpoint
    return Login(
        tokens=context.current_tokens,
        client=context.client_info,
        token_endpoint=str(token_endpoint),
        revocation_endpoint=None if revocation is None else str(revocation),
        resource=context.get_resource_url() if context.should_include_resource_param() else None,
        expires_at=context.token_expiry_time,
    )


# -- where the answer comes to -----------------------------------------------------------------------------------------


def _port_of(client: OAuthClientInformationFull | None) -> int:
    uris = (client.redirect_uris if client is not None else None) or []
    return next((uri.port or 0 for uri in uris if uri.host == "127.0.0.1"), 0)


class _Landing:
    """A port of this machine that a browser is sent back to, once."""

    def __init__(self) -> None:
        self.port = 0
        self._came: asyncio.Future[AuthorizationCodeResult] = asyncio.get_running_loop().create_future()

    async def answer(self) -> AuthorizationCodeResult:
        """What the server of logins has sent back. Raises OAuthFlowError when it, or the person, said no."""
        try:
            async with asyncio.timeout(WAIT):
                return await self._came
        except TimeoutError:
            raise OAuthFlowError(f"nobody has signed in within {WAIT:g} s") from None

    async def visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readline()).decode("latin-1").split()
            told = self._told(line[1]) if len(line) > 1 else None
            status = "404 Not Found" if told is None else "200 OK"
            body = f"<!doctype html><title>Flux</title><p>{told or 'There is nothing here.'}"
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n"
            writer.write((head + body).encode())
            await writer.drain()
        except (OSError, ValueError):
            pass  # a browser that went away, or something else that looked at the port
        finally:
            writer.close()

    def _told(self, target: str) -> str | None:
        parts = urlsplit(target)
        if parts.path != PATH:
            return None
        given = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if self._came.done():
            return "This has been answered already."
        if "error" in given:
            self._came.set_exception(OAuthFlowError(given.get("error_description") or given["error"]))
            return "Signing in was refused. See the terminal."
        self._came.set_result(
            AuthorizationCodeResult(code=given.get("code", ""), state=given.get("state"), iss=given.get("iss"))
        )
        return "Thank you. You may close this window, and go on in the terminal."


@asynccontextmanager
async def _landing(ports: list[int]) -> AsyncGenerator[_Landing]:
    """On the first of the ports that is free."""
    landing = _Landing()
    server = await _served(landing, ports)
    landing.port = server.sockets[0].getsockname()[1]
    try:
        yield landing
    finally:
        server.close()


async def _served(landing: _Landing, ports: list[int]) -> asyncio.Server:
    for port in ports:
        try:
            return await asyncio.start_server(landing.visited, "127.0.0.1", port, limit=LONGEST_LINE)
        except OSError as exc:
            if port == ports[-1]:
                raise DefinitionError(f"Port {port} of this machine cannot be listened on: {exc.strerror}.") from exc
    raise AssertionError("there is at least one port")

"""Every touch of names of the MCP SDK that are private or announced as provisional, each with its reason."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import anyio
import mcp_types as types
from mcp.server import Server
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.direct_dispatcher import DIRECT_TRANSPORT_KIND
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

LONG = 10 * 365 * 86400.0  # seconds: a question may wait for years, and so may the state that belongs to it

Context = ServerRequestContext[Any, Any]
HandlerReply = HandlerResult
Middleware = Callable[[Context, CallNext], Awaitable[HandlerReply]]

__all__ = [
    "LONG",
    "CallNext",
    "Context",
    "DualServer",
    "HandlerReply",
    "Middleware",
    "add_middleware",
    "connection_of",
    "hears_progress",
    "log_to",
    "notify",
    "push",
    "seal_states",
]


class DualServer(Server[Any]):
    """The low-level server, which tells clients of both eras what ours can do.

    The SDK asks for capabilities without a version when it means the older era, and has no way to add tasks or list changes there.

    `keeps_connections`: whether an older client can be told something after its request, which takes a session."""

    keeps_connections = True

    def get_capabilities(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
        *,
        protocol_version: str | None = None,
    ) -> types.ServerCapabilities:
        keeps = self.keeps_connections
        changes = NotificationOptions(prompts_changed=keeps, resources_changed=keeps, tools_changed=keeps)
        said = super().get_capabilities(
            changes, experimental_capabilities, extensions, protocol_version=protocol_version
        )
        if protocol_version not in MODERN_PROTOCOL_VERSIONS:
            if said.resources is not None:
                said.resources.subscribe = keeps
            calls = types.TasksToolsCapability(call=types.TasksCallCapability())
            said.tasks = types.ServerTasksCapability(
                list=types.TasksListCapability(),
                cancel=types.TasksCancelCapability(),
                requests=types.ServerTasksRequestsCapability(tools=calls),
            )
        return said


def seal_states(server: Server[Any], key: bytes) -> None:
    """What clients are given to hand back is sealed with `key`, and what they hand back is opened and checked.

    `Server.middleware` is announced as provisional; the SDK has no other place for the boundary on a low-level server."""
    security = RequestStateSecurity(keys=[key], ttl=LONG)
    server.middleware.append(RequestStateBoundary(security, default_audience=server.name))


def add_middleware(server: Server[Any], middleware: Middleware) -> None:
    server.middleware.append(cast("ServerMiddleware[Any]", middleware))


def connection_of(client: Context) -> Connection:
    """The client's connection, which outlives the request: the SDK has no public way to reach an older client later."""
    return client.session._connection  # pyright: ignore[reportPrivateUsage]


def hears_progress(client: Context) -> bool:
    """Whether the client has asked to be told of progress. One in the same process does so without a token: it is taken to listen."""
    in_memory = client.session._request_outbound.transport.kind == DIRECT_TRANSPORT_KIND  # pyright: ignore[reportPrivateUsage]
    return in_memory or "progress_token" in (client.meta or {})


async def push(connection: Connection, method: str, params: Mapping[str, Any] | None = None) -> None:
    """A notification to a client of the older era, outside any request. One that has left is not told."""
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
        await connection.outbound.notify(method, params)


async def notify(client: Context, method: str, params: Mapping[str, Any]) -> None:
    """A notification on the request's own stream, of a kind that the SDK has no type for."""
    await client.session._request_outbound.notify(method, params)  # pyright: ignore[reportPrivateUsage]


async def log_to(client: Context, level: types.LoggingLevel, data: Any, logger: str) -> None:
    """The SDK announces that logging will leave the protocol some day, each time it is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        sending = client.session.send_log_message(level, data, logger, client.request_id)  # pyright: ignore[reportDeprecated]
    await sending

"""Every touch of names of the MCP SDK that are private or announced as provisional, each with its reason."""

from __future__ import annotations

from typing import Any

from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity

LONG = 10 * 365 * 86400.0  # seconds: a question may wait for years, and so may the state that belongs to it

Context = ServerRequestContext[Any, Any]


def seal_states(server: Server[Any], key: bytes) -> None:
    """What clients are given to hand back is sealed with `key`, and what they hand back is opened and checked.

    `Server.middleware` is announced as provisional; the SDK has no other place for the boundary on a low-level server."""
    security = RequestStateSecurity(keys=[key], ttl=LONG)
    server.middleware.append(RequestStateBoundary(security, default_audience=server.name))

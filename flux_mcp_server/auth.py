"""Who calls, and what they may do and see."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import mcp_types as types
from mcp import MCPError
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from pydantic import AnyHttpUrl
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as HttpScope

Scope = Literal["run", "read", "control"]
SCOPES: tuple[Scope, ...] = ("run", "read", "control")

LOCAL = "local"
"""Who calls where nobody has to say who they are."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`is_known` when the server asked who it is: then it sees its own executions and no others."""

    principal: str = LOCAL
    scopes: Collection[str] = SCOPES
    is_known: bool = False

    @classmethod
    def of_request(cls) -> Caller:
        """Who makes the request that is being handled. To be asked at its start: work that outlives it has no caller."""
        token = get_access_token()
        if token is None:
            return OPEN
        return cls(principal_of(token), frozenset(token.scopes), is_known=True)

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    def require(self, scope: Scope) -> None:
        if not self.may(scope):
            raise MCPError(types.INVALID_REQUEST, f"Your token does not have the scope {scope!r}.")

    def may_see(self, principal: str | None) -> bool:
        return not self.is_known or principal == self.principal


OPEN = Caller()

Needs = Callable[[str, str], Scope | None]
"""The scope that a method needs for what it names: a tool, a task. None when it needs none, or nobody knows."""


@dataclass(frozen=True, slots=True)
class StepUp:
    """Refuses a request over HTTP for which its token has not the scope, in the way that tells the client to ask its user for more.
    By the headers that clients of today send, which are checked against the body later; older ones are refused in the result."""

    app: ASGIApp
    needs: Needs
    metadata: AnyHttpUrl | None = None

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        needed = None
        if scope["type"] == "http" and isinstance(scope.get("user"), AuthenticatedUser):
            headers = Headers(scope=scope)
            needed = self.needs(headers.get("mcp-method", ""), headers.get("mcp-name", ""))
        app = self.app if needed is None else RequireAuthMiddleware(self.app, [needed], self.metadata)
        await app(scope, receive, send)


def principal_of(token: AccessToken) -> str:
    """A subject is one only where its issuer is known: of two issuers each may have an `ada`."""
    issuer = (token.claims or {}).get("iss")
    who = token.subject or token.client_id
    return who if issuer is None else f"{issuer}|{who}"

"""Who calls, and what they may do and see."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import mcp_types as types
from mcp import MCPError
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken

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


def principal_of(token: AccessToken) -> str:
    """A subject is one only where its issuer is known: of two issuers each may have an `ada`."""
    issuer = (token.claims or {}).get("iss")
    who = token.subject or token.client_id
    return who if issuer is None else f"{issuer}|{who}"

"""Who we are to another server: a bearer token, or OAuth client credentials. Resolved when a connection opens, never recorded."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx2
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)

from flux.engine.ports import SecretStore
from flux.errors import DefinitionError, SecretNotFound
from flux.tasks.mcp.memory import Memory

Provider = Callable[[], str | Awaitable[str]]


class Auth(Protocol):
    async def resolved(self, secrets: SecretStore, server: str) -> Auth:
        """The same with its secrets at hand. Raises SecretNotFound."""
        ...

    def http(self, address: str) -> httpx2.Auth: ...

    @property
    def known_secrets(self) -> dict[str, str]:
        """What must never be written down."""
        ...


# -- bearer ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bearer:
    token: str | None = field(repr=False)
    secret: str | None
    provider: Provider | None

    async def resolved(self, secrets: SecretStore, server: str) -> Bearer:
        token = await self._token(secrets, server)
        return Bearer(token, self.secret, self.provider)

    async def _token(self, secrets: SecretStore, server: str) -> str:
        if self.provider is not None:
            given = self.provider()
            return await given if inspect.isawaitable(given) else given
        if self.secret is not None:
            return await _secret(self.secret, secrets, server)
        assert self.token is not None, "one of the three is given"
        return self.token

    def http(self, address: str) -> httpx2.Auth:
        assert self.token is not None, "only what is resolved is used"
        return _BearerHeader(self)

    @property
    def known_secrets(self) -> dict[str, str]:
        return {} if self.token is None else {self.secret or "bearer token": self.token}


class _BearerHeader(httpx2.Auth):
    """Asks the provider once more when the token is refused: it may have run out."""

    def __init__(self, bearer: Bearer) -> None:
        self._bearer = bearer

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers["Authorization"] = f"Bearer {self._bearer.token}"
        response = yield request
        if response.status_code == 401 and self._bearer.provider is not None:
            given = self._bearer.provider()
            self._bearer.token = await given if inspect.isawaitable(given) else given
            request.headers["Authorization"] = f"Bearer {self._bearer.token}"
            yield request


def bearer(token: str | None = None, *, secret: str | None = None, provider: Provider | None = None) -> Auth:
    """`Authorization: Bearer ...`: a token, the name of a secret (as tasks find theirs), or a function that gives the token,
    plain or async; it is asked again when the token is refused."""
    if sum(given is not None for given in (token, secret, provider)) != 1:
        raise DefinitionError("bearer() takes one of token, secret and provider.")
    return Bearer(token, secret, provider)


# -- OAuth -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OAuth:
    client_id: str
    client_secret: str | None = field(repr=False)
    private_key: str | None = field(repr=False)
    secret: str | None
    scope: str | None
    issuer: str | None
    algorithm: str
    method: Literal["client_secret_basic", "client_secret_post"]
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)

    async def resolved(self, secrets: SecretStore, server: str) -> OAuth:
        if self.secret is None:
            return self
        value = await _secret(self.secret, secrets, server)
        is_key = value.lstrip().startswith("-----BEGIN")
        return OAuth(
            self.client_id,
            None if is_key else value,
            value if is_key else None,
            self.secret,
            self.scope,
            self.issuer,
            self.algorithm,
            self.method,
            self.memory,
        )

    def http(self, address: str) -> httpx2.Auth:
        options: dict[str, Any] = {"scope": self.scope, "issuer": self.issuer}
        if self.private_key is not None:
            signing = SignedJWTParameters(
                issuer=self.client_id,
                subject=self.client_id,
                signing_key=self.private_key,
                signing_algorithm=self.algorithm,
            )
            return PrivateKeyJWTOAuthProvider(
                address, self.memory, self.client_id, signing.create_assertion_provider(), **options
            )
        assert self.client_secret is not None, "one of the two is given"
        return ClientCredentialsOAuthProvider(
            address, self.memory, self.client_id, self.client_secret, self.method, **options
        )

    @property
    def known_secrets(self) -> dict[str, str]:
        token = None if self.memory.tokens is None else self.memory.tokens.access_token
        known = {"client secret": self.client_secret, "private key": self.private_key, "access token": token}
        return {name: value for name, value in known.items() if value is not None}


def oauth(
    *,
    client_id: str,
    client_secret: str | None = None,
    private_key: str | None = None,
    secret: str | None = None,
    scopes: str | Iterable[str] = (),
    issuer: str | None = None,
    algorithm: str = "RS256",
    method: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic",
) -> Auth:
    """OAuth client credentials, for servers that trust this program, not its user.

    With a client secret, or with a private key (PEM) that signs a JWT by `algorithm`; `secret` names a stored secret that is
    either. `issuer` is the authorization server that the credentials belong to: they go nowhere else. Give it whenever you
    know it: without it the MCP server decides who gets them."""
    if sum(given is not None for given in (client_secret, private_key, secret)) != 1:
        raise DefinitionError("oauth() takes one of client_secret, private_key and secret.")
    scope = scopes if isinstance(scopes, str) else " ".join(scopes)
    return OAuth(client_id, client_secret, private_key, secret, scope or None, issuer, algorithm, method)


async def _secret(name: str, secrets: SecretStore, server: str) -> str:
    value = await secrets.get(name)
    if value is None:
        raise SecretNotFound(name, f"MCP server {server!r}")
    return value

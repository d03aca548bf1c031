"""Logins at other servers: what `flux mcp login` was given for a person is kept as a secret, used, and renewed when it ran out."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import httpx2
from mcp.client.auth.oauth2 import OAuthContext
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.shared.auth_utils import calculate_token_expiry, resource_url_from_server_url
from pydantic import AnyUrl, BaseModel, ValidationError

from flux.engine.ports import SecretKeeper, SecretStore
from flux.tasks.mcp.memory import Memory

RENEW_WITHIN = 20.0  # seconds that a server of logins may take to answer
EARLY = 10.0  # seconds before its end from which on a token is renewed


class Login(BaseModel):
    """`expires_at` is in seconds since 1970. `client` is who the server of logins knows us as."""

    tokens: OAuthToken
    client: OAuthClientInformationFull
    token_endpoint: str
    revocation_endpoint: str | None = None
    resource: str | None = None
    expires_at: float | None = None

    @property
    def has_run_out(self) -> bool:
        return self.expires_at is not None and time.time() > self.expires_at - EARLY


def secret_of(address: str) -> str:
    """The name of the secret in which a login at this address is kept."""
    return f"mcp:{resource_url_from_server_url(address)}"


async def kept_login(address: str, secrets: SecretStore) -> Login | None:
    text = await secrets.get(secret_of(address))
    try:
        return None if text is None else Login.model_validate_json(text)
    except ValidationError:
        return None  # of another version: one signs in again


def keep_login(address: str, login: Login, secrets: SecretKeeper) -> None:
    secrets.set(secret_of(address), login.model_dump_json(exclude_none=True))


@dataclass(slots=True)
class StoredLogin:
    """An `Auth` of whoever has signed in at this address, if anybody has. It may also happen later."""

    address: str
    secrets: SecretStore | None = field(default=None, repr=False)
    login: Login | None = field(default=None, repr=False)

    async def resolved(self, secrets: SecretStore, server: str) -> StoredLogin:
        return StoredLogin(self.address, secrets, await kept_login(self.address, secrets))

    def http(self, address: str) -> httpx2.Auth:
        return _Header(self)

    @property
    def known_secrets(self) -> dict[str, str]:
        tokens = None if self.login is None else self.login.tokens
        known = {} if tokens is None else {"login": tokens.access_token, "renewal of the login": tokens.refresh_token}
        return {name: value for name, value in known.items() if value is not None}

    async def renew(self) -> bool:
        """Whether there is now another token than before. Raises httpx2.ConnectError when nobody can be asked for one."""
        assert self.secrets is not None, "only what is resolved is used"
        async with _turn(self.address):
            if await self._takes_kept():
                return True
            if self.login is None or self.login.tokens.refresh_token is None:
                return False
            renewed = await _renewed(self.login)
            if renewed is None:
                return await self._takes_kept()  # another process was quicker, and the server takes each renewal once
            self.login = renewed
            if isinstance(self.secrets, SecretKeeper):
                keep_login(self.address, renewed, self.secrets)
            return True

    async def _takes_kept(self) -> bool:
        """Somebody may have signed in meanwhile, or have renewed the login."""
        assert self.secrets is not None, "only what is resolved is used"
        kept = await kept_login(self.address, self.secrets)
        if kept is None or (self.login is not None and kept.tokens.access_token == self.login.tokens.access_token):
            return False
        self.login = kept
        return True


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, defaultdict[str, asyncio.Lock]] = WeakKeyDictionary()


def _turn(address: str) -> asyncio.Lock:
    """Of several connections, one renews the login, and the others take what it got."""
    return _turns.setdefault(asyncio.get_running_loop(), defaultdict(asyncio.Lock))[address]


class _Header(httpx2.Auth):
    def __init__(self, stored: StoredLogin) -> None:
        self._stored = stored

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        if self._stored.login is not None and self._stored.login.has_run_out:
            await self._stored.renew()
        self._sign(request)
        response = yield request
        if response.status_code == 401 and await self._stored.renew():
            self._sign(request)
            yield request

    def _sign(self, request: httpx2.Request) -> None:
        if self._stored.login is not None:
            request.headers["Authorization"] = f"Bearer {self._stored.login.tokens.access_token}"


# -- the server of logins ----------------------------------------------------------------------------------------------


async def _renewed(login: Login) -> Login | None:
    """None when the server refuses: somebody has to sign in again."""
    asked = {"grant_type": "refresh_token", "refresh_token": login.tokens.refresh_token or ""}
    if login.resource is not None:
        asked["resource"] = login.resource
    answer = await _asked(login, login.token_endpoint, asked)
    if answer.status_code >= 500 or answer.status_code == 429:
        raise httpx2.ConnectError(f"the login cannot be renewed now: HTTP status {answer.status_code}")
    try:
        tokens = OAuthToken.model_validate_json(answer.content) if answer.is_success else None
    except ValidationError:
        tokens = None
    if tokens is None:
        return None
    same = {"refresh_token": tokens.refresh_token or login.tokens.refresh_token}
    if tokens.scope is None:
        same["scope"] = login.tokens.scope
    expires_at = calculate_token_expiry(tokens.expires_in)
    return login.model_copy(update={"tokens": tokens.model_copy(update=same), "expires_at": expires_at})


async def revoke(login: Login) -> bool:
    """Tell the server of logins that this one is over; False when it cannot be told."""
    if login.revocation_endpoint is None:
        return False
    try:
        token = login.tokens.refresh_token or login.tokens.access_token
        return (await _asked(login, login.revocation_endpoint, {"token": token})).is_success
    except httpx2.HTTPError:
        return False


async def _asked(login: Login, endpoint: str, form: dict[str, str]) -> httpx2.Response:
    form, headers = _us(login.client).prepare_token_auth({**form, "client_id": login.client.client_id}, {})
    try:
        async with httpx2.AsyncClient(timeout=RENEW_WITHIN) as http:
            return await http.post(endpoint, data=form, headers=headers)
    except httpx2.TransportError as exc:  # the request that wants a login has not been sent
        raise httpx2.ConnectError(f"the login cannot be renewed: {type(exc).__name__}: {exc}") from exc


def _us(client: OAuthClientInformationFull) -> OAuthContext:
    """What the SDK needs to say who we are, by the method that the server has given us."""
    nowhere = OAuthClientMetadata(redirect_uris=[AnyUrl("http://127.0.0.1/")])
    return OAuthContext("", nowhere, Memory(), None, None, client_info=client)

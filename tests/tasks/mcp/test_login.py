"""Signing in at a server as a person: an authorization server as it should be, a browser that goes where it is sent."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from anyio.streams.text import TextReceiveStream
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    ProviderTokenVerifier,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl

from flux import Flux, workflow
from flux.errors import NotAuthorized
from flux.provisions import Beside
from flux.secrets import EncryptedFileSecrets
from flux.tasks.mcp import mcp
from flux.tasks.mcp.login import Login, kept_login
from tests.tasks.mcp.servers import PATIENCE, adder, free_port, over_http

pytestmark = pytest.mark.anyio


@dataclass
class Logins:
    """An authorization server for the SDK's routes. Everybody agrees to everything, unless `refuses`."""

    lifetime: int = 3600
    refuses: bool = False
    clients: dict[str, OAuthClientInformationFull] = field(default_factory=dict[str, OAuthClientInformationFull])
    codes: dict[str, AuthorizationCode] = field(default_factory=dict[str, AuthorizationCode])
    access: dict[str, AccessToken] = field(default_factory=dict[str, AccessToken])
    refresh: dict[str, RefreshToken] = field(default_factory=dict[str, RefreshToken])
    seen: set[str] = field(default_factory=set[str])

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        self.clients[client_info.client_id] = client_info

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        if self.refuses:
            told = {"error": "access_denied", "error_description": "Not you", "state": params.state}
            return construct_redirect_uri(str(params.redirect_uri), **told)
        code = AuthorizationCode(
            code=self._secret(),
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client.client_id,
            **params.model_dump(include={"code_challenge", "redirect_uri", "resource"}),
            redirect_uri_provided_explicitly=True,
        )
        self.codes[code.code] = code
        return construct_redirect_uri(str(params.redirect_uri), code=code.code, state=params.state)

    async def load_authorization_code(self, client: Any, authorization_code: str) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self.codes[authorization_code.code]
        return self._tokens(client.client_id, authorization_code.scopes, authorization_code.resource)

    async def load_refresh_token(self, client: Any, refresh_token: str) -> RefreshToken | None:
        return self.refresh.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        del self.refresh[refresh_token.token]  # each is good for once
        return self._tokens(client.client_id, scopes, refresh_token.resource)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        self.access.clear()
        self.refresh.clear()

    async def exchange_identity_assertion(self, client: Any, params: Any) -> OAuthToken:
        raise NotImplementedError

    def _tokens(self, client: str, scopes: list[str], resource: str | None) -> OAuthToken:
        access, refresh = self._secret(), self._secret()
        about: dict[str, Any] = {"client_id": client, "scopes": scopes, "resource": resource}
        self.access[access] = AccessToken(token=access, expires_at=int(time.time()) + self.lifetime, **about)
        self.refresh[refresh] = RefreshToken(token=refresh, **about)
        return OAuthToken(access_token=access, refresh_token=refresh, expires_in=self.lifetime, scope=" ".join(scopes))

    def _secret(self) -> str:
        made = uuid4().hex
        self.seen.add(made)
        return made


@asynccontextmanager
async def behind(logins: Logins) -> AsyncGenerator[str]:
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    settings = AuthSettings(
        issuer_url=AnyHttpUrl(here),
        resource_server_url=AnyHttpUrl(f"{here}/mcp"),
        required_scopes=["run"],
        validate_token_resource=True,
        client_registration_options=ClientRegistrationOptions(
            enabled=True, valid_scopes=["run", "more"], default_scopes=["run", "more"]
        ),
        revocation_options=RevocationOptions(enabled=True),
    )
    verifier = ProviderTokenVerifier(logins)
    app = adder().server.streamable_http_app(auth=settings, auth_server_provider=logins, token_verifier=verifier)
    async with over_http(app, port) as url:
        yield url


@dataclass
class Here:
    """A folder with a database, and the command line beside it. `told` is all that the commands said."""

    folder: Path
    told: str = ""

    @property
    def database(self) -> str:
        return str(self.folder / "flux.db")

    @property
    def secrets(self) -> EncryptedFileSecrets:
        store = Beside.of(self.database).stored_secrets()
        assert store is not None
        return store

    async def flux(self, *words: str) -> int:
        """What the command exits with; whatever address it shows is visited."""
        command = [sys.executable, "-m", "flux.cli", *words, "--database", self.database]
        with anyio.fail_after(PATIENCE):
            async with await anyio.open_process(command, env={**os.environ, "COLUMNS": "500"}) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                async with anyio.create_task_group() as reading:
                    reading.start_soon(self._read, process.stdout)
                    reading.start_soon(self._read, process.stderr)
                return await process.wait()

    async def _read(self, stream: Any) -> None:
        said = ""
        async for piece in TextReceiveStream(stream):
            said += piece
            self.told += piece
            address = re.search(r"(http://\S+/authorize\S+)\n", said)
            if address is not None:
                said = ""
                await visit(address[1])

    async def adds(self, url: str) -> Any:
        @workflow
        async def adds() -> Any:
            async with mcp(url) as client:
                return await (await client.discover()).add(a=1, b=2)

        async with Flux(self.database, workflows=[adds], recover=False) as flux:
            execution = await flux.run(adds)
            self.told += repr(await flux.history(execution.execution_id)) + repr(execution.error)
            return execution.output or execution.error


async def visit(address: str) -> None:
    async with httpx.AsyncClient() as browser:
        sent_back = await browser.get(address)
        assert "Flux" in (await browser.get(sent_back.headers["location"])).text


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


async def login_of(here: Here, url: str) -> Login:
    login = await kept_login(url, here.secrets)
    assert login is not None
    return login


async def test_whoever_has_signed_in_is_signed_in_in_workflows_until_they_sign_out(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    logins = Logins()
    async with behind(logins) as url:
        refused = await here.adds(url)
        assert isinstance(refused, NotAuthorized)
        assert f"flux mcp login {url}" in str(refused)
        assert await here.flux("mcp", "login", url, "--no-browser") == 0, here.told
        assert "1 tools" in here.told
        assert await here.adds(url) == {"sum": 3}
        assert await here.flux("mcp", "tools", url) == 0
        assert "Does add" in here.told
        assert await here.flux("mcp", "logout", url) == 0
        assert not logins.access, "the server is told"
        assert isinstance(await here.adds(url), NotAuthorized)
        assert await here.flux("mcp", "logout", url) == 2
    files = "".join(path.read_text("latin-1") for path in here.folder.iterdir() if path.is_file())
    said = here.told + caplog.text + files
    assert not {secret for secret in logins.seen if secret in said}


async def test_a_login_that_ran_out_is_renewed_and_kept(here: Here) -> None:
    logins = Logins(lifetime=5)  # less than how early it is renewed: before every connection
    async with behind(logins) as url:
        assert await here.flux("mcp", "login", url, "--no-browser") == 0, here.told
        first = await login_of(here, url)
        assert await here.adds(url) == {"sum": 3}
        second = await login_of(here, url)
        assert second.tokens.refresh_token != first.tokens.refresh_token
        assert await here.adds(url) == {"sum": 3}


async def test_a_login_that_is_taken_back_before_its_time_is_renewed(here: Here) -> None:
    logins = Logins()
    async with behind(logins) as url:
        assert await here.flux("mcp", "login", url, "--no-browser") == 0, here.told
        logins.access.clear()
        assert await here.adds(url) == {"sum": 3}
        logins.access.clear()
        logins.refresh.clear()
        error = await here.adds(url)
        assert isinstance(error, NotAuthorized)
        assert "flux mcp login" in str(error)
        assert await here.flux("mcp", "login", url, "--no-browser") == 0, here.told
        assert await here.adds(url) == {"sum": 3}
    assert len(logins.clients) == 1, "one registers once"


async def test_more_than_a_server_asks_for_can_be_wanted(here: Here) -> None:
    async with behind(Logins()) as url:
        for scope, granted in (("run", "run"), ("more", "run more")):
            assert await here.flux("mcp", "login", url, "--no-browser", "--scope", scope) == 0, here.told
            assert (await login_of(here, url)).tokens.scope == granted


async def test_a_person_who_is_refused_reads_why(here: Here) -> None:
    async with behind(Logins(refuses=True)) as url:
        assert await here.flux("mcp", "login", url, "--no-browser") == 2
    assert "signing in failed: Not you" in here.told
    assert "Traceback" not in here.told


async def test_a_server_that_wants_no_login_says_so(here: Here) -> None:
    async with over_http(adder().server.streamable_http_app()) as url:
        assert await here.flux("mcp", "login", url, "--no-browser") == 0
    assert "asks for no login" in here.told
    assert await here.flux("mcp", "login", "server.py") == 2
    assert await here.flux("mcp", "login", "http://127.0.0.1:9/mcp", "--no-browser") == 2
    assert "cannot be" in here.told or "ConnectError" in here.told


async def test_two_connections_at_once_renew_a_login_once(here: Here) -> None:
    logins = Logins()
    async with behind(logins) as url:
        assert await here.flux("mcp", "login", url, "--no-browser") == 0, here.told
        logins.access.clear()

        async def one(number: int) -> None:
            @workflow.with_options(name=f"adds{number}")
            async def adds() -> Any:
                async with mcp(url) as client:
                    return await (await client.discover()).add(a=number, b=0)

            execution = await flux.run(adds)
            assert execution.output == {"sum": number}, execution.error

        async with Flux(here.database, recover=False) as flux, anyio.create_task_group() as together:
            for number in range(4):
                together.start_soon(one, number)
    assert len(logins.access) == 1

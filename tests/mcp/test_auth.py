"""HTTP for teams: who may come in, what they see, how much they may do, and how the server says how it is."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import httpx2
import jwt
import jwt.algorithms
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult, InputRequiredResult

from flux_mcp_server.auth import OPEN, Caller
from flux_mcp_server.limits import Limits
from flux_mcp_server.tokens import SignedTokens, StaticTokens, add_token
from tests.mcp.serving import ERAS, Era, data_of, text_of
from tests.mcp.test_http import http_server, request
from tests.mcp.test_tasks import Knows, Params, TaskListen, Whole, asked

pytestmark = pytest.mark.anyio


@contextmanager
def guarded(folder: Path, *more: str) -> Generator[tuple[str, dict[str, str]]]:
    """A server with tokens for `ada`, `bob` and `reader`: its URL, and the tokens."""
    path = folder / "tokens"
    scopes = {"ada": ["run", "read", "control"], "bob": ["run", "read", "control"], "reader": ["read"]}
    tokens = {name: add_token(path, name, given) for name, given in scopes.items()}
    with http_server(folder, "--auth-tokens", str(path), *more) as (_, url):
        yield url, tokens


def client_with(url: str, token: str, era: Era = "2026-07-28", *, tasks: bool = False, **options: Any) -> Client:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30)
    extensions = [Knows()] if tasks else []
    return Client(streamable_http_client(url, http_client=http), mode=era, cache=None, extensions=extensions, **options)


async def posted(url: str, *, json: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient(timeout=20) as http:
        return await http.post(url, json=json, headers=headers)


async def got(url: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=20) as http:
        return await http.get(url)


async def test_nobody_comes_in_without_a_token_that_is_good_now(tmp_path: Path) -> None:
    with guarded(tmp_path) as (url, tokens):
        asked = request("tools/list", {})
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            refused = await posted(url, json=asked, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Bearer ")
        async with client_with(url, tokens["ada"]) as client:
            assert (await client.list_tools()).tools
        path = tmp_path / "tokens"
        path.write_text("\n".join(path.read_text("utf-8").splitlines()[1:]) + "\n", "utf-8")
        gone = await posted(url, json=asked, headers={"Authorization": f"Bearer {tokens['ada']}"})
        assert gone.status_code == 401


@pytest.mark.parametrize("era", ERAS)
async def test_the_executions_of_others_are_not_there(era: Era, tmp_path: Path) -> None:
    with guarded(tmp_path) as (url, tokens):
        async with client_with(url, tokens["ada"], era) as ada, client_with(url, tokens["bob"], era) as bob:
            id = data_of(await ada.call_tool("approve", {"input": "A1"}))["execution_id"]
            for tool in ("get_execution", "pause_execution", "resume_execution", "cancel_execution"):
                assert f"No execution '{id}'" in text_of(await bob.call_tool(tool, {"execution_id": id}))
            answer = {"execution_id": id, "answer": {"approved": True}}
            assert f"No execution '{id}'" in text_of(await bob.call_tool("resume_approve", answer))
            assert data_of(await bob.call_tool("list_executions"))["executions"] == []
            for uri in (f"flux://executions/{id}", f"flux://executions/{id}/events"):
                with pytest.raises(MCPError, match="No such resource"):
                    await bob.read_resource(uri)
            assert len((await bob.list_resources()).resources) < len((await ada.list_resources()).resources)
            assert data_of(await bob.call_tool("approve", {"input": "A1"}))["execution_id"] != id
            assert data_of(await ada.call_tool("resume_approve", answer)) == {"result": "shipped A1"}


async def test_the_tasks_of_others_are_not_there(tmp_path: Path) -> None:
    with guarded(tmp_path) as (url, tokens):
        async with client_with(url, tokens["ada"]) as ada, client_with(url, tokens["bob"], tasks=True) as bob:
            id = data_of(await ada.call_tool("approve", {"input": "A1"}))["execution_id"]
            answers: dict[str, Any] = {"taskId": id, "inputResponses": {}}
            for method, params in (
                ("tasks/get", dict[str, Any](taskId=id)),
                ("tasks/update", answers),
                ("tasks/cancel", answers),
            ):
                with pytest.raises(MCPError, match=f"No task '{id}'") as refused:
                    await asked(bob, method, **params)
                assert refused.value.code == -32602
            listen = TaskListen(params=Params.model_validate({"notifications": {"taskIds": [id]}}))
            with pytest.raises(MCPError, match=f"No task '{id}'"):
                await bob.session.send_request(listen, Whole)
            assert data_of(await ada.call_tool("get_execution", {"execution_id": id}))["status"] == "paused"


async def test_a_question_can_only_be_answered_by_who_was_asked(tmp_path: Path) -> None:
    async def never(context: Any, params: Any) -> ElicitResult:
        raise AssertionError

    answers: Any = {"approval": ElicitResult(action="accept", content={"approved": True})}
    with guarded(tmp_path) as (url, tokens):
        async with client_with(url, tokens["ada"], elicitation_callback=never) as ada:
            asked = await ada.session.call_tool("approve", {"input": "A1"}, allow_input_required=True)
            assert isinstance(asked, InputRequiredResult)
            again: Any = {"input_responses": answers, "request_state": asked.request_state}
            async with client_with(url, tokens["bob"], elicitation_callback=never) as bob:
                with pytest.raises(MCPError) as refused:
                    await bob.session.call_tool("approve", {"input": "A1"}, **again)
                assert refused.value.code == -32602
            session: Any = ada.session
            assert data_of(await session.call_tool("approve", {"input": "A1"}, **again)) == {"result": "shipped A1"}


async def test_a_token_does_what_its_scopes_say(tmp_path: Path) -> None:
    with guarded(tmp_path) as (url, tokens):
        async with client_with(url, tokens["reader"]) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == ["get_execution", "list_executions", "list_workflows"]
        async with client_with(url, tokens["reader"], "legacy") as older:
            with pytest.raises(MCPError, match="does not have the scope 'run'"):
                await older.call_tool("approve", {"input": "A1"})
        async with client_with(url, tokens["ada"]) as client:
            assert "approve" in {tool.name for tool in (await client.list_tools()).tools}


async def test_a_client_of_today_is_told_to_ask_for_the_scope_it_needs(tmp_path: Path) -> None:
    with guarded(tmp_path) as (url, tokens):
        for method, name, scope in [("tools/call", "approve", "run"), ("tasks/cancel", "some id", "control")]:
            headers = {"Authorization": f"Bearer {tokens['reader']}", "Mcp-Method": method, "Mcp-Name": name}
            refused = await posted(url, json=request(method, {}), headers=headers)
            assert refused.status_code == 403
            said = refused.headers["WWW-Authenticate"]
            assert said == f'Bearer error="insufficient_scope", error_description="Required scope: {scope}"'
        lying = {
            "Authorization": f"Bearer {tokens['reader']}",
            "Mcp-Method": "tools/call",
            "Mcp-Name": "list_workflows",
        }
        meta: dict[str, Any] = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        call = request("tools/call", {"name": "approve", "arguments": {"input": "A1"}, "_meta": meta})
        more = {"MCP-Protocol-Version": "2026-07-28", "Accept": "application/json, text/event-stream"}
        refused = await posted(url, json=call, headers=lying | more)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32020)


@pytest.mark.one_server
async def test_the_server_says_how_it_is_and_takes_no_body_that_is_too_large(tmp_path: Path) -> None:
    with guarded(tmp_path, "--max-body", "1000", "--rate", "2") as (url, tokens):
        base = url.removesuffix("/mcp")
        assert [(await got(f"{base}/{path}")).text for path in ("health", "ready")] == ["ok", "ready"]
        headers = {"Authorization": f"Bearer {tokens['ada']}", "Accept": "application/json, text/event-stream"}
        large = await posted(url, json=request("tools/list", {"x": "y" * 2000}), headers=headers)
        assert large.status_code == 413
        async with client_with(url, tokens["ada"]) as client:
            for _ in range(2):
                await client.call_tool("list_workflows")
            with pytest.raises(MCPError, match="You may make 2 calls a minute"):
                await client.call_tool("list_workflows")


def test_calls_under_way_are_bounded_for_all_and_for_each() -> None:
    limits = Limits(most=3, most_each=2)
    ada, bob = Caller("ada", is_known=True), Caller("bob", is_known=True)
    with limits.admitted(ada), limits.admitted(ada):
        with pytest.raises(MCPError, match="You have 2 calls under way"), limits.admitted(ada):
            pass
        with limits.admitted(bob), pytest.raises(MCPError, match="3 calls are under way here"), limits.admitted(OPEN):
            pass
    assert limits.under_way == 0
    with limits.admitted(ada):
        pass


async def test_a_broken_line_in_the_file_of_tokens_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# ours\nada run secret\n", "utf-8")
    with pytest.raises(Exception, match="line 2: should be a name, scopes, and sha256"):
        StaticTokens(path).known()


# -- JWT ---------------------------------------------------------------------------------------------------------------

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@contextmanager
def key_server() -> Generator[str]:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/jwks"
    finally:
        server.shutdown()
        server.server_close()


def signed(key: Any = KEY, **changed: Any) -> str:
    claims = {
        "iss": "https://id.example",
        "aud": "https://flux.example/mcp",
        "sub": "ada",
        "exp": time.time() + 60,
        "scope": "run read",
        **changed,
    }
    given = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(given, key, "RS256", headers={"kid": "one"})


async def test_a_signed_token_is_good_for_its_audience_issuer_and_time() -> None:
    with key_server() as url:
        verifier = SignedTokens("https://id.example", "https://flux.example/mcp", url)
        good = await verifier.verify_token(signed())
        assert good is not None
        assert (good.subject, good.scopes) == ("ada", ["run", "read"])
        hopeless = [
            signed(aud="https://other.example"),
            signed(iss="https://other.example"),
            signed(exp=time.time() - 60),
            signed(exp=None),
            signed(sub=None),
            signed(key=OTHER),
            jwt.encode({"sub": "ada"}, "x" * 32, "HS256", headers={"kid": "one"}),
            "nonsense",
        ]
        assert [await verifier.verify_token(token) for token in hopeless] == [None] * len(hopeless)


async def test_clients_are_led_to_the_issuer(tmp_path: Path) -> None:
    with key_server() as keys:
        public = "https://flux.example/mcp"
        options = ("--jwt-issuer", "https://id.example", "--jwks-url", keys, "--public-url", public)
        with http_server(tmp_path, *options) as (_, url):
            refused = await posted(url, json=request("tools/list", {}))
            assert (
                "https://flux.example/.well-known/oauth-protected-resource/mcp" in refused.headers["WWW-Authenticate"]
            )
            base = url.removesuffix("/mcp")
            metadata = (await got(f"{base}/.well-known/oauth-protected-resource/mcp")).json()
            assert metadata["authorization_servers"] == ["https://id.example"]
            assert metadata["scopes_supported"] == ["run", "read", "control"]
            async with client_with(url, signed()) as client:
                assert data_of(await client.call_tool("approve", {"input": "A1"}))["status"] == "paused"

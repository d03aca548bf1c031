"""Servers over HTTP, well and ill, and who may use them."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import anyio
import jwt
import mcp_types as types
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flux import Flux, workflow
from flux.errors import ConnectionLost, NotAuthorized, OutcomeUnknown, ResultTooLarge, SecretNotFound, ServerUnreachable
from flux.tasks.mcp import Auth, bearer, mcp, oauth
from tests.tasks.mcp.servers import ERAS, PATIENCE, Context, Reply, Small, adder, free_port, over_http, text

pytestmark = pytest.mark.anyio

Intercept = Callable[[Request, bytes], Awaitable[Response | None]]


def sums(url: str, **options: Any) -> Any:
    @workflow
    async def sums() -> Any:
        async with mcp(url, **options) as client:
            tools = await client.discover()
            return await tools.add(a=1, b=2)

    return sums


def intercepted(app: Any, intercept: Intercept) -> Any:
    """The app, but where `intercept` has an answer of its own."""

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        body = await Request(scope, receive).body()
        answer = await intercept(Request(scope), body)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return messages.pop() if messages else await receive()

        return await (answer(scope, again, send) if answer is not None else app(scope, again, send))

    return asgi


def calls_tool(body: bytes) -> bool:
    return b'"tools/call"' in body


@asynccontextmanager
async def answering(small: Small, *answers: Response | None) -> AsyncGenerator[str]:
    """A server that gives these answers to the first calls of its tools, then its own."""
    left = list(answers)

    async def intercept(request: Request, body: bytes) -> Response | None:
        return left.pop(0) if calls_tool(body) and left else None

    async with over_http(intercepted(small.server.streamable_http_app(), intercept)) as url:
        yield url


async def ended(flux: Flux, body: Any) -> Any:
    with anyio.fail_after(PATIENCE):
        return await flux.run(body)


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_a_server_over_http_is_used_in_both_eras(flux: Flux, era: str) -> None:
    async with over_http(adder().server.streamable_http_app()) as url:
        execution = await ended(flux, sums(url, protocol=era))
    assert execution.output == {"sum": 3}, execution.error


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_was_restarted_is_connected_to_again(flux: Flux, era: str) -> None:
    port = free_port()
    small = adder()
    client = mcp(f"http://127.0.0.1:{port}/mcp", protocol=era)

    @workflow
    async def twice() -> Any:
        async with over_http(small.server.streamable_http_app(), port):
            tools = await client.discover()
            first = await tools.add(a=1, b=1)
        async with over_http(small.server.streamable_http_app(), port):
            return first, await tools.add(a=2, b=2)

    execution = await ended(flux, twice)
    assert execution.output == ({"sum": 2}, {"sum": 4}), execution.error
    await client.aclose()


async def test_a_server_that_is_busy_is_tried_again(flux: Flux) -> None:
    busy = Response(status_code=429, headers={"retry-after": "1"})
    small = adder()
    async with answering(small, busy, Response(status_code=503)) as url:
        execution = await ended(flux, sums(url, retry_max_attempts=2, retry_delay=0, idempotent=False))
    assert execution.output == {"sum": 3}, execution.error
    assert len(small.calls) == 1


async def test_a_server_that_is_busy_says_for_how_long(flux: Flux) -> None:
    async with answering(adder(), Response(status_code=429, headers={"retry-after": "7"})) as url:
        error = (await ended(flux, sums(url))).error
    assert isinstance(error, ServerUnreachable)
    assert "HTTP status 429; it asks to come back after 7" in str(error)


async def half_a_stream() -> AsyncGenerator[bytes]:
    yield b": hello\n\n"


def event_stream() -> Response:
    return StreamingResponse(half_a_stream(), media_type="text/event-stream")


LOSSES: list[Callable[[], Response]] = [
    lambda: Response("<html>Bad gateway</html>", status_code=502),
    lambda: Response("oops", status_code=500),
    lambda: Response('{"jsonrpc": "2.0", "id"', media_type="application/json"),
    event_stream,
]


@pytest.mark.parametrize("answer", LOSSES)
@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_answer_that_never_came_leaves_open_what_was_done(
    flux: Flux, answer: Callable[[], Response], idempotent: bool
) -> None:
    async with answering(adder(), answer()) as url:
        error = (await ended(flux, sums(url, idempotent=idempotent))).error
    assert isinstance(error, ConnectionLost if idempotent else OutcomeUnknown), repr(error)


async def test_one_request_that_goes_wrong_harms_no_other(flux: Flux) -> None:
    small = adder()
    under_way, go_on = anyio.Event(), anyio.Event()

    @small.tool("long", safe=True)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        under_way.set()
        await go_on.wait()
        return text("done")

    async def intercept(request: Request, body: bytes) -> Response | None:
        return Response(status_code=502) if calls_tool(body) and b'"add"' in body else None

    async with over_http(intercepted(small.server.streamable_http_app(), intercept)) as url:
        client = mcp(url)

        @workflow
        async def both() -> Any:
            tools = await client.discover()
            long = tools.long()

            async def short() -> str:
                await under_way.wait()
                try:
                    await tools.add(a=1, b=1)
                except ConnectionLost:
                    go_on.set()
                return "short"

            async with anyio.create_task_group() as group:
                group.start_soon(short)
                return await long

        execution = await ended(flux, both)
        await client.aclose()
    assert execution.output == "done", execution.error


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_ten_megabytes_are_too_many(flux: Flux, era: str) -> None:
    small = Small()

    @small.tool("add", safe=True)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text("x" * 10_000_000)

    async with over_http(small.server.streamable_http_app()) as url:
        error = (await ended(flux, sums(url, protocol=era))).error
    assert isinstance(error, ResultTooLarge), repr(error)


async def test_resources_and_prompts_are_steps(flux: Flux) -> None:
    server = MCPServer("docs")

    @server.resource("doc://{name}")
    def doc(name: str) -> str:
        return f"about {name}"

    @server.resource("doc://index")
    def index() -> str:
        return "all"

    @server.prompt()
    def greet(who: str) -> str:
        return f"Hello {who}"

    @workflow
    async def reads() -> Any:
        async with mcp(server) as client:
            (resource,) = await client.list_resources()
            (template,) = await client.list_resource_templates()
            (prompt,) = await client.list_prompts()
            (read,) = await client.read_resource("doc://rain")
            said = await client.get_prompt("greet", {"who": "Bo"})
            return resource["uri"], template["uriTemplate"], prompt["name"], read.text, said.messages[0].content

    output = (await ended(flux, reads)).output
    assert output[:4] == ("doc://index", "doc://{name}", "greet", "about rain"), output
    assert output[4].text == "Hello Bo"


# -- who may -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def guarded(*tokens: str) -> AsyncGenerator[str]:
    """A server for whoever has one of the tokens; the list may change."""

    async def intercept(request: Request, body: bytes) -> Response | None:
        allowed = request.headers.get("authorization") in [f"Bearer {token}" for token in tokens]
        return None if allowed else Response(status_code=401)

    async with over_http(intercepted(adder().server.streamable_http_app(), intercept)) as url:
        yield url


async def test_a_bearer_token_opens_the_door_and_stands_nowhere(flux: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_SECRET_DOOR", "open-sesame")
    kinds: list[Auth] = [bearer("open-sesame"), bearer(secret="DOOR"), bearer(provider=lambda: "open-sesame")]
    async with guarded("open-sesame") as url:
        for number, auth in enumerate(kinds):
            body = sums(url, auth=auth).with_options(name=f"sums{number}")
            execution = await ended(flux, body)
            assert execution.output == {"sum": 3}, execution.error
            assert "open-sesame" not in repr(await flux.history(execution.execution_id)) + repr(auth)


async def test_the_wrong_token_and_none_are_told_and_not_tried_again(flux: Flux) -> None:
    async with guarded("right") as url:
        wrong = (await ended(flux, sums(url, auth=bearer("wrong"), retry_max_attempts=5))).error
    assert isinstance(wrong, NotAuthorized), repr(wrong)
    assert "401" in str(wrong)
    assert "wrong" not in str(wrong).replace("wrong credentials", "")


async def test_a_secret_that_is_not_there_is_named(flux: Flux) -> None:
    error = (await ended(flux, sums("http://127.0.0.1:9/mcp", auth=bearer(secret="NOWHERE")))).error
    assert isinstance(error, SecretNotFound), repr(error)


async def test_a_token_that_ran_out_is_asked_for_again(flux: Flux) -> None:
    tokens = iter(["old", "new"])

    async def provider() -> str:
        return next(tokens)

    async with guarded("new") as url:
        execution = await ended(flux, sums(url, auth=bearer(provider=provider)))
    assert execution.output == {"sum": 3}, execution.error


def authorization_server(port: int, check: Callable[[Request, dict[str, str]], bool]) -> Starlette:
    here = f"http://127.0.0.1:{port}"

    async def resource(request: Request) -> Response:
        return JSONResponse({"resource": f"{here}/mcp", "authorization_servers": [here], "scopes_supported": ["run"]})

    async def metadata(request: Request) -> Response:
        methods = ["client_secret_basic", "private_key_jwt"]
        return JSONResponse(
            {
                "issuer": here,
                "authorization_endpoint": f"{here}/authorize",
                "token_endpoint": f"{here}/token",
                "response_types_supported": ["code"],
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": methods,
            }
        )

    async def token(request: Request) -> Response:
        given = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
        if not check(request, given):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        return JSONResponse({"access_token": "granted", "token_type": "Bearer", "expires_in": 3600})

    return Starlette(
        routes=[
            Route("/.well-known/oauth-protected-resource/mcp", resource),
            Route("/.well-known/oauth-authorization-server", metadata),
            Route("/token", token, methods=["POST"]),
        ]
    )


@asynccontextmanager
async def behind_oauth(check: Callable[[Request, dict[str, str]], bool]) -> AsyncGenerator[str]:
    port = free_port()
    signing_in = authorization_server(port, check)
    app = adder().server.streamable_http_app()
    challenge = f'Bearer resource_metadata="http://127.0.0.1:{port}/.well-known/oauth-protected-resource/mcp"'

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/mcp":
            return await signing_in(scope, receive, send)
        return await guard(scope, receive, send)

    async def intercept(request: Request, body: bytes) -> Response | None:
        if request.headers.get("authorization") == "Bearer granted":
            return None
        return Response(status_code=401, headers={"www-authenticate": challenge})

    guard = intercepted(app, intercept)
    async with over_http(asgi, port) as url:
        yield url


async def test_client_credentials_are_exchanged_for_a_token(flux: Flux) -> None:
    expected = "Basic " + base64.b64encode(b"me:my-client-secret").decode()

    def check(request: Request, given: dict[str, str]) -> bool:
        return request.headers.get("authorization") == expected and given["grant_type"] == "client_credentials"

    async with behind_oauth(check) as url:
        issuer = url.removesuffix("/mcp")
        good = sums(url, auth=oauth(client_id="me", client_secret="my-client-secret", issuer=issuer))
        execution = await ended(flux, good)
        assert execution.output == {"sum": 3}, execution.error
        assert "my-client-secret" not in repr(await flux.history(execution.execution_id))
        bad = sums(url, auth=oauth(client_id="me", client_secret="other", issuer=issuer)).with_options(name="bad")
        error = (await ended(flux, bad)).error
    assert isinstance(error, NotAuthorized), repr(error)


async def test_a_private_key_signs_in(flux: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    monkeypatch.setenv("FLUX_SECRET_SIGNING_KEY", pem)

    def check(request: Request, given: dict[str, str]) -> bool:
        audience = f"http://{request.headers['host']}"
        claims = jwt.decode(given["client_assertion"], key.public_key(), algorithms=["RS256"], audience=audience)
        return claims["sub"] == "me"

    async with behind_oauth(check) as url:
        auth = oauth(client_id="me", secret="SIGNING_KEY", issuer=url.removesuffix("/mcp"), scopes=["run"])
        execution = await ended(flux, sums(url, auth=auth))
    assert execution.output == {"sum": 3}, execution.error

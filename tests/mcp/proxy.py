"""A proxy before several servers: every request goes to the next one, or a session stays where it has begun."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

HOP_BY_HOP = {"host", "content-length", "transfer-encoding", "connection"}
SESSION = "Mcp-Session-Id"


@contextmanager
def proxy(servers: Sequence[str], *, keeps_sessions: bool = False) -> Generator[str]:
    """Before servers that have a path in common: their URL here. It runs in a thread of its own."""
    app = forwarding([_root(server) for server in servers], keeps_sessions=keeps_sessions)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=server.run, args=([listening],), daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}{urlsplit(servers[0]).path}"
        finally:
            server.should_exit = server.force_exit = True
            serving.join()


def _root(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def forwarding(servers: Sequence[str], *, keeps_sessions: bool) -> Starlette:
    turns = itertools.cycle(servers)
    homes: dict[str | None, str] = {}
    client = httpx.AsyncClient(timeout=None)  # whoever asks has one

    async def forward(request: Request) -> Response:
        server = homes.get(request.headers.get(SESSION)) or next(turns)
        headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
        url = f"{server}{request.url.path}"
        passed = client.build_request(request.method, url, headers=headers, content=await request.body())
        answer = await unless_left(request, client.send(passed, stream=True))
        if answer is None:
            return Response(status_code=499)
        if keeps_sessions and SESSION in answer.headers:
            homes[answer.headers[SESSION]] = server
        told = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
        return StreamingResponse(_streamed(answer), answer.status_code, told)

    return Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST", "DELETE"])])


async def unless_left(request: Request, answering: Coroutine[Any, Any, httpx.Response]) -> httpx.Response | None:
    """The server is told when the client has left before the answer began, and when it leaves later."""
    answer, left = asyncio.ensure_future(answering), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([answer, left], return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        answer.cancel()
        left.cancel()


async def _streamed(answer: httpx.Response) -> AsyncGenerator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()

"""Two servers on one PostgreSQL behind a proxy that sends every request to the other one than the last."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from mcp import Client
from mcp_types import ElicitResult
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from tests.mcp.serving import ERAS, PATIENCE, Era, data_of, lines, written
from tests.mcp.test_http import http_server

pytestmark = pytest.mark.anyio

HOP_BY_HOP = {"host", "content-length", "transfer-encoding", "connection"}


def round_robin(servers: list[str]) -> Starlette:
    """Every request to the next server, its answer streamed back."""
    turns = itertools.cycle(servers)
    client = httpx.AsyncClient(timeout=PATIENCE)

    async def forward(request: Request) -> StreamingResponse:
        headers = {name: value for name, value in request.headers.items() if name not in HOP_BY_HOP}
        passed = client.build_request(request.method, next(turns), headers=headers, content=await request.body())
        answer = await client.send(passed, stream=True)
        told = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, told, background=BackgroundTask(answer.aclose))

    return Starlette(routes=[Route("/mcp", forward, methods=["GET", "POST", "DELETE"])])


@asynccontextmanager
async def proxy(servers: list[str]) -> AsyncGenerator[str]:
    server = uvicorn.Server(
        uvicorn.Config(round_robin(servers), port=0, log_level="error", timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    server.should_exit = True
    await serving


@pytest.fixture
async def url(tmp_path: Path, postgres: str) -> AsyncIterator[str]:
    with ExitStack() as stack:
        more = ("--stateless", "--database", postgres, "--wait", "1")
        servers = [stack.enter_context(http_server(tmp_path, *more))[1] for _ in range(2)]
        async with proxy(servers) as url:
            yield url


@pytest.mark.parametrize("era", ERAS)
async def test_a_handle_is_followed_answered_and_finished_on_whichever_replica(
    era: Era, url: str, tmp_path: Path
) -> None:
    async with Client(url, mode=era, cache=None) as client:
        asked = data_of(await client.call_tool("approve", {"input": "A1"}))
        id = asked["execution_id"]
        for _ in range(4):
            seen = data_of(await client.call_tool("get_execution", {"execution_id": id}))
            assert seen["status"] == "paused"
        await client.call_tool("resume_approve", {"execution_id": id, "answer": {"approved": True}})
        done = data_of(await client.call_tool("get_execution", {"execution_id": id, "wait_seconds": 10}))
        assert (done["status"], done["output"]) == ("completed", "shipped A1")
    assert lines(tmp_path / "trace.txt") == ["reserve A1", "ship A1"]


async def test_a_question_asked_by_one_replica_is_answered_at_the_other(url: str, tmp_path: Path) -> None:
    async def say_yes(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approved": True})

    async with Client(url, mode="2026-07-28", elicitation_callback=say_yes, cache=None) as client:
        for number in range(3):
            result = data_of(await client.call_tool("approve", {"input": f"A{number}"}))
            assert result == {"result": f"shipped A{number}"}
    assert len(lines(tmp_path / "trace.txt")) == 6


@pytest.mark.parametrize("era", ERAS)
async def test_what_one_replica_runs_is_cancelled_through_the_other(era: Era, url: str, tmp_path: Path) -> None:
    async with Client(url, mode=era, cache=None) as client:
        asked = data_of(await client.call_tool("wait_for", {"input": str(tmp_path / "never")}))
        await written(tmp_path / "trace.txt")
        for _ in range(2):
            await client.call_tool("cancel_execution", {"execution_id": asked["execution_id"]})
        done = data_of(
            await client.call_tool("get_execution", {"execution_id": asked["execution_id"], "wait_seconds": 10})
        )
        assert done["status"] == "cancelled"

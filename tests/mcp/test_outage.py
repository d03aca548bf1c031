"""A server whose database goes away and comes back: it says so, calls wait, and listeners are told what they would have been told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client

from tests.mcp.serving import PATIENCE, data_of, lines
from tests.mcp.test_http import http_server
from tests.stores.cluster import servers as clusters

pytestmark = pytest.mark.anyio


async def until_ready(url: str, code: int) -> None:
    async with asyncio.timeout(PATIENCE), httpx.AsyncClient(timeout=PATIENCE) as http:
        while (await http.get(url.replace("/mcp", "/ready"))).status_code != code:  # noqa: ASYNC110 - another process has no event for us
            await asyncio.sleep(0.05)


async def test_calls_and_listeners_outlive_a_restart_of_the_database(tmp_path: Path) -> None:
    with clusters(1) as (database,):
        database.make()
        database.start()
        where = f"postgresql://postgres@127.0.0.1:{database.port}/postgres"
        with http_server(tmp_path, "--database", where) as (_, url):
            async with Client(url, mode="2026-07-28", cache=None) as client:
                id = data_of(await client.call_tool("approve", {"input": "A1"}))["execution_id"]
                async with client.listen(resource_subscriptions=[f"flux://executions/{id}"]) as changes:
                    await asyncio.to_thread(database.stop)
                    await until_ready(url, 503)
                    answer = {"execution_id": id, "answer": {"approved": True}}
                    resuming = asyncio.create_task(client.call_tool("resume_approve", answer))
                    await asyncio.to_thread(database.start)
                    assert data_of(await asyncio.wait_for(resuming, PATIENCE)) == {"result": "shipped A1"}
                    change: Any = await asyncio.wait_for(anext(changes), PATIENCE)
                    assert change.uri == f"flux://executions/{id}"
                    await until_ready(url, 200)
    assert lines(tmp_path / "trace.txt") == ["reserve A1", "ship A1"]

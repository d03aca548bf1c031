"""What people complain of with long-running tools elsewhere, where no other test here is about it.

`tests/mcp/test_promises.py` says which test answers which complaint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError
from mcp.shared.subscriptions import ResourcesListChanged
from mcp_types import ErrorData

from flux import pause, workflow
from flux_mcp_server.__main__ import read_options
from flux_mcp_server.catalog import Catalog
from tests.mcp.serving import ERAS, PATIENCE, Era, client_of, data_of, lines, serving, stdio, stdio_parameters, written
from tests.mcp.test_http import HELLO_HEADERS, SERVED, http_server, request, session
from tests.mcp.test_stdio import answer, process, send
from tests.tasks.mcp.servers import free_port

pytestmark = pytest.mark.anyio

SHORTEST = 60  # seconds after which the least patient clients give up


@pytest.mark.one_server
def test_a_call_ends_before_the_least_patient_client_gives_up_and_that_can_be_less() -> None:
    assert read_options([], {}).wait < SHORTEST
    assert read_options(["--wait", "25"], {}).wait == 25
    (wait,) = [tool.input_schema["properties"] for tool in Catalog([]).tools if tool.name == "get_execution"]
    assert wait["wait_seconds"]["maximum"] < SHORTEST


@pytest.mark.one_server
@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_is_stuck_keeps_no_other_waiting(era: Era, tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    async with stdio(stdio_parameters(SERVED, folder=tmp_path, env={"TRACE": str(trace)}), era) as client:
        await client.list_tools()
        stuck = asyncio.create_task(client.call_tool("busy_thread"))
        await written(trace)
        async with asyncio.timeout(PATIENCE):
            assert data_of(await client.call_tool("noisy")) == {"result": "quiet"}
            running = data_of(await client.call_tool("list_executions", {"status": "running"}))["executions"]
            await client.call_tool("cancel_execution", {"execution_id": running[0]["execution_id"]})
            assert (await stuck).is_error, "cancelled, although its thread listens to nobody"


@pytest.mark.needs_session
async def test_the_answer_to_a_long_call_begins_at_once(tmp_path: Path) -> None:
    """A proxy, or a client's HTTP library, does not wait for ever for the first byte."""
    there = tmp_path / "there"
    meta: dict[str, Any] = {
        "progressToken": 1,
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    today = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "wait_for"}
    call = request("tools/call", {"name": "wait_for", "arguments": {"input": str(there)}, "_meta": meta})
    with http_server(tmp_path) as (_, url), session(url) as older:
        for client in (httpx.Client(headers={**HELLO_HEADERS, **today}, timeout=PATIENCE), older):
            with client.stream("POST", url, json=call) as answer:
                began = time.monotonic()
                assert answer.status_code == 200
                first = next(line for line in answer.iter_lines() if "progress" in line)
                assert "execution " in first
                assert time.monotonic() - began < PATIENCE
        there.touch()


class CannotAsk:
    """A client that says it can show forms, where it then cannot."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, context: Any, params: Any) -> ErrorData:
        self.asked += 1
        return ErrorData(code=-32600, message="no forms here")


@pytest.mark.needs_session
async def test_an_older_client_that_cannot_ask_after_all_gets_a_handle() -> None:
    @workflow
    async def asks() -> str:
        return await pause("colour", response=str)

    user = CannotAsk()
    async with serving(asks) as server, client_of(server, "legacy", elicitation=user) as client:
        handle = data_of(await client.call_tool("asks"))
        assert (handle["status"], user.asked) == ("paused", 1)
        answer = {"execution_id": handle["execution_id"], "answer": "red"}
        assert data_of(await client.call_tool("resume_asks", answer)) == {"result": "red"}


# -- servers that come and go ------------------------------------------------------------------------------------------


@pytest.mark.one_server
async def test_a_client_of_today_notices_nothing_of_a_restart(tmp_path: Path) -> None:
    port = str(free_port())
    with http_server(tmp_path, "--port", port) as (first, url):
        async with Client(url, mode="2026-07-28", cache=None) as client:
            handle = data_of(await client.call_tool("approve", {"input": "A1"}))
            first.kill()
            first.wait(PATIENCE)
            with http_server(tmp_path, "--port", port):
                answer = {"execution_id": handle["execution_id"], "answer": {"approved": True}}
                assert data_of(await client.call_tool("resume_approve", answer)) == {"result": "shipped A1"}
    assert lines(tmp_path / "trace.txt") == ["reserve A1", "ship A1"]


@pytest.mark.one_server
def test_an_older_client_is_told_after_a_restart_that_its_session_is_gone(tmp_path: Path) -> None:
    port = str(free_port())
    with http_server(tmp_path, "--port", port) as (first, url), session(url) as client:
        first.kill()
        first.wait(PATIENCE)
        with http_server(tmp_path, "--port", port):
            gone = client.post(url, json=request("tools/list", {}))
            assert (gone.status_code, gone.json()["error"]["message"]) == (404, "Session not found")
            with session(url) as again:
                assert again.post(url, json=request("tools/list", {})).status_code == 200


@pytest.mark.one_server
def test_a_probe_is_answered_at_once_and_runs_no_workflow(tmp_path: Path) -> None:
    """As the first line a client of today writes, which may only want to know the version."""
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    trace = tmp_path / "trace.txt"
    with process(trace) as running:
        send(running, "server/discover", {"_meta": meta}, id=1)
        assert answer(running, 1)["supportedVersions"] == ["2026-07-28"]
    assert lines(trace) == []


@asynccontextmanager
async def listening(url: str) -> AsyncGenerator[Any]:
    async with (
        Client(url, mode="2026-07-28", cache=None) as client,
        client.listen(resources_list_changed=True) as changes,
    ):
        yield changes


async def test_a_server_without_sessions_keeps_its_listeners(tmp_path: Path) -> None:
    """They would come back, and back again, if their stream ended at once."""
    with http_server(tmp_path, "--stateless") as (_, url):
        async with listening(url) as changes, Client(url, mode="2026-07-28") as other:
            for order in ("A1", "A2"):
                await other.call_tool("approve", {"input": order})
                async with asyncio.timeout(PATIENCE):
                    assert isinstance(await anext(changes), ResourcesListChanged)


@pytest.mark.one_server
async def test_a_timed_out_call_takes_no_other_with_it(tmp_path: Path) -> None:
    trace, there = tmp_path / "trace.txt", tmp_path / "there"
    async with stdio(stdio_parameters(SERVED, folder=tmp_path, env={"TRACE": str(trace)})) as client:
        await client.list_tools()
        other = asyncio.create_task(client.call_tool("wait_for", {"input": str(there)}))
        await written(trace)
        with pytest.raises(MCPError, match=r"[Tt]imed out"):
            await client.call_tool("wait_for", {"input": f"{there}-not"}, read_timeout_seconds=0.2)
        there.touch()
        assert data_of(await asyncio.wait_for(other, PATIENCE)) == {"result": "shipped it"}

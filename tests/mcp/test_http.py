"""A real server over streamable HTTP, in both eras."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError
from mcp_types import ElicitResult

from tests.mcp import serving
from tests.mcp.proxy import proxy
from tests.mcp.serving import ERAS, PATIENCE, SOON, Era, data_of, lines, stdio_parameters, written

pytestmark = pytest.mark.anyio

SERVED = Path(__file__).with_name("served.py")
FLOWS = """
import sys
from flux import workflow
from flux.tasks.mcp import mcp

@workflow
async def through_a_child() -> str:
    async with mcp([sys.executable, "-m", "flux_mcp_server", {served!r}, "--database", "child.db"], name="child") as client:
        return (await (await client.discover()).approve(input="A1"))["result"]
"""
HELLO_HEADERS = {"Accept": "application/json, text/event-stream"}


@contextmanager
def http_server(folder: Path, *more: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """The process and its URL. Where there are replicas: one of them, and the URL of the proxy before them."""
    if serving.REPLICAS is None:
        with process(folder, *more) as running:
            yield running, url_of(running)
        return
    replicas = serving.REPLICAS
    how = [*more, "--database", replicas.database, *([] if replicas.keep_sessions else ["--stateless"])]
    with two_servers(folder, *how) as (first, *urls), proxy(urls, keeps_sessions=replicas.keep_sessions) as url:
        yield first, url


@contextmanager
def two_servers(folder: Path, *more: str) -> Generator[tuple[subprocess.Popen[str], str, str]]:
    """The first process, and the URL of each."""
    with process(folder, *more) as first, process(folder, *more) as second:
        yield first, url_of(first), url_of(second)


@contextmanager
def process(folder: Path, *more: str, served: Path = SERVED) -> Generator[subprocess.Popen[str]]:
    server = stdio_parameters(
        *(served, "--transport", "http", "--port", "0", *more), folder=folder, env={"TRACE": str(folder / "trace.txt")}
    )
    running = subprocess.Popen(
        [server.command, *server.args], cwd=server.cwd, env=server.env, stderr=subprocess.PIPE, text=True
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def url_of(running: subprocess.Popen[str]) -> str:
    assert running.stderr is not None
    for line in running.stderr:
        found = re.search(r"https?://\S+", line)
        if found:
            return found[0]
    raise AssertionError("the server has not started")


@pytest.mark.needs_session
@pytest.mark.parametrize("era", ERAS)
async def test_a_workflow_asks_over_http_and_finishes(era: Era, tmp_path: Path) -> None:
    async def say_yes(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approved": True})

    with http_server(tmp_path) as (_, url):
        async with Client(url, mode=era, elicitation_callback=say_yes) as client:
            assert "approve" in {tool.name for tool in (await client.list_tools()).tools}
            assert data_of(await client.call_tool("approve", {"input": "A1"})) == {"result": "shipped A1"}


@pytest.mark.one_server
async def test_a_workflow_behind_http_uses_a_server_that_is_its_child(tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS.format(served=str(SERVED)))

    async def say_yes(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approved": True})

    with process(tmp_path, served=tmp_path / "flows.py") as running:
        async with Client(url_of(running), elicitation_callback=say_yes) as client:
            assert data_of(await client.call_tool("through_a_child")) == {"result": "shipped A1"}


@pytest.mark.needs_session
@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_was_lost_over_http_is_joined(era: Era, tmp_path: Path) -> None:
    trace, there = tmp_path / "trace.txt", tmp_path / "there"
    with http_server(tmp_path) as (_, url):
        async with Client(url, mode=era) as client:
            with pytest.raises(MCPError):
                await client.call_tool("wait_for", {"input": str(there)}, read_timeout_seconds=0.3)
            await written(trace)
        there.touch()
        async with Client(url, mode=era) as client:
            assert data_of(await client.call_tool("wait_for", {"input": str(there)})) == {"result": "shipped it"}
    assert lines(trace) == ["waiting", "seen", "ship it"]


@pytest.mark.needs_session
def test_a_client_of_the_older_protocol_that_died_is_noticed(tmp_path: Path) -> None:
    trace, there = tmp_path / "trace.txt", tmp_path / "there"
    call = {"name": "wait_for", "arguments": {"input": str(there)}}
    with http_server(tmp_path) as (_, url):
        with session(url) as client, client.stream("POST", url, json=request("tools/call", call)):
            while not lines(trace):
                pass
        with session(url) as client:
            there.touch()
            assert "shipped it" in client.post(url, json=request("tools/call", call)).text
    assert lines(trace) == ["waiting", "seen", "ship it"]


@contextmanager
def session(url: str) -> Generator[httpx.Client]:
    client = {"name": "test", "version": "0"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    with httpx.Client(headers=HELLO_HEADERS, timeout=PATIENCE) as http:
        answered = http.post(url, json=request("initialize", hello))
        http.headers["Mcp-Session-Id"] = answered.headers["Mcp-Session-Id"]
        http.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield http


def request(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.mark.one_server
def test_foreign_hosts_and_origins_are_refused(tmp_path: Path) -> None:
    with http_server(tmp_path) as (_, url):
        asked = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        accept = {"Accept": "application/json, text/event-stream"}
        assert httpx.post(url, json=asked, headers={**accept, "Host": "evil.example"}).status_code == 421
        assert httpx.post(url, json=asked, headers={**accept, "Origin": "http://evil.example"}).status_code == 403


@pytest.mark.one_server
def test_white_space_behind_a_header_is_no_part_of_it(tmp_path: Path) -> None:
    meta = {"protocolVersion": "2026-07-28", "clientCapabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
    listing = request("tools/list", {"_meta": {f"io.modelcontextprotocol/{name}": each for name, each in meta.items()}})
    body = json.dumps(listing)
    with http_server(tmp_path) as (_, url), closing(HTTPConnection("127.0.0.1", port_of(url))) as line:
        line.putrequest("POST", "/mcp")
        named = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list", "Content-Type": "application/json"}
        for name, value in {**HELLO_HEADERS, **named, "Content-Length": str(len(body))}.items():
            line.putheader(name, f"{value} \t")
        line.endheaders(body.encode())
        answer = line.getresponse()
        assert (answer.status, b"approve" in answer.read()) == (200, True)


@pytest.mark.one_server
def test_sigterm_ends_it_in_seconds_although_a_client_is_connected(tmp_path: Path) -> None:
    with http_server(tmp_path) as (running, url), socket.create_connection(("127.0.0.1", port_of(url))):
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE) == 0
        assert time.monotonic() - began < SOON


@pytest.mark.one_server
def test_a_port_in_use_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = stdio_parameters(SERVED, "--transport", "http", "--port", str(port), folder=tmp_path)
        ran = subprocess.run(
            [server.command, *server.args],
            cwd=server.cwd,
            env=server.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"flux-mcp-server: cannot listen on 127.0.0.1 port {port}: Address already in use.")
    assert "Traceback" not in ran.stderr


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@pytest.mark.one_server
async def test_open_calls_may_end_while_the_server_drains(tmp_path: Path) -> None:
    there = tmp_path / "there"
    with http_server(tmp_path, "--drain", "10") as (running, url):
        async with Client(url, mode="2026-07-28", cache=None) as client:
            await client.list_tools()  # else it would ask afterwards, to check the result
            calling = asyncio.create_task(client.call_tool("wait_for", {"input": str(there)}))
            await written(tmp_path / "trace.txt")
            running.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            there.touch()
            assert data_of(await asyncio.wait_for(calling, PATIENCE)) == {"result": "shipped it"}
        assert await asyncio.to_thread(running.wait, PATIENCE) == 0


@pytest.mark.parametrize("era", ERAS)
async def test_without_sessions_questions_are_asked_in_the_result_or_are_handles(era: Era, tmp_path: Path) -> None:
    async def say_yes(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approved": True})

    with http_server(tmp_path, "--stateless") as (_, url):
        async with Client(url, mode=era, elicitation_callback=say_yes, cache=None) as client:
            data = data_of(await client.call_tool("approve", {"input": "A1"}))
            assert data.get("result" if era == "2026-07-28" else "status") in ("shipped A1", "paused")


@pytest.mark.one_server
def test_a_server_and_the_secrets_beside_its_database_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    flux = [sys.executable, "-m", "flux.cli"]
    database = ["--database", str(tmp_path / "served.db")]
    with http_server(tmp_path):
        told = subprocess.run([*flux, "secrets", "set", "token", *database], input="s3cret", text=True, check=False)
        assert told.returncode == 0
    with http_server(tmp_path):
        listed = subprocess.run([*flux, "secrets", "list", *database], capture_output=True, text=True, check=True)
    assert "token" in listed.stdout

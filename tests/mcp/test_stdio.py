"""A real server process over stdio: what reaches the wire, how it ends, and what the next one finds."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp import MCPError

from tests.mcp.serving import ERAS, PATIENCE, SOON, Era, data_of, lines, stdio, stdio_parameters, text_of, written

pytestmark = pytest.mark.anyio

SERVED = Path(__file__).with_name("served.py")


HELLO: dict[str, Any] = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "0"},
}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.txt"


def parameters(trace: Path, *more: str) -> Any:
    return stdio_parameters(SERVED, *more, folder=trace.parent, env={"TRACE": str(trace)})


def servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "flux_mcp_server" in child.cmdline()]


@pytest.mark.parametrize("era", ERAS)
async def test_tools_are_listed_and_called(era: Era, trace: Path) -> None:
    async with stdio(parameters(trace), era) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"approve", "resume_approve", "wait_for", "noisy", "list_workflows"} <= names
        assert data_of(await client.call_tool("noisy")) == {"result": "quiet"}


@pytest.mark.parametrize("era", ERAS)
async def test_after_kill_9_at_a_question_a_new_server_takes_the_answer(era: Era, trace: Path) -> None:
    handle: dict[str, Any] = {}
    with contextlib.suppress(anyio.BrokenResourceError, MCPError):  # our end of the connection
        async with stdio(parameters(trace), era) as client:
            handle = data_of(await client.call_tool("approve", {"input": "A1"}))
            (server,) = servers()
            server.kill()
            await anyio.to_thread.run_sync(server.wait, PATIENCE)
    assert handle["status"] == "paused"
    async with stdio(parameters(trace), era) as client:
        resumed = {"execution_id": handle["execution_id"], "answer": {"approved": True}}
        assert data_of(await client.call_tool("resume_approve", resumed)) == {"result": "shipped A1"}
    assert lines(trace) == ["reserve A1", "ship A1"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_its_client_gave_up_is_joined_by_the_same_call(era: Era, trace: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    async with stdio(parameters(trace), era) as client:
        await client.list_tools()  # the server is up
        with pytest.raises(MCPError, match=r"[Tt]imed out"):
            await client.call_tool("wait_for", {"input": str(there)}, read_timeout_seconds=0.3)
        await written(trace)

        async def joined(progress: float, total: float | None, message: str | None) -> None:
            there.touch()

        again = await client.call_tool("wait_for", {"input": str(there)}, progress_callback=joined)
        assert data_of(again) == {"result": "shipped it"}
    assert lines(trace) == ["waiting", "seen", "ship it"]


async def test_a_file_that_cannot_be_imported_is_told_and_the_others_serve(trace: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("from flux import workflow\nraise RuntimeError('not today')\n", "utf-8")
    async with stdio(parameters(trace, str(broken))) as client:
        listed = data_of(await client.call_tool("list_workflows"))
        assert "approve" in {row["name"] for row in listed["workflows"]}
        (problem,) = listed["problems"]
        assert problem["file"] == str(broken)
        assert "not today" in problem["error"]


async def test_two_servers_on_one_database_work_side_by_side(trace: Path) -> None:
    async with stdio(parameters(trace)) as one, stdio(parameters(trace), "2026-07-28") as other:
        handle = data_of(await one.call_tool("approve", {"input": "A1"}))
        same = data_of(await other.call_tool("approve", {"input": "A1"}))
        assert same["execution_id"] == handle["execution_id"]
        resumed = {"execution_id": handle["execution_id"], "answer": {"approved": True}}
        assert data_of(await other.call_tool("resume_approve", resumed)) == {"result": "shipped A1"}
        again = await one.call_tool("resume_approve", resumed)
        assert "is already completed" in text_of(again)


# -- the bare process --------------------------------------------------------------------------------------------------


@contextmanager
def process(trace: Path, *more: str) -> Generator[subprocess.Popen[bytes]]:
    server = parameters(trace, *more)
    with subprocess.Popen(
        [server.command, *server.args],
        cwd=server.cwd,
        env=server.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def send(running: subprocess.Popen[bytes], method: str, params: Any = None, *, id: int | None = None) -> None:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    if id is not None:
        message["id"] = id
    assert running.stdin is not None
    running.stdin.write(json.dumps(message).encode() + b"\n")
    running.stdin.flush()


def initialize(running: subprocess.Popen[bytes]) -> None:
    send(running, "initialize", HELLO, id=0)
    send(running, "notifications/initialized")
    answer(running, 0)


def answer(running: subprocess.Popen[bytes], id: int) -> Any:
    """The answer of that id; every line before it must be JSON too."""
    assert running.stdout is not None
    while line := running.stdout.readline():
        message = json.loads(line)
        if message.get("id") == id:
            return message["result"]
    raise AssertionError("the server has closed its end")


def test_nothing_that_a_workflow_prints_reaches_the_wire(trace: Path) -> None:
    with process(trace) as running:
        initialize(running)
        send(running, "tools/call", {"name": "noisy", "arguments": {}}, id=1)
        assert answer(running, 1)["structuredContent"] == {"result": "quiet"}
        out, err = running.communicate(timeout=PATIENCE)
        assert out == b""
        for said in ("an import", "a workflow", "print", "logging", "warnings", "os.write", "C", "a child"):
            assert f"from {said}" in err.decode()
        assert running.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_in_seconds_and_the_next_one_goes_on(number: signal.Signals, trace: Path) -> None:
    there = trace.with_name("there")
    with process(trace) as running:
        call_and_wait(running, trace, {"name": "wait_for", "arguments": {"input": str(there)}})
        began = time.monotonic()
        running.send_signal(number)
        assert running.wait(PATIENCE) == 0
        assert time.monotonic() - began < SOON
    there.touch()
    with process(trace):
        wait_until(lambda: lines(trace)[-1] == "ship it")
    assert lines(trace) == ["waiting", "waiting", "seen", "ship it"]


def test_a_client_that_reads_no_more_ends_the_server(trace: Path) -> None:
    with process(trace) as running:
        initialize(running)
        assert running.stdout is not None
        running.stdout.close()
        send(running, "tools/list", {}, id=1)
        assert running.wait(PATIENCE) == 0


def test_the_end_of_stdin_ends_the_server_although_a_thread_is_busy(trace: Path) -> None:
    with process(trace) as running:
        call_and_wait(running, trace, {"name": "busy_thread", "arguments": {}})
        began = time.monotonic()
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(PATIENCE) == 0
        assert time.monotonic() - began < SOON


def test_a_signal_ends_the_server_although_a_thread_is_busy_and_stdin_open(trace: Path) -> None:
    with process(trace) as running:
        call_and_wait(running, trace, {"name": "busy_thread", "arguments": {}})
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE) == 0
        assert time.monotonic() - began < SOON


def call_and_wait(running: subprocess.Popen[bytes], trace: Path, call: dict[str, Any]) -> None:
    initialize(running)
    send(running, "tools/call", call, id=1)
    wait_until(lambda: lines(trace))


def wait_until(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def test_it_works_without_a_stderr(trace: Path) -> None:
    server = parameters(trace)
    command = shlex.join([server.command, *server.args])
    hello = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO})
    ran = subprocess.run(
        ["sh", "-c", f"exec {command} 2>&-"],
        cwd=server.cwd,
        env=server.env,
        input=hello,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert [json.loads(line)["id"] for line in ran.stdout.splitlines()] == [0]


def test_it_works_on_files_as_well_as_on_pipes(trace: Path, tmp_path: Path) -> None:
    requests, replies = tmp_path / "requests", tmp_path / "replies"
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}
    requests.write_text(json.dumps(hello) + "\n", "utf-8")
    server = parameters(trace)
    with requests.open("rb") as given, replies.open("wb") as taken:
        subprocess.run(
            [server.command, *server.args], cwd=server.cwd, env=server.env, stdin=given, stdout=taken, timeout=PATIENCE
        )
    assert [json.loads(line)["id"] for line in lines(replies)] == [0]


@pytest.mark.parametrize("era", ERAS)
def test_requests_from_a_pipe_that_ends_are_answered(era: Era, trace: Path) -> None:
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": era,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    more: dict[str, Any] = {} if era == "legacy" else {"_meta": meta}
    asked: list[tuple[int, str, dict[str, Any]]] = [
        *([(0, "initialize", HELLO)] if era == "legacy" else []),
        (1, "tools/list", more),
        (2, "tools/call", {"name": "list_workflows", "arguments": {}, **more}),
    ]
    server = parameters(trace)
    ran = subprocess.run(
        [server.command, *server.args],
        cwd=server.cwd,
        env=server.env,
        input="".join(line_of(id, method, params) for id, method, params in asked),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert sorted(json.loads(line)["id"] for line in ran.stdout.splitlines()) == [id for id, _, _ in asked]


def line_of(id: int, method: str, params: dict[str, Any]) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}) + "\n"


PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=0, stdout=1)
sys.stderr.write(f"{child.pid}\\n")
sys.stderr.flush()
child.wait()
"""


def test_a_server_whose_parent_was_killed_parks_its_work_and_ends_although_its_pipes_are_open(trace: Path) -> None:
    server, there = parameters(trace), trace.with_name("there")
    command = [sys.executable, "-c", PARENT, server.command, *server.args]
    with subprocess.Popen(
        command, cwd=server.cwd, env=server.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        assert parent.stderr is not None
        child = psutil.Process(int(parent.stderr.readline()))
        call_and_wait(parent, trace, {"name": "wait_for", "arguments": {"input": str(there)}})
        parent.kill()
        child.wait(10)
    there.touch()
    with process(trace):
        wait_until(lambda: lines(trace)[-1] == "ship it")
    assert lines(trace) == ["waiting", "waiting", "seen", "ship it"]


def test_what_blocks_the_loop_of_a_server_is_named(trace: Path) -> None:
    with process(trace) as running:
        initialize(running)
        send(running, "tools/call", {"name": "blocks", "arguments": {}}, id=1)
        assert answer(running, 1)["structuredContent"] == {"result": "at last"}
        _, err = running.communicate(timeout=PATIENCE)
    assert "s by task 'block' of execution " in err.decode()
    assert "time.sleep(2)" in err.decode()


def test_calls_beyond_the_bound_are_refused_at_once_and_the_others_go_on(trace: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    with process(trace, "--max-calls", "1000") as running:
        initialize(running)
        for id in range(1, 1102):
            meta = {"flux/idempotencyKey": "same"}  # one execution, a thousand calls of it
            arguments = {"input": str(there)}
            send(running, "tools/call", {"name": "wait_for", "arguments": arguments, "_meta": meta}, id=id)
        refused = [reply(running) for _ in range(101)]
        assert {each["error"]["message"].split(".")[0] for each in refused} == {
            "1000 calls are under way here, which is all this server takes"
        }
        there.touch()
        done = [reply(running) for _ in range(1000)]
        assert {each["result"]["structuredContent"]["result"] for each in done} == {"shipped it"}
    assert lines(trace) == ["waiting", "seen", "ship it"]


def reply(running: subprocess.Popen[bytes]) -> Any:
    """The next answer, whatever its id."""
    assert running.stdout is not None
    while line := running.stdout.readline():
        message = json.loads(line)
        if "id" in message:
            return message
    raise AssertionError("the server has closed its end")

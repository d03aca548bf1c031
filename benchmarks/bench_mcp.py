"""What a durable call costs beside a bare one: `python benchmarks/bench_mcp.py`.

Each figure is of tools/call, made by a client of raw bytes in this process. The baseline is an echo on the SDK's low-level server,
as it comes; ours is a workflow of one step, whose result is on disk before it is told. The input of every call is another one,
so that no call joins another one's execution.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from echo import WORKFLOW
from measure import Figure, rounds

CALLS = 1500
MANY = 16  # callers
STALE = 2.0  # seconds
PYTHON = sys.executable
TODAY = "2026-07-28"
OLDER = "2025-11-25"

BARE = """
import json, sys
import anyio
import mcp_types as types
from mcp.server import Server
from mcp.server.stdio import stdio_server

SCHEMA = {"type": "object", "properties": {"input": {"type": "integer"}}, "required": ["input"]}

async def list_tools(client, params):
    return types.ListToolsResult(tools=[types.Tool(name="echo", input_schema=SCHEMA)])

async def call_tool(client, params):
    result = {"result": params.arguments["input"]}
    return types.CallToolResult(content=[types.TextContent(text=json.dumps(result))], structured_content=result)

server = Server("bare", on_list_tools=list_tools, on_call_tool=call_tool)

async def over_stdio():
    async with stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())

if len(sys.argv) > 1:
    import uvicorn
    uvicorn.run(server.streamable_http_app(), port=int(sys.argv[1]), log_level="error", http="h11", loop="asyncio")
else:
    anyio.run(over_stdio)
"""

Call = Callable[[int], Awaitable[None]]
"""One tools/call with this number, and its answer."""

_numbers = itertools.count(1)


def message(method: str, params: dict[str, Any], id: int | None = None, *, era: str) -> dict[str, Any]:
    if era == TODAY:
        meta = {"protocolVersion": TODAY, "clientCapabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        params = {**params, "_meta": {f"io.modelcontextprotocol/{name}": value for name, value in meta.items()}}
    return {"jsonrpc": "2.0", **({} if id is None else {"id": id}), "method": method, "params": params}


def call_of(number: int, *, era: str) -> dict[str, Any]:
    return message("tools/call", {"name": "echo", "arguments": {"input": number}}, number, era=era)


def initialize() -> dict[str, Any]:
    params = {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    return message("initialize", params, 0, era=OLDER)


def check(answer: dict[str, Any], number: int) -> None:
    if answer.get("result", {}).get("structuredContent") != {"result": number}:
        raise SystemExit(f"call {number} was answered with {answer}")


# -- stdio -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def over_stdio(command: list[str], era: str) -> AsyncGenerator[Call]:
    server = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert server.stdin is not None
    assert server.stdout is not None
    asking, answers = server.stdin, server.stdout
    waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def read() -> None:
        async for line in answers:
            answer = json.loads(line)
            if answer.get("id") in waiting:
                waiting.pop(answer["id"]).set_result(answer)

    async def ask(asked: dict[str, Any]) -> dict[str, Any]:
        waiting[asked["id"]] = answered = asyncio.get_running_loop().create_future()
        asking.write(json.dumps(asked).encode() + b"\n")
        return await answered

    async def call(number: int) -> None:
        check(await ask(call_of(number, era=era)), number)

    reading = asyncio.ensure_future(read())
    if era == OLDER:
        await ask(initialize())
        asking.write(json.dumps(message("notifications/initialized", {}, era=era)).encode() + b"\n")
    yield call
    asking.close()
    await server.wait()
    await reading


# -- HTTP --------------------------------------------------------------------------------------------------------------


@dataclass
class Connections:
    """Connections to one server that stay open, one for each call under way."""

    port: int
    era: str
    session: str | None = None
    _free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = field(
        default_factory=list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]]
    )

    async def post(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        body = json.dumps(asked).encode()
        reader, writer = await self._connection()
        writer.write(self._head(asked, len(body)) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "mcp-session-id: " in head:
            self.session = head.partition("mcp-session-id: ")[2].split("\r\n")[0]
        content = await self._chunks(reader) if "chunked" in head else await reader.readexactly(_length(head))
        self._free.append((reader, writer, time.monotonic()))
        return _answer(content, "text/event-stream" in head)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The one used last: servers close those that nobody uses for some seconds."""
        if self._free:
            reader, writer, used = self._free.pop()
            if time.monotonic() - used < STALE:
                return reader, writer
            self.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    def _head(self, asked: dict[str, Any], length: int) -> bytes:
        lines = [
            "POST /mcp HTTP/1.1",
            f"host: 127.0.0.1:{self.port}",
            "content-type: application/json",
            "accept: application/json, text/event-stream",
            f"content-length: {length}",
            f"mcp-protocol-version: {self.era}",
        ]
        if self.era == TODAY:
            lines += [f"mcp-method: {asked['method']}", f"mcp-name: {asked['params'].get('name', '')}"]
        if self.session is not None:
            lines.append(f"mcp-session-id: {self.session}")
        return "\r\n".join([*lines, "", ""]).encode()

    @staticmethod
    async def _chunks(reader: asyncio.StreamReader) -> bytes:
        content = b""
        while size := int(await reader.readline(), 16):
            content += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return content

    def close(self) -> None:
        while self._free:
            self._free.pop()[1].close()


def _length(head: str) -> int:
    return int(head.partition("content-length: ")[2].split("\r\n")[0])


def _answer(content: bytes, is_stream: bool) -> dict[str, Any] | None:
    if not is_stream:
        return json.loads(content) if content else None
    found = [json.loads(line[5:]) for line in content.splitlines() if line.startswith(b"data:") and len(line) > 6]
    return next(each for each in found if "id" in each)


@asynccontextmanager
async def over_http(command: list[str], port: int, era: str) -> AsyncGenerator[Call]:
    server = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    connections = Connections(port, era)
    await _until_open(port)

    async def call(number: int) -> None:
        answer = await connections.post(call_of(number, era=era))
        assert answer is not None
        check(answer, number)

    if era == OLDER:
        await connections.post(initialize())
        await connections.post(message("notifications/initialized", {}, era=era))
    yield call
    connections.close()
    server.terminate()
    await server.wait()


async def _until_open(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise SystemExit(f"no server answers on port {port}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# -- measuring ---------------------------------------------------------------------------------------------------------


async def calls_of(call: Call, callers: int, count: int) -> list[float]:
    """Seconds that each of `count` calls took, made by so many callers."""
    taken: list[float] = []

    async def caller() -> None:
        for _ in range(count // callers):
            began = time.perf_counter()
            await call(next(_numbers))
            taken.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return taken


async def measured(call: Call, how: str, *, is_ours: bool) -> list[Figure]:
    """Calls a second of one caller and of many, and how long the slowest of a hundred takes."""
    await calls_of(call, MANY, 20 * MANY)
    figures: list[Figure] = []
    for callers, called in ((1, "1 caller"), (MANY, f"{MANY} callers")):
        began = time.perf_counter()
        taken = sorted(await calls_of(call, callers, CALLS))
        rate, slow = len(taken) / (time.perf_counter() - began), 1000 * taken[len(taken) * 99 // 100]
        figures.append(_beside_echo(Figure(f"{how}, {called}", rate), is_ours=is_ours))
        figures.append(_beside_echo(Figure(f"{how}, {called}, p99", slow, "ms"), is_ours=is_ours))
    return figures


def _beside_echo(figure: Figure, *, is_ours: bool) -> Figure:
    echo = f"{figure.name}, bare echo"
    return replace(figure, of=echo) if is_ours else replace(figure, name=echo)


async def all_ways(folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    bare = [PYTHON, str(folder / "bare.py")]
    ours = [PYTHON, "-m", "flux_mcp_server", str(folder / "flows.py"), "--database", str(folder / "flux.db")]
    for era in (TODAY, OLDER):
        for command in (bare, ours):
            async with over_stdio(command, era) as call:
                figures += await measured(call, f"stdio {era}", is_ours=command is ours)
        for command, options in ((bare, []), (ours, ["--transport", "http", "--port"])):
            port = free_port()
            async with over_http([*command, *options, str(port)], port, era) as call:
                figures += await measured(call, f"HTTP {era}", is_ours=command is ours)
    return figures


def one_round(folder: Path) -> list[Figure]:
    (folder / "bare.py").write_text(BARE, "utf-8")
    (folder / "flows.py").write_text(WORKFLOW, "utf-8")
    return asyncio.run(all_ways(folder))


if __name__ == "__main__":
    rounds("A durable call beside a bare one", one_round)

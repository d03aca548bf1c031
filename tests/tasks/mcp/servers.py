"""Servers of every kind for the tests: small ones in memory, over stdio and over HTTP, good and bad."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp import MCPError
from mcp.server import Server
from mcp.server.context import ServerRequestContext

Context = ServerRequestContext[Any, Any]
Reply = types.CallToolResult | types.InputRequiredResult | dict[str, Any]
Handler = Callable[[Context, types.CallToolRequestParams], Awaitable[Reply]]

PATIENCE = 20.0
ERAS = ["2026-07-28", "legacy"]
OBJECT: dict[str, Any] = {"type": "object"}
NAME_FORM: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def text(said: str, **more: Any) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=said)], **more)


def schema(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


@dataclass
class Small:
    """A server whose tools are functions; `calls` is what it was asked to do, `meta` what came along."""

    name: str = "small"
    tools: dict[str, types.Tool] = field(default_factory=dict[str, types.Tool])
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    metas: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    lists: int = 0
    opened: int = 0
    open: int = 0

    def __post_init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def tool(
        self,
        name: str,
        input_schema: dict[str, Any] | None = None,
        *,
        output_schema: dict[str, Any] | None = None,
        safe: bool = False,
    ) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            annotations = types.ToolAnnotations(idempotent_hint=True) if safe else None
            self.tools[name] = types.Tool(
                name=name,
                description=f"Does {name}",
                input_schema=input_schema or OBJECT,
                output_schema=output_schema,
                annotations=annotations,
            )
            self._handlers[name] = handler
            return handler

        return add

    async def _list(self, ctx: Context, params: Any) -> types.ListToolsResult:
        self.lists += 1
        return types.ListToolsResult(tools=list(self.tools.values()))

    async def _call(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        self.calls.append((params.name, params.arguments or {}))
        self.metas.append(dict(ctx.meta or {}))
        if params.name not in self._handlers:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        return await self._handlers[params.name](ctx, params)

    @property
    def server(self) -> Server[Any]:
        return Server(
            self.name,
            version="1",
            on_list_tools=self._list,
            on_call_tool=self._call,
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, server: Server[Any]) -> AsyncGenerator[None]:
        self.opened += 1
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


def adder(name: str = "small") -> Small:
    """A server with one tool, `add`, which may be called twice."""
    small = Small(name)

    @small.tool("add", schema("a", "b", a={"type": "integer"}, b={"type": "integer"}), safe=True)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        given = params.arguments or {}
        return text("sum", structured_content={"sum": given["a"] + given["b"]})

    return small


async def until(so: Callable[[], bool]) -> None:
    """For what no event tells: another process, a server of somebody else."""
    with anyio.fail_after(PATIENCE):
        while not so():  # noqa: ASYNC110 - see above
            await anyio.sleep(0.01)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@asynccontextmanager
async def over_http(app: Any, port: int | None = None) -> AsyncGenerator[str]:
    """The address of an ASGI app on a free port."""
    port = port or free_port()
    config = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.should_exit = True
        await serving


def script(path: Path, code: str) -> list[str]:
    """The command of a server written in `code`."""
    path.write_text(code, "utf-8")
    return [sys.executable, str(path)]


STDIO = """
import anyio, json, os, sys, time
from pathlib import Path
import mcp_types as t
from mcp.server import Server
from mcp.server.stdio import stdio_server

HERE = Path(__file__).parent

def note(word):
    with (HERE / "trace").open("a") as file:
        file.write(word + "\\n")

def tool(name, **more):
    return t.Tool(name=name, input_schema={"type": "object"}, **more)

async def list_tools(ctx, params):
    safe = t.ToolAnnotations(read_only_hint=True)
    unsafe = [tool(name) for name in ("charge", "die", "big", "broken", "shut")]
    return t.ListToolsResult(tools=[tool("pid", annotations=safe), tool("look", annotations=safe), *unsafe])

async def call_tool(ctx, params):
    note(params.name)
    if params.name in ("charge", "look"):
        if not (HERE / "go").exists():
            note("waiting")
            await anyio.sleep(3600)
    if params.name == "die":
        os._exit(3)
    if params.name == "big":
        return t.CallToolResult(content=[t.TextContent(text="x" * 10_000_000)])
    if params.name == "broken":
        os.write(OUT, b'{"jsonrpc": "2.0", "id": 1, "result": {"content": [\\n')
        await anyio.sleep(3600)
    if params.name == "shut":
        pipe = os.fstat(OUT).st_ino
        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                if os.fstat(fd).st_ino == pipe:
                    os.close(fd)
            except OSError:
                pass
        await anyio.sleep(3600)
    return t.CallToolResult(content=[t.TextContent(text=str(os.getpid()))])

OUT = os.dup(1)
note("started")

async def main():
    server = Server("stdio", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

anyio.run(main)
"""


def words(folder: Path) -> list[str]:
    trace = folder / "trace"
    return trace.read_text().split() if trace.exists() else []


async def until_said(folder: Path, word: str, times: int = 1) -> None:
    await until(lambda: words(folder).count(word) >= times)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with Path(f"/proc/{pid}/stat").open() as stat:
        is_zombie = stat.read().rpartition(")")[2].split()[0] == "Z"
    return not is_zombie or len(os.listdir(f"/proc/{pid}/task")) > 1  # its threads still hold its pipes


async def until_gone(pid: int) -> None:
    await until(lambda: not is_alive(pid))

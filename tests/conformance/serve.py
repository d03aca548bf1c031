"""The server that the conformance suite is run against: ours, with the fixtures, and two tools that no user needs.

`python tests/conformance/serve.py PORT` serves until it is stopped; port 0 is any. With `--database URL`, and with `--stateless`, it is
one of several.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import socket
import sys
from pathlib import Path

from mcp_types import CallToolResult, TextContent, Tool

from flux import Flux
from flux.registry import Registry
from flux.settings import Settings
from flux_mcp_server._sdk import CallNext, Context, HandlerReply, add_middleware
from flux_mcp_server.calls import Call
from flux_mcp_server.catalog import AnyWorkflow, Catalog, Offer
from flux_mcp_server.declared import Declared, declared_by
from flux_mcp_server.http import Http, serve_http
from flux_mcp_server.running import SEAL
from flux_mcp_server.server import Served, assemble
from flux_mcp_server.stopping import stop_on_signals

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.conformance import fixtures


def workflows() -> list[AnyWorkflow]:
    from flux import Workflow  # noqa: PLC0415 - a name that must not stand among the fixtures'

    return [value for value in vars(fixtures).values() if isinstance(value, Workflow)]


def add_triggers(served: Served) -> None:
    """Two tools that say that a list has changed, which takes a change of files otherwise."""

    async def tools(call: Call) -> CallToolResult:
        await served.notices.tools_changed()
        return CallToolResult(content=[TextContent(text=call.tool)])

    async def prompts(call: Call) -> CallToolResult:
        await served.notices.prompts_changed()
        return CallToolResult(content=[TextContent(text=call.tool)])

    for name, handler in (("test_trigger_tool_change", tools), ("test_trigger_prompt_change", prompts)):
        tool = Tool(name=name, description="Say that a list has changed.", input_schema={"type": "object"})
        served.catalog.add(Offer(tool, handler, "the conformance suite", "run"))


async def close_streams(client: Context, call_next: CallNext) -> HandlerReply:
    """`test_reconnection` loses its stream, as behind a proxy that cuts."""
    name = (client.params or {}).get("name")
    if name == "test_reconnection" and client.close_sse_stream is not None:
        await client.close_sse_stream()
    return await call_next(client)


async def main(port: int, database: str, *, stateless: bool) -> None:
    logging.getLogger("flux").setLevel(logging.INFO)
    stopping = asyncio.Event()
    known = workflows()
    with stop_on_signals(stopping, then=lambda: None), socket.create_server(("127.0.0.1", port)) as listening:
        settings = Settings.load(database=database)
        async with Flux(settings=settings, workflows=Registry[AnyWorkflow](known)) as flux:
            catalog = Catalog(known, most_listed=1000)
            declared = Declared.of(declared_by(fixtures))
            secret = bytes.fromhex(await flux.agree(SEAL, secrets.token_hex(32)))
            served = assemble(flux, catalog, name="conformance", patience=30, secret=secret, declared=declared)
            add_triggers(served)
            add_middleware(served.server, close_streams)
            sys.stderr.write(f"serving at http://127.0.0.1:{listening.getsockname()[1]}/mcp\n")
            sys.stderr.flush()
            with served.logs.installed():
                how = Http(stateless=stateless)
                await serve_http(served.server, listening, host="127.0.0.1", path="/mcp", stopping=stopping, http=how)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--database", default=":memory:")
    parser.add_argument("--stateless", action="store_true")
    asked = parser.parse_args()
    asyncio.run(main(asked.port, asked.database, stateless=asked.stateless))

"""What a thousand workflows cost an MCP server: `python benchmarks/bench_catalog.py`.

The baseline lists a thousand tools that are given, over the same in-memory connection, on the SDK's low-level server as it comes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp import Client
from mcp.server import Server
from measure import Figure, rounds

from flux import Flux
from flux.discovery import discover
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.server import make_server

COUNT = 1_000
TYPES = 100  # of their inputs and outputs

HEAD = """
from dataclasses import dataclass
from flux import ExecutionContext, workflow
"""
TYPE = '''
@dataclass
class Order{type}:
    """What a customer wants."""
    customer: str
    items: list[str]
    express: bool = False

'''
FLOW = '''
@workflow
async def order_{number}(ctx: ExecutionContext[Order{type}]) -> Order{type}:
    """Fill an order of kind {number}."""
    return ctx.input
'''

Ms = float


def elapsed(began: float) -> Ms:
    return 1000 * (time.perf_counter() - began)


async def taken(work: Callable[[], Awaitable[Any]]) -> Ms:
    began = time.perf_counter()
    await work()
    return elapsed(began)


async def lists(server: Server[Any]) -> tuple[Ms, Ms]:
    """The first list of a server's life, and the next one."""
    async with Client(server, cache=None) as client:
        return await taken(client.list_tools), await taken(client.list_tools)


def bare(tools: list[types.Tool]) -> Server[Any]:
    async def list_tools(_client: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    return Server("bare", on_list_tools=list_tools)


async def measured(file: Path) -> list[Figure]:
    began = time.perf_counter()
    found = discover([str(file)])
    discovered = elapsed(began)
    began = time.perf_counter()
    catalog = Catalog(found.workflows, found.problems, most_listed=2 * COUNT)
    registered = elapsed(began)
    async with Flux(file.with_name("flux.db"), workflows=found.workflows) as flux:
        server = make_server(flux, catalog, name="bench", patience=1, secret=b"k" * 32)
        first, next_one = await lists(server)
    bare_first, bare_next = await lists(bare(list(catalog.tools)))
    return [
        Figure(f"import of {COUNT:,} workflows", discovered, "ms"),
        Figure("their registration as tools", registered, "ms"),
        Figure("first tools/list, bare", bare_first, "ms"),
        Figure("first tools/list", first, "ms", of="first tools/list, bare"),
        Figure("next tools/list, bare", bare_next, "ms"),
        Figure("next tools/list", next_one, "ms", of="next tools/list, bare"),
    ]


def one_round(folder: Path) -> list[Figure]:
    file = folder / "flows.py"
    orders = [TYPE.format(type=type) for type in range(TYPES)]
    flows = [FLOW.format(number=number, type=number % TYPES) for number in range(COUNT)]
    file.write_text("".join([HEAD, *orders, *flows]), "utf-8")
    return asyncio.run(measured(file))


if __name__ == "__main__":
    rounds("A thousand workflows", one_round)

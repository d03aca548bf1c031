"""What the tests of the server share: clients of both protocol eras, in memory and on real servers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, cast

import anyio
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.session import ElicitationFnT
from mcp.server import Server
from mcp_types import CallToolResult, ResourceLink, TextContent

from flux import Flux, Workflow
from flux.discovery import Problem
from flux.stores.memory import MemoryStore
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.server import make_server

Era = Literal["legacy", "2026-07-28"]
ERAS: list[Era] = ["legacy", "2026-07-28"]
PATIENCE = 20.0  # seconds for whatever a loaded machine may delay
NOWHERE = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the tests run
SECRET = b"k" * 32


@asynccontextmanager
async def serving(
    *workflows: Workflow[Any, Any],
    flux: Flux | None = None,
    patience: float = 30,
    problems: list[Problem] | None = None,
) -> AsyncGenerator[Server[Any]]:
    """A server in memory, on an engine of its own unless one is given."""
    if flux is not None:
        yield make_server(flux, Catalog(workflows, problems or []), name="test", patience=patience, secret=SECRET)
        return
    async with (
        Flux(store=MemoryStore(), workflows=workflows) as own,
        serving(*workflows, flux=own, patience=patience, problems=problems) as server,
    ):
        yield server


@asynccontextmanager
async def client_of(
    server: Server[Any], era: Era, *, elicitation: ElicitationFnT | None = None
) -> AsyncGenerator[Client]:
    async with Client(server, mode=era, elicitation_callback=elicitation, cache=None) as client:
        yield client


def text_of(result: CallToolResult) -> str:
    """The text of the result, which has no other; a link may go with it."""
    (block,) = [block for block in result.content if not isinstance(block, ResourceLink)]
    assert isinstance(block, TextContent)
    return block.text


def data_of(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, text_of(result)
    content: Any = result.structured_content
    assert isinstance(content, dict)
    return cast("dict[str, Any]", content)


def stdio_parameters(
    *arguments: str | Path, folder: Path, env: Mapping[str, str] | None = None
) -> StdioServerParameters:
    """A real server process, with its database in `folder` unless the arguments name another."""
    database = [] if "--database" in arguments else ["--database", str(folder / "served.db")]
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "flux_mcp_server", *map(str, arguments), *database],
        env={**os.environ, **(env or {})},
        cwd=folder,
    )


@asynccontextmanager
async def stdio(parameters: StdioServerParameters, era: Era = "legacy", **options: Any) -> AsyncGenerator[Client]:
    transport = stdio_client(parameters, errlog=NOWHERE)
    async with Client(transport, mode=era, cache=None, **options) as client:
        yield client


async def written(path: Path) -> None:
    """Return once another process has written to the file."""
    with anyio.fail_after(PATIENCE):
        while not lines(path):  # noqa: ASYNC110 - another process has no event for us
            await anyio.sleep(0.02)


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

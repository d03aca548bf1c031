"""What the tests of the server share: clients of both protocol eras, in memory and on real servers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import anyio
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.session import ElicitationFnT
from mcp.server import Server
from mcp_types import CallToolResult, ResourceLink, TextContent

from flux import Flux, Workflow
from flux.settings import Settings
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.server import assemble
from tests.mcp.replicas import Replicas

Era = Literal["legacy", "2026-07-28"]
ERAS: list[Era] = ["legacy", "2026-07-28"]
PATIENCE = 20.0  # seconds for whatever a loaded machine may delay
SOON = 10.0  # seconds, for what must not take much longer than it does
REPLICAS: Replicas | None = None
"""Where the test is run with two servers: see conftest.py."""
NOWHERE = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the tests run
SECRET = b"k" * 32


@asynccontextmanager
async def engine(
    *workflows: Workflow[Any, Any], database: str | Path = ":memory:", retention_days: float | None = None
) -> AsyncGenerator[Flux]:
    """On the database of the replicas, where there are two."""
    url = str(database) if REPLICAS is None else REPLICAS.database
    settings = Settings.load(database=url, retention_days=retention_days)
    async with AsyncExitStack() as stack:
        if REPLICAS is not None and REPLICAS.worker:
            await stack.enter_async_context(Flux(settings=settings, workflows=workflows))
            settings = replace(settings, concurrency=0)
        yield await stack.enter_async_context(Flux(settings=settings, workflows=workflows))


@asynccontextmanager
async def serving(
    *workflows: Workflow[Any, Any],
    flux: Flux | None = None,
    patience: float = 30,
    catalog: Catalog | None = None,
) -> AsyncGenerator[Server[Any] | str]:
    """A server in memory, on an engine of its own unless one is given; or the URL of two, of which the other has the same settings."""
    async with AsyncExitStack() as stack:
        engines = [flux or await stack.enter_async_context(engine(*workflows))]
        if REPLICAS is not None:
            engines.append(await stack.enter_async_context(Flux(settings=engines[0].settings, workflows=workflows)))
        known = catalog or Catalog(workflows)
        servers = [assemble(each, known, name="test", patience=patience, secret=SECRET) for each in engines]
        if REPLICAS is None:
            yield servers[0].server
        else:
            yield await stack.enter_async_context(REPLICAS.behind_a_proxy(servers))


@asynccontextmanager
async def client_of(
    server: Server[Any] | str, era: Era, *, elicitation: ElicitationFnT | None = None
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

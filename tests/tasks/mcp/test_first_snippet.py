"""The first users' own code for a server's tools, as they wrote it, against our own server over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flux import Flux
from flux.discovery import discover
from tests.mcp.test_http import http_server

pytestmark = pytest.mark.anyio

SNIPPET = """
from flux.tasks.mcp import mcp
from flux import workflow

@workflow
async def asks():
    async with mcp("http://localhost:8080/mcp", name="server") as client:
        tools = await client.discover()
        result = await tools.list_workflows()
    return result
"""


async def test_the_tools_of_a_server_are_discovered_and_called_as_the_first_snippet_has_it(
    flux: Flux, tmp_path: Path
) -> None:
    with http_server(tmp_path) as (_, url):
        (tmp_path / "snippet.py").write_text(SNIPPET.replace("http://localhost:8080/mcp", url))
        (asks,) = discover([str(tmp_path / "snippet.py")]).workflows
        done: Any = await flux.run(asks)
    assert "approve" in {each["name"] for each in done.output["workflows"]}, done.error
    names = [event.name for event in (await flux.get(done.execution_id, events=True)).events if event.name]
    assert {"mcp_server_discover", "mcp_server_list_workflows"} <= set(names)

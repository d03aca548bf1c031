"""`--reload`, and the loop that stands still."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged
from mcp_types import ToolListChangedNotification

from flux import ExecutionContext, Flux, task, workflow
from flux.engine.watchdog import watched_loop
from flux.tasks import parallel
from tests.mcp.serving import data_of, stdio, stdio_parameters, text_of

pytestmark = pytest.mark.anyio

FILE = """
from flux import ExecutionContext, workflow
from flux_mcp_server import prompt

@workflow
async def {name}(ctx: ExecutionContext[str]) -> str:
    return "{said} " + ctx.input

@prompt()
def about() -> str:
    return "{said}"
"""


def write(path: Path, name: str, said: str) -> None:
    path.write_text(FILE.format(name=name, said=said), "utf-8")


async def names(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def test_a_change_of_a_file_is_served_and_clients_are_told(tmp_path: Path) -> None:
    path = tmp_path / "flows.py"
    write(path, "first", "old")
    changed = asyncio.Event()

    async def hear(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            changed.set()

    async with stdio(stdio_parameters(path, "--reload", folder=tmp_path), message_handler=hear) as client:
        assert "first" in await names(client)
        assert text_of(await client.call_tool("first", {"input": "x"})) == "old x"
        write(path, "second", "newer")
        await asyncio.wait_for(changed.wait(), 20)
        assert await names(client) >= {"second"}
        assert "first" not in await names(client)
        assert text_of(await client.call_tool("second", {"input": "x"})) == "newer x"
        changed.clear()
        path.write_text("this is no Python", "utf-8")
        await asyncio.wait_for(changed.wait(), 20)
        problems = data_of(await client.call_tool("list_workflows"))["problems"]
        assert "SyntaxError" in problems[0]["error"]
        assert text_of(await client.call_tool("second", {"input": "y"})) == "newer y"


async def test_a_client_of_today_that_listens_is_told_too(tmp_path: Path) -> None:
    path = tmp_path / "flows.py"
    write(path, "first", "old")
    async with stdio(stdio_parameters(path, "--reload", folder=tmp_path), "2026-07-28") as client:
        assert "first" in await names(client)
        async with client.listen(tools_list_changed=True, prompts_list_changed=True) as changes:
            write(path, "second", "newer")
            async with asyncio.timeout(20):
                assert {type(await anext(changes)) for _ in range(2)} == {ToolsListChanged, PromptsListChanged}
        assert await names(client) >= {"second"}


async def test_what_blocks_the_loop_is_named_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with watched_loop(patience=0.1) as watchdog:
        await asyncio.sleep(0.15)
        assert watchdog.said == 0
        time.sleep(0.5)  # noqa: ASYNC251 - this is what the test is about
        await asyncio.sleep(0.01)
    assert watchdog.said == 1
    assert "the event loop has been blocked" in caplog.text
    assert f"{os.path.basename(__file__)}" in caplog.text
    assert "time.sleep(0.5)" in caplog.text


async def test_what_blocks_the_loop_is_named_with_its_task_and_execution(
    flux: Flux, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    async def crunch() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 - this is what the test is about

    @workflow
    async def crunches(ctx: ExecutionContext[str]) -> None:
        if ctx.input == "in a task":
            await parallel(crunch())
        else:
            time.sleep(0.3)  # noqa: ASYNC251 - the same

    caplog.set_level(logging.WARNING)
    async with watched_loop(patience=0.1):
        await asyncio.sleep(0.15)
        one = await flux.run(crunches, "in a task")
        other = await flux.run(crunches, "in the body")
    assert f"by task 'crunch' of execution {one.execution_id} (crunches):" in caplog.text
    assert f"by the body of workflow 'crunches', execution {other.execution_id}:" in caplog.text

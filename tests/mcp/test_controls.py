"""The six tools that every server has."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, pause, task, workflow
from flux.discovery import Problem
from flux_mcp_server import controls
from flux_mcp_server.catalog import Catalog
from tests.mcp.serving import ERAS, Era, client_of, data_of, serving, text_of

pytestmark = pytest.mark.anyio

SIX = {
    "list_workflows",
    "get_execution",
    "list_executions",
    "pause_execution",
    "resume_execution",
    "cancel_execution",
}


@workflow
async def echo(ctx: ExecutionContext[Any]) -> Any:
    """Say it back."""
    return ctx.input


@workflow
async def asks(ctx: ExecutionContext[str]) -> str:
    return await pause("which", response=str)


@workflow
async def breaks() -> None:
    raise ValueError("on purpose")


@pytest.mark.parametrize("era", ERAS)
async def test_the_six_are_there_with_schemas_descriptions_and_hints(era: Era) -> None:
    async with serving() as server, client_of(server, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == SIX
        for tool in tools.values():
            assert tool.description
            assert tool.output_schema is not None
            assert tool.output_schema["type"] == "object"
            assert tool.annotations is not None
        reading = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
        assert reading == {"list_workflows", "get_execution", "list_executions"}
        assert [name for name, t in tools.items() if t.annotations and t.annotations.destructive_hint] == [
            "cancel_execution"
        ]


@pytest.mark.parametrize("era", ERAS)
async def test_list_workflows_names_tools_and_files_that_are_broken(era: Era) -> None:
    problems = [Problem(path=Path("broken.py"), summary="NameError: name 'x' is not defined (broken.py:1)")]
    async with serving(echo, asks, catalog=Catalog([echo, asks], problems)) as server, client_of(server, era) as client:
        await client.list_tools()
        listed = data_of(await client.call_tool("list_workflows"))
        rows = {row["name"]: row for row in listed["workflows"]}
        assert rows["echo"]["description"] == "Say it back."
        assert rows["asks"]["resume_tool"] == "resume_asks"
        assert listed["problems"] == [{"file": "broken.py", "error": problems[0].summary}]


@pytest.mark.parametrize("era", ERAS)
async def test_get_execution_tells_how_it_ended(era: Era) -> None:
    async with serving(echo, breaks) as server, client_of(server, era) as client:
        await client.list_tools()
        done = await client.call_tool("echo", {"input": {"a": 1}})
        failed = await client.call_tool("breaks")
        seen = [
            data_of(await client.call_tool("get_execution", {"execution_id": (result.meta or {})["flux/executionId"]}))
            for result in (done, failed)
        ]
        assert (seen[0]["status"], seen[0]["output"]) == ("completed", {"a": 1})
        assert (seen[1]["status"], seen[1]["error"]) == ("failed", "ValueError: on purpose")


async def test_executions_are_listed_newest_first_by_pages_and_by_what_they_are() -> None:
    async with serving(echo, asks) as server, client_of(server, "legacy") as client:
        for number in range(3):
            await client.call_tool("echo", {"input": number})
        await client.call_tool("asks", {"input": ""})
        first = data_of(await client.call_tool("list_executions", {"limit": 3}))
        second = data_of(await client.call_tool("list_executions", {"limit": 3, "before": first["before"]}))
        assert [row["workflow"] for row in first["executions"]] == ["asks", "echo", "echo"]
        assert [row["workflow"] for row in second["executions"]] == ["echo"]
        assert "before" not in second
        paused = data_of(await client.call_tool("list_executions", {"status": "paused"}))
        assert [row["workflow"] for row in paused["executions"]] == ["asks"]
        wrong = await client.call_tool("list_executions", {"before": "yesterday"})
        assert "before: should be what an earlier list_executions gave" in text_of(wrong)


async def test_an_execution_is_stopped_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "STOP_WITHIN", 0)
    entered, gate = asyncio.Event(), asyncio.Event()

    @task
    async def wait() -> None:
        entered.set()
        await gate.wait()

    @task
    async def finish() -> str:
        return "finished"

    @workflow
    async def steps() -> str:
        await wait()
        return await finish()

    async with serving(steps, patience=0.05) as server, client_of(server, "legacy") as client:
        id = data_of(await client.call_tool("steps"))["execution_id"]
        await asyncio.wait_for(entered.wait(), 10)
        assert data_of(await client.call_tool("pause_execution", {"execution_id": id}))["status"] == "running"
        gate.set()
        stopped = data_of(await client.call_tool("get_execution", {"execution_id": id, "wait_seconds": 10}))
        assert stopped["status"] == "suspended"
        assert "call resume_execution" in stopped["next"]
        await client.call_tool("resume_execution", {"execution_id": id})
        done = data_of(await client.call_tool("get_execution", {"execution_id": id, "wait_seconds": 10}))
        assert done["output"] == "finished"


async def test_resume_execution_answers_any_question() -> None:
    async with serving(asks) as server, client_of(server, "legacy") as client:
        await client.list_tools()
        id = data_of(await client.call_tool("asks", {"input": ""}))["execution_id"]
        wrong = await client.call_tool("resume_execution", {"execution_id": id, "answer": 3})
        assert "The answer to pause 'which' does not fit" in text_of(wrong)
        done = data_of(await client.call_tool("resume_execution", {"execution_id": id, "answer": "this"}))
        assert (done["status"], done["output"]) == ("completed", "this")
        again = await client.call_tool("resume_execution", {"execution_id": id, "answer": "that"})
        assert text_of(again) == f"Execution '{id}' is already completed.\nget_execution shows its result."


async def test_what_does_not_exist_or_belongs_elsewhere_is_said_with_a_way_out() -> None:
    async with serving(echo, asks) as server, client_of(server, "legacy") as client:
        lost = await client.call_tool("get_execution", {"execution_id": "nowhere"})
        assert text_of(lost) == "No execution 'nowhere'.\nlist_executions shows the executions there are."
        id = ((await client.call_tool("echo", {"input": 1})).meta or {})["flux/executionId"]
        other = await client.call_tool("resume_asks", {"execution_id": id, "answer": "x"})
        assert "belongs to workflow 'echo'" in text_of(other)
        ended = data_of(await client.call_tool("cancel_execution", {"execution_id": id}))
        assert ended["status"] == "completed"

"""Workflows and executions as resources, prompts, completion, and what clients are told when something changes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from mcp import MCPError
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp_types import (
    LoggingMessageNotificationParams,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.stores.memory import MemoryStore
from flux.tasks import Graph
from flux_mcp_server import notices, prompt, resource
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.declared import Declared, declared_by
from flux_mcp_server.server import assemble
from flux_mcp_server.task_methods import changes
from tests.mcp import serving as shared
from tests.mcp.serving import ERAS, SECRET, Era, client_of, data_of, engine, serving

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")]


@task
async def step(n: int) -> int:
    return n


@workflow
async def count(ctx: ExecutionContext[int]) -> list[int]:
    """Count."""
    return [await step(n) for n in range(ctx.input)]


@workflow
async def wait_for_it(ctx: ExecutionContext[str]) -> str:
    return await pause("it", response=str)


@workflow
async def large() -> str:
    return "x" * 200_000


async def read(client: Any, uri: str) -> Any:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return json.loads(content.text)


@pytest.mark.parametrize("era", ERAS)
async def test_workflows_and_executions_are_resources(era: Era) -> None:
    async with serving(count, wait_for_it) as server, client_of(server, era) as client:
        await client.call_tool("count", {"input": 2})
        uris = [str(each.uri) for each in (await client.list_resources()).resources]
        assert uris[:2] == ["flux://workflows/count", "flux://workflows/wait_for_it"]
        (execution,) = uris[2:]
        described = await read(client, "flux://workflows/count")
        assert described["input_schema"]["properties"]["input"] == {"type": "integer"}
        assert "test_resources.py:" in described["source"]
        assert (await read(client, execution))["status"] == "completed"
        assert await read(client, f"{execution}/result") == [0, 1]
        events = (await read(client, f"{execution}/events"))["events"]
        assert [events[0]["type"], events[-1]["type"]] == ["WORKFLOW_STARTED", "WORKFLOW_COMPLETED"]
        later = (await read(client, f"{execution}/events?after={events[-2]['number']}"))["events"]
        assert later == events[-1:]


PATH = (
    Graph("path").add_node("one", step).add_node("two", step).add_edge("one", "two").start_with("one").end_with("two")
)


@workflow
async def along(ctx: ExecutionContext[int]) -> int:
    return await PATH(ctx.input)


async def test_a_workflow_along_a_graph_is_described_with_its_picture() -> None:
    async with serving(along) as server, client_of(server, "2026-07-28") as client:
        described = await read(client, "flux://workflows/along")
        assert described["mermaid"]["path"].startswith(("graph", "flowchart"))


@pytest.mark.parametrize("era", ERAS)
async def test_events_and_lists_come_in_pages(era: Era) -> None:
    async with serving(count) as server, client_of(server, era) as client:
        id = data_of_result(await client.call_tool("count", {"input": 150}))
        page = await read(client, f"flux://executions/{id}/events")
        assert len(page["events"]) == 200
        rest = await read(client, page["next"])
        assert rest["events"][0]["number"] == page["events"][-1]["number"] + 1
        for n in range(55):
            await client.call_tool("count", {"input": 0}, meta={"flux/idempotencyKey": str(n)})
        first = await client.list_resources()
        second = await client.list_resources(cursor=first.next_cursor)
        assert (len(first.resources), len(second.resources), second.next_cursor) == (51, 6, None)


def data_of_result(result: Any) -> str:
    return result.meta["flux/executionId"]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("uri", ["flux://executions/nowhere", "flux://workflows/nothing", "flux://x", "other://y"])
async def test_what_is_not_there_is_an_invalid_parameter(era: Era, uri: str) -> None:
    async with serving(count) as server, client_of(server, era) as client:
        with pytest.raises(MCPError) as refused:
            await client.read_resource(uri)
        assert refused.value.code == -32602


@workflow
async def shows_much() -> str:
    return await pause("draft", output="d" * 200_000, response=str)


@workflow
async def fails_at_length() -> str:
    raise ValueError("e" * 200_000)


@pytest.mark.parametrize("era", ERAS)
async def test_what_a_question_shows_and_what_an_error_says_is_bounded_too(era: Era) -> None:
    async with serving(shows_much, fails_at_length) as server, client_of(server, era) as client:
        handle = data_of(await client.call_tool("shows_much"))
        (question,) = handle["questions"]
        assert question["output"].endswith(f"is in flux://executions/{handle['execution_id']}/events)")
        failed = await client.call_tool("fails_at_length")
        seen = await client.call_tool("get_execution", {"execution_id": (failed.meta or {})["flux/executionId"]})
        assert len(json.dumps(handle)) < 5_000
        assert max(len(failed.model_dump_json()), len(seen.model_dump_json())) < 150_000


@pytest.mark.parametrize("era", ERAS)
async def test_an_output_too_large_for_a_model_is_a_link_that_fits_the_schema(era: Era) -> None:
    async with serving(large) as server, client_of(server, era) as client:
        await client.list_tools()  # the client checks results against what it has been told
        result = await client.call_tool("large")
        data = data_of(result)
        assert data["status"] == "completed"
        assert "too large" in data["next"]
        assert len(result.model_dump_json()) < 5_000
        link: Any = result.content[1]
        assert await read(client, str(link.uri)) == "x" * 200_000
        seen = data_of(await client.call_tool("get_execution", {"execution_id": data["execution_id"]}))
        assert "output" not in seen
        assert str(link.uri) in seen["next"]


async def test_ids_and_names_are_completed() -> None:
    async with serving(count, wait_for_it) as server, client_of(server, "legacy") as client:
        id = data_of_result(await client.call_tool("count", {"input": 1}))
        workflows = ResourceTemplateReference(uri="flux://workflows/{name}")
        executions = ResourceTemplateReference(uri="flux://executions/{id}/events")
        assert await completed(client, workflows, "name", "w") == ["wait_for_it"]
        assert await completed(client, executions, "id", id[:3]) == [id]
        assert await completed(client, executions, "id", "-") == []


async def completed(client: Any, ref: Any, name: str, value: str) -> list[str]:
    return (await client.complete(ref, {"name": name, "value": value})).completion.values


# -- changes -----------------------------------------------------------------------------------------------------------


@pytest.mark.needs_session
async def test_an_older_client_is_told_when_an_execution_has_changed_until_it_unsubscribes() -> None:
    told = asyncio.Event()

    async def hear(message: Any) -> None:
        if getattr(message, "method", "") == "notifications/resources/updated":
            told.set()

    async with serving(wait_for_it) as server, shared.Client(server, mode="legacy", message_handler=hear) as older:
        client: Any = older  # what it can do is deprecated
        id = data_of(await client.call_tool("wait_for_it", {"input": ""}))["execution_id"]
        await client.subscribe_resource(f"flux://executions/{id}")
        await client.call_tool("resume_wait_for_it", {"execution_id": id, "answer": "x"})
        await asyncio.wait_for(told.wait(), 10)
        await client.unsubscribe_resource(f"flux://executions/{id}")
        with pytest.raises(MCPError):
            await client.subscribe_resource("flux://executions/nowhere")


async def test_a_client_of_today_listens() -> None:
    async with serving(wait_for_it) as server, client_of(server, "2026-07-28") as client:
        id = data_of(await client.call_tool("wait_for_it", {"input": ""}))["execution_id"]
        async with client.listen(resource_subscriptions=[f"flux://executions/{id}"]) as changes:
            await client.call_tool("resume_wait_for_it", {"execution_id": id, "answer": "x"})
            async with asyncio.timeout(10):
                async for change in changes:
                    assert isinstance(change, ResourceUpdated)
                    assert change.uri == f"flux://executions/{id}"
                    break


async def test_what_changes_before_the_first_look_of_a_subscription_is_told() -> None:
    async with engine(wait_for_it) as flux:
        subscribed = await flux.run(wait_for_it, "")
        await flux.resume(subscribed.execution_id, "x")
        told = [each.status async for each in changes(flux, subscribed.execution_id, since=subscribed)]
        assert told == ["completed"]
        ended = await flux.get(subscribed.execution_id)
        assert [each async for each in changes(flux, ended.execution_id, since=ended)] == []


@pytest.mark.one_server
@pytest.mark.parametrize("era", ERAS)
async def test_clients_are_told_when_there_is_a_new_execution(era: Era, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "LOOK", 0.02)
    told = asyncio.Event()

    async def hear(message: Any) -> None:
        if getattr(message, "method", "") == "notifications/resources/list_changed":
            told.set()

    async with Flux(store=MemoryStore(), workflows=[count]) as flux, AsyncExitStack() as stack:
        served = assemble(flux, Catalog([count], []), name="test", patience=30, secret=SECRET)
        telling = asyncio.ensure_future(served.notices.tell_of_executions(flux))
        stack.callback(telling.cancel)
        client = await stack.enter_async_context(shared.Client(served.server, mode=era, message_handler=hear))
        await client.list_tools()
        if era == "2026-07-28":  # one that listens has to say so
            changes = await stack.enter_async_context(client.listen(resources_list_changed=True))
            stack.callback(asyncio.ensure_future(_first(changes, told)).cancel)
        await asyncio.sleep(0.1)
        assert not told.is_set()
        await flux.run(count, 1)
        await asyncio.wait_for(told.wait(), 10)


async def _first(changes: AsyncIterator[Any], told: asyncio.Event) -> None:
    assert isinstance(await anext(changes), ResourcesListChanged)
    told.set()


# -- what users declare ------------------------------------------------------------------------------------------------


@prompt(title="Review", choices={"tone": ["kind", "keen"]})
def review(subject: str, tone: str = "kind") -> str:
    """Review something."""
    return f"Review {subject}, {tone}ly."


@resource("notes://{name}/text")
async def notes(name: str) -> str:
    return f"notes of {name}"


@resource("notes://all")
def all_notes() -> dict[str, int]:
    return {"count": 2}


@pytest.mark.one_server
@pytest.mark.parametrize("era", ERAS)
async def test_prompts_and_resources_stand_next_to_workflows(era: Era) -> None:
    import sys  # noqa: PLC0415 - this module, as discovery sees it

    declared = Declared.of(declared_by(sys.modules[__name__]))
    async with Flux(store=MemoryStore()) as flux:
        served = assemble(flux, Catalog([]), name="test", patience=5, secret=SECRET, declared=declared)
        async with client_of(served.server, era) as client:
            (listed,) = (await client.list_prompts()).prompts
            assert (listed.title, listed.description) == ("Review", "Review something.")
            assert [(each.name, each.required) for each in listed.arguments or []] == [
                ("subject", True),
                ("tone", False),
            ]
            (message,) = (await client.get_prompt("review", {"subject": "a & b"})).messages
            assert isinstance(message.content, TextContent)
            assert message.content.text == "Review a & b, kindly."
            with pytest.raises(MCPError, match="subject is required; colour is not an argument"):
                await client.get_prompt("review", {"colour": "red"})
            assert await completed(client, PromptReference(name="review"), "tone", "ke") == ["keen"]
            assert await read(client, "notes://all") == {"count": 2}
            (content,) = (await client.read_resource("notes://a%20b/text")).contents
            assert isinstance(content, TextResourceContents)
            assert content.text == "notes of a b"


# -- logging -----------------------------------------------------------------------------------------------------------


@workflow
async def chatty(ctx: ExecutionContext[None]) -> str:
    ctx.log.info("first")
    await step(1)
    logging.getLogger("user").warning("second")
    return "done"


@pytest.mark.one_server
@pytest.mark.parametrize(
    ("era", "level", "expected"),
    [
        ("legacy", "debug", ["first", "second"]),
        ("legacy", "warning", ["second"]),
        ("2026-07-28", "info", ["first", "second"]),
        ("2026-07-28", None, []),
    ],
)
async def test_what_a_workflow_logs_is_told_to_who_asked_for_it(
    era: Era, level: Any, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    heard: list[str] = []

    async def hear(params: LoggingMessageNotificationParams) -> None:
        heard.append(str(params.data).rpartition("] ")[2])

    async with Flux(store=MemoryStore(), workflows=[chatty]) as flux:
        served = assemble(flux, Catalog([chatty]), name="test", patience=5, secret=SECRET)
        options = {"log_level": level} if era != "legacy" and level else {}
        client: Any = shared.Client(served.server, mode=era, logging_callback=hear, **options)
        with served.logs.installed():
            async with client:
                if era == "legacy":
                    await client.set_logging_level(level)
                await client.call_tool("chatty")
                assert heard == expected

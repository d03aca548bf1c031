"""Calls that are lost, repeated, named and reported on: the call may die, the run does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import RequestParamsMeta

from flux import ExecutionContext, Workflow, pause, task, workflow
from flux.tasks import progress
from flux_mcp_server import follow
from tests.mcp.serving import ERAS, Era, client_of, data_of, engine, serving, text_of

pytestmark = pytest.mark.anyio


class Gate:
    """A workflow that runs until the test opens the gate, and counts how often it was begun."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Event()
        self.begun = 0

    @property
    def workflow(self) -> Workflow[Any, Any]:
        gate = self

        @task
        async def wait() -> None:
            gate.begun += 1
            gate.entered.set()
            await gate.open.wait()

        @workflow
        async def slow(ctx: ExecutionContext[str]) -> str:
            await wait()
            return f"{ctx.input} done"

        return slow


@pytest.fixture
def gate() -> Gate:
    return Gate()


class Heard:
    def __init__(self) -> None:
        self.values: list[float] = []
        self.messages: list[str] = []
        self.said = asyncio.Event()

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.values.append(progress)
        self.messages.append(message or "")
        self.said.set()


@asynccontextmanager
async def lost_call(client: Any, gate: Gate, *, timeout: float = 0.05) -> AsyncGenerator[None]:
    """A call whose client has lost its patience."""
    with pytest.raises(MCPError):
        await client.call_tool("slow", {"input": "a"}, read_timeout_seconds=timeout)
    await asyncio.wait_for(gate.entered.wait(), 10)
    yield


@pytest.mark.needs_session
@pytest.mark.parametrize("era", ERAS)
async def test_the_same_call_after_a_lost_one_joins_its_execution(era: Era, gate: Gate) -> None:
    async with serving(gate.workflow) as server, client_of(server, era) as client, lost_call(client, gate):
        again = asyncio.create_task(client.call_tool("slow", {"input": "a"}))
        gate.open.set()
        assert data_of(await asyncio.wait_for(again, 10)) == {"result": "a done"}
        assert gate.begun == 1


@pytest.mark.needs_session
@pytest.mark.parametrize("era", ERAS)
async def test_a_result_that_its_caller_missed_is_given_to_the_same_call(era: Era, gate: Gate) -> None:
    async with serving(gate.workflow) as server, client_of(server, era) as client, lost_call(client, gate):
        gate.open.set()
        await nothing_runs(client)
        assert data_of(await client.call_tool("slow", {"input": "a"})) == {"result": "a done"}
        assert gate.begun == 1


@pytest.mark.needs_session
@pytest.mark.parametrize("era", ERAS)
async def test_a_missed_result_that_was_given_at_last_is_not_given_again(era: Era, gate: Gate) -> None:
    async with serving(gate.workflow) as server, client_of(server, era) as client, lost_call(client, gate):
        gate.open.set()
        await nothing_runs(client)
        for begun in (1, 2, 3):
            assert data_of(await client.call_tool("slow", {"input": "a"})) == {"result": "a done"}
            assert gate.begun == begun


async def nothing_runs(client: Any) -> None:
    """Without asking get_execution, which would deliver the result."""
    async with asyncio.timeout(10):
        while data_of(await client.call_tool("list_executions", {"status": "running"}))["executions"]:
            pass


@pytest.mark.parametrize("era", ERAS)
async def test_the_same_call_after_a_handle_joins_its_execution(era: Era, gate: Gate) -> None:
    async with serving(gate.workflow, patience=0.05) as server, client_of(server, era) as client:
        first = data_of(await client.call_tool("slow", {"input": "a"}))
        second = data_of(await client.call_tool("slow", {"input": "a"}))
        assert first["execution_id"] == second["execution_id"]
        assert gate.begun == 1
        gate.open.set()


async def test_another_argument_or_a_delivered_result_makes_a_new_execution(gate: Gate) -> None:
    gate.open.set()
    async with serving(gate.workflow) as server, client_of(server, "legacy") as client:
        for input in ("a", "a", "b"):
            assert data_of(await client.call_tool("slow", {"input": input})) == {"result": f"{input} done"}
        assert gate.begun == 3


@pytest.mark.one_server  # two servers take the second for the first made again: nobody knows whether the other still lives
async def test_two_calls_at_once_are_two_executions(gate: Gate) -> None:
    async with serving(gate.workflow) as server, client_of(server, "2026-07-28") as client:
        first = asyncio.create_task(client.call_tool("slow", {"input": "a"}))
        await asyncio.wait_for(gate.entered.wait(), 10)
        second = asyncio.create_task(client.call_tool("slow", {"input": "a"}))
        gate.open.set()
        ids = {((await asyncio.wait_for(call, 10)).meta or {})["flux/executionId"] for call in (first, second)}
        assert len(ids) == 2


@pytest.mark.needs_session
async def test_a_new_server_on_the_same_database_joins_too(gate: Gate) -> None:
    slow = gate.workflow
    async with engine(slow) as flux:
        async with serving(slow, flux=flux) as server, client_of(server, "legacy") as client, lost_call(client, gate):
            pass
        async with serving(slow, flux=flux) as server, client_of(server, "legacy") as client:
            again = asyncio.create_task(client.call_tool("slow", {"input": "a"}))
            gate.open.set()
            assert data_of(await asyncio.wait_for(again, 10)) == {"result": "a done"}
            assert gate.begun == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_lost_question_is_asked_again_by_the_same_call(era: Era) -> None:
    @workflow
    async def asks(ctx: ExecutionContext[str]) -> str:
        return await pause("which", response=str)

    async with serving(asks) as server:
        async with client_of(server, era) as client:
            first = data_of(await client.call_tool("asks", {"input": "a"}))
        async with client_of(server, era) as client:
            assert data_of(await client.call_tool("asks", {"input": "a"})) == first


@pytest.mark.parametrize("era", ERAS)
async def test_an_idempotency_key_names_one_execution_for_good(era: Era, gate: Gate) -> None:
    gate.open.set()
    meta: RequestParamsMeta = {"flux/idempotencyKey": "order-7"}  # pyright: ignore[reportAssignmentType] - an open map
    async with serving(gate.workflow) as server, client_of(server, era) as client:
        first = await client.call_tool("slow", {"input": "a"}, meta=meta)
        second = await client.call_tool("slow", {"input": "a"}, meta=meta)
        assert (first.meta or {})["flux/executionId"] == (second.meta or {})["flux/executionId"]
        assert gate.begun == 1
        other = await client.call_tool("slow", {"input": "b"}, meta=meta)
        assert other.is_error
        assert "use a new key" in text_of(other)


# -- progress ----------------------------------------------------------------------------------------------------------


@task
async def chatty() -> None:
    progress("half-way")
    progress({"done": 3, "of": 4})
    progress("x" * 1000)


@workflow
async def talks() -> str:
    await chatty()
    return "said"


@pytest.mark.hears_runs
@pytest.mark.parametrize("era", ERAS)
async def test_progress_grows_names_the_execution_and_is_short(era: Era) -> None:
    heard = Heard()
    async with serving(talks) as server, client_of(server, era) as client:
        result = await client.call_tool("talks", progress_callback=heard)
        told = list(heard.messages)
        assert told[0] == f"execution {(result.meta or {})['flux/executionId']}"
        assert told[1:3] == ["half-way", '{"done": 3, "of": 4}']
        assert told[3].startswith("xxx")
        assert told[-1] == "chatty finished"
        assert max(map(len, told)) <= 200
        assert heard.values == sorted(set(heard.values))
        await client.call_tool("list_workflows")
        assert heard.messages == told


@pytest.mark.parametrize("era", ERAS)
async def test_a_silent_workflow_has_a_heartbeat(era: Era, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "HEARTBEAT", 0.02)
    heard = Heard()
    async with serving(gate.workflow) as server, client_of(server, era) as client:
        call = asyncio.create_task(client.call_tool("slow", {"input": "a"}, progress_callback=heard))
        async with asyncio.timeout(10):
            while len(heard.values) < 4:
                heard.said.clear()
                await heard.said.wait()
        gate.open.set()
        await asyncio.wait_for(call, 10)
        assert heard.messages[1] == "still running (0 s)"
        assert heard.values == sorted(set(heard.values))


async def test_without_a_token_nothing_is_reported(gate: Gate) -> None:
    received: list[Any] = []

    async def listen(message: Any) -> None:
        received.append(message)

    async with serving(talks) as server, Client(server, mode="legacy", message_handler=listen) as client:
        assert data_of(await client.call_tool("talks")) == {"result": "said"}
        assert received == []

"""What a call answers, for each way an execution can go, in both eras of the protocol."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mcp import MCPError
from pydantic import BaseModel

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.errors import StoreError
from flux.stores.memory import MemoryStore
from flux.tasks import progress, sleep
from flux_mcp_server.catalog import Catalog
from tests.mcp.serving import ERAS, Era, client_of, compact, data_of, serving, text_of

pytestmark = pytest.mark.anyio


class Receipt(BaseModel):
    total: int
    note: str = ""


@workflow
async def buy(ctx: ExecutionContext[int]) -> Receipt:
    return Receipt(total=ctx.input * 2)


@workflow
async def greet(ctx: ExecutionContext[str]) -> str:
    return f"Hello, {ctx.input}!"


@workflow
async def numbers(ctx: ExecutionContext[int]) -> list[int]:
    return list(range(ctx.input))


@workflow
async def total(ctx: ExecutionContext[list[int]]) -> int:
    return sum(ctx.input)


@workflow
async def nothing() -> None:
    pass


@workflow
async def broken(ctx: ExecutionContext[str]) -> str:
    raise ValueError(f"no {ctx.input} today")


@workflow
async def asks(ctx: ExecutionContext[str]) -> str:
    return await pause("colour", message="Which colour?", output={"for": ctx.input}, response=str)


@workflow
async def lies() -> Receipt:
    return {"total": "many"}  # pyright: ignore[reportReturnType] - what the test is about


@pytest.mark.parametrize("era", ERAS)
async def test_an_output_is_structured_content_and_the_same_as_text(era: Era) -> None:
    async with serving(buy, numbers, nothing) as server, client_of(server, era) as client:
        await client.list_tools()  # from here on the client checks results against their schemas
        bought = await client.call_tool("buy", {"input": 21})
        assert data_of(bought) == {"total": 42, "note": ""}
        assert json.loads(text_of(bought)) == {"total": 42, "note": ""}
        assert (bought.meta or {})["flux/status"] == "completed"
        assert len((bought.meta or {})["flux/executionId"]) == 32
        assert data_of(await client.call_tool("numbers", {"input": 3})) == {"result": [0, 1, 2]}
        assert data_of(await client.call_tool("nothing")) == {"result": None}


@pytest.mark.parametrize("era", ERAS)
async def test_a_text_is_shown_as_it_is(era: Era) -> None:
    async with serving(greet) as server, client_of(server, era) as client:
        result = await client.call_tool("greet", {"input": "Ada"})
        assert text_of(result) == "Hello, Ada!"
        assert data_of(result) == {"result": "Hello, Ada!"}


@pytest.mark.parametrize("era", ERAS)
async def test_a_failed_workflow_is_an_error_with_its_reason_and_its_id(era: Era) -> None:
    async with serving(broken) as server, client_of(server, era) as client:
        result = await client.call_tool("broken", {"input": "bread"})
        assert result.is_error
        id = (result.meta or {})["flux/executionId"]
        assert text_of(result) == f"broken failed: ValueError: no bread today\nThis was execution {id}."
        assert result.structured_content is None


@pytest.mark.parametrize("era", ERAS)
async def test_a_question_that_cannot_be_asked_is_a_handle(era: Era) -> None:
    async with serving(asks) as server, client_of(server, era) as client:
        await client.list_tools()
        result = await client.call_tool("asks", {"input": "the door"})
        handle = data_of(result)
        id = handle["execution_id"]
        assert handle == {
            "execution_id": id,
            "workflow": "asks",
            "status": "paused",
            "next": f"Waits for an answer: ask the user, then call resume_asks with execution_id '{id}' and answer.",
            "questions": [
                {
                    "pause": "colour",
                    "message": "Which colour?",
                    "output": {"for": "the door"},
                    "answer_schema": {"type": "string"},
                }
            ],
        }
        assert text_of(result).startswith(handle["next"])
        done = await client.call_tool("resume_asks", {"execution_id": id, "answer": "red"})
        assert data_of(done) == {"result": "red"}


@pytest.mark.hears_runs
@pytest.mark.parametrize("era", ERAS)
async def test_a_call_that_takes_too_long_ends_as_a_handle_and_the_work_goes_on(era: Era) -> None:
    gate = asyncio.Event()

    @task
    async def wait() -> str:
        progress("half-way")
        await gate.wait()
        return "done"

    @workflow
    async def slow() -> str:
        return await wait()

    async with serving(slow, patience=0.05) as server, client_of(server, era) as client:
        await client.list_tools()
        handle = data_of(await client.call_tool("slow"))
        assert (handle["status"], handle["progress"]) == ("running", "half-way")
        assert handle["next"].startswith("Not finished yet: call get_execution with")
        gate.set()
        seen = await client.call_tool("get_execution", {"execution_id": handle["execution_id"], "wait_seconds": 10})
        assert data_of(seen)["output"] == "done"


@pytest.mark.parametrize("era", ERAS)
async def test_a_workflow_that_sleeps_past_the_end_of_the_call_says_so_at_once(era: Era) -> None:
    @workflow
    async def naps() -> str:
        await sleep(3600)
        return "awake"

    async with serving(naps) as server, client_of(server, era) as client:
        handle = data_of(await client.call_tool("naps"))
        assert handle["status"] == "sleeping"
        assert "wakes_at" in handle


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancelled_execution_is_an_error_for_the_call_that_waits(era: Era) -> None:
    entered = asyncio.Event()

    @task
    async def wait() -> None:
        entered.set()
        await asyncio.Event().wait()

    @workflow
    async def endless() -> None:
        await wait()

    async with serving(endless) as server, client_of(server, era) as client, asyncio.TaskGroup() as group:
        call = group.create_task(client.call_tool("endless"))
        await asyncio.wait_for(entered.wait(), 10)
        listed = data_of(await client.call_tool("list_executions", {"workflow": "endless"}))
        id = listed["executions"][0]["execution_id"]
        assert data_of(await client.call_tool("cancel_execution", {"execution_id": id}))["status"] == "cancelled"
        result = await asyncio.wait_for(call, 10)
        assert result.is_error
        assert text_of(result) == f"Execution {id} of endless was cancelled."


@pytest.mark.parametrize("era", ERAS)
async def test_an_output_that_is_not_what_was_declared_is_told_and_not_lost(era: Era) -> None:
    async with serving(lies) as server, client_of(server, era) as client:
        await client.list_tools()
        result = await client.call_tool("lies")
        assert result.is_error
        assert "is not what lies declares" in text_of(result)
        assert compact({"total": "many"}) in text_of(result)


@pytest.mark.parametrize("era", ERAS)
async def test_an_unknown_tool_is_a_protocol_error_that_names_the_nearest(era: Era) -> None:
    async with serving(greet) as server, client_of(server, era) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("great", {"input": "Ada"})
        assert caught.value.code == -32602
        assert "Did you mean 'greet'?" in str(caught.value)


@pytest.mark.parametrize("era", ERAS)
async def test_bad_arguments_are_an_error_that_names_every_fault(era: Era) -> None:
    async with serving(buy) as server, client_of(server, era) as client:
        result = await client.call_tool("buy", {"imput": 3})
        assert result.is_error
        assert "imput: is not an argument; known: input; did you mean 'input'?" in text_of(result)
        assert "input: is required" in text_of(result)
        assert data_of(await client.call_tool("list_executions"))["executions"] == []


@pytest.mark.parametrize("era", ERAS)
async def test_an_object_sent_as_a_text_is_read_and_a_text_stays_a_text(era: Era) -> None:
    async with serving(total, greet) as server, client_of(server, era) as client:
        assert data_of(await client.call_tool("total", {"input": "[1, 2]"})) == {"result": 3}
        assert data_of(await client.call_tool("greet", {"input": '{"a": 1}'})) == {"result": 'Hello, {"a": 1}!'}


@pytest.mark.one_server
@pytest.mark.parametrize("era", ERAS)
async def test_a_fault_inside_the_server_is_masked(era: Era, caplog: pytest.LogCaptureFixture) -> None:
    class FullDisk(MemoryStore):
        async def create(self, *_: Any, **__: Any) -> Any:
            raise StoreError("the path of a secret file")

    async with (
        Flux(store=FullDisk(), workflows=[nothing]) as flux,
        serving(nothing, flux=flux) as server,
        client_of(server, era) as client,
    ):
        with pytest.raises(MCPError) as caught:
            await client.call_tool("nothing")
    assert caught.value.code == -32603
    assert "secret" not in str(caught.value)
    reference = str(caught.value).rpartition(" ")[2].rstrip(".")
    assert reference in caplog.text
    assert "the path of a secret file" in caplog.text


class Refused(Exception):
    pass


@workflow.with_options(errors=(Refused,))
async def refuses(ctx: ExecutionContext[str]) -> None:
    raise Refused("no") if ctx.input == "declared" else RuntimeError("secret")


@pytest.mark.parametrize("era", ERAS)
async def test_where_errors_are_masked_only_those_declared_are_told(era: Era) -> None:
    masking = Catalog([refuses], mask_errors=True)
    async with serving(refuses, catalog=masking) as server, client_of(server, era) as client:
        assert "Refused: no" in text_of(await client.call_tool("refuses", {"input": "declared"}))
        failed = await client.call_tool("refuses", {"input": "other"})
        assert "secret" not in text_of(failed)
        assert failed.meta is not None
        id = failed.meta["flux/executionId"]
        assert f"flux show {id}" in text_of(failed)
        seen = await client.call_tool("get_execution", {"execution_id": id})
        events = await client.read_resource(f"flux://executions/{id}/events")
        assert "secret" not in seen.model_dump_json() + events.model_dump_json()

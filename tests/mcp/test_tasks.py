"""Executions as tasks, in the extension of today and in the form of 2025-11-25."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, MCPError
from mcp.client import ClientExtension, NotificationBinding, ResultClaim
from mcp_types import ElicitRequestFormParams, ElicitResult, NotificationParams, Request, RequestParams, Result
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from flux import ExecutionContext, Flux, Workflow, pause, task, workflow
from flux.domain.events import Event
from flux.errors import StoreError
from flux.stores.memory import MemoryStore
from flux.tasks import parallel
from flux_mcp_server import calls
from tests.mcp.serving import PATIENCE, client_of, engine, serving, text_of

pytestmark = pytest.mark.anyio

EXTENSION = "io.modelcontextprotocol/tasks"


class Given(Result):
    """A task as the answer to a call."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")
    result_type: Literal["task"] = "task"
    task_id: str
    status: str


class Whole(Result):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class Told(NotificationParams):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")
    task_id: str
    status: str


class Knows(ClientExtension):
    """A client that knows tasks, and keeps what it is told of them."""

    identifier = EXTENSION

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.completed = asyncio.Event()

    def settings(self) -> dict[str, Any]:
        return {}

    def claims(self) -> list[ResultClaim[Any]]:
        async def resolve(given: Given, *_: Any) -> Any:
            raise AssertionError(f"{given} is to be taken as it is")

        return [ResultClaim(result_type="task", model=Given, resolve=resolve)]

    def notifications(self) -> list[NotificationBinding[Any]]:
        async def hear(params: Told) -> None:
            self.told.append(params)
            if params.status == "completed":
                self.completed.set()

        return [NotificationBinding(method="notifications/tasks", params_type=Told, handler=hear)]


class TaskRequest(Request[RequestParams, str]):
    name_param = "taskId"
    method: str
    params: Any = None


class ListRequest(Request[RequestParams, str]):
    method: str = "tasks/list"
    params: Any = None


class Params(RequestParams):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


async def asked(client: Client, method: str, **params: Any) -> dict[str, Any]:
    request: Any = TaskRequest(method=method, params=Params(**params)) if params else ListRequest(params=Params())
    result = await client.session.send_request(request, Whole)
    return result.model_dump(by_alias=True, mode="json")


async def until(client: Client, id: str, *states: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            seen = await asked(client, "tasks/get", taskId=id)
            if seen["status"] in states:
                return seen
            await asyncio.sleep(0.02)


@asynccontextmanager
async def knowing(server: Any, knows: Knows | None = None, **options: Any) -> AsyncGenerator[Client]:
    extensions = [knows or Knows()]
    async with Client(server, mode="2026-07-28", extensions=extensions, cache=None, **options) as client:
        yield client


async def begun(client: Client, tool: str, arguments: dict[str, Any] | None = None) -> Any:
    return await client.session.call_tool(tool, arguments or {}, allow_claimed=True, allow_input_required=True)


class Yes(BaseModel):
    yes: bool


done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@task
async def moment() -> None:
    await asyncio.sleep(0.15)
    done.append("moment")


@workflow
async def slow(ctx: ExecutionContext[str]) -> str:
    await moment()
    return f"{ctx.input} done"


@workflow
async def asks(ctx: ExecutionContext[str]) -> str:
    await moment()
    answer = await pause("sure", response=Yes, message="Sure?")
    return f"{ctx.input} {answer.yes}"


@workflow
async def asks_twice() -> list[Any]:
    await moment()
    return await parallel(pause("left", response=int), pause("right", response=int))


@workflow
async def fails() -> None:
    await moment()
    raise ValueError("no")


@workflow
async def breaks() -> None:
    await moment()
    raise MCPError(-32603, "broken")


@workflow
async def quick() -> str:
    return "quick"


always = quick.with_options(name="always", task="required")
never = slow.with_options(name="never", task="never")
EVERY: list[Workflow[Any, Any]] = [slow, asks, asks_twice, fails, breaks, quick, always, never]


async def test_what_takes_longer_than_a_moment_is_a_task_with_the_executions_id() -> None:
    async with (
        engine(*EVERY) as flux,
        serving(*EVERY, flux=flux) as server,
        knowing(server) as client,
    ):
        given = await begun(client, "slow", {"input": "a"})
        assert isinstance(given, Given)
        assert (await flux.get(given.task_id)).workflow_name == "slow"
        ended = await until(client, given.task_id, "completed")
        assert ended["result"]["structuredContent"] == {"result": "a done"}
        assert ended["ttlMs"] is None


async def test_a_task_lives_as_long_as_its_execution_is_kept() -> None:
    async with (
        engine(*EVERY, retention_days=1) as flux,
        serving(*EVERY, flux=flux) as server,
        knowing(server) as client,
    ):
        given = await begun(client, "slow", {"input": "a"})
        ended = await until(client, given.task_id, "completed")
        execution = await flux.get(given.task_id)
        age = execution.updated_at - execution.created_at
        assert ended["ttlMs"] == round((age + timedelta(days=1)).total_seconds() * 1000)
        assert ended["ttlMs"] >= (given.model_extra or {})["ttlMs"] >= 86_400_000


@pytest.mark.one_server  # what is quick in one process takes longer than a moment over two and a database
async def test_what_is_quick_is_a_result_unless_it_always_is_a_task() -> None:
    async with serving(*EVERY) as server, knowing(server) as client:
        assert text_of(await begun(client, "quick")) == "quick"
        assert isinstance(await begun(client, "always"), Given)
        assert text_of(await begun(client, "never", {"input": "a"})) == "a done"


async def test_answering_a_task_runs_nothing_again_even_in_another_process(own_database: Path) -> None:
    async with (
        engine(*EVERY, database=own_database) as flux,
        serving(*EVERY, flux=flux) as server,
        knowing(server) as client,
    ):
        given = await begun(client, "asks", {"input": "a"})
        asking = await until(client, given.task_id, "input_required")
    async with (
        engine(*EVERY, database=own_database) as flux,
        serving(*EVERY, flux=flux) as server,
        knowing(server) as client,
    ):
        (key,) = (await asked(client, "tasks/get", taskId=given.task_id))["inputRequests"]
        assert key in asking["inputRequests"]
        answer = {"action": "accept", "content": {"yes": True}}
        ack = await asked(client, "tasks/update", taskId=given.task_id, inputResponses={key: answer})
        assert "taskId" not in ack
        ended = await until(client, given.task_id, "completed")
        assert ended["result"]["structuredContent"] == {"result": "a True"}
        assert done == ["moment"]


async def test_questions_are_answered_one_by_one_and_other_keys_are_passed_over() -> None:
    async with serving(*EVERY) as server, knowing(server) as client:
        id = (await begun(client, "asks_twice")).task_id
        first, second = (await until(client, id, "input_required"))["inputRequests"]
        for key, number in (("nothing", 0), (first, 1)):
            responses = {key: {"action": "accept", "content": {"answer": number}}}
            await asked(client, "tasks/update", taskId=id, inputResponses=responses)
        assert list((await asked(client, "tasks/get", taskId=id))["inputRequests"]) == [second]
        responses = {second: {"action": "accept", "content": {"answer": 2}}}
        await asked(client, "tasks/update", taskId=id, inputResponses=responses)
        ended = await until(client, id, "completed")
        assert ended["result"]["structuredContent"] == {"result": [1, 2]}


async def test_an_answer_that_does_not_fit_is_refused_and_one_declined_leaves_the_question_open() -> None:
    async with serving(*EVERY) as server, knowing(server) as client:
        id = (await begun(client, "asks", {"input": "a"})).task_id
        (key,) = (await until(client, id, "input_required"))["inputRequests"]
        wrong = {key: {"action": "accept", "content": {"yes": "perhaps"}}}
        with pytest.raises(MCPError, match="does not fit"):
            await asked(client, "tasks/update", taskId=id, inputResponses=wrong)
        await asked(client, "tasks/update", taskId=id, inputResponses={key: {"action": "decline"}})
        assert list((await asked(client, "tasks/get", taskId=id))["inputRequests"]) == [key]


async def test_a_tool_that_failed_is_a_completed_task_and_an_error_of_the_protocol_a_failed_one() -> None:
    async with serving(*EVERY) as server, knowing(server) as client:
        ended = await until(client, (await begun(client, "fails")).task_id, "completed", "failed")
        assert (ended["status"], ended["result"]["isError"]) == ("completed", True)
        ended = await until(client, (await begun(client, "breaks")).task_id, "completed", "failed")
        assert (ended["status"], ended["error"]["message"]) == ("failed", "broken")
        assert "result" not in ended


async def test_a_cancelled_task_ends_as_cancelled_and_cancelling_again_does_no_harm() -> None:
    async with serving(*EVERY) as server, knowing(server) as client:
        id = (await begun(client, "asks", {"input": "a"})).task_id
        await asked(client, "tasks/cancel", taskId=id)
        await until(client, id, "cancelled")
        await asked(client, "tasks/cancel", taskId=id)


async def test_the_same_call_after_its_task_was_seen_is_a_new_one() -> None:
    async with serving(*EVERY) as server, knowing(server) as client:
        first = (await begun(client, "slow", {"input": "a"})).task_id
        await asked(client, "tasks/get", taskId=first)
        assert (await begun(client, "slow", {"input": "a"})).task_id != first


async def test_a_listener_is_told_of_every_state() -> None:
    knows = Knows()
    async with serving(*EVERY) as server, knowing(server, knows) as client:
        id = (await begun(client, "slow", {"input": "a"})).task_id
        params = Params.model_validate({"notifications": {"taskIds": [id]}})
        listening = asyncio.create_task(client.session.send_request(TaskListen(params=params), Whole))
        await asyncio.wait_for(knows.completed.wait(), 10)
        listening.cancel()
        assert {told.task_id for told in knows.told} == {id}


class TaskListen(Request[RequestParams, str]):
    method: str = "subscriptions/listen"
    params: Any = None


class Breaks(MemoryStore):
    """Reads nothing any more once it is broken."""

    is_broken = False

    async def lifecycle(self, id: str) -> list[Event]:
        if self.is_broken:
            raise StoreError("the path of a secret file")
        return await super().lifecycle(id)


@pytest.mark.one_server
@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_a_fault_of_the_engine_is_masked_for_those_who_ask_about_a_task(
    era: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = Breaks()
    async with (
        Flux(store=store, workflows=EVERY, recover=False) as flux,
        serving(*EVERY, flux=flux) as server,
        Client(server, mode=era, extensions=[Knows()], cache=None) as client,
    ):
        paused = await flux.run(asks, "a")
        store.is_broken = True
        with pytest.raises(MCPError) as caught:
            await asked(client, "tasks/get", taskId=paused.execution_id)
        store.is_broken = False
    assert caught.value.code == -32603
    assert "secret" not in str(caught.value)
    assert str(caught.value).rpartition(" ")[2].rstrip(".") in caplog.text


async def test_a_client_that_knows_no_tasks_gets_none() -> None:
    async with serving(*EVERY) as server, client_of(server, "2026-07-28") as client:
        assert text_of(await client.call_tool("slow", {"input": "a"})) == "a done"
        with pytest.raises(MCPError) as refused:
            await client.call_tool("always")
        assert refused.value.code == -32021
        with pytest.raises(MCPError) as refused:
            await asked(client, "tasks/get", taskId="nowhere")
        assert refused.value.code == -32021


async def test_an_unknown_task_is_an_invalid_parameter() -> None:
    async with serving(*EVERY) as server, knowing(server) as client:
        with pytest.raises(MCPError) as refused:
            await asked(client, "tasks/get", taskId="nowhere")
        assert refused.value.code == -32602


# -- 2025-11-25 --------------------------------------------------------------------------------------------------------


class OlderCall(Request[RequestParams, str]):
    method: str = "tools/call"
    params: Any = None


async def older(client: Client, tool: str, **arguments: Any) -> str:
    """The Python SDK takes no task for an answer in this era: the id is looked up."""
    params = Params.model_validate({"name": tool, "arguments": arguments, "task": {"ttl": 60_000}})
    with pytest.raises(ValidationError, match=r"'task': \{'taskId'"):
        await client.session.send_request(OlderCall(params=params), Whole)
    return (await asked(client, "tasks/list"))["tasks"][0]["taskId"]


@pytest.mark.needs_session
async def test_an_older_client_that_asks_for_a_task_gets_one_and_is_asked_over_its_result() -> None:
    asked_for: list[Any] = []

    async def answer(context: Any, params: Any) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        asked_for.append(params)
        return ElicitResult(action="accept", content={"yes": True})

    async with serving(*EVERY) as server, client_of(server, "legacy", elicitation=answer) as client:
        id = await older(client, "asks", input="a")
        result = await asked(client, "tasks/result", taskId=id)
        assert result["structuredContent"] == {"result": "a True"}
        assert asked_for[0].message == "Sure?"
        assert (await asked(client, "tasks/get", taskId=id))["status"] == "completed"
        assert [each["taskId"] for each in (await asked(client, "tasks/list"))["tasks"]] == [id]
        with pytest.raises(MCPError, match="ended already"):
            await asked(client, "tasks/cancel", taskId=id)


async def test_an_older_client_is_told_how_long_its_task_lives_whatever_it_asked_for() -> None:
    async with (
        engine(*EVERY, retention_days=1) as flux,
        serving(*EVERY, flux=flux) as server,
        client_of(server, "legacy") as client,
    ):
        id = await older(client, "slow", input="a")
        assert (await asked(client, "tasks/get", taskId=id))["ttl"] >= 86_400_000, "it had asked for a minute"
    async with serving(*EVERY) as server, client_of(server, "legacy") as client:
        id = await older(client, "slow", input="a")
        assert (await asked(client, "tasks/get", taskId=id))["ttl"] is None


async def test_an_older_task_whose_tool_failed_has_failed() -> None:
    async with serving(*EVERY) as server, client_of(server, "legacy") as client:
        id = await older(client, "fails")
        assert (await asked(client, "tasks/result", taskId=id))["isError"] is True
        assert (await asked(client, "tasks/get", taskId=id))["status"] == "failed"


async def test_an_older_task_is_cancelled_or_ends_with_an_error_of_the_protocol() -> None:
    async with serving(*EVERY) as server, client_of(server, "legacy") as client:
        id = await older(client, "asks", input="a")
        assert (await asked(client, "tasks/cancel", taskId=id))["status"] == "cancelled"
        assert (await asked(client, "tasks/result", taskId=id))["isError"] is True
        broken = await older(client, "breaks")
        with pytest.raises(MCPError, match="broken"):
            await asked(client, "tasks/result", taskId=broken)
        assert (await asked(client, "tasks/get", taskId=broken))["status"] == "failed"


async def test_a_question_that_comes_at_once_is_asked_in_the_call_which_then_becomes_a_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"yes": True})

    async with serving(asks_first) as server, knowing(server, elicitation_callback=answer) as client:
        with monkeypatch.context() as patient:
            patient.setattr(calls, "GRACE", PATIENCE)  # this machine may be busy
            first = await begun(client, "asks_first")
        assert set(first.input_requests) == {"sure"}
        answers: Any = {"sure": ElicitResult(action="accept", content={"yes": True})}
        second = await client.session.call_tool(
            "asks_first", {}, input_responses=answers, request_state=first.request_state, allow_claimed=True
        )
        assert isinstance(second, Given)
        assert (await until(client, second.task_id, "completed"))["result"]["structuredContent"] == {"result": True}


@workflow
async def asks_first() -> bool:
    answer = await pause("sure", response=Yes)
    await moment()
    return answer.yes


async def test_an_older_client_sees_which_tools_may_be_tasks() -> None:
    async with serving(*EVERY) as server, client_of(server, "legacy") as client:
        tools = {tool.name: tool.execution for tool in (await client.list_tools()).tools}
        assert {
            name: each.task_support for name, each in tools.items() if each and name in ("slow", "always", "never")
        } == {
            "slow": "optional",
            "always": "required",
            "never": "forbidden",
        }
        assert text_of(await client.call_tool("always")) == "quick"

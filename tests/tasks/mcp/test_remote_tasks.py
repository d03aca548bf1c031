"""Servers that answer with a task: its id is written down at once, and nothing is called twice after that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.server import Server

from flux import ExecutionContext, Flux, task, workflow
from flux.domain.events import CallNoted
from flux.errors import OutcomeUnknown, RequestRefused, ToolExecutionError
from flux.stores.memory import MemoryStore
from flux.tasks import pause
from flux.tasks.mcp import mcp
from flux.testing import replayed_from
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.server import make_server
from tests.tasks.mcp.servers import NAME_FORM, PATIENCE, Context, Reply, Small, until

pytestmark = pytest.mark.anyio

EXTENSION = "io.modelcontextprotocol/tasks"


class TaskParams(types.RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


@dataclass
class Tasked(Small):
    """A server whose only tool becomes a task. `states` are what tasks/get tells, one after the other, the last for ever."""

    states: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    got: list[str] = field(default_factory=list[str])
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__post_init__()

        @self.tool("build")
        async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
            return {"resultType": "task", "taskId": "t-1", **self.described({"status": "working"})}

    def described(self, state: dict[str, Any]) -> dict[str, Any]:
        times = {"createdAt": "2026-11-25T00:00:00Z", "lastUpdatedAt": "2026-11-25T00:00:00Z"}
        return {"ttlMs": None, "pollIntervalMs": 20, **times, **state}

    @property
    def server(self) -> Server[Any]:
        made = super().server
        made.extensions[EXTENSION] = {}
        made.add_request_handler("tasks/get", TaskParams, self._get)
        made.add_request_handler("tasks/update", TaskParams, self._update)
        made.add_request_handler("tasks/cancel", TaskParams, self._cancel)
        return made

    async def _get(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        self.got.append(params.task_id)
        if not self.states:
            raise MCPError(code=types.INVALID_PARAMS, message="Unknown task")
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state["status"] == "input_required" and state["inputRequests"].keys() <= self.answers.keys():
            state = self.states.pop(0)
        return {"taskId": params.task_id, **self.described(state)}

    async def _update(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        self.answers |= params.input_responses or {}
        return {}

    async def _cancel(self, ctx: Context, params: TaskParams) -> dict[str, Any]:
        self.cancelled.set()
        return {}


WORKING: dict[str, Any] = {"status": "working", "statusMessage": "half way"}
DONE: dict[str, Any] = {"status": "completed", "result": {"content": [{"type": "text", "text": "built"}]}}
ASKS: dict[str, Any] = {
    "status": "input_required",
    "inputRequests": {
        "who": {
            "method": "elicitation/create",
            "params": {"mode": "form", "message": "Who?", "requestedSchema": NAME_FORM},
        }
    },
}


def builds(small: Small) -> Any:
    @workflow
    async def builds() -> Any:
        async with mcp(small.server) as client:
            return await (await client.discover()).build()

    return builds


async def test_a_task_is_followed_to_its_end_and_what_it_says_is_progress(flux: Flux) -> None:
    small = Tasked(states=[WORKING, WORKING, DONE])
    body = builds(small)
    execution = await flux.start(body)
    said: list[Any] = []
    with flux.observed(execution.execution_id, lambda progress: said.append(progress.value)):
        with anyio.fail_after(PATIENCE):
            execution = await flux.wait(execution.execution_id)
    assert execution.output == "built", execution.error
    assert said.count("half way") == 1
    assert small.got == ["t-1"] * 3


async def test_after_a_crash_the_task_is_asked_for_and_not_called_again() -> None:
    small = Tasked(states=[WORKING, DONE])
    body = builds(small)
    async with Flux(store=MemoryStore(), recover=False) as flux:
        execution = await flux.run(body)
        history = await flux.history(execution.execution_id)
    noted = next(n for n, fact in enumerate(history, 1) if isinstance(fact, CallNoted) and "t-1" in fact.note)
    assert len(small.calls) == 1
    again = await replayed_from(body, execution.execution_id, history[:noted])
    assert again.output == "built"
    assert len(small.calls) == 1


async def test_a_task_that_asks_is_answered_by_a_pause_also_in_another_process() -> None:
    small, store = Tasked(states=[WORKING, ASKS, WORKING, DONE]), MemoryStore()
    body = builds(small)
    async with Flux(store=store, workflows=[body], recover=False) as flux:
        with anyio.fail_after(PATIENCE):
            execution = await flux.run(body)
    (question,) = execution.pauses
    assert (question.name, question.message) == ("build", "Who?")
    async with Flux(store=store, workflows=[body], recover=False) as flux:
        with anyio.fail_after(PATIENCE):
            execution = await flux.resume(execution.execution_id, {"name": "Bo"})
    assert execution.output == "built", execution.error
    assert small.answers == {"who": {"action": "accept", "content": {"name": "Bo"}}}
    assert len(small.calls) == 1


@pytest.mark.parametrize(
    ("state", "kind", "said"),
    [
        ({"status": "failed", "error": {"code": -32603, "message": "no disk"}}, RequestRefused, "no disk"),
        ({"status": "cancelled"}, ToolExecutionError, "cancelled"),
        (
            {"status": "completed", "result": {"isError": True, "content": [{"type": "text", "text": "no steel"}]}},
            ToolExecutionError,
            "no steel",
        ),
        (None, OutcomeUnknown, "no longer knows its task t-1"),
    ],
)
async def test_tasks_that_end_badly(flux: Flux, state: dict[str, Any] | None, kind: type[Exception], said: str) -> None:
    small = Tasked(states=[] if state is None else [state])
    with anyio.fail_after(PATIENCE):
        error = (await flux.run(builds(small))).error
    assert isinstance(error, kind), repr(error)
    assert said in str(error)


async def test_a_task_that_takes_too_long_is_told_to_stop(flux: Flux) -> None:
    small = Tasked(states=[WORKING])

    @workflow
    async def builds() -> Any:
        async with mcp(small.server, timeout=0.1) as client:
            return await (await client.discover()).build()

    with anyio.fail_after(PATIENCE):
        error = (await flux.run(builds)).error
    assert isinstance(error, OutcomeUnknown), repr(error)
    assert small.cancelled.is_set()


@pytest.mark.parametrize("states", [[WORKING], [ASKS]])
async def test_cancelling_the_execution_cancels_the_task_also_while_it_is_parked(
    flux: Flux, states: list[dict[str, Any]]
) -> None:
    small = Tasked(states=states)
    execution = await flux.start(builds(small))
    with anyio.fail_after(PATIENCE):
        await until(lambda: bool(small.got))
        if states == [ASKS]:
            assert (await flux.wait(execution.execution_id)).is_paused
        await flux.cancel(execution.execution_id)
        assert (await flux.wait(execution.execution_id)).is_cancelled
        await small.cancelled.wait()


# -- our own server ----------------------------------------------------------------------------------------------------

DONE_HERE: list[str] = []


@task
async def step(name: str) -> str:
    DONE_HERE.append(name)
    return name


@workflow
async def far(ctx: ExecutionContext[str]) -> str:
    await step(f"first {ctx.input}")
    answer = await pause("who", response=str)
    return await step(f"{ctx.input} by {answer}")


async def test_a_workflow_on_our_server_runs_once_however_often_the_caller_dies() -> None:
    DONE_HERE.clear()
    async with Flux(store=MemoryStore(), workflows=[far]) as last:
        server = make_server(last, Catalog([far], []), name="last", secret=b"k" * 32, patience=30)

        @workflow
        async def near() -> Any:
            async with mcp(server) as client:
                return await (await client.discover()).far("A1")

        async with Flux(store=MemoryStore(), recover=False) as flux:
            with anyio.fail_after(PATIENCE):
                execution = await flux.run(near)
                execution = await flux.resume(execution.execution_id, {"answer": "Bo"})
                assert execution.has_succeeded, execution.error
                history = await flux.history(execution.execution_id)
        for length in range(4, len(history)):
            with anyio.fail_after(PATIENCE):
                again = await replayed_from(
                    near, execution.execution_id, history[:length], answers={"who": {"answer": "Bo"}}
                )
            assert again.output == execution.output, (length, again.error)
        assert DONE_HERE == ["first A1", "A1 by Bo"]
        assert len(await last.list()) == 1

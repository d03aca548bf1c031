"""Tools of servers where other tasks may stand: beside each other, around a pause, and in the hands of an agent."""

from __future__ import annotations

from typing import Any

import pytest

from flux import Flux, workflow
from flux.tasks import parallel, pause
from flux.tasks.ai import agent
from flux.tasks.mcp import mcp
from flux.testing import ScriptedModel, tool_call
from tests.tasks.mcp.servers import Context, Small, adder, text

pytestmark = pytest.mark.anyio


async def test_tools_run_beside_each_other_and_around_a_pause_and_are_called_once(flux: Flux) -> None:
    small = adder()

    @workflow
    async def sums() -> Any:
        async with mcp(small.server) as client:
            tools = await client.discover()
            first, second = await parallel(tools.add(a=1, b=2), tools.add(a=3, b=4))
            more = await pause("more")
            return await tools.add(a=first["sum"] + second["sum"], b=more)

    execution = await flux.run(sums)
    assert execution.is_paused, execution.error
    execution = await flux.resume(execution.execution_id, 5)
    assert execution.output == {"sum": 15}, execution.error
    assert len(small.calls) == 3


async def test_an_agent_is_given_tools(flux: Flux) -> None:
    small = adder()
    model = ScriptedModel([tool_call("mcp_small_add", a=1, b=2), "three"])

    @workflow
    async def asks() -> str:
        async with mcp(small.server) as client:
            helper = agent("Add.", model=model, tools=[*await client.discover()])
            return await helper("1 + 2?")

    execution = await flux.run(asks)
    assert execution.output == "three", execution.error
    assert small.calls == [("add", {"a": 1, "b": 2})]


async def test_what_a_server_logs_during_a_call_is_progress_of_the_execution(flux: Flux) -> None:
    small = Small()

    @small.tool("work")
    async def work(ctx: Context, params: Any) -> Any:
        await ctx.session.send_log_message("info", "half of it", related_request_id=ctx.request_id)  # pyright: ignore[reportDeprecated] - servers of the older protocol log so
        return text("done")

    @workflow
    async def works() -> Any:
        async with mcp(small.server) as client:
            return await (await client.discover()).work()

    heard: list[Any] = []
    started = await flux.start(works)
    with flux.observed(started.execution_id, lambda progress: heard.append(progress.value)):
        done = await flux.wait(started.execution_id, timeout=20)
    assert done.output == "done", done.error
    assert {"log": "info", "message": "half of it"} in heard

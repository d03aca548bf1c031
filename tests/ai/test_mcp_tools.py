"""The tools of MCP servers in the hands of agents: told apart, their words passed on, their questions asked at any depth."""

from __future__ import annotations

import json
from typing import Any

import mcp_types as types
import pytest

from flux import ExecutionContext, Flux, workflow
from flux.tasks.ai import agent
from flux.tasks.mcp import mcp
from flux.testing import ScriptedModel, ScriptedRequest, crash_at_every_fact, tool_call
from tests.tasks.mcp.servers import NAME_FORM, Context, Reply, Small, schema, text

pytestmark = pytest.mark.anyio


def library(name: str) -> Small:
    """A server that finds what it is asked for, on its own shelves."""
    small = Small(name)

    @small.tool("find", schema("title", title={"type": "string"}), safe=True)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text(f"{(params.arguments or {})['title']} stands in {name}")

    return small


def call_all(request: ScriptedRequest) -> Any:
    return [tool_call(name) for name in request.tools]


def last_result(request: ScriptedRequest) -> str:
    return request.results[-1]


def all_results(request: ScriptedRequest) -> str:
    return json.dumps(request.results)


async def test_two_servers_tools_of_one_name_are_kept_apart() -> None:
    east, west = library("east"), library("west")

    def ask_both(request: ScriptedRequest) -> Any:
        assert len(set(request.tools)) == 2
        return [tool_call(name, title=f"tea {n}") for n, name in enumerate(request.tools)]

    model = ScriptedModel([ask_both, all_results])

    @workflow
    async def finds(ctx: ExecutionContext[Any]) -> str:
        async with mcp(east.server) as left, mcp(west.server) as right:
            tools = [await left.discover(), await right.discover()]
            return await agent("Find.", model=model, name="finder", tools=tools)("Tea.")

    done = await crash_at_every_fact(finds)
    assert json.loads(done.output) == ["tea 0 stands in east", "tea 1 stands in west"]
    assert {call["title"] for _, call in east.calls} == {"tea 0"}
    assert {call["title"] for _, call in west.calls} == {"tea 1"}


async def test_a_failing_tools_own_words_reach_the_model_and_so_does_all_that_it_says(flux: Flux) -> None:
    small = Small("mixed")

    @small.tool("fails")
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text("the shelf is empty", is_error=True)

    @small.tool("says_much")
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return types.CallToolResult(content=[types.TextContent(text="first"), types.TextContent(text="second")])

    model = ScriptedModel([call_all, all_results])

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> str:
        async with mcp(small.server) as client:
            return await agent("Ask.", model=model, name="asker", tools=await client.discover())("Go.")

    failed, said = json.loads((await flux.run(asks)).output)
    assert "the shelf is empty" in failed
    assert "first" in said
    assert "second" in said


async def test_what_a_server_asks_in_a_sub_agent_of_a_sub_agent_is_asked_and_answered_there(flux: Flux) -> None:
    small = Small("door")

    @small.tool("enter")
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        answer = await ctx.session.elicit_form("Your name?", NAME_FORM, related_request_id=ctx.request_id)
        return text(f"Come in, {(answer.content or {})['name']}")

    models = [
        ScriptedModel([call_all, last_result]),
        ScriptedModel([tool_call("delegate", agent="inner", instruction="enter"), last_result]),
        ScriptedModel([tool_call("delegate", agent="middle", instruction="enter"), last_result]),
    ]

    @workflow
    async def enters(ctx: ExecutionContext[Any]) -> str:
        async with mcp(small.server, protocol="legacy") as client:
            inner = agent("Enter.", model=models[0], name="inner", tools=await client.discover())
            middle = agent("Pass on.", model=models[1], name="middle", agents=[inner])
            return await agent("Lead.", model=models[2], name="outer", agents=[middle])("Go.")

    paused = await flux.run(enters)
    assert [pause.message for pause in paused.pauses] == ["Your name?"]
    done = await flux.resume(paused.execution_id, {"name": "Ada"})
    assert done.output == "Come in, Ada", done.error
    assert [len(model.requests) for model in models] == [2, 2, 2]

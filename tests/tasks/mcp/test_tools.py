"""Tools of other servers as tasks of a workflow: found, called, recorded, and not asked again on a replay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
import pytest

from flux import ExecutionContext, Flux, workflow
from flux.errors import InvalidInput, NotInWorkflow, ToolExecutionError
from flux.stores.memory import MemoryStore
from flux.tasks import Graph, parallel, pause
from flux.tasks.mcp import ImageBlock, LinkBlock, NoSuchTool, ResourceBlock, TextBlock, mcp
from flux.testing import crash_at_every_fact
from tests.tasks.mcp.servers import ERAS, Context, Reply, Small, adder, schema, text

pytestmark = pytest.mark.anyio

INTEGER = {"type": "integer"}


async def run(flux: Flux, body: Any, input: Any = None) -> Any:
    execution = await flux.run(body, input)
    if execution.error is not None:
        raise execution.error
    assert execution.has_succeeded, execution.status
    return execution.output


@pytest.mark.parametrize("era", ERAS)
async def test_a_discovered_tool_is_called_like_a_task(flux: Flux, era: str) -> None:
    small = adder()

    @workflow
    async def sums() -> Any:
        async with mcp(small.server, protocol=era) as client:
            tools = await client.discover()
            return await tools.add(a=1, b=2), await tools["add"](3, 4), await tools.add({"a": 5, "b": 6})

    assert await run(flux, sums) == ({"sum": 3}, {"sum": 7}, {"sum": 11})
    assert (small.opened, small.open) == (1, 0)


async def test_a_workflow_that_uses_tools_survives_a_crash_at_every_fact() -> None:
    small = adder()

    @workflow
    async def sums() -> Any:
        async with mcp(small.server) as client:
            tools = await client.discover()
            first = await tools.add(a=1, b=2)
            return await parallel(tools.add(a=first["sum"], b=1), tools.add(a=first["sum"], b=2))

    whole = await crash_at_every_fact(sums)
    assert whole.output == [{"sum": 4}, {"sum": 5}]
    assert [event.name for event in whole.events if event.type == "TASK_COMPLETED"][:2] == [
        "mcp_small_discover",
        "mcp_small_add",
    ]


async def test_a_replay_connects_to_nothing(flux: Flux) -> None:
    small = adder()
    store = MemoryStore()

    @workflow
    async def waits() -> Any:
        async with mcp(small.server) as client:
            tools = await client.discover()
            done = await tools.add(a=1, b=2)
            await pause("go on")
            return done, len(tools), "add" in tools, tools.get("gone")

    async with Flux(store=store, workflows=[waits], recover=False) as first:
        execution = await first.run(waits)
    before = (small.opened, small.lists, len(small.calls))
    async with Flux(store=store, workflows=[waits], recover=False) as second:
        assert (await second.resume(execution.execution_id, None)).output == ({"sum": 3}, 1, True, None)
    assert (small.opened, small.lists, len(small.calls)) == before


async def test_a_client_of_a_module_serves_many_runs() -> None:
    small = adder()
    client = mcp(small.server)

    @workflow
    async def sums(ctx: ExecutionContext[int]) -> Any:
        tools = await client.discover()
        return await tools.add.map([{"a": ctx.input, "b": n} for n in range(3)])

    for engine in range(1, 3):
        async with Flux(store=MemoryStore(), recover=False) as flux:
            for _ in range(2):
                assert [each["sum"] for each in await run(flux, sums, 10)] == [10, 11, 12]
            assert small.opened == engine
        assert small.open == 0  # it is closed with the engine, and opened again for the next


def test_a_client_of_a_module_serves_many_event_loops() -> None:
    small = adder()
    client = mcp(small.server)

    @workflow
    async def sums() -> Any:
        tools = await client.discover()
        return await tools.add(a=1, b=1)

    assert [sums.run().output, sums.run().output] == [{"sum": 2}, {"sum": 2}]
    assert small.open == 0


async def test_tools_are_nodes_of_graphs(flux: Flux) -> None:
    small = adder()

    @workflow
    async def graphed() -> Any:
        async with mcp(small.server) as client:
            tools = await client.discover()
            graph = Graph("sums").add_node("one", tools.add).start_with("one").end_with("one")
            return await graph({"a": 20, "b": 22})

    assert await run(flux, graphed) == {"sum": 42}


async def test_options_of_a_tool_are_those_of_a_task(flux: Flux) -> None:
    small = Small()

    @small.tool("flaky", safe=True)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text("not yet", is_error=len(small.calls) < 3)

    @workflow
    async def tries() -> Any:
        async with mcp(small.server) as client:
            tools = await client.discover()
            flaky = tools.flaky.with_options(retry_max_attempts=3, retry_delay=0, retry_on=ToolExecutionError)
            return await flaky(), await tools.flaky.with_options(fallback=lambda: "never", name="again")()

    assert await run(flux, tries) == ("not yet", "not yet")
    assert len(small.calls) == 4


async def test_a_tool_that_fails_raises_what_it_said(flux: Flux) -> None:
    small = Small()

    @small.tool("pay")
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text("the card was declined", is_error=True)

    @workflow
    async def pays() -> Any:
        async with mcp(small.server, retry_max_attempts=3, retry_delay=0) as client:
            await (await client.discover()).pay()

    with pytest.raises(ToolExecutionError) as caught:
        await run(flux, pays)
    assert (caught.value.tool_name, caught.value.message) == ("pay", "the card was declined")
    assert len(small.calls) == 1


def odd() -> Small:
    small = Small("odd.example")

    async def echo(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text("", structured_content={"got": params.arguments or {}})

    small.tool("optional-first", schema("b", a=INTEGER, b=INTEGER))(echo)
    small.tool("optional_first", schema("b", b=INTEGER))(echo)
    small.tool(
        "route",
        schema(
            "from",
            **{"from": {"type": "string"}, "limit": {"type": ["integer", "null"]}, "self": INTEGER, "import": INTEGER},
        ),
    )(echo)
    small.tool(
        "nested",
        {
            **schema("order", order={"$ref": "#/$defs/Order"}, size={"enum": ["s", "m"]}),
            "$defs": {"Order": schema("items", items={"type": "array", "items": schema("id", id=INTEGER)})},
        },
    )(echo)
    small.tool("import")(echo)
    small.tool("get", {**schema(), "additionalProperties": False})(echo)
    small.tool("anything")(echo)
    return small


async def called(small: Small, use: Use) -> Any:
    @workflow
    async def calls() -> Any:
        async with mcp(small.server) as client:
            return await use(await client.discover())

    async with Flux(store=MemoryStore(), recover=False) as flux:
        return (await run(flux, calls))["got"]


async def test_every_ordinary_schema_can_be_called() -> None:
    small = odd()
    order = {"items": [{"id": 1}]}
    uses: list[tuple[Use, dict[str, Any]]] = [
        (lambda tools: tools["optional-first"](5), {"b": 5}),
        (lambda tools: tools["optional_first"](b=5), {"b": 5}),
        (lambda tools: tools.route(from_="x", limit=None, self=3), {"from": "x", "limit": None, "self": 3}),
        (lambda tools: tools.route({"from": "x", "import": 1}), {"from": "x", "import": 1}),
        (lambda tools: tools.nested(order=order, size=None), {"order": order}),
        (lambda tools: tools.import_(), {}),
        (lambda tools: tools["get"](), {}),
        (lambda tools: tools.anything(a=1, b=[None]), {"a": 1, "b": [None]}),
    ]
    for use, expected in uses:
        assert await called(small, use) == expected


Use = Callable[[Any], Awaitable[Any]]

MISTAKES: list[tuple[Use, str]] = [
    (lambda tools: tools["optional-first"](a=1), "'b' is a required property"),
    (lambda tools: tools["optional-first"](a="x", b=1), "a: 'x' is not of type 'integer'"),
    (lambda tools: tools.nested(order={"items": [{"id": "x"}]}), "order.items[0].id: 'x' is not of type 'integer'"),
    (lambda tools: tools.nested(order={"items": []}, size="xl"), "size: 'xl' is not one of"),
    (lambda tools: tools["get"](extra=1), "'extra' was unexpected"),
    (lambda tools: tools["optional-first"](1, 2, 3), "too many"),
]


@pytest.mark.parametrize(("use", "said"), MISTAKES)
async def test_arguments_that_do_not_fit_are_named_before_anything_is_sent(use: Use, said: str) -> None:
    small = odd()
    with pytest.raises(InvalidInput) as caught:
        await called(small, use)
    assert said in str(caught.value)
    assert small.calls == []


async def test_names_that_collide_are_told_apart(flux: Flux) -> None:
    small = odd()

    @workflow
    async def names() -> Any:
        async with mcp(small.server) as client:
            tools = await client.discover()
            assert len({tool.name for tool in tools}) == len(tools) == 7
            assert all(len(tool.llm_name) <= 64 for tool in tools)
            with pytest.raises(NoSuchTool) as caught:
                _ = tools.rout
            schema = tools.schemas[0]
            return tools["optional_first"].name, str(caught.value), schema["name"] == tools["optional-first"].llm_name

    name, said, same = await run(flux, names)
    assert name == "mcp_odd_example_optional_first"
    assert said == "MCP server 'odd.example' has no tool 'rout'. Did you mean 'route'?"
    assert same


async def test_results_keep_their_kind(flux: Flux) -> None:
    small = Small()
    answers: dict[str, Reply] = {
        "one_text": text('{"a": 1}'),
        "promised": text('{"a": 1}'),
        "nothing": types.CallToolResult(content=[]),
        "wrapped": text("3", structured_content={"result": 3}),
        "several": types.CallToolResult(
            content=[
                types.TextContent(text="see"),
                types.ImageContent(data="aGk=", mime_type="image/png"),
                types.ResourceLink(uri="file:///a", name="a"),
                types.EmbeddedResource(resource=types.TextResourceContents(uri="file:///b", text="b")),
            ]
        ),
    }

    async def answer(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return answers[params.name]

    for name in answers:
        small.tool(name, output_schema={"type": "object"} if name == "promised" else None)(answer)

    @workflow
    async def calls() -> Any:
        async with mcp(small.server, protocol="legacy") as client:
            tools = await client.discover()
            return [await tool() for tool in tools]

    expected = [
        '{"a": 1}',
        {"a": 1},
        None,
        {"result": 3},
        [
            TextBlock("see"),
            ImageBlock(b"hi", "image/png"),
            LinkBlock(uri="file:///a", name="a"),
            ResourceBlock(uri="file:///b", text="b"),
        ],
    ]
    assert await run(flux, calls) == expected


def test_a_client_outside_of_a_workflow_says_so() -> None:
    with pytest.raises(NotInWorkflow):
        _ = mcp(adder().server).discover()

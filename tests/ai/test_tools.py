"""What agents call: schemas, arguments, failures, names, approvals, pauses at any depth."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from flux import ExecutionContext, Flux, Workflow, pause, task, workflow
from flux.tasks.ai import agent
from flux.tasks.ai.tools import named_apart, tools_of
from flux.testing import ScriptedModel, ScriptedRequest, crash_at_every_fact, tool_call

pytestmark = pytest.mark.anyio


class Unit(Enum):
    METRIC = "metric"
    IMPERIAL = "imperial"


class Place(BaseModel):
    city: str
    country: str = "DE"


@task
async def forecast(
    place: Place, unit: Unit = Unit.METRIC, days: Literal[1, 3, 7] = 3, note: str | None = None, *, exact: bool
) -> str:
    """Forecast the weather.

    Args:
        place: Where.
        days: How many days.
    """
    return f"{place.city} {place.country} {unit.name} {days} {note} {exact}"


def asking(*replies: Any, tools: list[Any], **options: Any) -> tuple[ScriptedModel, Workflow[Any, Any]]:
    model = ScriptedModel(replies)
    helper = agent("Help.", model=model, name="helper", tools=tools, **options)

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> Any:
        return await helper("Go.")

    return model, asks


def results(model: ScriptedModel) -> list[str]:
    return model.requests[-1].results


def last_result(request: ScriptedRequest) -> str:
    return request.results[-1]


def test_the_schema_of_a_tool_says_all_that_the_signature_says() -> None:
    (tool,) = tools_of([forecast], "default")
    assert tool.description == "Forecast the weather."
    assert tool.schema == {
        "type": "object",
        "additionalProperties": False,
        "required": ["place", "exact"],
        "properties": {
            "place": {
                "type": "object",
                "description": "Where.",
                "properties": {"city": {"type": "string"}, "country": {"type": "string", "default": "DE"}},
                "required": ["city"],
            },
            "unit": {"type": "string", "enum": ["metric", "imperial"], "default": "metric"},
            "days": {"type": "integer", "enum": [1, 3, 7], "description": "How many days.", "default": 3},
            "note": {"type": ["string", "null"]},
            "exact": {"type": "boolean"},
        },
    }


async def test_arguments_arrive_with_their_types(flux: Flux) -> None:
    model, asks = asking(
        tool_call("forecast", place={"city": "Ulm"}, unit="imperial", exact=True), "ok", tools=[forecast]
    )
    assert (await flux.run(asks)).output == "ok"
    assert results(model) == ["Ulm DE IMPERIAL 3 None True"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (tool_call("forecast", '{"place": '), "no JSON"),
        (tool_call("forecast", "[1]"), "JSON object"),
        (tool_call("forecast", place={"city": "Ulm"}, exact=True, wind=1), "wind: is not known here"),
        (tool_call("forecast", place={}, exact=True), "place.city: is required"),
        (tool_call("forecasts", place={}), "There is no tool 'forecasts'; there are: forecast."),
    ],
)
async def test_a_call_that_is_wrong_goes_back_to_the_model(flux: Flux, call: Any, said: str) -> None:
    mended = tool_call("forecast", place={"city": "Ulm"}, exact=False)
    model, asks = asking(call, mended, "ok", tools=[forecast])
    assert (await flux.run(asks)).output == "ok"
    assert said in model.requests[1].results[0]
    assert results(model)[0] == "Ulm DE METRIC 3 None False"


async def test_no_arguments_are_written_in_many_ways(flux: Flux) -> None:
    @task
    async def ping() -> str:
        return "pong"

    calls = [tool_call("ping", ""), tool_call("ping", "{}"), tool_call("ping", "null"), tool_call("ping")]
    model, asks = asking(calls, "ok", tools=[ping])
    assert (await flux.run(asks)).output == "ok"
    assert results(model) == ["pong"] * 4


async def test_the_model_reads_what_a_tool_failed_with(flux: Flux) -> None:
    class Odd(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"odd {a} {b}")

    @task
    async def fails() -> None:
        raise ValueError("no such city")

    @task
    async def fails_oddly() -> None:
        raise Odd(1, 2)

    model, asks = asking([tool_call("fails"), tool_call("fails_oddly")], "ok", tools=[fails, fails_oddly])
    assert (await flux.run(asks)).output == "ok"
    plain, odd = results(model)
    assert plain == "ValueError: no such city"
    assert "odd 1 2" in odd


async def test_functions_methods_workflows_and_agents_are_tools(flux: Flux) -> None:
    @dataclass
    class Order:
        id: int

    @workflow
    async def ship(ctx: ExecutionContext[Order]) -> str:
        """Ship an order."""
        return f"shipped {ctx.input.id}"

    def add(a: int, b: int = 1) -> int:
        return a + b

    class Shop:
        @task
        async def stock(self, item: str) -> int:
            return len(item)

    sub = agent("You translate.", model=ScriptedModel(["hallo"]), name="translator")
    calls = [
        tool_call("ship", id="7"),
        tool_call("add", a=2),
        tool_call("stock", item="tea"),
        tool_call("translator", instruction="hello"),
    ]
    model, asks = asking(calls, "ok", tools=[ship, add, Shop().stock, sub])
    assert (await flux.run(asks)).output == "ok"
    assert results(model) == ["shipped 7", "3", "3", "hallo"]


async def test_results_stand_in_the_order_of_the_calls_whoever_is_first(flux: Flux) -> None:
    @task
    async def relay(n: int) -> int:
        for _ in range(5 * (3 - n)):
            await asyncio.sleep(0)
        return n

    model, asks = asking([tool_call("relay", n=n) for n in range(3)], "ok", tools=[relay])
    assert (await flux.run(asks)).output == "ok"
    assert results(model) == ["0", "1", "2"]


class Remote:
    """A tool as an MCP client has it."""

    def __init__(self, server: str, name: str = "search") -> None:
        self.server = server
        self.name = name
        self.description = f"Search {server}."
        self.input_schema = {"properties": {"q": {"type": "string"}}, "required": ["q"]}

    async def __call__(self, **arguments: Any) -> Any:
        @task
        async def remote(q: str) -> str:
            return f"{self.server}: {q}"

        return await remote(**arguments)


async def test_tools_of_one_name_are_kept_apart_and_all_can_be_called(flux: Flux) -> None:
    calls = [tool_call("a_search", q="x"), tool_call("b_search", q="y"), tool_call("b_search", q=3)]
    model, asks = asking(calls, "ok", tools=[[Remote("a"), Remote("b")]])
    assert (await flux.run(asks)).output == "ok"
    first, second, wrong = results(model)
    assert (first, second) == ("a: x", "b: y")
    assert "3 is not of type 'string'" in wrong


def test_a_number_tells_apart_what_has_no_server() -> None:
    names = [tool.name for tool in named_apart(tools_of([forecast, forecast, Remote("a"), Remote("a")], "default"))]
    assert names == ["forecast", "forecast_2", "a_search", "a_search_2"]


# -- people -------------------------------------------------------------------------------------------------------------


@task.with_options(requires_approval=True)
async def delete(path: str) -> str:
    return f"deleted {path}"


@pytest.mark.parametrize(("approved", "said"), [(True, "deleted /tmp"), (False, "not approved: too dangerous")])
async def test_a_tool_that_needs_approval_pauses_the_execution(flux: Flux, approved: bool, said: str) -> None:
    model, asks = asking(tool_call("delete", path="/tmp"), "ok", tools=[delete])
    paused = await flux.run(asks)
    assert [pause.name for pause in paused.pauses] == ["approval:delete"]
    done = await flux.resume(paused.execution_id, {"approved": approved, "reason": "too dangerous"})
    assert done.output == "ok"
    assert said in results(model)[0]


async def test_autonomy_decides_which_tools_ask(flux: Flux) -> None:
    _, free = asking(tool_call("delete", path="/"), "ok", tools=[delete], autonomy="autonomous")
    assert (await flux.run(free.with_options(name="free"))).output == "ok"

    @workflow
    async def ship(ctx: ExecutionContext[str]) -> str:
        return f"shipped {ctx.input}"

    calls = [tool_call("ship", input="x"), tool_call("a_search", q="y"), tool_call("add", a=1)]

    def add(a: int) -> int:
        return a

    model, asks = asking(calls, "ok", tools=[ship, Remote("a", "a_search"), add], autonomy="strict")
    paused = await flux.run(asks)
    assert sorted(p.name for p in paused.pauses) == ["approval:a_search", "approval:add", "approval:ship"]
    for p in paused.pauses:
        await flux.resume(paused.execution_id, {"approved": True}, pause=p.id)
    assert (await flux.wait(paused.execution_id)).output == "ok"
    assert results(model) == ["shipped x", "a: y", "1"]


async def test_a_question_of_a_sub_agent_is_asked_and_answered_in_the_sub_agent(flux: Flux) -> None:
    @task
    async def ask_person(question: str) -> str:
        return await pause("ask", message=question, response=str)

    asker = ScriptedModel([tool_call("ask_person", question="Which?"), last_result])
    clerk = agent("You ask.", model=asker, name="clerk", tools=[ask_person])
    middle_model = ScriptedModel([tool_call("delegate", agent="clerk", instruction="ask"), last_result])
    middle = agent("You pass on.", model=middle_model, name="middle", agents=[clerk])
    model, asks = asking(tool_call("delegate", agent="middle", instruction="ask"), "ok", tools=[], agents=[middle])
    paused = await flux.run(asks)
    assert [(p.name, p.message) for p in paused.pauses] == [("ask", "Which?")]
    done = await flux.resume(paused.execution_id, "the red one")
    assert done.output == "ok"
    assert results(model) == ["the red one"]
    assert [len(m.requests) for m in (asker, middle_model, model)] == [2, 2, 2]


async def test_an_agent_that_does_not_exist_is_no_reason_to_fail(flux: Flux) -> None:
    clerk = agent("You ask.", model=ScriptedModel([]), name="clerk")
    model, asks = asking(tool_call("delegate", agent="boss", instruction="x"), "ok", tools=[], agents=[clerk])
    assert (await flux.run(asks)).output == "ok"
    assert "'clerk'" in results(model)[0]


async def test_a_crash_while_several_tools_run_changes_nothing() -> None:
    _, asks = asking(
        [
            tool_call("forecast", place={"city": "Ulm"}, exact=True),
            tool_call("delete", path="x"),
            tool_call("delete", path="y"),
        ],
        "ok",
        tools=[forecast, delete],
    )
    done = await crash_at_every_fact(asks, answers={"approval:delete": {"approved": True}})
    assert done.output == "ok"

"""Budgets: counted from what is recorded, shared with sub-agents, the same after a crash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.usage import RequestUsage

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.errors import BudgetExceeded, DefinitionError, ModelNotReady
from flux.stores.memory import MemoryStore
from flux.tasks import sleep
from flux.tasks.ai import Budget, agent
from flux.testing import FakeClock, ScriptedModel, crash_at_every_fact, tool_call

pytestmark = pytest.mark.anyio


@task
async def look(where: str) -> str:
    return f"nothing in {where}"


async def test_tokens_are_counted_over_crashes_and_pauses() -> None:
    model = ScriptedModel(["1", "2", "3"])  # 15 tokens each
    talker = agent("Talk.", model=model, name="talker", budget=Budget(max_tokens=30))

    @task
    async def inside() -> str:
        return await talker("a")

    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> str:
        await inside()
        await pause("wait")
        await talker("b")
        try:
            return await talker("c")
        except BudgetExceeded as exc:
            return f"{exc.limit} {exc.spent:g} of {exc.maximum:g}"

    assert (await crash_at_every_fact(talks, answers={"wait": None})).output == "max_tokens 30 of 30"


async def test_sub_agents_draw_on_the_budget_of_the_agent_that_calls_them(flux: Flux) -> None:
    worker = agent("Work.", model=ScriptedModel(["done"]), name="worker")
    model = ScriptedModel([tool_call("delegate", agent="worker", instruction="x"), "never"])
    boss = agent("Lead.", model=model, name="boss", agents=[worker], budget=Budget(max_tokens=30))

    @workflow
    async def leads(ctx: ExecutionContext[Any]) -> str:
        return await boss("Go.")

    error = (await flux.run(leads)).error
    assert isinstance(error, BudgetExceeded)
    assert error.budget == "boss"
    assert len(model.requests) == 1


async def test_tool_calls_beyond_the_budget_are_not_made(flux: Flux) -> None:
    looked: list[str] = []

    @task
    async def looks(where: str) -> str:
        looked.append(where)
        return where

    model = ScriptedModel(
        [tool_call("looks", where="a"), [tool_call("looks", where="b"), tool_call("looks", where="c")]]
    )
    looker = agent("Look.", model=model, tools=[looks], budget=Budget(max_tool_calls=2))

    @workflow
    async def look_around(ctx: ExecutionContext[Any]) -> str:
        return await looker("Go.")

    error = (await flux.run(look_around)).error
    assert isinstance(error, BudgetExceeded)
    assert error.limit == "max_tool_calls"
    assert looked == ["a"]


async def test_dollars_are_counted_by_the_prices_that_are_known(flux: Flux) -> None:
    usage = RequestUsage(input_tokens=1_000_000, output_tokens=0)
    reply = ModelResponse([TextPart("ok")], usage=usage, provider_name="openai")
    talker = agent("Talk.", model=ScriptedModel([reply, reply], name="gpt-4o"), budget=Budget(max_usd=2.0))

    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> str:
        await talker("a")
        return await talker("b")

    error = (await flux.run(talks)).error
    assert isinstance(error, BudgetExceeded)
    assert error.spent == pytest.approx(2.5)


async def test_without_a_price_a_budget_in_dollars_cannot_hold(flux: Flux) -> None:
    talker = agent("Talk.", model=ScriptedModel(["1"]), budget=Budget(max_usd=2.0))

    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> str:
        return await talker("a")

    assert isinstance((await flux.run(talks)).error, ModelNotReady)


async def test_time_is_counted_from_the_first_request() -> None:
    clock = FakeClock()
    talker = agent("Talk.", model=ScriptedModel(["1", "2"]), budget=Budget(max_seconds=60))

    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> str:
        await talker("a")
        await pause("wait")
        return await talker("b")

    async with Flux(store=MemoryStore(), clock=clock, recover=False) as flux:
        paused = await flux.run(talks)
        await clock.advance(minutes=2)
        done = await flux.resume(paused.execution_id, None)
    assert isinstance(done.error, BudgetExceeded)
    assert done.error.limit == "max_seconds"


def costly(*replies: str | ToolCallPart) -> list[ModelResponse]:
    """Replies that cost a dollar and a quarter each."""
    usage = RequestUsage(input_tokens=500_000, output_tokens=0)
    parts = (TextPart(reply) if isinstance(reply, str) else reply for reply in replies)
    return [ModelResponse([part], usage=usage, provider_name="openai") for part in parts]


def called(name: str, **arguments: Any) -> ToolCallPart:
    return replace(tool_call(name, **arguments), tool_call_id=f"call {arguments}")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_tokens": 1_500_000}, "max_tokens 1500000 of 1.5e+06"),
        ({"max_usd": 3.0}, "max_usd 3.75 of 3"),
        ({"max_tool_calls": 2}, "max_tool_calls 2 of 2"),
        ({"max_seconds": 60.0}, "max_seconds"),
    ],
)
async def test_every_limit_holds_over_crashes_for_an_agent_and_its_sub_agents(limits: Any, said: str) -> None:
    """Two of the requests are made by the sub-agent, and so is the second of the tool calls."""
    looks = ScriptedModel(costly(called("look", where="box"), "nothing there"), name="gpt-4o")
    worker = agent("Work.", model=looks, name="worker", tools=[look])
    leads = ScriptedModel(costly(called("delegate", agent="worker", instruction="x"), "done", "again"), name="gpt-4o")
    boss = agent("Lead.", model=leads, name="boss", agents=[worker], tools=[look], budget=Budget(**limits))
    again = agent(
        "Look.",
        model=ScriptedModel(costly(called("look", where="bag"), "never"), name="gpt-4o"),
        name="again",
        tools=[look],
        budget=boss.definition.budget,
    )

    @workflow
    async def works(ctx: ExecutionContext[Any]) -> str:
        try:
            await boss("Go.")
            await sleep(120)
            return await again("And again.")
        except BudgetExceeded as exc:
            return exc.limit if exc.limit == "max_seconds" else f"{exc.limit} {exc.spent:.10g} of {exc.maximum:g}"

    assert (await crash_at_every_fact(works)).output == said


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(DefinitionError):
        Budget(max_tokens=-1)

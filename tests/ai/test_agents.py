"""Agents as tasks: what they ask, what they call, how they end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flux import ExecutionContext, Flux, task, workflow
from flux.errors import DefinitionError, ModelNotReady, ModelRefused, OutputInvalid
from flux.tasks import Graph, parallel
from flux.tasks.ai import agent
from flux.testing import ScriptedModel, tool_call

pytestmark = pytest.mark.anyio


@task
async def search_web(query: str) -> str:
    """Search the web."""
    return f"results for {query}"


async def test_an_agent_answers_and_hands_context_on(flux: Flux) -> None:
    model = ScriptedModel(["findings", "a draft"])
    researcher = agent("You are a researcher.", model=model, name="researcher")
    writer = agent("You are a writer.", model=model, name="writer")

    @workflow
    async def blog(ctx: ExecutionContext[str]) -> str:
        research = await researcher(f"Research: {ctx.input}")
        return await writer("Write.", context=research)

    assert (await flux.run(blog, "tea")).output == "a draft"
    first, second = model.requests
    assert first.instructions == "You are a researcher."
    assert "Research: tea" in first.text
    assert "findings" in second.text


async def test_requests_and_tool_calls_are_steps_of_the_execution(flux: Flux) -> None:
    model = ScriptedModel([tool_call("search_web", query="tea"), "done"])
    assistant = agent("Help.", model=model, name="assistant", tools=[search_web])

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await assistant("Find tea.")

    done = await flux.run(helps)
    assert done.output == "done"
    events = (await flux.get(done.execution_id, events=True)).events
    started = [event.name for event in events if event.type.value == "TASK_STARTED"]
    assert started == ["assistant", "assistant:llm", "search_web", "assistant:llm"]
    assert "results for tea" in model.requests[1].text


async def test_agents_run_in_parallel_in_graphs_and_over_lists(flux: Flux) -> None:
    def echo(request: Any) -> str:
        return request.messages[-1].parts[0].content.upper()

    def shouting(name: str) -> Any:
        return agent("Shout.", model=ScriptedModel([echo] * 9), name=name)

    a, b = shouting("a"), shouting("b")

    @task
    async def joined(left: str, right: str) -> str:
        return f"{left}+{right}"

    graph = Graph("review").add_node("a", a).add_node("b", b).add_node("sum", joined)
    graph.start_with("a").start_with("b").add_edge("a", "sum").add_edge("b", "sum").end_with("sum")

    @workflow
    async def composed(ctx: ExecutionContext[Any]) -> list[Any]:
        return [await parallel(a("x"), b("y")), await a.map(["p", "q"]), await graph("z")]

    assert (await flux.run(composed)).output == [["X", "Y"], ["P", "Q"], "Z+Z"]


async def test_when_its_calls_are_used_up_an_agent_has_to_answer(flux: Flux) -> None:
    calls = [tool_call("search_web", query=str(n)) for n in range(3)]
    model = ScriptedModel([calls, "enough"])
    limited = agent("Help.", model=model, tools=[search_web], max_tool_calls=2)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await limited("Go.")

    assert (await flux.run(helps)).output == "enough"
    last = model.requests[-1]
    assert "results for 1" in last.text
    assert "results for 2" not in last.text
    assert "no tool calls are left" in last.text
    assert last.settings["tool_choice"] == "none"


async def test_an_empty_answer_is_asked_for_again(flux: Flux) -> None:
    model = ScriptedModel(["", "here"])
    terse = agent("Help.", model=model)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await terse("Go.")

    assert (await flux.run(helps)).output == "here"
    assert "it is empty" in model.requests[1].text


async def test_a_model_that_never_stops_calling_tools_is_an_error(flux: Flux) -> None:
    model = ScriptedModel([tool_call("search_web", query="x") for _ in range(9)])
    limited = agent("Help.", model=model, tools=[search_web], max_tool_calls=1)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await limited("Go.")

    failed = await flux.run(helps)
    assert isinstance(failed.error, OutputInvalid)
    assert len(model.requests) == 4


async def test_retries_are_for_the_request_and_pay_for_nothing_twice(flux: Flux) -> None:
    calls: list[str] = []

    @task
    async def counted(x: str) -> str:
        calls.append(x)
        return x

    from pydantic_ai.exceptions import ModelHTTPError  # noqa: PLC0415 - only this test knows it

    model = ScriptedModel([tool_call("counted", x="a"), ModelHTTPError(503, "m"), "done"])
    steady = agent("Help.", model=model, name="steady", tools=[counted]).with_options(retry_delay=0.0)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await steady("Go.")

    assert (await flux.run(helps)).output == "done"
    assert calls == ["a"]
    assert len(model.requests) == 3


async def test_a_request_that_is_refused_is_not_made_again(flux: Flux) -> None:
    from pydantic_ai.exceptions import ModelHTTPError  # noqa: PLC0415 - only this test knows it

    model = ScriptedModel([ModelHTTPError(400, "m", "too long"), "never"])
    refused = agent("Help.", model=model)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await refused("Go.")

    assert isinstance((await flux.run(helps)).error, ModelRefused)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("openai/gpt-4o", "OPENAI_API_KEY"),
        ("anthropic/claude-sonnet-4-20250514", "ANTHROPIC_API_KEY"),
        ("gpt", "provider/name"),
    ],
)
async def test_what_a_model_lacks_is_said_when_it_is_called(
    flux: Flux, monkeypatch: pytest.MonkeyPatch, model: str, said: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    keyless = agent("Help.", model=model)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        return await keyless("Go.")

    error = (await flux.run(helps)).error
    assert isinstance(error, ModelNotReady)
    assert said in str(error)


def test_neither_flux_nor_its_agents_import_the_optional_extra() -> None:
    code = "import sys, flux, flux.testing, flux.tasks.ai.memory; sys.exit('pydantic_ai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_is_said_when_an_agent_is_called() -> None:
    code = (
        "import sys; sys.modules['pydantic_ai'] = None\n"
        "from flux import workflow\nfrom flux.tasks.ai import agent\n"
        "helper = agent('Help.', model='ollama/llama3', name='helper')\n"
        "@workflow\nasync def helps(): return await helper('Go.')\n"
        "print(helps.run().error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Agent 'helper' needs a package that is not there" in ran.stdout, ran.stderr
    assert "pip install 'flux-mcp-server[ai]'" in ran.stdout


def test_what_cannot_be_an_agent_is_refused_at_once() -> None:
    with pytest.raises(DefinitionError, match="system prompt"):
        agent(search_web, model="ollama/x")  # pyright: ignore[reportArgumentType] - that is the point
    with pytest.raises(DefinitionError, match="cannot be a tool"):
        agent("Help.", model="ollama/x", tools=[3])

"""An agent that is killed anywhere goes on where it stood: what a model has answered is never asked again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from flux import ExecutionContext, Flux, task, workflow
from flux.domain.events import CallReturned, CallStarted, Event
from flux.tasks.ai import agent
from flux.testing import ScriptedModel, crash_at_every_fact, replayed_from, tool_call

pytestmark = pytest.mark.anyio


class Findings(BaseModel):
    topic: str
    points: list[str]


@task
async def search(query: str) -> str:
    return f"found {query}"


@task.with_options(requires_approval=True)
async def publish(text: str) -> str:
    return f"published {text}"


APPROVE = {"approval:publish": {"approved": True}}


def report(*, native: bool) -> tuple[ScriptedModel, Any]:
    answer = Findings(topic="tea", points=["green"])
    last = answer if native else tool_call("final_result", **answer.model_dump())
    model = ScriptedModel(
        [
            [tool_call("search", query="green"), tool_call("search", query="black")],
            tool_call("publish", text="draft"),
            last,
        ],
        native=native,
    )
    reporter = agent("Report.", model=model, name="reporter", tools=[search, publish], response_format=Findings)

    @workflow
    async def reports(ctx: ExecutionContext[str]) -> Findings:
        return await reporter(ctx.input)

    return model, reports


def answered(history: Sequence[Event]) -> set[str]:
    names = {fact.call: fact.name for fact in history if isinstance(fact, CallStarted)}
    returned = (fact.call for fact in history if isinstance(fact, CallReturned))
    return {call for call in returned if names[call].endswith(":llm")}


@pytest.mark.parametrize("native", [True, False])
async def test_after_a_crash_anywhere_no_answered_request_is_made_again(native: bool) -> None:
    model, reports = report(native=native)
    whole = await crash_at_every_fact(reports, "tea", answers=APPROVE)
    assert whole.output == Findings(topic="tea", points=["green"])
    history = [event.fact for event in whole.events]
    for length in range(1, len(history)):
        model.requests.clear()
        again = await replayed_from(reports, whole.execution_id, history[:length], answers=APPROVE)
        assert again.output == whole.output
        made = {request.place.removeprefix(f"{whole.execution_id}/").rstrip(".") for request in model.requests}
        assert not made & answered(history[:length]), f"after fact {length}"
        assert len(model.requests) == 3 - len(answered(history[:length]))


async def test_every_request_has_a_history_in_which_each_call_has_its_result() -> None:
    model, reports = report(native=False)
    await crash_at_every_fact(reports, "tea", answers=APPROVE)
    for request in model.requests:
        calls, returns = list[str](), list[str]()
        for message in request.messages:
            for part in message.parts:
                match part.part_kind:
                    case "tool-call":
                        calls.append(part.tool_call_id)
                    case "tool-return":
                        returns.append(part.tool_call_id)
                    case _:
                        pass
        assert calls == returns


async def test_what_a_conversation_leaves_on_disk_grows_with_its_length_alone(flux: Flux) -> None:
    def talking(turns: int) -> Any:
        replies: list[Any] = [tool_call("search", query=f"{n:03}") for n in range(turns)]
        talker = agent(
            "Talk.", model=ScriptedModel([*replies, "end"]), name="talker", tools=[search], max_tool_calls=turns + 1
        )

        @workflow.with_options(name=f"talks {turns}")
        async def talks(ctx: ExecutionContext[Any]) -> str:
            return await talker("Go.")

        return talks

    sizes: list[int] = []
    for turns in (20, 40, 80):
        done = await flux.run(talking(turns))
        events = (await flux.get(done.execution_id, events=True)).events
        sizes.append(sum(len(repr(event.fact)) for event in events))
    assert sizes[2] - sizes[1] < 2.2 * (sizes[1] - sizes[0])

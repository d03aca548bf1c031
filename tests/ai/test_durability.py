"""An agent that is killed anywhere goes on where it stood: what a model has answered is never asked again."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flux import ExecutionContext, Flux, task, workflow
from flux.domain.events import CallReturned, CallStarted, Event
from flux.tasks.ai import agent
from flux.tasks.ai.memory import working_memory
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


TURNS = 200


async def test_two_agents_and_four_sub_agents_in_200_turns_need_as_much_room_late_as_early(own_database: Path) -> None:
    """Both remember all that was said. What a turn leaves in the file does not depend on how much was said before."""
    room: list[int] = []

    @task
    async def measure() -> None:
        with closing(sqlite3.connect(own_database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            (used,) = connection.execute(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
            room.append(used)

    leads = [leader(name) for name in ("left", "right")]

    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> int:
        await measure()
        for turn in range(TURNS):
            await leads[turn % 2](f"turn {turn}")
            if turn % (TURNS // 4) == TURNS // 4 - 1:
                await measure()
        return TURNS

    async with Flux(str(own_database), recover=False) as flux:
        done = await flux.run(talks)
    assert done.output == TURNS, done.error
    early, *_, late = (after - before for before, after in pairwise(room))
    assert late < 1.1 * early
    assert late < TURNS / 4 * 10_000


def leader(name: str) -> Any:
    """An agent that has each turn done by one of its two sub-agents, and remembers everything."""
    helpers = [agent("Help.", model=ScriptedModel(["helped"] * TURNS), name=f"{name}_{n}") for n in range(2)]
    replies: list[Any] = []
    for turn in range(TURNS // 2):
        replies += [tool_call("delegate", agent=f"{name}_{turn % 2}", instruction="help"), f"turn {turn} is done"]
    return agent("Lead.", model=ScriptedModel(replies), name=name, agents=helpers, working_memory=working_memory())

"""Any conversation, crashed anywhere: every history is legal (a ScriptedModel checks that), nothing is asked or done twice."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_ai.messages import ToolCallPart

from flux import ExecutionContext, pause, task, workflow
from flux.tasks.ai import agent
from flux.tasks.ai.memory import working_memory
from flux.testing import ScriptedModel, crash_at_every_fact, tool_call

ANSWERS = {"ask": "yes", "approval:guarded": {"approved": True}, "approval:refused": {"approved": False}}


@task
async def works(n: int) -> int:
    for _ in range(n):
        await asyncio.sleep(0)
    return n


@task
async def fails(n: int) -> int:
    raise ValueError(n)


@task
async def asks(n: int) -> str:
    return f"{n} {await pause('ask')}"


@task.with_options(requires_approval=True)
async def guarded(n: int) -> int:
    return n


@task.with_options(requires_approval=True)
async def refused(n: int) -> int:
    raise AssertionError("nobody agreed to this")


def call(name: str, n: int) -> ToolCallPart:
    match name:
        case "malformed":
            return tool_call("works", '{"n": ')
        case "helper":
            return tool_call("delegate", agent="helper", instruction=str(n))
        case _:
            return tool_call(name, n=n)


NAMES = ["works", "fails", "asks", "guarded", "refused", "malformed", "unknown", "helper"]
TURNS = st.lists(
    st.lists(st.builds(call, st.sampled_from(NAMES), st.integers(0, 3)), min_size=1, max_size=3), max_size=3
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=TURNS, second=TURNS, limit=st.integers(1, 6))
def test_any_conversation_crashed_anywhere_ends_the_same(
    first: list[list[Any]], second: list[list[Any]], limit: int
) -> None:
    helper = agent("Help.", model=ScriptedModel(["helped"] * 20), name="helper")

    def last(request: Any) -> str:
        return " | ".join(request.said)

    model = ScriptedModel([*first, last, *second, *[last] * 10])
    talker = agent(
        "Talk.",
        model=model,
        name="talker",
        tools=[works, fails, asks, guarded, refused],
        agents=[helper],
        max_tool_calls=limit,
        max_schema_retries=9,
        working_memory=working_memory(window=6),
    )

    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> list[str]:
        return [await talker("first"), await talker("second")]

    whole = asyncio.run(crash_at_every_fact(talks, answers=ANSWERS))
    assert whole.has_succeeded, whole.error
    assert "nobody agreed" not in str(whole.output)

"""Tokens and tool calls as progress, without a difference to what is recorded."""

from __future__ import annotations

from typing import Any

import pytest

from flux import ExecutionContext, Flux, task, workflow
from flux.engine.run import Progress
from flux.tasks.ai import agent
from flux.testing import ScriptedModel, crash_at_every_fact, tool_call

pytestmark = pytest.mark.anyio


@task
async def look(where: str) -> str:
    return f"nothing in {where}"


def streaming() -> Any:
    model = ScriptedModel([tool_call("look", where="box"), "The box is empty."])
    streamer = agent("Look.", model=model, name="streamer", tools=[look], stream=True)

    @workflow
    async def streams(ctx: ExecutionContext[Any]) -> str:
        return await streamer("Go.")

    return streams


async def test_tokens_and_tools_are_told_as_they_come(flux: Flux) -> None:
    said: list[Progress] = []
    started = await flux.start(streaming())
    with flux.observed(started.execution_id, said.append):
        done = await flux.wait(started.execution_id)
    told = [progress.value for progress in said if progress.task == "streamer" and progress.value is not None]
    assert told[:2] == [{"type": "tool_start", "tool": "look"}, {"type": "tool_done", "tool": "look"}]
    assert "".join(value["token"] for value in told[2:]) == "The box is empty."
    assert done.output == "The box is empty."


async def test_a_streamed_answer_is_as_durable_as_any() -> None:
    assert (await crash_at_every_fact(streaming())).output == "The box is empty."

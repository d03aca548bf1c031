"""Tokens and tool calls as progress, without a difference to what is recorded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, Flux, task, workflow
from flux.engine.body import Progress
from flux.errors import NotStorable
from flux.stores.memory import MemoryStore
from flux.tasks.ai import agent
from flux.testing import ScriptedModel, crash_at_every_fact, tool_call
from tests.mcp.serving import Era, client_of, serving, text_of

pytestmark = pytest.mark.anyio


@task
async def look(where: str) -> str:
    return f"nothing in {where}"


def streaming() -> Any:
    model = ScriptedModel([tool_call("look", where="box"), "The box\nis empty."])
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
    assert "".join(value["token"] for value in told[2:]) == "The box\nis empty."
    assert done.output == "The box\nis empty."


PROGRAM = """
from flux import ExecutionContext, workflow
from flux.tasks.ai import agent
from flux.testing import ScriptedModel, tool_call

def look(where: str) -> str:
    return f"nothing in {where}"

model = ScriptedModel([tool_call("look", where="box"), "The box\\nis empty."])
streamer = agent("Look.", model=model, name="streamer", tools=[look], stream=True)

@workflow
async def streams(ctx: ExecutionContext[None]) -> str:
    return await streamer("Go.")
"""

TOLD = [
    "streamer:llm finished",
    "streamer: calls look",
    "look finished",
    "streamer: has called look",
    "streamer: The box",
    "streamer: is empty.",
    "streamer:llm finished",
    "streamer finished",
]


def test_the_command_line_tells_what_an_agent_says_and_calls(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    command = [sys.executable, "-m", "flux.cli", "run", "program.py", "--database", "flux.db"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "The box\nis empty.\n"
    assert [line for line in ran.stderr.splitlines() if line in TOLD] == TOLD


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_an_mcp_client_is_told_the_same_as_progress(era: Era) -> None:
    messages: list[str] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message or "")

    async with serving(streaming()) as server, client_of(server, era) as client:
        result = await client.call_tool("streams", progress_callback=heard)
    assert text_of(result) == "The box\nis empty."
    assert messages[1:] == TOLD


async def test_a_secret_that_a_model_says_is_told_to_nobody() -> None:
    @task.with_options(secret_requests=["TOKEN"])
    async def logs_in(*, secrets: dict[str, str] | None = None) -> str:
        return "ok"

    model = ScriptedModel([tool_call("logs_in"), "It is open sesame, they say."])
    teller = agent("Tell.", model=model, name="teller", tools=[logs_in], stream=True)

    @workflow
    async def tells(ctx: ExecutionContext[Any]) -> str:
        return await teller("Go.")

    said: list[Progress] = []
    async with Flux(store=MemoryStore(), recover=False, secrets=Vault()) as flux:
        with flux.observed("x", said.append):
            failed = await flux.run(tells, execution_id="x")
    told = "".join(p.value["token"] for p in said if p.value is not None and "token" in p.value)
    assert told == "It is ***, they say."
    assert isinstance(failed.error, NotStorable)
    assert "sesame" not in str(failed.error)


class Vault:
    async def get(self, name: str) -> str | None:
        return "open sesame" if name == "TOKEN" else None


async def test_a_streamed_answer_is_as_durable_as_any() -> None:
    assert (await crash_at_every_fact(streaming())).output == "The box\nis empty."

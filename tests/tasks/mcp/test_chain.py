"""Three real processes in a chain, a question at the far end, and all of them killed while it is open."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from flux import Flux, workflow
from flux.tasks.mcp import mcp
from tests.tasks.mcp.servers import words

pytestmark = pytest.mark.anyio

FAR = '''
from pathlib import Path
from pydantic import BaseModel
from flux import ExecutionContext, task, workflow
from flux.tasks import pause

class Approval(BaseModel):
    approved: bool

@task
async def note(word: str) -> str:
    with (Path(__file__).parent / "trace").open("a") as file:
        file.write(word + "\\n")
    return word

@workflow
async def far(ctx: ExecutionContext[str]) -> str:
    """Ship an order, once somebody has agreed."""
    await note(f"reserve-{ctx.input}")
    answer = await pause("approval", message=f"Ship {ctx.input}?", response=Approval)
    return await note(f"ship-{ctx.input}" if answer.approved else "nothing")
'''

MIDDLE = '''
import sys
from pathlib import Path
from flux import ExecutionContext, workflow
from flux.tasks.mcp import mcp

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "flux_mcp_server", str(HERE / "far.py"), "--database", str(HERE / "far.db")]

@workflow
async def middle(ctx: ExecutionContext[str]) -> str:
    """Let the far server ship it."""
    async with mcp(COMMAND, name="far", connect_timeout=60) as client:
        tools = await client.discover()
        return (await tools.far(ctx.input))["result"]
'''


def kill_all_below(pid: int) -> int:
    """kill -9 for every process that this one has started, and those that they have."""
    below = psutil.Process(pid).children(recursive=True)
    for process in below:
        process.kill()
    psutil.wait_procs(below, timeout=20)
    return len(below)


@pytest.mark.timeout(100)
async def test_a_chain_of_processes_killed_while_a_question_is_open_ships_once(tmp_path: Path) -> None:
    (tmp_path / "far.py").write_text(FAR)
    (tmp_path / "middle.py").write_text(MIDDLE)
    database = str(tmp_path / "middle.db")
    command = [sys.executable, "-m", "flux_mcp_server", str(tmp_path / "middle.py"), "--database", database]

    @workflow
    async def near() -> Any:
        async with mcp(command, name="middle", connect_timeout=60) as client:
            return await (await client.discover()).middle("A1")

    async with Flux(tmp_path / "near.db", workflows=[near], recover=False) as flux:
        with anyio.fail_after(60):
            execution = await flux.run(near)
            assert [each.message for each in execution.pauses] == ["Ship A1?"], execution.error
            kill_all_below(os.getpid())
            execution = await flux.resume(execution.execution_id, {"approved": True})
    assert execution.output == {"result": "ship-A1"}, execution.error or execution.pauses
    assert words(tmp_path) == ["reserve-A1", "ship-A1"]

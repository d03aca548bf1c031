"""Three processes in a chain over HTTP, one of them killed at every stage of a call: the work at the far end is done once."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process

from tests.tasks.mcp.servers import free_port, until, until_said, words

pytestmark = pytest.mark.anyio

FAR = """
import asyncio
from pathlib import Path
from pydantic import BaseModel
from flux import ExecutionContext, task, workflow
from flux.tasks import pause

HERE = Path(__file__).parent

class Approval(BaseModel):
    approved: bool

@task
async def note(word: str) -> str:
    with (HERE / "trace").open("a") as file:
        file.write(word + "\\n")
    return word

@task
async def gate(name: str) -> None:
    with (HERE / "trace").open("a") as file:
        file.write("at-" + name + "\\n")
    while not (HERE / name).exists():
        await asyncio.sleep(0.02)

@workflow
async def far(ctx: ExecutionContext[str]) -> str:
    await note("reserve")
    await gate("first")
    answer = await pause("approval", message="Ship?", response=Approval)
    await gate("second")
    return await note("ship")
"""

CALLS = """
from flux import ExecutionContext, workflow
from flux.tasks.mcp import mcp

@workflow
async def {name}(ctx: ExecutionContext[str]) -> str:
    async with mcp("http://127.0.0.1:{port}/mcp", name="{tool}", connect_timeout=30, retry_max_attempts=20, retry_delay=0.5) as client:
        return (await (await client.discover()).{tool}(ctx.input))["result"]
"""

NEAR = """
import asyncio, sys
from pathlib import Path
from flux import Flux
from near_flow import near

HERE = Path(__file__).parent

async def main():
    async with Flux(HERE / "near.db", workflows=[near]) as flux:
        known = await flux.exists("n1")
        execution = await (flux.wait("n1") if known else flux.run(near, "A1", execution_id="n1"))
        if execution.is_paused and not (HERE / "answer").exists():
            (HERE / "asked").write_text(execution.pauses[0].message or "")
            while not (HERE / "answer").exists():
                await asyncio.sleep(0.02)
        if execution.is_paused:
            execution = await flux.resume("n1", {"approved": True})
        (HERE / "output").write_text(f"{execution.output} {execution.error}")

asyncio.run(main())
"""


class Chain:
    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._running: dict[str, Any] = {}
        self.ports = ports = {"far": free_port(), "middle": free_port()}
        (folder / "far.py").write_text(FAR)
        (folder / "middle.py").write_text(CALLS.format(name="middle", tool="far", port=ports["far"]))
        (folder / "near_flow.py").write_text(CALLS.format(name="near", tool="middle", port=ports["middle"]))
        (folder / "near.py").write_text(NEAR)
        self._commands = {"near": [sys.executable, str(folder / "near.py")]}
        for name, port in ports.items():
            served = [str(folder / f"{name}.py"), "--database", str(folder / f"{name}.db")]
            how = ["--transport", "http", "--port", str(port)]
            self._commands[name] = [sys.executable, "-m", "flux_mcp_server", *served, *how]

    async def start(self, *names: str) -> None:
        for name in names:
            nowhere: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": None, "stderr": None}
            process = self._running[name] = await anyio.open_process(self._commands[name], **nowhere)
            self._stack.push_async_callback(_kill, process)
            if name in self.ports:
                await until(lambda port=self.ports[name]: listens(port))

    async def kill_and_restart(self, name: str) -> None:
        await _kill(self._running[name])
        await self.start(name)

    async def until_there(self, file: str) -> None:
        with anyio.fail_after(45):
            await until((self.folder / file).exists)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("victim", ["near", "middle", "far"])
async def test_whoever_is_killed_at_every_stage_the_far_end_ships_once(tmp_path: Path, victim: str) -> None:
    async with AsyncExitStack() as stack:
        chain = Chain(tmp_path, stack)
        await chain.start("far", "middle", "near")
        await until_said(tmp_path, "at-first")  # the call is under way
        await chain.kill_and_restart(victim)
        (tmp_path / "first").touch()
        await chain.until_there("asked")  # the question is open
        await chain.kill_and_restart(victim)
        (tmp_path / "answer").touch()
        await until_said(tmp_path, "at-second")  # the answer is there
        await chain.kill_and_restart(victim)
        (tmp_path / "second").touch()
        await chain.until_there("output")
        assert (tmp_path / "output").read_text() == "ship None"
        (tmp_path / "output").unlink()
        await chain.kill_and_restart(victim)  # after the result
        if victim != "near":
            await chain.start("near")
        await chain.until_there("output")
        assert (tmp_path / "output").read_text() == "ship None"
    done = [word for word in words(tmp_path) if not word.startswith("at-")]
    assert done == ["reserve", "ship"]

"""Processes side by side on one SQLite file: each begins work of its own, and whatever becomes of one, the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp import Client, MCPError

from flux import Flux
from flux.settings import Settings
from tests.mcp.serving import ERAS, PATIENCE, Era, data_of, lines, stdio, stdio_parameters
from tests.mcp.test_http import SERVED
from tests.torture.crew import ROOT
from tests.torture.forms import size
from tests.torture.programs import WORKFLOWS
from tests.torture.starter import plans
from tests.torture.test_kills import answered, check

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(size(120, 1800))]


@contextmanager
def starter(database: Path, ledger: Path, name: str, count: int, steps: int) -> Generator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.starter", str(database), name, str(count), str(steps)],
        cwd=ROOT,
        env={**os.environ, "LEDGER": str(ledger)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


async def test_four_processes_begin_and_run_their_executions_on_one_file(tmp_path: Path) -> None:
    database, ledger, count, steps = tmp_path / "flux.db", tmp_path / "ledger", size(25, 200), size(8, 20)
    names = [f"{letter}-" for letter in "abcd"]
    todo = {id: plan for name in names for id, plan in plans(name, count, steps).items()}
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(starter(database, ledger, name, count, steps)) for name in names]
        for each in processes:
            assert each.stdout is not None
            assert await asyncio.to_thread(each.stdout.readline) == "begun\n"
        async with Flux(settings=Settings.load(database=database, poll_seconds=0.05), workflows=WORKFLOWS) as front:
            await answered(front, todo)
            await check(front, todo, ledger)
    assert is_sound(database)


def is_sound(database: Path) -> bool:
    with sqlite3.connect(database) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- servers -----------------------------------------------------------------------------------------------------------


class Server:
    """An MCP server over stdio and a client of it. When it is killed another takes its place."""

    def __init__(self, folder: Path, number: int, era: Era) -> None:
        self._name = f"neighbour-{number}"
        self._parameters = stdio_parameters(
            *(SERVED, "--wait", "1", "--name", self._name), folder=folder, env={"TRACE": str(folder / "trace.txt")}
        )
        self._era: Era = era
        self._client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._killed = asyncio.Event()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(anyio.BrokenResourceError, MCPError):  # of the one that was killed
                async with stdio(self._parameters, self._era) as client:
                    self._client.set_result(client)
                    await self._killed.wait()
                    self._killed.clear()

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        client = await asyncio.wait_for(asyncio.shield(self._client), PATIENCE)
        return data_of(await asyncio.wait_for(client.call_tool(tool, arguments), PATIENCE))

    async def kill(self) -> None:
        (process,) = [each for each in psutil.Process().children() if self._name in each.cmdline()]
        self._client = asyncio.get_running_loop().create_future()
        process.kill()
        await asyncio.to_thread(process.wait, PATIENCE)
        self._killed.set()


@asynccontextmanager
async def three_servers(folder: Path) -> AsyncGenerator[list[Server]]:
    servers = [Server(folder, number, ERAS[number % 2]) for number in range(3)]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(server.run()) for server in servers]
        for server in servers:
            await server.call("list_workflows")
        yield servers
        for each in running:
            each.cancel()


async def test_what_one_of_three_servers_began_the_others_see_answer_and_finish_although_it_is_killed(
    tmp_path: Path,
) -> None:
    chance, orders = random.Random(1), [f"A{number}" for number in range(size(6, 100))]
    async with three_servers(tmp_path) as servers:
        for order in orders:
            first, second, third = chance.sample(servers, 3)
            id = (await first.call("approve", input=order))["execution_id"]
            assert (await second.call("get_execution", execution_id=id))["status"] == "paused"
            if chance.random() < 0.5:
                await chance.choice([first, second]).kill()
            answer = {"approved": True}
            assert await third.call("resume_approve", execution_id=id, answer=answer) == {"result": f"shipped {order}"}
            for server in servers:
                seen = await server.call("get_execution", execution_id=id, wait_seconds=10)
                assert (seen["status"], seen["output"]) == ("completed", f"shipped {order}")
    steps = Counter(lines(tmp_path / "trace.txt"))
    assert steps == Counter(f"{what} {order}" for order in orders for what in ("reserve", "ship"))
    assert is_sound(tmp_path / "served.db")


async def test_what_one_of_three_servers_was_running_is_stopped_resumed_and_finished_by_the_others(
    tmp_path: Path,
) -> None:
    there = tmp_path / "there"
    async with three_servers(tmp_path) as (first, second, third):
        id = (await first.call("wait_for", input=str(there)))["execution_id"]
        assert (await second.call("get_execution", execution_id=id))["status"] == "running"
        await first.kill()
        await second.call("pause_execution", execution_id=id)
        await third.call("resume_execution", execution_id=id)
        there.touch()
        for server in (second, third, first):
            seen = await server.call("get_execution", execution_id=id, wait_seconds=10)
            assert (seen["status"], seen["output"]) == ("completed", "shipped it")
    assert lines(tmp_path / "trace.txt")[-2:] == ["seen", "ship it"]
    assert lines(tmp_path / "trace.txt").count("ship it") == 1

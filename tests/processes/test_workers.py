"""`flux worker`, as real processes behind one database: work is spread, taken over, steered from anywhere, and begun once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from flux import Flux
from flux.discovery import discover
from flux.service import AnyWorkflow
from flux.settings import Settings

pytestmark = pytest.mark.anyio

FLOWS = """
import asyncio, os
from pathlib import Path
from flux import ExecutionContext, pause, task, workflow

FOLDER = Path(__file__).parent

def note(line):
    with (FOLDER / "ledger").open("a") as file:
        file.write(f"{line}\\n")

@task
async def wait_for(name: str) -> int:
    note(f"{name} {os.getpid()}")
    while not (FOLDER / name).exists():
        await asyncio.sleep(0.01)
    return os.getpid()

@workflow
async def waits(ctx: ExecutionContext[str]) -> int:
    return await wait_for(ctx.input)

@workflow
async def asks(ctx: ExecutionContext[str]) -> str:
    return await pause("sure")
"""

TICKING = """
from flux import interval, workflow

@workflow.with_options(schedule=interval(seconds=0.5))
async def ticking() -> None: ...
"""

Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    path = tmp_path / "flows.py"
    path.write_text(FLOWS)
    return path


@pytest.fixture
def workflows(flows: Path) -> list[AnyWorkflow]:
    return list(discover([str(flows)]).workflows)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = str(tmp_path / "flux.db") if request.param == "sqlite" else request.getfixturevalue("postgres")
    for name, value in (("DATABASE", url), ("POLL_SECONDS", "0.05"), ("LEASE_SECONDS", "1.5")):
        monkeypatch.setenv(f"FLUX_{name}", value)
    return url


@pytest.fixture
def worker(flows: Path) -> Iterator[Spawn]:
    """Starts workers, and waits until each is at work."""
    running: list[subprocess.Popen[str]] = []

    def spawn(*more: str, file: Path = flows) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flux.cli", "worker", str(file), *more]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stderr is not None
        while "This worker runs" not in (line := process.stderr.readline()):
            assert line, "the worker has not started"
        return process

    yield spawn
    for process in running:
        process.kill()
        process.communicate()


def front(database: str, workflows: list[AnyWorkflow]) -> Flux:
    """A process that starts and answers, and runs nothing."""
    return Flux(settings=Settings.load(concurrency=0), workflows=workflows)


async def begun(folder: Path, count: int) -> dict[str, int]:
    """Once so many have begun: which process runs each."""
    ledger = folder / "ledger"
    async with asyncio.timeout(30):
        while not ledger.exists() or len(ledger.read_text().splitlines()) < count:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    lines = [line.split() for line in ledger.read_text().splitlines()]
    return {name: int(pid) for name, pid in lines}


async def test_work_is_spread_over_workers_by_the_room_they_have(
    database: str, worker: Spawn, workflows: list[AnyWorkflow], tmp_path: Path
) -> None:
    one, other = worker("--concurrency", "2"), worker("--concurrency", "3")
    async with front(database, workflows) as flux:
        for name in "abcdef":
            await flux.start("waits", name, execution_id=name)
        ran_by = await begun(tmp_path, 5)
        counts = sorted(list(ran_by.values()).count(each.pid) for each in (one, other))
        assert counts == [2, 3]
        for name in "abcdef":
            (tmp_path / name).touch()
            assert (await flux.wait(name, timeout=20)).has_succeeded


async def test_a_worker_that_is_frozen_or_killed_is_replaced_and_one_that_is_told_to_stop_gives_its_work_up(
    database: str, worker: Spawn, workflows: list[AnyWorkflow], tmp_path: Path
) -> None:
    first = worker()
    async with front(database, workflows) as flux:
        await flux.start("waits", "a", execution_id="a")
        assert await begun(tmp_path, 1) == {"a": first.pid}
        first.send_signal(signal.SIGSTOP)
        second = worker()
        assert await begun(tmp_path, 2) == {"a": second.pid}
        second.kill()
        third = worker("--drain", "0")
        assert await begun(tmp_path, 3) == {"a": third.pid}
        third.send_signal(signal.SIGTERM)
        fourth = worker()
        assert await begun(tmp_path, 4) == {"a": fourth.pid}
        assert third.wait(10) == 0
        first.send_signal(signal.SIGCONT)
        (tmp_path / "a").touch()
        assert (await flux.wait("a", timeout=20)).output == fourth.pid


async def test_what_a_worker_runs_is_answered_suspended_and_cancelled_from_elsewhere(
    database: str, worker: Spawn, workflows: list[AnyWorkflow], tmp_path: Path
) -> None:
    worker()
    async with front(database, workflows) as flux, front(database, workflows) as another:
        await flux.start("asks", "a", execution_id="asked")
        assert (await another.wait("asked", timeout=20)).is_paused
        await another.answer("asked", "yes")
        assert (await flux.wait("asked", timeout=20)).output == "yes"
        await flux.start("waits", "never", execution_id="cancelled")
        await begun(tmp_path, 1)
        await another.cancel("cancelled")
        assert (await flux.wait("cancelled", timeout=20)).is_cancelled


async def test_a_schedule_starts_once_however_many_workers_look_at_the_clock(
    database: str, worker: Spawn, workflows: list[AnyWorkflow], tmp_path: Path
) -> None:
    file = tmp_path / "ticking.py"
    file.write_text(TICKING)
    for _ in range(3):
        worker(file=file)
    async with front(database, workflows) as flux:
        async with asyncio.timeout(30):
            while len(rows := await flux.list(workflow="ticking")) < 4:  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.05)
    starts = sorted(row.created_at for row in rows)
    assert min(later - earlier for earlier, later in pairwise(starts)) > 0.2


def test_a_worker_without_anything_to_run_says_so(tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.touch()
    command = [sys.executable, "-m", "flux.cli", "worker", str(empty)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 2
    assert "There are no workflows in" in refused.stderr

"""Processes are killed at random moments, again and again: every execution ends right, and nothing that was finished is done
twice."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from flux import Flux
from flux.domain.events import CallCancelled, CallRaised, CallReturned, CallStarted, Event
from flux.settings import Settings
from tests.torture.crew import Crew, crew
from tests.torture.forms import size
from tests.torture.programs import ANSWER, WORKFLOWS, Plan, expected, program

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(size(120, 1800))]

PROCESSES = 4


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "flux.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


async def test_killed_processes_lose_nothing_and_repeat_nothing_that_was_finished(
    database: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    plans = {f"e{number}": Plan(seed=number, steps=size(8, 20)) for number in range(size(80, 4000))}
    settings = Settings.load(database=database, poll_seconds=0.05)
    async with Flux(settings=settings, workflows=WORKFLOWS) as front:  # it has not what they need: others run them
        await asyncio.gather(*[front.start(program, plan, execution_id=id) for id, plan in plans.items()])
        with crew(database, ledger, PROCESSES) as workers:
            killing = asyncio.create_task(kill(workers, size(12, 1000)))
            await answered(front, plans)
            killing.cancel()
        await check(front, plans, ledger)
    assert workers.kills > size(3, 900)
    if "://" not in database:
        with sqlite3.connect(database) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_one_of_four_processes_is_killed_every_second_while_work_comes_in(postgres: str, tmp_path: Path) -> None:
    ledger, seconds = tmp_path / "ledger", size(5, 60)
    plans = {f"e{number}": Plan(seed=number, steps=20) for number in range(size(100, 2000))}
    settings = Settings.load(database=postgres, poll_seconds=0.05)
    async with Flux(settings=settings, workflows=WORKFLOWS) as front:
        with crew(postgres, ledger, PROCESSES) as workers:
            killing = asyncio.create_task(kill_every_second(workers, seconds))
            for id, plan in plans.items():
                await front.start(program, plan, execution_id=id)
                await asyncio.sleep(seconds / len(plans) / 2)
            await asyncio.gather(killing, answered(front, plans))
        assert workers.kills == seconds
        await check(front, plans, ledger)


async def kill_every_second(workers: Crew, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(1)
        workers.kill_one()


async def kill(workers: Crew, times: int) -> None:
    chance = random.Random(1)
    for _ in range(times):
        await asyncio.sleep(chance.random() * 0.1)
        workers.kill_one()


async def answered(front: Flux, plans: Mapping[str, Plan]) -> None:
    """Answer whatever is asked until all have ended."""
    open = set(plans)
    while open:
        for row in await front.list(status="paused", limit=1000):
            for asked in (await front.get(row.id)).pauses:
                if "/" not in asked.id:
                    await front.answer(row.id, ANSWER, pause=asked.id)
        for id in list(open):
            if (await front.get(id)).has_finished:
                open.discard(id)
        await asyncio.sleep(0.1)


async def check(front: Flux, plans: Mapping[str, Plan], ledger: Path, *, late: int = 0) -> None:
    """Every execution has ended right, and no effect began after its outcome was written, but for so many."""
    begun: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        execution, label, at = line.split()
        begun[execution, label].append(float(at))
    for id, plan in plans.items():
        done = await front.get(id)
        assert (done.status, done.output) == ("completed", expected(plan)), f"{id}: {done.output!r}"
    repeated: list[str] = []
    for row in await front.list(limit=100_000):
        history = await front.history(row.id)
        assert row.status is (await front.get(row.id)).status, f"{row} is not what its facts say"
        assert await front.engine.store.last(row.id) == len(history), f"{row.id}: facts are missing"
        repeated += repeated_in(row.id, history, begun)
    assert len(repeated) <= late, repeated


def repeated_in(id: str, history: list[Event], begun: Mapping[tuple[str, str], list[float]]) -> list[str]:
    """The steps whose effect began after their outcome had been written. Each call has one outcome."""
    finished: dict[str, float] = {}
    for event in history:
        if isinstance(event, (CallReturned, CallRaised, CallCancelled)):
            assert event.call not in finished, f"{id}: call {event.call} ended twice"
            finished[event.call] = event.at
    labels = {
        event.call: (event.arguments or "").split('"')[7]
        for event in history
        if isinstance(event, CallStarted) and event.name == "step"
    }
    return [
        f"{id}: {label}"
        for call, label in labels.items()
        if call in finished and any(at > finished[call] for at in begun[id, label])
    ]

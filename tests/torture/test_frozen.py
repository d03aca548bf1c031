"""Processes are frozen for longer than their leases last, and thaw: what they held was taken over, and they write nothing more."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from flux import Flux
from flux.settings import Settings
from tests.torture.crew import Crew, crew
from tests.torture.forms import size
from tests.torture.programs import WORKFLOWS, Plan, program
from tests.torture.test_kills import answered, check

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(size(120, 900))]

LEASE = 2.0  # seconds: see worker.py


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "flux.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


async def test_what_a_frozen_process_held_is_taken_over_and_it_is_fenced_when_it_thaws(
    database: str, tmp_path: Path
) -> None:
    plans = {f"e{number}": Plan(seed=number, steps=size(30, 60)) for number in range(size(20, 200))}
    settings = Settings.load(database=database, poll_seconds=0.05)
    async with Flux(settings=settings, workflows=WORKFLOWS) as front:
        with crew(database, tmp_path / "ledger", 3) as workers:
            await asyncio.gather(*[front.start(program, plan, execution_id=id) for id, plan in plans.items()])
            freezing = asyncio.create_task(freeze(workers, size(1, 20)))
            await answered(front, plans)
            freezing.cancel()
            # an attempt that is under way while its process freezes cannot be called back: its effect comes late
            await check(front, plans, tmp_path / "ledger", late=size(1, 20))


async def freeze(workers: Crew, times: int) -> None:
    chance = random.Random(1)
    for _ in range(times):
        await asyncio.sleep(chance.random() * 0.5)
        index = chance.randrange(len(workers.pids))
        workers.signal_one(index, signal.SIGSTOP)
        await asyncio.sleep(LEASE * (1.2 + chance.random()))
        workers.signal_one(index, signal.SIGCONT)

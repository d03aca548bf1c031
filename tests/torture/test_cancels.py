"""A cancel at every moment of an execution's life, and databases that fail at any."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flux import Flux
from flux.clock import SystemClock
from flux.domain.events import CallReturned, Event
from flux.engine.ports import Lease
from flux.errors import FluxError, StoreError
from flux.settings import MEMORY, Settings
from flux.stores.memory import MemoryStore
from flux.testing import FakeClock, store_holding, to_the_end
from tests.torture.forms import size
from tests.torture.programs import ANSWER, NEEDS, WORKFLOWS, Plan, expected, program

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(size(120, 900))]

ANSWERS = {f"q{number}": ANSWER for number in range(100)}


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    monkeypatch.setenv("LEDGER", str(path))
    return path


async def whole(plan: Plan) -> list[Event]:
    clock = FakeClock()
    async with Flux(store=MemoryStore(), clock=clock, workflows=WORKFLOWS, recover=False) as flux:
        await flux.start(program, plan, execution_id="whole")
        done = await to_the_end(flux, "whole", ANSWERS, clock=clock)
        assert done.output == expected(plan)
        return await flux.history("whole")


@pytest.mark.parametrize("seed", range(size(3, 40)))
async def test_a_cancel_behind_any_fact_ends_the_execution_as_cancelled(seed: int) -> None:
    plan = Plan(seed=seed, steps=8)
    history = await whole(plan)
    for length in range(1, len(history)):
        clock = FakeClock(history[-1].at)
        store = await store_holding("whole", history[:length])
        async with Flux(store=store, clock=clock, workflows=WORKFLOWS, recover=False) as flux:
            await flux.cancel("whole")
            await clock.advance(seconds=30)
            ended = await flux.get("whole")
            assert ended.is_cancelled, f"behind fact {length} ({history[length - 1]}) it ends as {ended.status}"
            for row in await flux.list():
                assert row.status.is_final, f"behind fact {length} its child {row.id} stays {row.status}"


class Fickle(MemoryStore):
    """A database that fails one time in so many, as long as `is_fickle`."""

    def __init__(self, seed: int, one_in: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)
        self._one_in = one_in
        self.is_fickle = True
        self.failures = 0

    def _may_fail(self) -> None:
        if self.is_fickle and not self._chance.randrange(self._one_in):
            self.failures += 1
            raise StoreError("the disk has a bad day")

    async def create(self, *args: Any, **rest: Any) -> Lease | None:
        self._may_fail()
        return await super().create(*args, **rest)

    async def append(self, id: str, events: Sequence[Event], **rest: Any) -> None:
        self._may_fail()
        await super().append(id, events, **rest)

    async def post(self, *args: Any, **rest: Any) -> None:
        self._may_fail()
        await super().post(*args, **rest)

    async def load(self, *args: Any, **rest: Any) -> list[Event]:
        self._may_fail()
        return await super().load(*args, **rest)

    async def lifecycle(self, id: str) -> list[Event]:
        self._may_fail()
        return await super().lifecycle(id)

    async def claim(self, *args: Any, **rest: Any) -> Any:
        self._may_fail()
        return await super().claim(*args, **rest)

    async def release(self, lease: Lease) -> None:
        self._may_fail()
        await super().release(lease)

    async def renew(self, *args: Any, **rest: Any) -> Any:
        self._may_fail()
        return await super().renew(*args, **rest)

    async def due(self, **rest: Any) -> Any:
        self._may_fail()
        return await super().due(**rest)


@pytest.mark.parametrize("seed", range(size(10, 300)))
async def test_whatever_a_database_fails_at_the_execution_goes_on_and_repeats_nothing_that_it_has_recorded(
    seed: int, ledger: Path
) -> None:
    plan, clock, store = Plan(seed=seed, steps=15), FakeClock(), Fickle(seed, one_in=6)
    settings = Settings(database=MEMORY, worker_tags=frozenset([NEEDS]))
    async with Flux(store=store, clock=clock, workflows=WORKFLOWS, settings=settings) as flux:
        store.is_fickle = False
        await flux.start(program, plan, execution_id="e")
        async with asyncio.timeout(60):
            while not await bad_day(flux, store, clock):
                store.is_fickle = not store.is_fickle
        store.is_fickle = False
        done = await flux.get("e")
        assert (done.status, done.output) == ("completed", expected(plan))
        history = await flux.history("e")
    outcomes = Counter(event.call for event in history if isinstance(event, CallReturned))
    assert set(outcomes.values()) <= {1}


async def bad_day(flux: Flux, store: Fickle, clock: FakeClock) -> bool:
    """Let it run, answer what it asks, let time pass. True when it has finished."""
    with contextlib.suppress(FluxError):  # whoever asks a database on a bad day is told so
        execution = await flux.wait("e", timeout=0.01)
        for asked in execution.pauses:
            await flux.answer("e", ANSWER, pause=asked.id)
        if execution.has_finished:
            return True
    await clock.advance(seconds=2)
    return False


class Later(SystemClock):
    """A minute from now, when nobody's lease is good any more."""

    def now(self) -> float:
        return super().now() + 60

    async def sleep_until(self, when: float) -> None:
        await super().sleep_until(when - 60)


async def test_a_torn_tail_of_the_log_loses_the_latest_and_breaks_nothing(tmp_path: Path) -> None:
    """What a machine that loses its power leaves of a file: any beginning of the write-ahead log."""
    path, plan = tmp_path / "flux.db", Plan(seed=5, steps=12)
    async with Flux(path, workflows=WORKFLOWS, recover=False) as flux:
        await flux.start(program, plan, execution_id="e")
        await to_the_end(flux, "e", ANSWERS)
        copies = tmp_path / "torn"
        copies.mkdir()
        shutil.copy(path, copies / "whole.db")
        shutil.copy(f"{path}-wal", copies / "whole.db-wal")
    log = (copies / "whole.db-wal").read_bytes()
    chance = random.Random(0)
    for cut in [chance.randrange(len(log)) for _ in range(size(12, 300))]:
        torn = copies / f"cut{cut}.db"
        shutil.copy(copies / "whole.db", torn)
        Path(f"{torn}-wal").write_bytes(log[:cut] + os.urandom(min(4096, len(log) - cut)))
        async with Flux(torn, workflows=WORKFLOWS, recover=False, clock=Later()) as flux:
            if not await flux.exists("e"):
                continue  # not even its start was on disk
            done = await to_the_end(flux, "e", ANSWERS)
            assert (done.status, done.output) == ("completed", expected(plan))

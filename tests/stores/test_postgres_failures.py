"""A PostgreSQL server that is restarted, frozen, or lost for good: everything waits, and goes on by itself."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from flux import ExecutionContext, Flux, Workflow, task, workflow
from flux.domain.events import CallReturned
from flux.settings import Settings
from flux.stores.postgres import connections
from tests.stores.cluster import Server, servers

pytestmark = pytest.mark.anyio

STEPS = 150


def counting(effects: Counter[int], reached: asyncio.Event) -> Workflow[None, int]:
    @task
    async def step(number: int) -> int:
        effects[number] += 1
        if number == STEPS // 3:
            reached.set()
        await asyncio.sleep(0.002)
        return number

    @workflow
    async def counts(ctx: ExecutionContext[None]) -> int:
        return sum([await step(number) for number in range(STEPS)])

    return counts


async def check(flux: Flux, effects: Counter[int], *, interrupted: int = 1) -> None:
    """It has ended right, each call has one outcome, and no more was in flight than what was interrupted."""
    done = await flux.wait("e", timeout=60)
    assert done.output == sum(range(STEPS))
    outcomes = Counter(event.call for event in await flux.history("e") if isinstance(event, CallReturned))
    assert set(outcomes.values()) == {1}
    assert effects.total() <= STEPS + interrupted


def url_of(*up: Server) -> str:
    return f"postgresql://postgres@{','.join(f'127.0.0.1:{server.port}' for server in up)}/postgres"


async def test_a_server_that_is_restarted_loses_nothing_and_nothing_is_done_twice() -> None:
    effects: Counter[int] = Counter()
    reached = asyncio.Event()
    with servers(1) as (server,):
        server.make()
        server.start()
        counts = counting(effects, reached)
        async with Flux(url_of(server), workflows=[counts]) as flux:
            await flux.start(counts, execution_id="e")
            await reached.wait()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            await check(flux, effects)


async def test_a_server_that_is_frozen_for_longer_than_anybody_waits_stops_the_run_which_goes_on_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "ANSWER_WITHIN", 0.5)
    monkeypatch.setattr(connections, "PATIENCE", 1.0)
    effects: Counter[int] = Counter()
    reached = asyncio.Event()
    with servers(1) as (server,):
        server.make()
        server.start()
        counts = counting(effects, reached)
        settings = Settings.load(database=f"{url_of(server)}?connect_timeout=2", lease_seconds=2, poll_seconds=0.1)
        async with Flux(settings=settings, workflows=[counts]) as flux:
            await flux.start(counts, execution_id="e")
            await reached.wait()
            server.signal(signal.SIGSTOP)
            while "e" in flux.engine.runs:  # noqa: ASYNC110 - the run gives up, and nobody is told
                await asyncio.sleep(0.05)
            server.signal(signal.SIGCONT)
            await check(flux, effects)


async def test_another_server_takes_over_and_work_goes_on_there() -> None:
    effects: Counter[int] = Counter()
    reached = asyncio.Event()
    with servers(2) as (first, second):
        first.make()
        first.start()
        second.copy(first)
        second.start()
        # from here on a commit counts when both have it
        await asyncio.to_thread(first.stop)
        first.start("synchronous_standby_names=*")
        counts = counting(effects, reached)
        async with Flux(url_of(first, second), workflows=[counts]) as flux:
            await flux.start(counts, execution_id="e")
            await reached.wait()
            await asyncio.to_thread(first.stop)
            await asyncio.to_thread(second.promote)
            await check(flux, effects)

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Status, pause, task, workflow
from flux.domain.calls import Json
from flux.domain.events import CallStarted, Event, ExecutionRecovered, ExecutionStarted
from flux.domain.execution import fold
from flux.engine.ports import Head, Lease, Owner
from flux.errors import RecoveryLimit, StoreError, WorkflowTimeout
from flux.settings import Settings
from flux.stores.memory import MemoryStore
from flux.tasks import parallel, sleep
from flux.testing import FailingStore, FakeClock, settle, store_holding

pytestmark = pytest.mark.anyio

GONE = Owner(host="elsewhere", pid=1, started=0.0, token="gone")


async def test_an_execution_whose_owner_is_silent_is_taken_over_when_its_lease_expires() -> None:
    effects: Counter[str] = Counter()

    @task
    async def effect(name: str) -> str:
        effects[name] += 1
        return name

    @workflow
    async def two(ctx: ExecutionContext[Any]) -> list[str]:
        return [await effect("a"), await effect("b")]

    clock, store = FakeClock(), MemoryStore()
    async with Flux(store=store, clock=clock, workflows=[two], recover=False) as first:
        whole = await first.run(two)
        events = await first.history(whole.execution_id)
    history = events[:3]  # started, a began, a returned: then the other machine went silent
    head = Head(status=Status.RUNNING, updated_at=clock.now())
    await store.create("lost", history, head=head, owner=GONE, ttl=15)
    effects.clear()
    async with Flux(store=store, clock=clock, workflows=[two]) as flux:
        await settle()
        assert effects == {}  # its lease is still good
        await clock.advance(seconds=16)
        done = await flux.wait("lost", timeout=10)
        assert done.output == ["a", "b"]
        assert effects == {"b": 1}
        history = await flux.history("lost")
    assert sum(isinstance(event, ExecutionRecovered) for event in history) == 1


async def test_a_frozen_owner_that_wakes_up_writes_nothing_more() -> None:
    go = asyncio.Event()
    by: list[str] = []

    @task
    async def waits(who: str) -> str:
        await go.wait()
        by.append(who)
        return who

    @workflow
    async def guarded(ctx: ExecutionContext[str]) -> str:
        return await waits(ctx.input)

    clock, store = FakeClock(), MemoryStore()
    async with Flux(store=store, clock=clock, workflows=[guarded], recover=False) as frozen:
        started = await frozen.start(guarded, "x")
        (lease,) = frozen.engine.runs.leases
        await store.claim(started.execution_id, GONE, ttl=15, now=clock.now() + 60)  # as if it had slept through
        go.set()
        await settle(200)
        execution = await frozen.get(started.execution_id)
        assert execution.is_running
        assert lease not in frozen.engine.runs.leases
    history = await store.load(started.execution_id)
    assert fold(started.execution_id, history) is not None
    assert [type(event) for event in history if not isinstance(event, CallStarted)] == [ExecutionStarted]


async def test_an_execution_that_keeps_taking_its_process_down_is_given_up() -> None:
    @workflow
    async def deadly(ctx: ExecutionContext[Any]) -> None: ...

    clock = FakeClock()
    history: list[Any] = [ExecutionStarted(at=clock.now(), workflow="deadly", input="null")]  # pyright: ignore[reportArgumentType]
    history += [ExecutionRecovered(at=clock.now(), owner="x") for _ in range(Settings.load().max_recoveries)]
    store = MemoryStore()
    head = Head(status=Status.RUNNING, updated_at=clock.now())
    await store.create("deadly1", history, head=head, owner=GONE, ttl=0)
    await clock.advance(seconds=1)
    async with Flux(store=store, clock=clock, workflows=[deadly]) as flux:
        await settle()
        failed = await flux.get("deadly1")
    assert failed.has_failed
    assert isinstance(failed.error, RecoveryLimit)


async def test_when_the_database_refuses_the_run_stops_and_goes_on_once_it_works_again() -> None:
    effects: Counter[str] = Counter()

    @task
    async def effect(name: str) -> str:
        effects[name] += 1
        return name

    @workflow
    async def steps(ctx: ExecutionContext[Any]) -> list[str]:
        first = await effect("a")
        store.fails = True
        return [first, await effect("b")]

    clock, store = FakeClock(), FailingStore()
    async with Flux(store=store, clock=clock, workflows=[steps], recover=False) as flux:
        started = await flux.start(steps)
        with pytest.raises(StoreError, match="disk is full"):
            await flux.wait(started.execution_id)
    store.fails = False

    @workflow.with_options(name="steps")
    async def again(ctx: ExecutionContext[Any]) -> list[str]:
        return [await effect("a"), await effect("b")]

    async with Flux(store=store, clock=clock, workflows=[again]) as flux:
        await settle()
        done = await flux.wait(started.execution_id, timeout=10)
    assert done.output == ["a", "b"]
    assert effects == {"a": 1, "b": 2}  # b was in flight when its result could not be written


async def test_closing_gives_running_executions_up_and_the_next_process_goes_on() -> None:
    go = asyncio.Event()
    effects: Counter[str] = Counter()

    @task
    async def effect(name: str) -> str:
        effects[name] += 1
        if name == "slow":
            await go.wait()
        return name

    @workflow
    async def both(ctx: ExecutionContext[Any]) -> list[str]:
        return await parallel(effect("quick"), effect("slow"))

    store = MemoryStore()
    async with Flux(store=store, workflows=[both]) as one:
        started = await one.start(both)
        await settle()
    assert (await store.last(started.execution_id)) >= 3
    go.set()
    async with Flux(store=store, workflows=[both]) as two:
        done = await two.wait(started.execution_id, timeout=10)
    assert done.output == ["quick", "slow"]
    assert effects == {"quick": 1, "slow": 2}


async def test_a_long_sleep_is_parked_and_wakes_at_its_time_in_whatever_process_there_is() -> None:
    @workflow
    async def naps(ctx: ExecutionContext[Any]) -> str:
        await sleep(7 * 86400)
        return "awake"

    clock, store = FakeClock(), MemoryStore()
    async with Flux(store=store, clock=clock, workflows=[naps]) as flux:
        asleep = await flux.run(naps)
        assert asleep.status is Status.SLEEPING
        assert flux.engine.runs.leases == []
    await clock.advance(days=3)
    async with Flux(store=store, clock=clock, workflows=[naps]) as flux:
        await clock.advance(days=3)
        assert (await flux.get(asleep.execution_id)).status is Status.SLEEPING
        await clock.advance(days=1, seconds=2)
        assert (await flux.wait(asleep.execution_id, timeout=10)).output == "awake"


async def test_a_workflow_that_takes_too_long_fails_running_or_parked() -> None:
    @workflow.with_options(timeout=3600)
    async def asks(ctx: ExecutionContext[Any]) -> Any:
        return await pause("ask")

    @workflow.with_options(timeout=60)
    async def hangs(ctx: ExecutionContext[Any]) -> Any:
        await asyncio.Event().wait()

    clock, store = FakeClock(), MemoryStore()
    async with Flux(store=store, clock=clock, workflows=[asks, hangs]) as flux:
        paused = await flux.run(asks)
        hanging = await flux.start(hangs)
        await clock.advance(minutes=61)
        assert isinstance((await flux.wait(hanging.execution_id, timeout=10)).error, WorkflowTimeout)
        late = await flux.wait(paused.execution_id, timeout=10)
        assert "3600 s" in str(late.error)
        await flux.retry(paused.execution_id)
        await flux.wait(paused.execution_id, timeout=10)
        assert (await flux.resume(paused.execution_id, 1)).output == 1


async def test_attempts_go_on_from_the_count_that_a_crash_left() -> None:
    attempts: list[int] = []

    @task.with_options(retry_max_attempts=2, retry_delay=100)
    async def fails() -> None:
        attempts.append(1)
        raise ValueError("again")

    @workflow
    async def tries(ctx: ExecutionContext[Any]) -> None:
        await fails()

    clock, store = FakeClock(), MemoryStore()
    async with Flux(store=store, clock=clock, workflows=[tries]) as flux:
        waiting = await flux.run(tries)
        assert waiting.status is Status.SLEEPING
    assert len(attempts) == 1
    async with Flux(store=store, clock=clock, workflows=[tries]) as flux:
        await clock.advance(seconds=400)
        failed = await flux.wait(waiting.execution_id, timeout=10)
    assert failed.has_failed
    assert len(attempts) == 3


async def test_an_answer_wakes_an_execution_whose_process_is_gone() -> None:
    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> Any:
        return await pause("ask")

    store = MemoryStore()
    async with Flux(store=store, workflows=[asks]) as flux:
        paused = await flux.run(asks)
    events = await store.load(paused.execution_id)
    async with Flux(store=await store_holding(paused.execution_id, events), workflows=[asks]) as flux:
        assert (await flux.resume(paused.execution_id, 42)).output == 42


@workflow
async def inner(ctx: ExecutionContext[None]) -> str:
    return "inner"


@workflow
async def outer(ctx: ExecutionContext[None]) -> str:
    return f"outer {await inner()}"


class Contested(MemoryStore):
    """A database in which another process is always quicker, `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def append(self, id: str, events: Sequence[Event], **rest: Any) -> None:
        if isinstance(events[0], ExecutionRecovered) and self.times:
            self.times -= 1
            await super().claim(id, GONE, ttl=0, now=0.0)
        await super().append(id, events, **rest)


async def test_a_parent_does_not_fail_because_another_process_takes_its_child_over() -> None:
    async with Flux(store=MemoryStore(), workflows=[inner, outer], recover=False) as flux:
        whole = await flux.run(outer)
        (child,) = await flux.list(workflow="inner")
        history, childs = await flux.history(whole.execution_id), await flux.history(child.id)
    clock, store = FakeClock(), Contested(times=1)
    head = Head(status=Status.RUNNING, updated_at=clock.now())
    await store.create(whole.execution_id, history[:2], head=head, owner=None, ttl=0)
    await store.create(child.id, childs[:1], head=head, owner=GONE, ttl=15)
    async with Flux(store=store, clock=clock, workflows=[inner, outer]) as flux:
        await clock.advance(seconds=60)
        assert (await flux.wait(whole.execution_id, timeout=10)).output == "outer inner"
    assert store.times == 0


class Unwilling(MemoryStore):
    """A database that takes no new executions while `refuses` is true."""

    refuses = False

    async def create(self, *args: Any, **rest: Any) -> Lease | None:
        if self.refuses:
            raise StoreError("the disk is full")
        return await super().create(*args, **rest)


async def test_a_child_that_the_database_does_not_take_is_begun_once_it_does() -> None:
    clock, store = FakeClock(), Unwilling()
    async with Flux(store=store, clock=clock, workflows=[inner, outer]) as flux:
        started = await flux.start(outer)
        store.refuses = True
        await settle()
        assert (await flux.get(started.execution_id)).is_running
        store.refuses = False
        await clock.advance(seconds=3)
        assert (await flux.wait(started.execution_id, timeout=10)).output == "outer inner"


async def test_an_execution_that_is_taken_up_twice_at_once_in_one_process_runs_once_and_is_not_lost() -> None:
    waits = asyncio.Event()

    @task
    async def wait() -> str:
        await waits.wait()
        return "done"

    @workflow
    async def waiting(ctx: ExecutionContext[None]) -> str:
        return await wait()

    store = MemoryStore()
    head = Head(status=Status.RUNNING, updated_at=1.0)
    started = ExecutionStarted(at=1.0, workflow="waiting", input=Json("null"))
    await store.create("e", [started], head=head, owner=None, ttl=0)
    async with Flux(store=store, workflows=[waiting], recover=False) as flux:
        await asyncio.gather(*[flux.engine.resume("e") for _ in range(5)], return_exceptions=True)
        (lease,) = flux.engine.runs.leases
        assert lease.epoch == 1
        waits.set()
        assert (await flux.wait("e", timeout=10)).output == "done"

"""Queues: how many executions run at once, and which comes next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Queue, pause, task, workflow
from flux.errors import DefinitionError
from flux.stores.memory import MemoryStore
from flux.testing import FakeClock, settle

pytestmark = pytest.mark.anyio


class Gate:
    """Work that ends when it is let go, and what has begun so far."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running: set[str] = set()
        self.most = 0
        self._gates: dict[str, asyncio.Event] = {}

    async def work(self, name: str) -> str:
        self.begun.append(name)
        self.running.add(name)
        self.most = max(self.most, len(self.running))
        await self._gates.setdefault(name, asyncio.Event()).wait()
        self.running.discard(name)
        return name

    async def let_go(self, *names: str) -> None:
        for name in names:
            self._gates.setdefault(name, asyncio.Event()).set()
        await settle(200)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def flux(clock: FakeClock) -> AsyncIterator[Flux]:
    async with Flux(store=MemoryStore(), clock=clock) as flux:
        yield flux


def working(gate: Gate, **options: Any) -> Any:
    @task
    async def work(name: str) -> str:
        return await gate.work(name)

    @workflow.with_options(name="job", **options)
    async def job(ctx: ExecutionContext[str]) -> str:
        return await work(ctx.input)

    return job


async def start(flux: Flux, job: Any, *names: str, **options: Any) -> None:
    for name in names:
        await flux.start(job, name, execution_id=name, **options)
    await settle(200)


async def test_no_more_run_at_once_than_the_queue_allows_and_the_oldest_is_next(flux: Flux, gate: Gate) -> None:
    job = working(gate, queue=Queue("jobs", concurrency=2))
    await start(flux, job, "a", "b", "c", "d")
    assert gate.running == {"a", "b"}
    (state,) = await flux.queues()
    assert (state.name, state.running, state.waiting) == ("jobs", 2, 2)
    await gate.let_go("b")
    assert gate.begun == ["a", "b", "c"]
    await gate.let_go("a", "c", "d")
    assert gate.begun == ["a", "b", "c", "d"]
    assert gate.most == 2
    assert await flux.queues() == []


async def test_the_higher_priority_comes_first(flux: Flux, gate: Gate) -> None:
    urgent = {"b": 1, "d": 5}
    job = working(gate, queue=Queue("jobs", concurrency=1), priority=lambda name: urgent.get(name, 0))  # pyright: ignore
    await start(flux, job, "a", "b", "c", "d")
    await start(flux, job, "e", priority=9)
    await gate.let_go("a", "b", "c", "d", "e")
    assert gate.begun == ["a", "e", "d", "b", "c"]


async def test_a_partition_that_is_full_does_not_hold_up_the_others(flux: Flux, gate: Gate) -> None:
    job = working(gate, queue=Queue("jobs", partition_concurrency=1), partition=lambda name: name[0])  # pyright: ignore
    await start(flux, job, "a1", "a2", "a3", "b1", "b2")
    assert gate.running == {"a1", "b1"}
    await gate.let_go("a1")
    assert gate.running == {"a2", "b1"}


async def test_no_more_begin_in_a_period_than_the_rate_allows(flux: Flux, gate: Gate, clock: FakeClock) -> None:
    job = working(gate, queue=Queue("jobs", rate=2, period=60))
    await start(flux, job, "a", "b", "c", "d", "e")
    assert gate.begun == ["a", "b"]
    await clock.advance(seconds=58)
    assert gate.begun == ["a", "b"]
    await clock.advance(seconds=4)
    assert gate.begun == ["a", "b", "c", "d"]
    await clock.advance(seconds=61)
    assert gate.begun == ["a", "b", "c", "d", "e"]


async def test_a_paused_execution_holds_no_place_and_goes_on_before_those_that_have_not_begun(
    flux: Flux, gate: Gate
) -> None:
    @task
    async def work(name: str) -> str:
        return await gate.work(name)

    @workflow.with_options(queue=Queue("jobs", concurrency=1))
    async def asks(ctx: ExecutionContext[str]) -> str:
        if ctx.input == "a":
            await pause("sure")
        return await work(ctx.input)

    await start(flux, asks, "a", "b", "c")
    assert gate.running == {"b"}
    await flux.answer("a", "yes")
    await settle(200)
    assert gate.running == {"b"}  # answered, and waiting for its turn
    await gate.let_go("b")
    assert gate.running == {"a"}
    await gate.let_go("a", "c")
    assert gate.begun == ["b", "a", "c"]


async def test_starting_what_stands_for_the_same_returns_the_one_that_lives(flux: Flux, gate: Gate) -> None:
    job = working(gate, queue=Queue("jobs", concurrency=1), deduplicate=lambda name: name)  # pyright: ignore
    first = await flux.start(job, "a")
    again = await flux.start(job, "a")
    other = await flux.start(job, "b")
    assert again.execution_id == first.execution_id != other.execution_id
    await gate.let_go("a", "b")
    later = await flux.start(job, "a")
    assert later.execution_id != first.execution_id


async def test_a_child_in_the_queue_of_its_parent_does_not_wait_for_its_parents_end(flux: Flux) -> None:
    queue = Queue("jobs", concurrency=1)

    @workflow.with_options(queue=queue)
    async def inner(ctx: ExecutionContext[int]) -> int:
        return ctx.input + 1

    @workflow
    async def between(ctx: ExecutionContext[int]) -> int:
        return await inner(ctx.input)

    @workflow.with_options(queue=queue)
    async def outer(ctx: ExecutionContext[int]) -> int:
        return await between(ctx.input) + await inner(1)

    done = await asyncio.wait_for(flux.run(outer, 1), 5)
    assert done.output == 4


async def test_children_wait_for_their_turn_in_a_queue_of_their_own(flux: Flux, gate: Gate) -> None:
    job = working(gate, queue=Queue("jobs", concurrency=2))

    @workflow
    async def all_of_them(ctx: ExecutionContext[list[str]]) -> list[str]:
        return [child.output for child in await job.map(ctx.input)]

    started = await flux.start(all_of_them, ["a", "b", "c", "d"])
    await settle(200)
    assert gate.running == {"a", "b"}
    await gate.let_go("a", "b", "c", "d")
    done = await flux.wait(started.execution_id, timeout=5)
    assert done.output == ["a", "b", "c", "d"]
    assert gate.most == 2


async def test_what_waits_can_be_cancelled_and_runs_nothing(flux: Flux, gate: Gate) -> None:
    job = working(gate, queue=Queue("jobs", concurrency=1))
    await start(flux, job, "a", "b", "c")
    await flux.cancel("b")
    await gate.let_go("a", "c")
    assert (await flux.wait("b", timeout=5)).is_cancelled
    assert gate.begun == ["a", "c"]


async def test_two_processes_share_the_limit_and_the_other_takes_over_what_one_has_begun(
    gate: Gate, clock: FakeClock
) -> None:
    job = working(gate, queue=Queue("jobs", concurrency=2))
    store = MemoryStore()
    async with Flux(store=store, clock=clock, workflows=[job]) as one:
        await start(one, job, "a", "b", "c")
        async with Flux(store=store, clock=clock, workflows=[job]) as other:
            await clock.advance(seconds=3)
            assert gate.most == 2
            await gate.let_go("a")
            assert gate.begun == ["a", "b", "c"]
            await gate.let_go("b", "c")
            assert (await other.wait("c", timeout=5)).output == "c"


async def test_a_script_runs_its_own_execution_when_its_turn_has_come_and_no_other(
    gate: Gate, clock: FakeClock
) -> None:
    job = working(gate, queue=Queue("jobs", concurrency=1))
    store = MemoryStore()
    async with (
        Flux(store=store, clock=clock, workflows=[job], recover=False) as one,
        Flux(store=store, clock=clock, workflows=[job], recover=False) as other,
    ):
        await start(one, job, "a")
        await start(other, job, "b", "c")
        assert gate.begun == ["a"]
        await gate.let_go("a")
        assert gate.begun == ["a"]  # none of its own waits
        await clock.advance(seconds=2)
        assert gate.begun == ["a", "b"]
        assert "b" in other.engine.runs
        await gate.let_go("b", "c")
        assert gate.begun == ["a", "b", "c"]


def test_what_makes_no_sense_is_refused_where_it_is_written() -> None:
    async def nothing(ctx: ExecutionContext[str]) -> None: ...

    with pytest.raises(DefinitionError, match="'jobs' has concurrency=0"):
        Queue("jobs", concurrency=0)
    with pytest.raises(DefinitionError, match="period=0"):
        Queue("jobs", rate=1, period=0)
    with pytest.raises(DefinitionError, match="has priority but no queue"):
        workflow.with_options(priority=3)(nothing)
    with pytest.raises(DefinitionError, match="has to be a flux Queue"):
        workflow.with_options(queue="jobs")(nothing)  # pyright: ignore
    with pytest.raises(DefinitionError, match="transient"):
        workflow.with_options(queue=Queue("jobs"), durability="transient")(nothing)


async def test_a_partition_that_cannot_be_told_is_an_error_before_anything_has_begun(flux: Flux, gate: Gate) -> None:
    job = working(gate, queue=Queue("jobs"), partition=lambda name: name.customer)  # pyright: ignore
    with pytest.raises(DefinitionError, match="The partition of workflow 'job' cannot be told: AttributeError"):
        await flux.start(job, "a", execution_id="a")
    assert not await flux.exists("a")

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Status, pause, task, workflow
from flux.errors import ExecutionFailure, InvalidInput, WorkflowNotFound
from flux.stores.memory import MemoryStore
from flux.tasks import call, parallel, sleep
from flux.testing import FakeClock, crash_at_every_fact, settle

pytestmark = pytest.mark.anyio

effects: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def no_effects() -> None:
    effects.clear()


@task
async def effect(name: str) -> str:
    effects[name] += 1
    return name


@workflow
async def doubled(ctx: ExecutionContext[int]) -> int:
    await effect(f"double {ctx.input}")
    return ctx.input * 2


@workflow
async def asks(ctx: ExecutionContext[str]) -> list[Any]:
    return [await effect("before"), await pause(ctx.input), await effect("after")]


@workflow
async def fails(ctx: ExecutionContext[str]) -> None:
    raise ValueError(ctx.input)


@workflow
async def naps(ctx: ExecutionContext[float]) -> str:
    await sleep(ctx.input)
    return "awake"


async def test_a_child_is_an_execution_of_its_own_and_its_output_comes_back(flux: Flux) -> None:
    @workflow
    async def parent(ctx: ExecutionContext[int]) -> list[int]:
        return [await doubled(ctx.input), await doubled(ctx.input + 1)]

    done = await flux.run(parent, 3)
    assert done.output == [6, 8]
    children = [row for row in await flux.list() if row.parent == done.execution_id]
    assert [row.workflow for row in children] == ["doubled", "doubled"]


async def test_children_run_beside_each_other_and_map_gives_their_executions(flux: Flux) -> None:
    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        both = await parallel(doubled(1), doubled(2))
        mapped = await doubled.map([3, 4], max_concurrent=1)
        failed = await fails.map(["no"])
        return both, [child.output for child in mapped], failed[0].has_failed, str(failed[0].output)

    assert (await flux.run(parent)).output == ([2, 4], [6, 8], True, "no")


async def test_a_failed_child_raises_its_own_error_in_the_parent(flux: Flux) -> None:
    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> str:
        try:
            await fails("lost")
        except ValueError as exc:
            return f"caught {exc}"
        return "not reached"

    assert (await flux.run(parent)).output == "caught lost"


async def test_a_childs_pause_shows_on_the_parent_and_either_may_be_answered(flux: Flux) -> None:
    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        return [await asks("one"), await asks("two")]

    paused = await flux.run(parent)
    assert paused.is_paused
    (question,) = paused.pauses
    assert question.name == "one"
    second = await flux.resume(paused.execution_id, 1)
    assert [question.name for question in second.pauses] == ["two"]
    child = next(row for row in await flux.list(status="paused") if row.parent is not None)
    await flux.resume(child.id, 2)
    done = await flux.wait(paused.execution_id, timeout=10)
    while not done.has_finished:  # the parent wakes a moment after its child has ended
        done = await flux.wait(paused.execution_id, timeout=10)
    assert done.output == [["before", 1, "after"], ["before", 2, "after"]]
    assert effects == {"before": 2, "after": 2}


async def test_several_children_ask_at_once_and_each_gets_its_own_answer(flux: Flux) -> None:
    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        return await parallel(asks("a"), asks("b"), pause("own"))

    paused = await flux.run(parent)
    assert sorted(question.name for question in paused.pauses) == ["a", "b", "own"]
    for name in ("b", "own", "a"):
        paused = await flux.resume(paused.execution_id, name.upper(), pause=name)
    assert paused.output == [["before", "A", "after"], ["before", "B", "after"], "OWN"]


async def test_cancelling_the_parent_cancels_its_children_and_grandchildren(flux: Flux) -> None:
    @workflow
    async def middle(ctx: ExecutionContext[Any]) -> Any:
        return await asks("deep")

    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        return await parallel(middle(), asks("shallow"))

    paused = await flux.run(parent)
    assert len(paused.pauses) == 2
    await flux.cancel(paused.execution_id)
    assert (await flux.wait(paused.execution_id, timeout=10)).is_cancelled
    rows = await flux.list()
    for row in rows:
        await flux.wait(row.id, timeout=10)
    assert {row.status for row in await flux.list()} == {Status.CANCELLED}
    assert len(rows) == 4


async def test_a_cancelled_child_is_an_error_in_the_parent(flux: Flux) -> None:
    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> str:
        try:
            return str(await asks("x"))
        except ExecutionFailure as exc:
            return str(exc)

    paused = await flux.run(parent)
    child = next(row for row in await flux.list() if row.parent is not None)
    await flux.cancel(child.id, reason="not needed")
    done = await flux.wait(paused.execution_id, timeout=10)
    while not done.has_finished:
        done = await flux.wait(paused.execution_id, timeout=10)
    assert "cancelled: not needed" in done.output


async def test_call_takes_names_and_can_leave_the_child_to_itself(flux: Flux) -> None:
    flux.workflows.add(doubled)

    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        return [await call("doubled", 4), await call(doubled, 5, mode="async")]

    done = await flux.run(parent)
    assert done.output[0] == 8
    assert (await flux.wait(done.output[1], timeout=10)).output == 10


async def test_a_wrong_input_or_an_unknown_name_begins_nothing(flux: Flux) -> None:
    @workflow
    async def wrong(ctx: ExecutionContext[Any]) -> Any:
        return await call(doubled, "many")

    @workflow
    async def unknown(ctx: ExecutionContext[Any]) -> Any:
        return await call("nobody")

    assert isinstance((await flux.run(wrong)).error, InvalidInput)
    assert isinstance((await flux.run(unknown)).error, WorkflowNotFound)
    assert effects == {}


async def test_a_parent_that_restarts_finds_its_child_again() -> None:
    go = asyncio.Event()

    @task
    async def waits() -> str:
        effects["waits"] += 1
        await go.wait()
        return "gone"

    @workflow
    async def child(ctx: ExecutionContext[Any]) -> list[str]:
        return [await effect("child"), await waits()]

    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> list[str]:
        return [await effect("parent"), *await child()]

    store = MemoryStore()
    async with Flux(store=store, workflows=[parent, child]) as one:
        started = await one.start(parent)
        await settle(200)
    go.set()
    async with Flux(store=store, workflows=[parent, child]) as two:
        done = await two.wait(started.execution_id, timeout=10)
        assert done.output == ["parent", "child", "gone"]
        assert len(await two.list()) == 2
    assert effects == {"parent": 1, "child": 1, "waits": 2}


async def test_a_parent_sleeps_while_its_child_sleeps() -> None:
    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> str:
        return await naps(3600)

    clock = FakeClock()
    async with Flux(store=MemoryStore(), clock=clock, workflows=[parent, naps]) as flux:
        asleep = await flux.run(parent)
        assert asleep.status is Status.SLEEPING
        assert flux.engine.runs.leases == []
        await clock.advance(hours=1, seconds=2)
        assert (await flux.wait(asleep.execution_id, timeout=10)).output == "awake"


async def test_a_parent_whose_child_ended_while_nobody_looked_is_woken_later() -> None:
    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        return await asks("x")

    clock, store = FakeClock(), MemoryStore()
    async with Flux(store=store, clock=clock, workflows=[parent, asks], recover=False) as flux:
        paused = await flux.run(parent)
    # a process that does not know the parent ends the child
    async with Flux(store=store, clock=clock, workflows=[asks], recover=False) as flux:
        child = next(row for row in await flux.list() if row.parent is not None)
        await flux.resume(child.id, "late")
    async with Flux(store=store, clock=clock, workflows=[parent, asks]) as flux:
        await settle(300)
        assert (await flux.wait(paused.execution_id, timeout=10)).output == ["before", "late", "after"]


async def test_parents_end_the_same_wherever_they_crash() -> None:
    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        return [await doubled(1), await parallel(doubled(2), effect("x")), await doubled(3)]

    done = await crash_at_every_fact(parent)
    assert done.output == [2, [4, "x"], 6]

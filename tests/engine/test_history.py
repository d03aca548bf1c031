"""Retry, fork and prune: what is done with a history besides going on with it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from flux import ExecutionContext, ExecutionEventType, Flux, Status, pause, task, workflow
from flux.errors import ExecutionNotFound, NotFailed
from flux.settings import Settings
from flux.stores.memory import MemoryStore
from flux.tasks import parallel
from flux.testing import FakeClock

pytestmark = pytest.mark.anyio

effects: Counter[str] = Counter()
broken: set[str] = set()


@pytest.fixture(autouse=True)
def everything_works() -> None:
    effects.clear()
    broken.clear()


@task
async def effect(name: str) -> str:
    effects[name] += 1
    if name in broken:
        raise ValueError(name)
    return name


@task
async def outer(name: str) -> str:
    return await effect(name)


async def test_a_failed_execution_goes_on_from_its_failure(flux: Flux) -> None:
    @workflow
    async def steps(ctx: ExecutionContext[Any]) -> list[str]:
        return [await effect("a"), await outer("b"), await effect("c")]

    broken.add("b")
    failed = await flux.run(steps)
    assert failed.has_failed
    broken.clear()
    await flux.retry(failed.execution_id)
    done = await flux.wait(failed.execution_id, timeout=10)
    assert done.output == ["a", "b", "c"]
    assert effects == {"a": 1, "b": 2, "c": 1}


async def test_a_retry_leaves_failures_alone_that_the_workflow_had_dealt_with(flux: Flux) -> None:
    @workflow
    async def careful(ctx: ExecutionContext[Any]) -> list[str]:
        try:
            first = await effect("x")
        except ValueError:
            first = await effect("instead")
        return [first, await effect("y")]

    broken.update("xy")
    failed = await flux.run(careful)
    broken.clear()
    await flux.retry(failed.execution_id)
    assert (await flux.wait(failed.execution_id, timeout=10)).output == ["instead", "y"]
    assert effects == {"x": 1, "instead": 1, "y": 2}


async def test_a_retry_makes_the_calls_again_that_were_cancelled_by_the_failure(flux: Flux) -> None:
    go = asyncio.Event()

    @task
    async def waits() -> str:
        effects["waits"] += 1
        await go.wait()
        return "waited"

    @workflow
    async def both(ctx: ExecutionContext[Any]) -> list[str]:
        return await parallel(waits(), effect("b"))

    broken.add("b")
    failed = await flux.run(both)
    broken.clear()
    go.set()
    await flux.retry(failed.execution_id)
    assert (await flux.wait(failed.execution_id, timeout=10)).output == ["waited", "b"]
    assert effects == {"waits": 2, "b": 2}


async def test_a_retry_after_a_rejection_asks_again(flux: Flux) -> None:
    @task.with_options(requires_approval=True)
    async def pays() -> str:
        return "paid"

    @workflow
    async def buys(ctx: ExecutionContext[Any]) -> str:
        return await pays()

    asked = await flux.run(buys)
    refused = await flux.resume(asked.execution_id, {"approved": False, "reason": "too dear"})
    assert "too dear" in str(refused.error)
    await flux.retry(asked.execution_id)
    again = await flux.wait(asked.execution_id, timeout=10)
    assert [question.name for question in again.pauses] == ["approval:pays"]
    assert (await flux.resume(asked.execution_id, {"approved": True})).output == "paid"


async def test_only_what_has_failed_is_retried(flux: Flux) -> None:
    @workflow
    async def fine(ctx: ExecutionContext[Any]) -> None: ...

    done = await flux.run(fine)
    with pytest.raises(NotFailed, match="completed"):
        await flux.retry(done.execution_id)


async def test_a_pause_that_was_open_when_the_execution_failed_can_be_answered_after_a_retry(flux: Flux) -> None:
    @workflow
    async def both(ctx: ExecutionContext[Any]) -> Any:
        return await parallel(pause("ask"), effect("b"))

    broken.add("b")
    failed = await flux.run(both)
    assert failed.pauses == []
    broken.clear()
    await flux.retry(failed.execution_id)
    paused = await flux.wait(failed.execution_id, timeout=10)
    assert [question.name for question in paused.pauses] == ["ask"]
    assert (await flux.resume(failed.execution_id, 1)).output == [1, "b"]


async def test_a_fork_begins_where_it_is_told_and_the_original_stays(flux: Flux) -> None:
    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> list[Any]:
        return [await effect("a"), await pause("ask"), await effect("b")]

    paused = await flux.run(asks)
    done = await flux.resume(paused.execution_id, "first")
    events = (await flux.get(done.execution_id, events=True)).events
    asked = next(event.number for event in events if event.type is ExecutionEventType.TASK_PAUSED)

    forked = await flux.fork(done.execution_id, at=asked, new_id="second")
    again = await flux.wait(forked.execution_id, timeout=10)
    assert again.is_paused
    assert (await flux.resume("second", "second")).output == ["a", "second", "b"]
    assert (await flux.get(done.execution_id)).output == ["a", "first", "b"]
    assert effects == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="not 99"):
        await flux.fork(done.execution_id, at=99)


async def test_a_fork_of_a_finished_execution_ends_as_it_did_without_doing_anything_again(flux: Flux) -> None:
    @workflow
    async def steps(ctx: ExecutionContext[Any]) -> list[str]:
        return [await effect("a"), await effect("b")]

    done = await flux.run(steps)
    forked = await flux.fork(done.execution_id)
    assert (await flux.wait(forked.execution_id, timeout=10)).output == ["a", "b"]
    assert effects == {"a": 1, "b": 1}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_pruning_deletes_what_ended_long_ago_and_nothing_else(kind: str, tmp_path: Path) -> None:
    @workflow
    async def child(ctx: ExecutionContext[Any]) -> str:
        return await effect("child")

    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        return [await child(), await pause("ask")]

    clock = FakeClock()
    store = MemoryStore() if kind == "memory" else None
    async with Flux(tmp_path / "f.db", store=store, clock=clock, recover=False) as flux:
        old = await flux.run(child)
        waiting = await flux.run(parent)  # its child has ended, but it is not done with it
        await clock.advance(days=31)
        young = await flux.run(child)
        assert await flux.prune(older_than=30 * 86400) == 1
        with pytest.raises(ExecutionNotFound):
            await flux.get(old.execution_id)
        assert (await flux.get(young.execution_id)).status is Status.COMPLETED
        assert (await flux.resume(waiting.execution_id, 1)).output == ["child", 1]
        await clock.advance(days=31)
        assert await flux.prune(older_than=30 * 86400) == 3
        assert await flux.list() == []


async def test_what_ended_long_ago_is_deleted_by_itself_where_that_is_set() -> None:
    @workflow
    async def quick() -> str:
        return await effect("quick")

    @workflow
    async def waits() -> Any:
        return await pause("ask")

    clock, settings = FakeClock(), Settings.load(database=":memory:", retention_days=7, poll_seconds=600)
    async with Flux(settings=settings, clock=clock) as flux:
        done, waiting = await flux.run(quick), await flux.run(waits)
        await clock.advance(days=6.9)
        assert (await flux.get(done.execution_id)).has_succeeded
        await clock.advance(hours=5)
        with anyio.fail_after(10):
            while await flux.exists(done.execution_id):  # noqa: ASYNC110 - the database has a thread of its own
                await asyncio.sleep(0.01)
        assert (await flux.get(waiting.execution_id)).is_paused

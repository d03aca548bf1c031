from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Status, pause, task, workflow
from flux.domain.events import CallStarted
from flux.errors import ExecutionFinished, ExecutionNotFound
from flux.settings import Settings
from flux.stores.memory import MemoryStore
from flux.tasks import parallel
from flux.testing import settle

pytestmark = pytest.mark.anyio


async def test_cancelling_stops_what_runs_rolls_back_and_ends_as_cancelled(flux: Flux) -> None:
    began, undone = asyncio.Event(), list[str]()

    def undo() -> None:
        undone.append("work")

    @task.with_options(rollback=undo)
    async def works() -> None:
        began.set()
        await asyncio.Event().wait()

    @workflow
    async def long(ctx: ExecutionContext[Any]) -> None:
        await works()

    started = await flux.start(long)
    await began.wait()
    await flux.cancel(started.execution_id, reason="enough")
    cancelled = await flux.wait(started.execution_id, timeout=10)
    assert cancelled.status is Status.CANCELLED
    assert undone == ["work"]


async def test_a_body_that_catches_its_cancellation_ends_as_cancelled_all_the_same(flux: Flux) -> None:
    began = asyncio.Event()

    @task
    async def works() -> str:
        began.set()
        await asyncio.Event().wait()
        return "never"

    @task
    async def more() -> str:
        return "more"

    @workflow
    async def stubborn(ctx: ExecutionContext[Any]) -> str:
        try:
            return await works()
        except asyncio.CancelledError:
            return "I go on"

    started = await flux.start(stubborn)
    await began.wait()
    await flux.cancel(started.execution_id)
    assert (await flux.wait(started.execution_id, timeout=10)).is_cancelled


async def test_a_paused_execution_is_cancelled_and_its_body_may_clean_up(flux: Flux) -> None:
    cleaned: list[str] = []

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> None:
        try:
            await pause("ask")
        except asyncio.CancelledError:
            cleaned.append("body")
            raise

    paused = await flux.run(asks)
    await flux.cancel(paused.execution_id)
    cancelled = await flux.wait(paused.execution_id, timeout=10)
    assert cancelled.is_cancelled
    assert cancelled.pauses == []
    assert cleaned == ["body"]


async def test_cancelling_a_finished_execution_changes_nothing_and_an_unknown_one_is_an_error(flux: Flux) -> None:
    @workflow
    async def quick(ctx: ExecutionContext[Any]) -> int:
        return 1

    done = await flux.run(quick)
    assert (await flux.cancel(done.execution_id)).has_succeeded
    with pytest.raises(ExecutionNotFound, match="nobody"):
        await flux.cancel("nobody")


async def test_a_suspended_execution_makes_no_further_call_until_it_is_resumed(flux: Flux) -> None:
    go, began, ran = asyncio.Event(), asyncio.Event(), list[str]()

    @task
    async def step(name: str) -> str:
        began.set()
        await go.wait()
        ran.append(name)
        return name

    @workflow
    async def three(ctx: ExecutionContext[Any]) -> list[str]:
        return [*await parallel(step("a"), step("b")), await step("c")]

    started = await flux.start(three)
    await began.wait()
    await flux.suspend(started.execution_id)
    go.set()
    suspended = await flux.wait(started.execution_id, timeout=10)
    assert suspended.status is Status.SUSPENDED
    assert ran == ["a", "b"]  # what was in flight has finished
    assert (await flux.resume(started.execution_id)).output == ["a", "b", "c"]
    assert ran == ["a", "b", "c"]
    with pytest.raises(ExecutionFinished):
        await flux.suspend(started.execution_id)


async def test_a_cancel_from_another_process_reaches_the_one_that_runs_it() -> None:
    began = asyncio.Event()

    @task
    async def works() -> None:
        began.set()
        await asyncio.Event().wait()

    @workflow
    async def long(ctx: ExecutionContext[Any]) -> None:
        await works()

    store = MemoryStore()
    quick = Settings.load(lease_seconds=0.5)
    async with Flux(store=store, settings=quick, workflows=[long]) as one, Flux(store=store, workflows=[long]) as two:
        started = await one.start(long)
        await began.wait()
        await two.cancel(started.execution_id)
        assert (await two.wait(started.execution_id, timeout=10)).is_cancelled


async def test_a_call_that_the_code_cancelled_is_cancelled_again_on_replay(flux: Flux) -> None:
    starts: list[str] = []

    @task
    async def fails() -> None:
        raise ValueError("stop")

    @task
    async def hangs() -> None:
        starts.append("hangs")
        await asyncio.Event().wait()

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> Any:
        try:
            await parallel(hangs(), fails())
        except ValueError:
            return await pause("ask")

    paused = await flux.run(asks)
    assert (await flux.resume(paused.execution_id, "ok")).output == "ok"
    assert starts == ["hangs"]


async def test_nothing_is_left_running_when_the_body_ends(flux: Flux) -> None:
    began = asyncio.Event()

    @task
    async def hangs() -> None:
        began.set()
        await asyncio.Event().wait()

    kept: list[Any] = []

    @workflow
    async def careless(ctx: ExecutionContext[Any]) -> str:
        kept.append(asyncio.ensure_future(hangs()))
        await began.wait()
        return "done"

    done = await flux.run(careless)
    assert done.output == "done"
    assert kept[0].done()
    await settle()
    history = await flux.history(done.execution_id)
    assert sum(isinstance(event, CallStarted) for event in history) == 1


async def test_who_answers_what_only_other_processes_can_run_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def elsewhere() -> str:
        return await pause("ready", response=str)

    async with Flux(workflows=[elsewhere]) as flux:
        paused = await flux.run(elsewhere)
    async with Flux() as stranger:
        answered = await stranger.answer(paused.execution_id, "yes")
        assert answered.status is Status.RUNNING
    assert "serves the workflow 'elsewhere'" in caplog.text
    async with Flux(workflows=[elsewhere]) as flux:
        assert (await flux.wait(paused.execution_id, timeout=10)).output == "yes"

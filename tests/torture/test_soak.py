"""Mixed load for a while, and a crowd that waits: memory, files and asyncio tasks stay what they were."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from pathlib import Path

import psutil
import pytest

from flux import ExecutionContext, Flux, Status, pause, task, workflow
from flux.settings import Settings
from flux.tasks import parallel, sleep
from flux.testing import FakeClock
from tests.torture.forms import size

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(size(120, 900))]


@task
async def step(number: int) -> int:
    return number


@workflow
async def part(ctx: ExecutionContext[int]) -> int:
    return await step(ctx.input)


@workflow
async def mixed(ctx: ExecutionContext[int]) -> int:
    pair = await parallel(step(1), step(2))
    await sleep(0.001)
    answer = await pause("sure") if ctx.input % 3 == 0 else 0
    if ctx.input % 7 == 0:
        raise ValueError("now and then")
    return sum(pair) + int(answer) + await part(ctx.input)


def objects() -> int:
    """How many there are that could hold others."""
    gc.collect()
    return len(gc.get_objects())


async def load(flux: Flux, first: int, count: int) -> None:
    """Start, answer, cancel and see the end of so many."""

    async def one(number: int) -> None:
        started = await flux.start(mixed, number)
        if number % 11 == 0:
            await flux.cancel(started.execution_id)
        execution = await flux.wait(started.execution_id)
        if execution.is_paused:
            with contextlib.suppress(Exception):
                await flux.answer(execution.execution_id, 1)
            execution = await flux.wait(execution.execution_id)
        assert execution.has_finished

    await asyncio.gather(*[one(number) for number in range(first, first + count)])


async def test_after_mixed_load_memory_files_and_tasks_are_what_they_were(tmp_path: Path) -> None:
    process = psutil.Process()
    settings = Settings.load(database=tmp_path / "flux.db", poll_seconds=0.1)
    async with Flux(settings=settings, workflows=[mixed, part]) as flux:
        await load(flux, 0, 200)
        before, files, tasks = objects(), process.num_fds(), len(asyncio.all_tasks())
        rounds = size(6, 150)
        for number in range(rounds):
            await load(flux, 100 * number, 100)
        after = objects()
        assert process.num_fds() <= files + 2
        assert len(asyncio.all_tasks()) <= tasks + 2
        assert after - before < 3_000, f"{after - before} objects more after {rounds * 100} executions"


@workflow
async def waits_a_day(ctx: ExecutionContext[int]) -> int:
    await sleep(86_400)
    return ctx.input


async def test_executions_that_wait_for_a_day_take_no_memory(tmp_path: Path) -> None:
    clock, count = FakeClock(), size(1000, 10_000)
    async with Flux(tmp_path / "flux.db", clock=clock, workflows=[waits_a_day], recover=False) as flux:

        async def parked(number: int) -> None:
            started = await flux.start(waits_a_day, number)
            assert (await flux.wait(started.execution_id)).status is Status.SLEEPING

        await asyncio.gather(*[parked(number) for number in range(200)])
        before = objects()
        for first in range(0, count, 250):
            await asyncio.gather(*[parked(number) for number in range(first, first + 250)])
        assert objects() - before < 500, "something of each that waits stays in memory"
        assert not flux.engine.runs.leases

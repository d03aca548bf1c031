"""The helpers that users test their workflows with."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from flux import ExecutionContext, pause, task, workflow
from flux.errors import InvalidAnswer
from flux.tasks import parallel, sleep
from flux.testing import always_replay, crash_at_every_fact

pytestmark = pytest.mark.anyio


async def test_a_long_sleep_beside_a_pause_passes_at_once() -> None:
    @workflow
    async def waits(ctx: ExecutionContext[Any]) -> list[Any]:
        return await parallel(pause("ask"), sleep(30 * 86400))

    done = await crash_at_every_fact(waits, answers={"ask": 1})
    assert done.output == [1, None]
    assert len(done.events) < 15


async def test_a_crash_that_makes_a_difference_is_named() -> None:
    counter = iter(range(1000))

    @workflow
    async def drifts(ctx: ExecutionContext[Any]) -> int:
        await pause("ask")
        return next(counter)  # what a body does outside of tasks is not recorded

    with pytest.raises(AssertionError, match="after a crash behind fact"):
        await crash_at_every_fact(drifts)


async def test_a_workflow_gets_through_although_every_process_dies_after_one_step() -> None:
    steps: list[int] = []

    @task
    async def step(n: int) -> int:
        steps.append(n)
        return n

    @workflow
    async def long(ctx: ExecutionContext[int]) -> list[Any]:
        first = [await step(n) for n in range(ctx.input)]
        asked = await pause("ask")
        await sleep(3600)
        return [*first, asked, *await parallel(step(10), step(11))]

    done = await always_replay(long, 3, answers={"ask": "yes"})
    assert done.output == [0, 1, 2, "yes", 10, 11]
    assert max(Counter(steps).values()) == 2  # what was in flight when its process died is done again, once


async def test_a_workflow_that_gets_nowhere_is_found_out() -> None:
    @workflow
    async def stuck(ctx: ExecutionContext[Any]) -> Any:
        return await pause("ask", response=int)

    with pytest.raises(InvalidAnswer):
        await always_replay(stuck, answers={"ask": "no number"})

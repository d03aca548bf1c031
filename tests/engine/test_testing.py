"""The helpers that users test their workflows with."""

from __future__ import annotations

from typing import Any

import pytest

from flux import ExecutionContext, pause, workflow
from flux.tasks import parallel, sleep
from flux.testing import crash_at_every_fact

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

"""An answer may come at any moment, also while the run that asked is still being taken off the stack."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flux import ExecutionContext, Flux, pause, workflow

pytestmark = pytest.mark.anyio


async def test_an_answer_that_comes_while_the_parked_run_unwinds_is_taken_up(flux: Flux) -> None:
    answered = asyncio.Event()

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> int:
        try:
            return await pause("ask", response=int)
        finally:
            await answered.wait()  # a body that takes its time to clean up

    execution = await flux.start(asks)
    while not execution.is_paused:
        await asyncio.sleep(0)
        execution = await flux.get(execution.execution_id)
    assert not (await flux.answer(execution.execution_id, 7)).is_paused
    answered.set()
    async with asyncio.timeout(5):
        while not execution.has_finished:
            execution = await flux.wait(execution.execution_id)
    assert execution.output == 7

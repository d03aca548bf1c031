"""An answer that comes at the very moment when an execution is about to be parked."""

from __future__ import annotations

import asyncio

import pytest

from flux import Flux, pause, workflow
from flux.tasks import parallel

pytestmark = pytest.mark.anyio


@workflow
async def asks_twice() -> list[int]:
    return await parallel(pause("left", response=int), pause("right", response=int))


@pytest.mark.parametrize("turns", range(40))
async def test_an_answer_is_seen_at_whatever_moment_of_parking_it_comes(turns: int, flux: Flux) -> None:
    id = (await flux.run(asks_twice)).execution_id
    await flux.answer(id, 1, pause="left")
    for _ in range(turns):
        await asyncio.sleep(0)
    await flux.answer(id, 2, pause="right")
    assert (await flux.wait(id, timeout=10)).output == [1, 2]

"""Who finished first is something a workflow can see, so a replay keeps the order in which outcomes were recorded."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.domain.calls import CallId
from flux.engine.order import Order
from flux.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

rhythm = random.Random(0)


@task
async def runner(name: str) -> str:
    for _ in range(rhythm.randrange(40)):
        await asyncio.sleep(0)
    return name


async def test_asyncio_wait_has_the_same_winner_on_every_replay() -> None:
    winners: list[list[str]] = []

    @workflow
    async def race(ctx: ExecutionContext[Any]) -> Any:
        tasks = [asyncio.ensure_future(runner(name)) for name in "abcd"]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        won = sorted(task.result() for task in done)
        winners.append(won)
        rest = await asyncio.gather(*pending)
        return [won, rest, await pause("ask")]

    for seed in range(30):
        rhythm.seed(seed)
        winners.clear()
        async with Flux(store=MemoryStore(), recover=False) as flux:
            paused = await flux.run(race)
            rhythm.seed(seed + 1)
            done = await flux.resume(paused.execution_id, "ok")
            assert done.has_succeeded, done.output
        assert winners[0] == winners[1]


async def test_as_completed_goes_through_the_same_order_on_every_replay() -> None:
    orders: list[list[str]] = []

    @workflow
    async def each(ctx: ExecutionContext[Any]) -> Any:
        order = [await next_done for next_done in asyncio.as_completed([runner(name) for name in "abcdef"])]
        orders.append(order)
        return await pause("ask")

    for seed in range(30):
        rhythm.seed(seed)
        orders.clear()
        async with Flux(store=MemoryStore(), recover=False) as flux:
            paused = await flux.run(each)
            assert (await flux.resume(paused.execution_id, "ok")).has_succeeded
        assert orders[0] == orders[1]


async def test_an_outcome_that_nobody_asks_for_does_not_hold_the_others_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.engine.order.STALL", 0.01)
    order = Order([(CallId("0"), 1.0), (CallId("1"), 2.0), (CallId("2"), 2.0), (CallId("3"), 3.0)])
    async with asyncio.timeout(10):
        await order.turn(CallId("2"))
        await order.drained()
    assert order.is_drained

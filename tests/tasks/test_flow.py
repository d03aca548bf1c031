from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from flux import ExecutionContext, Flux, task, workflow
from flux.errors import BranchCancelled, TooManyFailures
from flux.tasks import first, parallel, pause, pipeline
from flux.testing import crash_at_every_fact

pytestmark = pytest.mark.anyio


@task
async def double(n: int) -> int:
    return n * 2


@task
async def fails(name: str) -> str:
    raise ValueError(name)


@task
async def hangs() -> None:
    await asyncio.Event().wait()


async def test_a_pipeline_hands_each_result_on_through_tasks_workflows_and_plain_functions(flux: Flux) -> None:
    @workflow
    async def squared(ctx: ExecutionContext[int]) -> int:
        return ctx.input**2

    async def minus_one(n: int) -> int:
        return n - 1

    @workflow
    async def piped(ctx: ExecutionContext[int]) -> str:
        return await pipeline(double, squared, minus_one, str, input=ctx.input)

    assert (await flux.run(piped, 3)).output == "35"


async def test_failures_stand_in_their_places_when_they_are_not_to_be_raised(flux: Flux) -> None:
    @workflow
    async def mixed(ctx: ExecutionContext[Any]) -> list[str]:
        return [repr(end) for end in await parallel(double(1), fails("b"), double(3), raise_on_error=False)]

    assert (await flux.run(mixed)).output == ["2", "ValueError('b')", "6"]


async def test_enough_successes_cancel_the_rest(flux: Flux) -> None:
    @workflow
    async def enough(ctx: ExecutionContext[Any]) -> list[str]:
        ends = await parallel(hangs(), double(1), fails("c"), double(2), min_successes=2)
        return [type(end).__name__ for end in ends]

    assert (await flux.run(enough)).output == [BranchCancelled.__name__, "int", "ValueError", "int"]


async def test_too_few_successes_or_too_many_failures_are_an_error_that_shows_them(flux: Flux) -> None:
    @workflow
    async def too_few(ctx: ExecutionContext[Any]) -> Any:
        return await parallel(double(1), fails("b"), fails("c"), min_successes=2)

    @workflow
    async def too_many(ctx: ExecutionContext[Any]) -> Any:
        return await double.map([1, "x", 2], max_failures=1) and await fails.map(["a", "b"], max_failures=1)

    first_end, second_end = (await flux.run(too_few)).error, (await flux.run(too_many)).error
    assert isinstance(first_end, TooManyFailures)
    assert "ValueError: b" in str(first_end)
    assert isinstance(second_end, TooManyFailures)
    assert second_end.successes == 0


async def test_the_first_success_wins_and_wins_again_on_replay() -> None:
    @task
    async def after(turns: int, name: str) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        return name

    @workflow
    async def race(ctx: ExecutionContext[Any]) -> Any:
        won = await first(after(300, "slow"), fails("never"), after(1, "quick"))
        return [won, await pause("ask")]

    done = await crash_at_every_fact(race, answers={"ask": 1})
    assert done.output == ["quick", 1]


async def test_an_iterator_is_asked_for_an_item_only_when_there_is_room(flux: Flux) -> None:
    asked: list[int] = []
    gate = asyncio.Event()

    def numbers() -> Iterator[int]:
        for n in range(6):
            asked.append(n)
            yield n

    @task
    async def waits(n: int) -> int:
        await gate.wait()
        return n

    @workflow
    async def mapped(ctx: ExecutionContext[Any]) -> list[int]:
        return await waits.map(numbers(), max_concurrent=2)

    started = await flux.start(mapped)
    for _ in range(100):
        await asyncio.sleep(0)
    assert asked == [0, 1]
    gate.set()
    assert (await flux.wait(started.execution_id)).output == [0, 1, 2, 3, 4, 5]


async def test_an_asynchronous_iterator_may_call_tasks_itself() -> None:
    async def numbers() -> AsyncIterator[int]:
        for n in range(4):
            yield await double(n)

    @workflow
    async def mapped(ctx: ExecutionContext[Any]) -> list[int]:
        return await double.map(numbers(), max_concurrent=2)

    assert (await crash_at_every_fact(mapped)).output == [0, 4, 8, 12]


async def test_a_stream_gives_results_as_they_come_and_the_same_on_replay() -> None:
    @task
    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    @workflow
    async def streamed(ctx: ExecutionContext[Any]) -> list[int]:
        return [turns async for turns in after.map_stream([90, 1, 45], max_concurrent=3)]

    assert (await crash_at_every_fact(streamed)).output == [1, 45, 90]


async def test_a_stream_that_is_left_early_leaves_nothing_running(flux: Flux) -> None:
    ended = asyncio.Event()

    @task
    async def one_or_never(n: int) -> int:
        if n:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        return n

    @workflow
    async def leaves(ctx: ExecutionContext[Any]) -> int:
        async with aclosing(one_or_never.map_stream([0, 1], max_concurrent=2)) as results:
            async for result in results:
                return result
        return -1

    assert (await flux.run(leaves)).output == 0
    assert ended.is_set()


@pytest.mark.parametrize("wrong", [{"max_concurrent": 0}, {"min_successes": 0}, {"max_failures": -1}])
async def test_a_bound_that_makes_no_sense_is_refused(wrong: dict[str, Any], flux: Flux) -> None:
    @workflow
    async def bounded(ctx: ExecutionContext[Any]) -> Any:
        return await double.map([1], **wrong)

    assert isinstance((await flux.run(bounded)).error, ValueError)

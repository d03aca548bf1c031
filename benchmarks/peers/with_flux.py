"""Flux, as it comes: WAL and synchronous=FULL, or PostgreSQL; a step's result is durable before it is handed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

from program import Stopwatch, main

from flux import ExecutionContext, Flux, pause, task, workflow


@task
async def step(number: int) -> int:
    return number


@workflow
async def in_a_row(ctx: ExecutionContext[int]) -> None:
    for number in range(ctx.input):
        await step(number)


@workflow
async def in_a_row_then_open(ctx: ExecutionContext[int]) -> None:
    for number in range(ctx.input):
        await step(number)
    await pause("then")


@workflow
async def fan_out(ctx: ExecutionContext[int]) -> None:
    await step.map(range(ctx.input))


@workflow
async def one_step(ctx: ExecutionContext[int]) -> int:
    return await step(ctx.input)


WORKFLOWS = [in_a_row, in_a_row_then_open, fan_out, one_step]


async def steps(flux: Flux, count: int, watch: Stopwatch) -> None:
    with watch:
        await flux.run(in_a_row, count)


async def fan(flux: Flux, count: int, watch: Stopwatch) -> None:
    with watch:
        await flux.run(fan_out, count)


async def at_once(flux: Flux, count: int, watch: Stopwatch) -> None:
    with watch:
        await asyncio.gather(*[flux.run(one_step, number) for number in range(count)])


async def rows_at_once(flux: Flux, count: int, watch: Stopwatch) -> None:
    """64 executions that share `count` steps."""
    with watch:
        await asyncio.gather(*[flux.run(in_a_row, count // 64) for _ in range(64)])


async def in_turn(flux: Flux, count: int, watch: Stopwatch) -> None:
    for number in range(count):
        with watch:
            await flux.run(one_step, number)


async def record(flux: Flux, count: int, watch: Stopwatch) -> None:
    with watch:
        await flux.run(in_a_row_then_open, count, execution_id="long")


async def replay(flux: Flux, count: int, watch: Stopwatch) -> None:
    with watch:
        done = await flux.resume("long", None)
    assert done.has_succeeded, count


def on_flux(workload: Callable[[Flux, int, Stopwatch], Coroutine[None, None, None]]) -> Callable[[int, str], Stopwatch]:
    async def run(count: int, place: str) -> Stopwatch:
        watch = Stopwatch()
        async with Flux(place if "://" in place else Path(place) / "flux.db", workflows=WORKFLOWS) as flux:
            await workload(flux, count, watch)
        return watch

    return lambda count, place: asyncio.run(run(count, place))


if __name__ == "__main__":
    main({each.__name__: on_flux(each) for each in (steps, fan, at_once, rows_at_once, in_turn, record, replay)})

"""The engine on a real file, each figure beside raw sqlite3 commits of the same run: `python benchmarks/bench_engine.py`."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from measure import Figure, rounds
from raw import SQLITE_COMMITS, sqlite_commits

from flux import ExecutionContext, Flux, pause, task, workflow

LONG = 100_000


@task
async def step(number: int) -> int:
    return number


@workflow
async def in_a_row(ctx: ExecutionContext[int]) -> None:
    for number in range(ctx.input):
        await step(number)
    await pause("then")


@workflow
async def fan_out(ctx: ExecutionContext[int]) -> None:
    await step.map(range(ctx.input))


@workflow
async def one_step(ctx: ExecutionContext[int]) -> int:
    return await step(ctx.input)


async def rate(name: str, count: int, work: Callable[[], Awaitable[object]]) -> Figure:
    began = time.perf_counter()
    await work()
    return Figure(name, count / (time.perf_counter() - began), of=SQLITE_COMMITS)


async def at_once(flux: Flux, count: int) -> None:
    await asyncio.gather(*[flux.run(one_step, number) for number in range(count)])


async def in_turn(flux: Flux, count: int) -> None:
    for number in range(count):
        await flux.run(one_step, number)


async def long_ones(file: Path) -> list[Figure]:
    """One execution of many steps: its pace from the first to the last, and how fast it is replayed by a process that has not seen it."""
    async with Flux(file) as flux:
        figures = [await rate("100,000 steps in a row", LONG, lambda: flux.run(in_a_row, LONG, execution_id="long"))]
    async with Flux(file, workflows=[in_a_row]) as flux:
        return [*figures, await rate("100,000 replayed steps", LONG, lambda: flux.resume("long", None))]


async def on_a_file(file: Path) -> list[Figure]:
    async with Flux(file) as flux:
        await flux.run(in_a_row, 10_000, execution_id="recorded")
        return [
            await rate("steps in a row", 2000, lambda: flux.run(in_a_row, 2000, execution_id="row")),
            await rate("10,000 replayed steps", 10_000, lambda: flux.resume("recorded", None)),
            await rate("fan-out of 1,000", 1000, lambda: flux.run(fan_out, 1000)),
            await rate("fan-out of 10,000", 10_000, lambda: flux.run(fan_out, 10_000)),
            await rate("1,000 one-step executions at once", 1000, lambda: at_once(flux, 1000)),
            await rate("one-step executions in turn", 300, lambda: in_turn(flux, 300)),
        ]


def one_round(folder: Path) -> list[Figure]:
    raw = Figure(SQLITE_COMMITS, sqlite_commits(folder))
    figures = asyncio.run(on_a_file(folder / "flux.db"))
    figures += asyncio.run(long_ones(folder / "long.db"))
    figures.append(Figure("on disk, a step", (folder / "long.db").stat().st_size / LONG, "bytes"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [raw, *figures, Figure("peak memory", peak, "MiB")]


if __name__ == "__main__":
    rounds("The engine on a SQLite file", one_round)

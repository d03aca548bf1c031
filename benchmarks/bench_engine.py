"""The engine on a real file, each figure beside raw sqlite3 commits of the same run: `python benchmarks/bench_engine.py`."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from flux import ExecutionContext, Flux, pause, task, workflow

ROUNDS = 3


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


def raw_commits(folder: Path, count: int = 2000) -> float:
    """Rows a second, one a commit, durable: what one writer on this disk can do."""
    raw = sqlite3.connect(folder / "raw.db", isolation_level=None)
    raw.execute("PRAGMA journal_mode=wal")
    raw.execute("PRAGMA synchronous=full")
    raw.execute("CREATE TABLE IF NOT EXISTS t (a, b, c)")
    began = time.perf_counter()
    for number in range(count):
        raw.execute("INSERT INTO t VALUES (?, ?, ?)", (number, "x" * 50, "y"))
    raw.close()
    return count / (time.perf_counter() - began)


async def rate(count: int, work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return count / (time.perf_counter() - began)


async def at_once(flux: Flux, count: int) -> None:
    await asyncio.gather(*[flux.run(one_step, number) for number in range(count)])


async def in_turn(flux: Flux, count: int) -> None:
    for number in range(count):
        await flux.run(one_step, number)


async def one_round(folder: Path) -> dict[str, float]:
    figures = {"raw sqlite3 commits": raw_commits(folder)}
    async with Flux(folder / "flux.db") as flux:
        figures["steps in a row"] = await rate(2000, lambda: flux.run(in_a_row, 2000, execution_id="row"))
        figures["replayed steps"] = await rate(2000, lambda: flux.resume("row", None))
        figures["fan-out of 1,000"] = await rate(1000, lambda: flux.run(fan_out, 1000))
        figures["fan-out of 10,000"] = await rate(10_000, lambda: flux.run(fan_out, 10_000))
        figures["1,000 one-step executions at once"] = await rate(1000, lambda: at_once(flux, 1000))
        figures["one-step executions in turn"] = await rate(300, lambda: in_turn(flux, 300))
    return figures


def main() -> None:
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            rounds.append(asyncio.run(one_round(Path(folder))))
    raw = median(figures["raw sqlite3 commits"] for figures in rounds)
    for name in rounds[0]:
        each = median(figures[name] for figures in rounds)
        print(f"{name:36} {each:10,.0f} /s {each / raw:8.2f} of raw")
    print(f"{'peak memory':36} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:10,.0f} MiB")


if __name__ == "__main__":
    main()

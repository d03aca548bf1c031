"""How work on one PostgreSQL grows with the processes that share it: `python benchmarks/bench_processes.py`.

So many `flux worker` processes run executions of 20 steps, which one more process starts. The baseline is one
connection that commits one row at a time.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from measure import Figure, rounds
from postgres import database
from raw import POSTGRES_COMMITS, postgres_commits

from flux import ExecutionContext, Flux, task, workflow
from flux.domain.execution import Status
from flux.settings import Settings

EXECUTIONS = 800
STEPS = 20
PROCESSES = (1, 2, 4)
LOOK = 0.02  # seconds


@task
async def step(number: int) -> int:
    return number


@workflow
async def in_a_row(ctx: ExecutionContext[int]) -> int:
    return sum([await step(number) for number in range(ctx.input)])


@contextmanager
def workers(count: int, url: str) -> Generator[None]:
    command = [sys.executable, "-m", "flux.cli", "worker", __file__, "--database", url]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        for each in running:
            assert each.stderr is not None
            if "This worker runs" not in (said := each.stderr.readline()):
                raise RuntimeError(f"a worker did not start: {said}{each.stderr.read()}")
        yield
    finally:
        for each in running:
            each.terminate()
            each.communicate()


async def steps_a_second(url: str) -> float:
    """This process runs nothing itself, and looks now and then whether all have ended."""
    settings = Settings.load(database=url, concurrency=0)
    async with Flux(settings=settings, workflows=[in_a_row]) as flux:
        began = time.perf_counter()
        await asyncio.gather(*(flux.start(in_a_row, STEPS) for _ in range(EXECUTIONS)))
        while await flux.list(status=Status.RUNNING, limit=1):  # noqa: ASYNC110 - no event tells of all of them
            await asyncio.sleep(LOOK)
        taken = time.perf_counter() - began
        ended = await flux.list(status=Status.COMPLETED, limit=EXECUTIONS)
    assert len(ended) == EXECUTIONS
    return EXECUTIONS * STEPS / taken


def one_round(_: Path) -> list[Figure]:
    with database() as url:
        figures = [Figure(POSTGRES_COMMITS, postgres_commits(url))]
    for count in PROCESSES:
        with database() as url, workers(count, url):
            name = f"steps, {count} worker{'s' if count > 1 else ''}"
            figures.append(Figure(name, asyncio.run(steps_a_second(url)), of=POSTGRES_COMMITS))
    return figures


if __name__ == "__main__":
    rounds("Processes that share one PostgreSQL", one_round)

"""A history grows with what is new in it, and a stream keeps nothing of what has been taken."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, Flux, task, workflow

pytestmark = pytest.mark.anyio


@task
async def same(n: int) -> str:
    return f"{n:0100d}"


@workflow
async def mapped(ctx: ExecutionContext[int]) -> int:
    return len(await same.map(range(ctx.input)))


@workflow
async def streamed(ctx: ExecutionContext[int]) -> int:
    count, most = 0, 0
    async for _ in same.map_stream(range(ctx.input), max_concurrent=20):
        count += 1
        most = max(most, len(asyncio.all_tasks()))
    assert most < 60
    return count


@pytest.mark.parametrize("body", [mapped, streamed])
async def test_the_file_grows_by_the_same_for_every_item(body: Any, tmp_path: Path) -> None:
    sizes: list[float] = []
    for count in (500, 2000):
        path = tmp_path / f"{count}.db"
        async with Flux(path, recover=False) as flux:
            assert (await flux.run(body, count)).output == count
        sizes.append(path.stat().st_size / count)
    assert sizes[1] < 1.1 * sizes[0]
    assert sizes[1] < 600


async def test_the_memory_of_a_stream_does_not_grow_with_what_has_been_taken(tmp_path: Path) -> None:
    peaks: list[int] = []
    for count in (500, 2000):
        async with Flux(tmp_path / f"{count}.db", recover=False) as flux:
            gc.collect()
            tracemalloc.start()
            await flux.run(streamed, count)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]

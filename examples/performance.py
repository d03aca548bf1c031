"""Where a workflow's time goes, and how to group its work: `python performance.py`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from flux import ExecutionContext, task, workflow
from flux.tasks import Graph, parallel, pipeline


@task
async def fast_task(seconds: float) -> float:
    await asyncio.sleep(0.1 * seconds)
    return seconds


@task
async def slow_task(seconds: float) -> float:
    await asyncio.sleep(0.4 * seconds)
    return seconds


@task
def in_a_thread(seconds: float) -> float:
    time.sleep(0.2 * seconds)  # a plain function runs in a thread: it holds nobody up
    return seconds


@workflow
async def timed_pipeline(ctx: ExecutionContext[float]) -> float:
    """A chain takes as long as all its steps together."""
    return await pipeline(fast_task, slow_task, fast_task, input=ctx.input)


@workflow
async def grouped_tasks(ctx: ExecutionContext[float]) -> list[float]:
    """Independent tasks take as long as the slowest; in groups, no more of them run at once than you like."""
    group1 = await parallel(slow_task(ctx.input), in_a_thread(ctx.input), in_a_thread(ctx.input))
    group2 = await parallel(*[fast_task(ctx.input) for _ in range(3)], max_concurrent=2)
    return [*group1, *group2]


@task
async def quick_validation(data: dict[str, Any]) -> dict[str, Any]:
    return {"valid": "value" in data, **data}


@task
async def heavy_processing(checked: dict[str, Any]) -> int:
    return checked["value"] * 2


@task
async def handle_error(checked: dict[str, Any]) -> str:
    return f"no value in {checked}"


@workflow
async def optimized_graph(ctx: ExecutionContext[dict[str, Any]]) -> dict[str, Any]:
    """Validate first: what follows runs only where it is needed."""
    graph = (
        Graph("optimized_flow")
        .add_node("validate", quick_validation)
        .add_node("process", heavy_processing)
        .add_node("error", handle_error)
        .add_edge("validate", "process", condition=lambda r: r.get("valid"))
        .add_edge("validate", "error", condition=lambda r: not r.get("valid"))
        .start_with("validate")
        .end_with("process")
        .end_with("error")
    )
    return await graph(ctx.input)


if __name__ == "__main__":
    for each in (timed_pipeline, grouped_tasks):
        began = time.perf_counter()
        print(each.name, each.run(1.0).output, f"{time.perf_counter() - began:.1f} s")
    print(optimized_graph.run({"value": 21}).output, optimized_graph.run({}).output)

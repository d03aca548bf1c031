"""A chain of tasks, each of which gets what the one before returned: `python pipeline_workflow.py [NUMBER]`."""

from __future__ import annotations

import sys

from flux import ExecutionContext, task, workflow
from flux.tasks import pipeline


@task
async def multiply_by_two(x: int) -> int:
    return x * 2


@task
async def add_three(x: int) -> int:
    return x + 3


@task
async def square(x: int) -> int:
    return x * x


@workflow
async def pipeline_workflow(ctx: ExecutionContext[int]) -> int:
    """Double a number, add three, and square what comes out."""
    return await pipeline(multiply_by_two, add_three, square, input=ctx.input)


if __name__ == "__main__":
    print(pipeline_workflow.run(int(sys.argv[1]) if sys.argv[1:] else 5).output)

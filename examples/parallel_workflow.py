"""Independent tasks at once: `python parallel_workflow.py [NAME]`."""

from __future__ import annotations

import sys

from flux import ExecutionContext, task, workflow
from flux.tasks import parallel


@task
async def say_hi(name: str) -> str:
    return f"Hi, {name}"


@task
async def say_hello(name: str) -> str:
    return f"Hello, {name}"


@task
async def say_hola(name: str) -> str:
    return f"Hola, {name}"


@workflow
async def parallel_workflow(ctx: ExecutionContext[str]) -> list[str]:
    """Greet somebody in three ways at once."""
    return await parallel(say_hi(ctx.input), say_hello(ctx.input), say_hola(ctx.input))


if __name__ == "__main__":
    print(parallel_workflow.run(sys.argv[1] if sys.argv[1:] else "World").output)

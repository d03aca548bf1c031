"""The smallest workflow: one task, a text in, a text out.

python examples/hello_world.py Ada
"""

from __future__ import annotations

import sys

from flux import ExecutionContext, task, workflow


@task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow
async def hello_world(ctx: ExecutionContext[str]) -> str:
    """Greet somebody by name."""
    return await greet(ctx.input)


if __name__ == "__main__":
    execution = hello_world.run(sys.argv[1] if len(sys.argv) > 1 else "World")
    print(execution.output)

"""Two tasks as the nodes of a graph: the output of one is the input of the next.

python examples/graph_workflow.py Ada
"""

from __future__ import annotations

import sys

from flux import ExecutionContext, task, workflow
from flux.tasks import Graph


@task
async def get_name(input: str) -> str:
    return input


@task
async def say_hello(name: str) -> str:
    return f"Hello, {name}"


@workflow
async def graph_workflow(ctx: ExecutionContext[str]) -> str:
    """Greet somebody by name, by way of a graph."""
    hello = (
        Graph("hello_world")
        .add_node("get_name", get_name)
        .add_node("say_hello", say_hello)
        .add_edge("get_name", "say_hello")
        .start_with("get_name")
        .end_with("say_hello")
    )
    return await hello(ctx.input)


if __name__ == "__main__":
    execution = graph_workflow.run(sys.argv[1] if len(sys.argv) > 1 else "World")
    print(execution.output)

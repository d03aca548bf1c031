"""A graph whose conditions choose the way, and a picture of the way that an execution took.

python examples/conditional_graph.py 42
python examples/conditional_graph.py forty-two
"""

from __future__ import annotations

import sys
from typing import Any

from flux import ExecutionContext, task, workflow
from flux.tasks import Graph


@task
async def validate_data(data: str) -> dict[str, Any]:
    return {"data": data, "valid": data.isdigit()}


@task
async def process_data(result: dict[str, Any]) -> int:
    return 2 * int(result["data"])


@task
async def handle_error(result: dict[str, Any]) -> str:
    return f"{result['data']!r} is no number"


conditional_flow = (
    Graph("conditional_flow")
    .add_node("validate", validate_data)
    .add_node("process", process_data)
    .add_node("error", handle_error)
    .add_edge("validate", "process", condition=lambda result: result.get("valid"))
    .add_edge("validate", "error", condition=lambda result: not result.get("valid"))
    .start_with("validate")
    .end_with("process")
    .end_with("error")
)


@workflow
async def conditional_graph_workflow(ctx: ExecutionContext[str]) -> dict[str, Any]:
    """Double a number, or say why it cannot be done."""
    return await conditional_flow(ctx.input)


if __name__ == "__main__":
    execution = conditional_graph_workflow.run(sys.argv[1] if len(sys.argv) > 1 else "42")
    print(execution.output)
    print()
    print(conditional_flow.to_text(conditional_flow.states(execution.events)), end="")

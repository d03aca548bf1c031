"""Agents in parallel, and the same agents as nodes of a graph.

python review.py
"""

from flux import ExecutionContext, task, workflow
from flux.tasks import Graph, parallel
from flux.tasks.ai import agent

security_reviewer = agent("You review code for security.", model="ollama/llama3", name="security_reviewer")
performance_reviewer = agent("You review code for speed.", model="ollama/llama3", name="performance_reviewer")


@task
async def aggregate_results(security: str, performance: str) -> str:
    return f"Security: {security}\nPerformance: {performance}"


@workflow
async def review(ctx: ExecutionContext[str]) -> str:
    code = ctx.input

    # Parallel agents
    reviews = await parallel(
        security_reviewer("Review:\n" + code),
        performance_reviewer("Review:\n" + code),
    )

    # Graph-based agent pipeline
    graph = (
        Graph("review")
        .add_node("security", security_reviewer)
        .add_node("performance", performance_reviewer)
        .add_node("aggregate", aggregate_results)
        .start_with("security")
        .start_with("performance")
        .add_edge("security", "aggregate")
        .add_edge("performance", "aggregate")
        .end_with("aggregate")
    )
    return f"{len(reviews)} reviews\n{await graph(code)}"


if __name__ == "__main__":
    print(review.run("eval(input())").output)

"""An agent in a workflow. Needs Ollama with the model `llama3`, or set OLLAMA_BASE_URL.

python research.py "durable workflows"
"""

import sys

from flux import ExecutionContext, workflow
from flux.tasks.ai import agent

researcher = agent(
    "You are a research analyst. Find key findings and trends.",
    model="ollama/llama3",
    name="researcher",
)


@workflow
async def research_workflow(ctx: ExecutionContext[dict[str, str]]) -> str:
    return await researcher(ctx.input["topic"])


if __name__ == "__main__":
    ctx = research_workflow.run({"topic": " ".join(sys.argv[1:]) or "AI agents"})
    print(ctx.output)

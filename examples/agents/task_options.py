"""The options of tasks on an agent: retries are for each request to the model, the timeout for the agent as a whole.

python task_options.py "AI agents"
"""

import sys

from flux import ExecutionContext, workflow
from flux.tasks.ai import agent

researcher = agent(
    "You are a researcher.",
    model="ollama/llama3",
    name="researcher",
).with_options(
    retry_max_attempts=5,
    timeout=300,
)


@workflow
async def research(ctx: ExecutionContext[str]) -> str:
    return await researcher(f"Research: {ctx.input}")


if __name__ == "__main__":
    print(research.run(" ".join(sys.argv[1:]) or "AI agents").output)

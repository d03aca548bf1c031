"""Tasks as tools: their signatures and docstrings tell the model how to call them.

python tool_use.py "What is the weather in Paris?"
"""

import sys

from flux import ExecutionContext, task, workflow
from flux.tasks.ai import agent


@task.with_options(timeout=30)
async def search_web(query: str) -> str:
    """Search the web and return relevant results."""
    return f"Nothing is known about {query}."


@task.with_options(timeout=10)
async def get_weather(city: str) -> str:
    """Get the current weather for a city."""
    return f"It is sunny in {city}."


assistant = agent(
    "You are a helpful assistant. Use tools when needed.",
    model="ollama/llama3",
    name="assistant",
    tools=[search_web, get_weather],
)


@workflow
async def assist(ctx: ExecutionContext[str]) -> str:
    return await assistant(ctx.input)


if __name__ == "__main__":
    ctx = assist.run(" ".join(sys.argv[1:]) or "What is the weather in Paris?")
    for event in ctx.events:
        if event.type in ("TASK_STARTED", "TASK_COMPLETED"):
            print(event.type.value, event.name)
    print(ctx.output)

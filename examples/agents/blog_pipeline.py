"""Three agents, each of which gets what the one before wrote.

python blog_pipeline.py "AI agents"
"""

import sys

from flux import ExecutionContext, workflow
from flux.tasks.ai import agent

researcher = agent("You are a researcher.", model="ollama/llama3", name="researcher")
writer = agent("You are a writer.", model="ollama/llama3", name="writer")
editor = agent("You are an editor.", model="ollama/llama3", name="editor")


@workflow
async def blog_pipeline(ctx: ExecutionContext[dict[str, str]]) -> str:
    topic = ctx.input["topic"]
    research = await researcher(f"Research: {topic}")
    draft = await writer(f"Write about: {topic}", context=research)
    return await editor("Edit:", context=draft)


if __name__ == "__main__":
    ctx = blog_pipeline.run({"topic": " ".join(sys.argv[1:]) or "AI agents"})
    for event in ctx.events:
        if event.type in ("TASK_STARTED", "TASK_COMPLETED"):
            print(event.type.value, event.name)
    print(ctx.output)

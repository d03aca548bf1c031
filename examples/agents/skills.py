"""Skills: instructions that an agent reads when it needs them, from the folder `skills` beside this file.

python skills.py "Give me the short version of https://example.org"
"""

import sys
from pathlib import Path

from flux import ExecutionContext, task, workflow
from flux.tasks.ai import SkillCatalog, agent


@task
async def search_web(query: str) -> str:
    """Search the web and return relevant results."""
    return f"Nothing is known about {query}."


@task
async def read_url(url: str) -> str:
    """Read a web page."""
    return f"The page {url} says: this domain is for use in examples."


catalog = SkillCatalog.from_directory(Path(__file__).parent / "skills")

assistant = agent(
    "You are a helpful assistant.",
    model="ollama/llama3.2",
    name="assistant",
    tools=[search_web, read_url],
    skills=catalog,
)


@workflow
async def assist(ctx: ExecutionContext[str]) -> str:
    return await assistant(ctx.input)


if __name__ == "__main__":
    print(assist.run(" ".join(sys.argv[1:]) or "Give me the short version of https://example.org").output)

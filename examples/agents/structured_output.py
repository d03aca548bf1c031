"""An answer with a type.

python structured_output.py "AI agents"
"""

import sys

from pydantic import BaseModel

from flux import ExecutionContext, workflow
from flux.tasks.ai import agent


class ResearchFindings(BaseModel):
    topic: str
    key_points: list[str]
    sources: list[str]


researcher = agent(
    "You are a researcher. Return structured findings.",
    model="ollama/llama3",
    name="researcher",
    response_format=ResearchFindings,
)


@workflow
async def findings(ctx: ExecutionContext[str]) -> list[str]:
    # Returns a ResearchFindings instance, not a string
    result = await researcher(f"Research {ctx.input}")
    return result.key_points


if __name__ == "__main__":
    for point in findings.run(" ".join(sys.argv[1:]) or "AI agents").output:
        print(f"- {point}")

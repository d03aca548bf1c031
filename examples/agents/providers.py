"""The model string names the provider. Nothing is looked up before an agent is called, so keys are only needed then.

OPENAI_API_KEY=... ANTHROPIC_API_KEY=... python providers.py "Say hello."
"""

import sys

from flux import ExecutionContext, workflow
from flux.tasks import parallel
from flux.tasks.ai import agent

# Local (Ollama)
llama = agent("Answer in one sentence.", model="ollama/llama3")
small = agent("Answer in one sentence.", model="ollama/llama3.2")

# OpenAI (requires the environment variable OPENAI_API_KEY)
gpt = agent("Answer in one sentence.", model="openai/gpt-4o")

# Anthropic (requires the environment variable ANTHROPIC_API_KEY)
claude = agent("Answer in one sentence.", model="anthropic/claude-sonnet-4-20250514")


@workflow
async def ask_all(ctx: ExecutionContext[str]) -> list[str]:
    answers = await parallel(*(each(ctx.input) for each in (llama, small, gpt, claude)), raise_on_error=False)
    return [str(answer) for answer in answers]


if __name__ == "__main__":
    for answer in ask_all.run(" ".join(sys.argv[1:]) or "Say hello.").output:
        print(answer)

"""A person between two agents: the process may end while it waits.

python human_review.py                       asks, and ends
python human_review.py ID "Shorter, please"  goes on with the answer
"""

import sys

from flux import ExecutionContext, pause, workflow
from flux.tasks.ai import agent

researcher = agent("You are a researcher.", model="ollama/llama3", name="researcher")
writer = agent("You are a writer.", model="ollama/llama3", name="writer")


@workflow
async def revised(ctx: ExecutionContext[None]) -> str:
    research = await researcher("Research AI")
    feedback = await pause("human_review", research)
    return await writer("Revise based on feedback", context=f"{research}\n\n{feedback}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(revised.resume(sys.argv[1], sys.argv[2]).output)
    else:
        ctx = revised.run(None)
        print(f"{ctx.pauses[0].output}\nAnswer with: python human_review.py {ctx.execution_id} YOUR-FEEDBACK")

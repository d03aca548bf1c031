"""Work that waits for people, as long as it takes: `python human_in_the_loop.py`, then `... ID FEEDBACK`."""

from __future__ import annotations

import sys
from typing import Literal

from pydantic import BaseModel, Field

from flux import ExecutionContext, pause, task, workflow
from flux.tasks import parallel


class Review(BaseModel):
    verdict: Literal["publish", "revise"]
    feedback: str = Field(default="", description="What to change")


@task
async def research(topic: str) -> str:
    return f"what is known about {topic}"


@task
async def write(findings: str, feedback: str = "") -> str:
    return f"{findings} ({feedback})" if feedback else findings


@workflow
async def reviewed(ctx: ExecutionContext[str]) -> str:
    """Write about a topic and revise it until a reader is content; a lawyer looks at it at the same time."""
    draft = await write(await research(ctx.input))
    review, _ = await parallel(
        pause("human_review", output=draft, response=Review, message="Is it good?"),
        pause("legal", output=draft, response=Literal["fine"], message="May we publish it?", timeout=7 * 86400),
    )
    while review.verdict == "revise":
        draft = await write(draft, review.feedback)
        review = await pause("human_review", output=draft, response=Review, message="Is it better?")
    return draft


if __name__ == "__main__":
    if len(sys.argv) == 1:
        paused = reviewed.run("durable execution")
    elif len(sys.argv) == 3:
        paused = reviewed.resume(sys.argv[1], {"verdict": "revise", "feedback": sys.argv[2]}, pause="human_review")
        paused = reviewed.resume(sys.argv[1], "fine", pause="legal")
    else:
        paused = reviewed.resume(sys.argv[1], {"verdict": "publish"})
    print(paused.execution_id, paused.status.value, [question.name for question in paused.pauses], paused.output)

"""An agent whose process kills itself inside each step, once. Prints the answer when it gets to it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from pydantic import BaseModel

from flux import ExecutionContext, task, workflow
from flux.tasks.ai import agent

DEATHS = Path(os.environ.get("DEATHS", "."))


class Report(BaseModel):
    steps: list[str]


def die_once(where: str) -> None:
    mark = DEATHS / where
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@task
async def step(name: str) -> str:
    die_once(name)
    with (DEATHS / "ledger").open("a") as ledger:
        ledger.write(f"{name}\n")
    return f"did {name}"


worker = agent("Work.", model="ollama/llama3", name="worker", tools=[step], response_format=Report)


@workflow
async def works(ctx: ExecutionContext[None]) -> list[str]:
    return (await worker("Go.")).steps


if __name__ == "__main__":
    print(works.run(None, execution_id="the-one").output)  # noqa: T201 - what the test reads

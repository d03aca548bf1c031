"""Random workflows: what they do follows from their seed alone, and so does what they must return."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from pydantic import BaseModel

from flux import ExecutionContext, pause, task, workflow
from flux.tasks import parallel, sleep

NEEDS = "torture"


class Plan(BaseModel):
    seed: int
    steps: int
    is_child: bool = False


@task
async def step(execution: str, label: str) -> int:
    """Its effect: one line, written at once, in a file that survives the process."""
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{execution} {label} {time.time()!r}\n".encode())
    os.close(file)
    return len(label)


@task.with_options(retry_max_attempts=2, retry_delay=0)
async def nested(execution: str, label: str) -> int:
    return await step(execution, f"{label}.a") + await step(execution, f"{label}.b")


@workflow.with_options(needs=[NEEDS])
async def program(ctx: ExecutionContext[Plan]) -> int:
    plan, id = ctx.input, ctx.execution_id
    chance, total, done = random.Random(plan.seed), 0, 0
    while done < plan.steps:
        match chance.choice(OPERATIONS[:4] if plan.is_child else OPERATIONS):
            case "step":
                total += await step(id, f"s{done}")
                done += 1
            case "parallel":
                width = chance.randint(2, 4)
                total += sum(await parallel(*[step(id, f"p{done}-{n}") for n in range(width)]))
                done += width
            case "nested":
                total += await nested(id, f"n{done}")
                done += 2
            case "sleep":
                await sleep(chance.random() * 0.02)
                done += 1
            case "pause":
                total += int(await pause(f"q{done}"))
                done += 1
            case "child":
                total += await program(Plan(seed=plan.seed + 1, steps=3, is_child=True))
                done += 3
            case other:
                raise AssertionError(other)
    return total


OPERATIONS = ["step", "parallel", "nested", "sleep", "pause", "child"]
ANSWER = 7


def expected(plan: Plan) -> int:
    """What `program` returns, worked out without an engine."""
    chance, total, done = random.Random(plan.seed), 0, 0
    while done < plan.steps:
        match chance.choice(OPERATIONS[:4] if plan.is_child else OPERATIONS):
            case "step":
                total += len(f"s{done}")
                done += 1
            case "parallel":
                width = chance.randint(2, 4)
                total += sum(len(f"p{done}-{n}") for n in range(width))
                done += width
            case "nested":
                total += 2 * len(f"n{done}.a")
                done += 2
            case "sleep":
                chance.random()
                done += 1
            case "pause":
                total += ANSWER
                done += 1
            case _:
                total += expected(Plan(seed=plan.seed + 1, steps=3, is_child=True))
                done += 3
    return total


WORKFLOWS: list[Any] = [program]

"""What the tests of this folder run in processes of its own, and kill. Usage: program.py start|resume|answer ID"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from flux import ExecutionContext, pause, task, workflow
from flux.tasks import parallel


def ledger(line: str) -> None:
    """One line, written at once, in a file that survives the process."""
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{line}\n".encode())
    os.close(file)


@task
async def step(number: int) -> int:
    ledger(f"step {number}")
    return number * 2


@task
def slow(number: int) -> int:
    ledger(f"slow {number}")
    time.sleep(0.005)
    return number * 2


@workflow
async def in_a_row(ctx: ExecutionContext[int]) -> int:
    total = 0
    for number in range(ctx.input):
        total += await step(number)
    return total


@workflow
async def at_once(ctx: ExecutionContext[int]) -> list[int]:
    return await parallel(*[slow(number) for number in range(ctx.input)])


@workflow
async def asks(ctx: ExecutionContext[int]) -> Any:
    await step(0)
    answer = await pause("ask")
    await step(1)
    return answer


WORKFLOWS = {each.name: each for each in (in_a_row, at_once, asks)}


def main() -> None:
    verb, name, id, *rest = sys.argv[1:]
    chosen = WORKFLOWS[name]
    if verb == "start":
        execution = chosen.run(int(rest[0]), execution_id=id)
    elif verb == "resume":
        execution = chosen.resume(id)
    else:
        execution = chosen.resume(id, rest[0])
    print(execution.status.value, execution.output)


if __name__ == "__main__":
    main()

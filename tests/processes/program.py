"""What the tests of this folder run in processes of its own, and kill.

Usage: program.py start NAME ID INPUT, resume NAME ID, or answer NAME ANSWER, which answers those whose ids come in."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from flux import ExecutionContext, pause, task, workflow
from flux.errors import FluxError
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
    match sys.argv[1:]:
        case ["start", name, id, size]:
            tell(WORKFLOWS[name].run(int(size), execution_id=id))
        case ["resume", name, id]:
            tell(WORKFLOWS[name].resume(id))
        case ["answer", name, answer]:
            for id in sys.stdin:
                try:
                    tell(WORKFLOWS[name].resume(id.strip(), answer))
                except FluxError as exc:
                    print(type(exc).__name__, flush=True)
        case _:
            sys.exit(__doc__)


def tell(execution: ExecutionContext[Any]) -> None:
    print(execution.status.value, execution.output, flush=True)


if __name__ == "__main__":
    main()

"""A process that begins executions, and runs them and others beside it, until it is killed. Prints a line when all have begun.

Usage: starter.py DATABASE NAME COUNT STEPS"""

from __future__ import annotations

import asyncio
import sys

from flux import Flux
from flux.settings import Settings
from tests.torture.programs import NEEDS, WORKFLOWS, Plan, program


def plans(name: str, count: int, steps: int) -> dict[str, Plan]:
    """What it begins, by the ids."""
    return {f"{name}{number}": Plan(seed=number, steps=steps) for number in range(count)}


async def main(database: str, name: str, count: int, steps: int) -> None:
    settings = Settings.load(database=database, worker_tags=[NEEDS], poll_seconds=0.05)
    async with Flux(settings=settings, workflows=WORKFLOWS) as flux:
        todo = plans(name, count, steps)
        await asyncio.gather(*[flux.start(program, plan, execution_id=id) for id, plan in todo.items()])
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))

"""Processes that do nothing but run executions, made by fork from one that has imported everything. A line on stdin makes one
and prints its pid. Usage: worker.py DATABASE"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from flux import Flux
from flux.settings import Settings
from tests.torture.programs import NEEDS, WORKFLOWS


async def work(database: str) -> None:
    settings = Settings.load(
        database=database, worker_tags=[NEEDS], poll_seconds=0.05, lease_seconds=2, max_recoveries=100_000
    )
    async with Flux(settings=settings, workflows=WORKFLOWS):
        await asyncio.Event().wait()


def main() -> None:
    for _ in sys.stdin:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pid = os.fork()
        if not pid:
            os.close(0)
            asyncio.run(work(sys.argv[1]))
        os.write(1, f"{pid}\n".encode())


if __name__ == "__main__":
    main()

"""A process that dies in the middle of its work, and a second one that finishes it.

python examples/crash_and_resume.py        fetches two pages, then kills itself while it fetches the third
python examples/crash_and_resume.py ID     goes on where the first process died
"""

from __future__ import annotations

import os
import signal
import sys
from uuid import uuid4

from flux import ExecutionContext, task, workflow

RESUMING = len(sys.argv) > 1


@task
async def fetch(page: int) -> int:
    """Stands for anything slow or costly. The first process does not survive page 3."""
    print(f"fetching page {page}", flush=True)
    if page == 3 and not RESUMING:
        os.kill(os.getpid(), signal.SIGKILL)
    return page * 100


@workflow
async def collect(ctx: ExecutionContext[int]) -> int:
    """Add up what stands on the first pages."""
    return sum([await fetch(page) for page in range(1, ctx.input + 1)])


def main() -> None:
    if RESUMING:
        execution = collect.resume(sys.argv[1])
        print(f"{execution.status.value}: {execution.output}")
        return
    execution_id = f"collect-{uuid4().hex[:8]}"
    print(f"to go on: python {sys.argv[0]} {execution_id}", flush=True)
    collect.run(5, execution_id=execution_id)


if __name__ == "__main__":
    main()

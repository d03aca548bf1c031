"""A workflow of workflows, which sleeps and starts by itself: `python children.py`."""

from __future__ import annotations

from typing import Any

from flux import ExecutionContext, cron, task, workflow
from flux.tasks import call, parallel, sleep, uuid4


@task.with_options(name="fetch {page}", retry_max_attempts=3, retry_delay=0.1, timeout=10)
async def fetch(page: int) -> str:
    return f"page {page}"


@workflow
async def chapter(ctx: ExecutionContext[int]) -> list[str]:
    """Fetch the pages of one chapter."""
    return await fetch.map(range(ctx.input * 10, ctx.input * 10 + 2))


@workflow.with_options(schedule=cron("0 6 * * mon-fri", timezone="Europe/Berlin", input=2), timeout=3600)
async def book(ctx: ExecutionContext[int]) -> dict[str, Any]:
    """Fetch chapters side by side, each as an execution of its own. A server starts it every morning."""
    first = await chapter(1)
    await sleep(0.1)
    rest = await parallel(*[call(chapter, number) for number in range(2, ctx.input + 1)])
    return {"edition": str(await uuid4()), "chapters": [first, *rest]}


if __name__ == "__main__":
    print(book.run(3).output["chapters"])

"""Flow: several calls at once."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from flux.engine.branches import run_branches


async def parallel(*calls: Awaitable[Any], max_concurrent: int | None = None, raise_on_error: bool = True) -> list[Any]:
    """Run calls concurrently; their results in the order given.

    Each call is a branch of its own: it may call tasks, pause, and open further branches. The first failure cancels the
    other branches and is raised (with several, the one given first). With `raise_on_error=False` every branch ends by
    itself and a failure stands, as an exception, in its place. `max_concurrent` bounds how many run at a time."""
    return await run_branches(calls, max_concurrent=max_concurrent, raise_on_error=raise_on_error)


async def pipeline(*steps: Callable[[Any], Any], input: Any) -> Any:
    """Pass `input` through the steps, each of which gets what the one before returned; the last one's result.

    A step is a task, a workflow, or a plain function, sync or async: what a plain function does is not recorded."""
    value = input
    for step in steps:
        value = step(value)
        if inspect.isawaitable(value):
            value = await value
    return value

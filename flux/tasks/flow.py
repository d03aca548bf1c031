"""Flow: several calls at once, or one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from flux.engine.branches import Policy, policy, run_branches


async def parallel(
    *calls: Awaitable[Any],
    max_concurrent: int | None = None,
    raise_on_error: bool = True,
    min_successes: int | None = None,
    max_failures: int | None = None,
) -> list[Any]:
    """Run calls concurrently; their results in the order given.

    Each call is a branch of its own: it may call tasks, pause, and open further branches. The first failure cancels the
    other branches and is raised (with several, the one given first). With `raise_on_error=False` every branch ends by
    itself and a failure stands, as an exception, in its place. `max_concurrent` bounds how many run at a time.

    With `min_successes` so many are enough: the others are cancelled, and BranchCancelled stands in their places. With
    `max_failures` so many failures are borne. TooManyFailures is raised when it cannot be had."""
    rules = policy(raise_on_error=raise_on_error, min_successes=min_successes, max_failures=max_failures)
    return await run_branches(calls, max_concurrent=max_concurrent, policy=rules)


async def first(*calls: Awaitable[Any]) -> Any:
    """Run calls concurrently; the result of the one that succeeds first. The others are cancelled.

    Raises TooManyFailures when all fail."""
    results = await run_branches(calls, policy=Policy(min_successes=1))
    return next(result for result in results if not isinstance(result, Exception))


async def pipeline(*steps: Callable[[Any], Any], input: Any) -> Any:
    """Pass `input` through the steps, each of which gets what the one before returned; the last one's result.

    A step is a task, a workflow, or a plain function, sync or async: what a plain function does is not recorded."""
    value = input
    for step in steps:
        value = step(value)
        if inspect.isawaitable(value):
            value = await value
    return value

"""Flow: several calls at once."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from flux.engine.branches import run_branches


async def parallel(*calls: Awaitable[Any], max_concurrent: int | None = None, raise_on_error: bool = True) -> list[Any]:
    """Run calls concurrently; their results in the order given.

    Each call is a branch of its own: it may call tasks, pause, and open further branches. The first failure cancels the
    other branches and is raised (with several, the one given first). With `raise_on_error=False` every branch ends by
    itself and a failure stands, as an exception, in its place. `max_concurrent` bounds how many run at a time."""
    return await run_branches(calls, max_concurrent=max_concurrent, raise_on_error=raise_on_error)

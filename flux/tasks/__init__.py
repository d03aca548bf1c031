"""The task patterns: flow, waiting, and values that must be the same on every replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flux.tasks.flow import first, parallel, pipeline
from flux.tasks.progress import progress
from flux.tasks.recorded import choice, now, randint, randrange, uuid4
from flux.tasks.subflow import call
from flux.tasks.waiting import pause, sleep

if TYPE_CHECKING:
    from flux.tasks.graph import Graph

__all__ = [
    "Graph",
    "call",
    "choice",
    "first",
    "now",
    "parallel",
    "pause",
    "pipeline",
    "progress",
    "randint",
    "randrange",
    "sleep",
    "uuid4",
]


def __getattr__(name: str) -> Any:
    """Graphs take a while to load, and most workflows have none."""
    if name != "Graph":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flux.tasks.graph import Graph  # noqa: PLC0415 - see above

    globals()[name] = Graph  # so the next one who asks does not come here
    return Graph

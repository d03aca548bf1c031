"""The task patterns: flow, waiting, and values that must be the same on every replay."""

from flux.tasks.flow import first, parallel, pipeline
from flux.tasks.graph import Graph
from flux.tasks.progress import progress
from flux.tasks.recorded import choice, now, randint, randrange, uuid4
from flux.tasks.subflow import call
from flux.tasks.waiting import pause, sleep

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

"""The task patterns: flow, waiting, and values that must be the same on every replay."""

from flux.tasks.flow import parallel
from flux.tasks.progress import progress
from flux.tasks.waiting import pause, sleep

__all__ = ["parallel", "pause", "progress", "sleep"]

"""The task patterns: flow, waiting, and values that must be the same on every replay."""

from flux.tasks.flow import parallel
from flux.tasks.waiting import pause

__all__ = ["parallel", "pause"]

"""Flux: durable Python workflows, and an MCP server that makes each of them a tool."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flux.context import ExecutionContext, OpenPause
    from flux.decorators import Task, Workflow, task, workflow
    from flux.domain.execution import Status
    from flux.domain.execution import Status as ExecutionState
    from flux.domain.queues import Queue
    from flux.events import ExecutionEvent, ExecutionEventType
    from flux.options import TaskMetadata
    from flux.schedules import cron, interval, once
    from flux.service import Flux
    from flux.tasks import pause

__all__ = [
    "ExecutionContext",
    "ExecutionEvent",
    "ExecutionEventType",
    "ExecutionState",
    "Flux",
    "OpenPause",
    "Queue",
    "Status",
    "Task",
    "TaskMetadata",
    "Workflow",
    "cron",
    "interval",
    "once",
    "pause",
    "task",
    "workflow",
]

_HOMES = {
    "flux.context": "ExecutionContext OpenPause",
    "flux.decorators": "Task Workflow task workflow",
    "flux.domain.execution": "Status",
    "flux.domain.queues": "Queue",
    "flux.events": "ExecutionEvent ExecutionEventType",
    "flux.options": "TaskMetadata",
    "flux.schedules": "cron interval once",
    "flux.service": "Flux",
    "flux.tasks": "pause",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A public name, when it is asked for: `import flux`, `flux --help` and a server's first answer wait for nothing else."""
    if name == "ExecutionState":
        value = __getattr__("Status")
    elif name in _HOME:
        if name in ("Workflow", "workflow"):
            import_module("flux.service")  # it is what `.run()` runs them with
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # so the next one who asks does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

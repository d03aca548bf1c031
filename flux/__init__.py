"""Flux: durable Python workflows, and an MCP server that makes each of them a tool."""

from flux.context import ExecutionContext, OpenPause
from flux.decorators import Task, Workflow, task, workflow
from flux.domain.execution import Status
from flux.domain.queues import Queue
from flux.events import ExecutionEvent, ExecutionEventType
from flux.options import TaskMetadata
from flux.schedules import cron, interval, once
from flux.service import Flux
from flux.tasks import pause

ExecutionState = Status

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

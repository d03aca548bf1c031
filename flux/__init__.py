"""Flux: durable Python workflows, and an MCP server that makes each of them a tool."""

from flux.context import ExecutionContext, OpenPause
from flux.decorators import Task, Workflow, task, workflow
from flux.domain.execution import Status
from flux.service import Flux
from flux.tasks import pause

__all__ = ["ExecutionContext", "Flux", "OpenPause", "Status", "Task", "Workflow", "pause", "task", "workflow"]

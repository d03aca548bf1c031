"""Executions as tasks on the wire: the extension `io.modelcontextprotocol/tasks`, and the experimental form of 2025-11-25.

A task's id is its execution's id: durable before it is sent, and good in any process for as long as the execution is kept. The
key of a question is the execution's id and the pause's place in it, so none is ever used again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import mcp_types as types
from mcp import MCPError

from flux.context import ExecutionContext
from flux.domain.execution import Status
from flux_mcp_server import asking

State = Literal["working", "input_required", "completed", "failed", "cancelled"]
Ending = Callable[[ExecutionContext[Any]], types.CallToolResult]
Kept = float | None
"""Seconds for which an execution is kept after it has ended; None for ever."""

BUSY = 500  # milliseconds after which to ask again about a task that works
QUIET = 3000  # ... that sleeps, or waits for somebody
LONGEST = 500  # characters of what a status says

RELATED = "io.modelcontextprotocol/related-task"


def created(
    execution: ExecutionContext[Any], *, older: bool, kept: Kept, progress: str | None = None
) -> dict[str, Any]:
    """What answers the call that began the execution."""
    if older:
        return {"task": status(execution, kept=kept, progress=progress)}
    return {"resultType": "task", **_common(execution, progress, older=False), **_times(execution, kept)}


def status(execution: ExecutionContext[Any], *, kept: Kept, progress: str | None = None) -> dict[str, Any]:
    """Where a task of the older form stands; its result is asked for apart."""
    return {**_common(execution, progress, older=True), **_times(execution, kept, suffix="")}


def detailed(execution: ExecutionContext[Any], ending: Ending, *, kept: Kept) -> dict[str, Any]:
    """All of a task: with its result, its error or its questions."""
    task = {**_common(execution, None, older=False), **_times(execution, kept)}
    asked = questions(execution)
    if execution.has_finished and not execution.is_cancelled:
        task |= _ended(execution, ending)
    elif asked:
        requests = {key: _dumped(question.request) for key, question in asked.items()}
        task["inputRequests"] = requests
    return task


def _ended(execution: ExecutionContext[Any], ending: Ending) -> dict[str, Any]:
    """A tool that failed has a result that says so; only an error of the protocol is a failed task."""
    try:
        return {"status": "completed", "result": {"resultType": "complete", **_dumped(ending(execution))}}
    except MCPError as exc:
        return {"status": "failed", "error": _dumped(exc.error)}


def questions(execution: ExecutionContext[Any]) -> dict[str, asking.Question]:
    """What the task asks, by keys that are used once and never again."""
    found = [(pause, asking.question_of(execution, pause)) for pause in execution.pauses]
    return {f"{execution.execution_id}:{pause.id}": question for pause, question in found if question is not None}


def _common(execution: ExecutionContext[Any], progress: str | None, *, older: bool) -> dict[str, Any]:
    said = _said(execution, progress)
    common: dict[str, Any] = {"taskId": execution.execution_id, "status": _state(execution, older=older)}
    return {**common, "statusMessage": said[:LONGEST]} if said else common


def _state(execution: ExecutionContext[Any], *, older: bool) -> State:
    match execution.status:
        case Status.COMPLETED:
            return "completed"
        case Status.FAILED:
            return "failed" if older or isinstance(execution.error, MCPError) else "completed"
        case Status.CANCELLED:
            return "cancelled"
        case _:
            return "input_required" if questions(execution) else "working"


def _said(execution: ExecutionContext[Any], progress: str | None) -> str | None:
    match execution.status:
        case Status.RUNNING:
            return progress
        case Status.PAUSED:
            return f"Waits for an answer: {', '.join(pause.name for pause in execution.pauses)}"
        case Status.SLEEPING:
            until = f" until {_time(execution.wake_at)}" if execution.wake_at is not None else ""
            return f"Sleeps{until}"
        case Status.SUSPENDED:
            return "Stopped on request: resume_execution lets it go on"
        case Status.FAILED:
            return "Failed: its result says why"
        case _:
            return None


def _times(execution: ExecutionContext[Any], kept: Kept, suffix: str = "Ms") -> dict[str, Any]:
    """The time to live counts from the creation, and it is ours to say: what a client asked for, in the older form, is a wish. While
    the task is not over it is the least that is sure, and grows."""
    age = (execution.updated_at - execution.created_at).total_seconds()
    return {
        "createdAt": _time(execution.created_at),
        "lastUpdatedAt": _time(execution.updated_at),
        f"ttl{suffix}": None if kept is None else round((age + kept) * 1000),
        f"pollInterval{suffix}": BUSY if execution.is_running else QUIET,
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _dumped(model: Any) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)

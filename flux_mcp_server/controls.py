"""The six tools that every server has: what is there, how it goes, stop, go on, end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import mcp_types as types
from pydantic import Field

from flux.decorators import UNSET
from flux.discovery import Problem
from flux.domain.execution import Status
from flux.engine.ports import Listing
from flux.errors import InvalidInput
from flux.schema import InputSchema, JsonSchema, ValueType, input_schema
from flux_mcp_server import calls, results
from flux_mcp_server.auth import Scope
from flux_mcp_server.calls import Call
from flux_mcp_server.follow import at_rest, relayed, unbroken
from flux_mcp_server.results import Guide, Reply

RESUME = "resume_execution"

STOP_WITHIN = 3.0  # seconds that pause_execution waits to see the execution stop
END_WITHIN = 15.0  # seconds that cancel_execution waits to see it end

Handler = Callable[[Call], Awaitable[Reply]]

ExecutionId = Annotated[str, Field(description="As it was given in a result's execution_id")]


@dataclass(frozen=True, slots=True)
class ListWorkflows:
    pass


@dataclass(frozen=True, slots=True)
class GetExecution:
    execution_id: ExecutionId
    wait_seconds: Annotated[
        float, Field(ge=0, le=50, description="How long to wait for it to finish or to need an answer")
    ] = 0


@dataclass(frozen=True, slots=True)
class ListExecutions:
    workflow: Annotated[str | None, Field(description="Only those of this workflow")] = None
    status: Annotated[Status | None, Field(description="Only those that are so now")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    before: Annotated[str | None, Field(description="The `before` of the page before, for older ones")] = None


@dataclass(frozen=True, slots=True)
class PauseExecution:
    execution_id: ExecutionId


@dataclass(frozen=True, slots=True)
class Resume:
    execution_id: ExecutionId
    answer: Annotated[Any, Field(description="The answer to its question, if it waits for one")] = None
    pause: Annotated[str | None, Field(description="Which question is answered, where several are open")] = None


@dataclass(frozen=True, slots=True)
class CancelExecution:
    execution_id: ExecutionId
    reason: Annotated[str | None, Field(description="Is recorded with the execution")] = None


@dataclass(frozen=True, slots=True)
class Listed:
    """What `list_workflows` tells."""

    workflows: Sequence[dict[str, Any]]
    problems: Sequence[Problem]

    @property
    def content(self) -> dict[str, Any]:
        problems = [{"file": str(problem.path), "error": problem.summary} for problem in self.problems]
        return {"workflows": list(self.workflows), "problems": problems}


SCOPES: Mapping[str, Scope] = {
    "list_workflows": "read",
    "get_execution": "read",
    "list_executions": "read",
    "pause_execution": "control",
    "resume_execution": "run",
    "cancel_execution": "control",
}


class _Arguments:
    """The arguments of one tool: described, checked."""

    def __init__(self, declared: type) -> None:
        self._type = ValueType(declared)
        self._schema: InputSchema = input_schema(self._type)

    @property
    def schema(self) -> JsonSchema:
        return self._schema.schema

    def of(self, call: Call) -> Any:
        what = f"This call of {call.tool}"
        return self._type.validate(self._schema.unwrap(call.arguments, what), what)


def all_of(listed: Listed, guide: Guide) -> Iterator[tuple[types.Tool, Handler]]:
    """The six, each with what it does."""
    yield _list_workflows(listed)
    yield _get_execution(guide)
    yield _list_executions()
    yield _pause_execution(guide)
    yield _resume_execution(guide)
    yield _cancel_execution(guide)


Nature = Literal["reads", "changes", "destroys"]


def _tool(
    name: str, title: str, description: str, arguments: _Arguments, output: JsonSchema, *, nature: Nature, again: bool
) -> types.Tool:
    """`again`: doing it twice is as good as once."""
    return types.Tool(
        name=name,
        title=title,
        description=description,
        input_schema=arguments.schema,
        output_schema=output,
        annotations=types.ToolAnnotations(
            read_only_hint=nature == "reads",
            destructive_hint=nature == "destroys",
            idempotent_hint=again,
            open_world_hint=False,
        ),
    )


def _list_workflows(listed: Listed) -> tuple[types.Tool, Handler]:
    arguments = _Arguments(ListWorkflows)
    texts: JsonSchema = {"type": "string"}
    row: JsonSchema = {
        "type": "object",
        "properties": dict.fromkeys(("name", "tool", "description", "source", "resume_tool"), texts),
        "required": ["name", "tool"],
    }
    problem: JsonSchema = {"type": "object", "properties": dict.fromkeys(("file", "error"), texts)}
    tool = _tool(
        "list_workflows",
        "List workflows",
        "List the workflows served here, the tool that starts each, and the files that could not be loaded.",
        arguments,
        {
            "type": "object",
            "properties": {
                "workflows": {"type": "array", "items": row},
                "problems": {"type": "array", "items": problem},
            },
            "required": ["workflows", "problems"],
        },
        nature="reads",
        again=True,
    )

    async def handle(call: Call) -> Reply:
        arguments.of(call)
        return results.content(listed.content)

    return tool, handle


def _get_execution(guide: Guide) -> tuple[types.Tool, Handler]:
    arguments = _Arguments(GetExecution)
    tool = _tool(
        "get_execution",
        "Get an execution",
        "Look at an execution, or wait for it: its status, its questions, its output or error. "
        "Wait with wait_seconds instead of asking again and again.",
        arguments,
        results.VIEW,
        nature="reads",
        again=True,
    )

    async def handle(call: Call) -> Reply:
        asked: GetExecution = arguments.of(call)
        return await _seen(call, asked.execution_id, asked.wait_seconds, guide)

    return tool, handle


def _list_executions() -> tuple[types.Tool, Handler]:
    arguments = _Arguments(ListExecutions)
    row: JsonSchema = {
        "type": "object",
        "properties": {name: results.VIEW["properties"][name] for name in _ROW},
        "required": list(_ROW),
    }
    tool = _tool(
        "list_executions",
        "List executions",
        "List executions, newest first: to find one whose id was lost, or those that wait for an answer (status paused).",
        arguments,
        {
            "type": "object",
            "properties": {"executions": {"type": "array", "items": row}, "before": {"type": "string"}},
            "required": ["executions"],
        },
        nature="reads",
        again=True,
    )

    async def handle(call: Call) -> Reply:
        asked: ListExecutions = arguments.of(call)
        before = None if asked.before is None else _position(call, asked.before)
        principal = call.caller.principal if call.caller.is_known else None
        found = await call.flux.list(
            workflow=asked.workflow, status=asked.status, principal=principal, before=before, limit=asked.limit + 1
        )
        shown = found[: asked.limit]
        content: dict[str, Any] = {"executions": [_listed(listing) for listing in shown]}
        if len(found) > asked.limit:
            content["before"] = f"{shown[-1].created_at!r} {shown[-1].id}"
        return results.content(content)

    return tool, handle


_ROW = ("execution_id", "workflow", "status", "created_at", "updated_at")


def _listed(listing: Listing) -> dict[str, Any]:
    values = (listing.id, listing.workflow, listing.status.value, listing.created_at, listing.updated_at)
    return dict(zip(_ROW, (results.time_text(v) if isinstance(v, float) else v for v in values), strict=True))


def _position(call: Call, before: str) -> tuple[float, str]:
    at, _, id = before.partition(" ")
    try:
        return float(at), id
    except ValueError:
        fault = ("before", "should be what an earlier list_executions gave as `before`")
        raise InvalidInput(f"This call of {call.tool}", [fault]) from None


def _pause_execution(guide: Guide) -> tuple[types.Tool, Handler]:
    arguments = _Arguments(PauseExecution)
    tool = _tool(
        "pause_execution",
        "Pause an execution",
        "Stop an execution at its next step, keeping all it has done. resume_execution lets it go on.",
        arguments,
        results.VIEW,
        nature="changes",
        again=True,
    )

    async def handle(call: Call) -> Reply:
        asked: PauseExecution = arguments.of(call)
        await call.owned(asked.execution_id)
        await unbroken(call.flux.suspend(asked.execution_id))
        return await _seen(call, asked.execution_id, STOP_WITHIN, guide)

    return tool, handle


def _resume_execution(guide: Guide) -> tuple[types.Tool, Handler]:
    arguments = _Arguments(Resume)
    tool = _tool(
        RESUME,
        "Resume an execution",
        "Answer the question an execution waits on, with what the user says, or let one go on that was stopped. "
        "Never make an answer up. Waits for it to finish, and says what to do next if it takes longer.",
        arguments,
        {"type": "object", "anyOf": [results.VIEW, results.HANDLE]},
        nature="changes",
        again=False,
    )

    async def handle(call: Call) -> Reply:
        asked: Resume = arguments.of(call)
        answer = asked.answer if "answer" in call.arguments else UNSET
        execution_id = await calls.resume(call, workflow=None, answer=answer, pause=asked.pause)
        return await calls.converse(
            call,
            execution_id,
            ending=lambda ended: results.view(ended, guide, result=True),
            guide=guide,
        )

    return tool, handle


def _cancel_execution(guide: Guide) -> tuple[types.Tool, Handler]:
    arguments = _Arguments(CancelExecution)
    tool = _tool(
        "cancel_execution",
        "Cancel an execution",
        "End an execution for good: it rolls back what it can and ends as cancelled. One that has ended stays as it is.",
        arguments,
        results.VIEW,
        nature="destroys",
        again=True,
    )

    async def handle(call: Call) -> Reply:
        asked: CancelExecution = arguments.of(call)
        await call.owned(asked.execution_id)
        await unbroken(call.flux.cancel(asked.execution_id, reason=asked.reason))
        return await _seen(call, asked.execution_id, END_WITHIN, guide)

    return tool, handle


async def _seen(call: Call, execution_id: str, seconds: float, guide: Guide) -> Reply:
    """How the execution is once it is at rest, or in so many seconds."""
    execution = await call.owned(execution_id)
    if seconds and not execution.has_finished:
        async with relayed(call.flux, execution_id, call.report):
            execution = await at_rest(call.flux, execution_id, deadline=time.monotonic() + seconds)
    if execution.has_finished:
        await call.desk.attendance.given(execution)
    return results.view(execution, guide)


# -- where there are many workflows ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SearchWorkflows:
    query: Annotated[str, Field(description="Words of what it should do; nothing lists them by name")] = ""
    limit: Annotated[int, Field(ge=1, le=50)] = 10


@dataclass(frozen=True, slots=True)
class RunWorkflow:
    workflow: Annotated[str, Field(description="A name that search_workflows gave")]
    input: Annotated[dict[str, Any], Field(description="The arguments, as its input_schema has them")]


_SEARCH, _RUN = _Arguments(SearchWorkflows), _Arguments(RunWorkflow)

SEARCH = _tool(
    "search_workflows",
    "Search workflows",
    "Find the workflows that fit, with the schema of their input. There are too many here for each to be a tool: "
    "run_workflow runs any of them.",
    _SEARCH,
    {
        "type": "object",
        "properties": {"workflows": {"type": "array", "items": {"type": "object"}}, "total": {"type": "integer"}},
        "required": ["workflows", "total"],
    },
    nature="reads",
    again=True,
)

RUN = types.Tool(
    name="run_workflow",
    title="Run a workflow",
    description="Run a workflow that search_workflows found. Answers what the workflow returns, or what to do next.",
    input_schema=_RUN.schema,
    annotations=types.ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
    ),
)


def run_arguments(call: Call) -> RunWorkflow:
    return _RUN.of(call)


async def search(rows: Sequence[dict[str, Any]], schema: Callable[[str], JsonSchema], call: Call) -> Reply:
    asked: SearchWorkflows = _SEARCH.of(call)
    words = asked.query.lower().split()
    scored = [(_score(row, words), row["name"], row) for row in rows]
    found = sorted((each for each in scored if each[0] or not words), key=lambda each: (-each[0], each[1]))
    shown = [{**row, "input_schema": schema(row["tool"])} for _, _, row in found[: asked.limit]]
    return results.content({"workflows": shown, "total": len(found)})


def _score(row: Mapping[str, Any], words: Sequence[str]) -> int:
    """A word in the name counts for three in the description."""
    name, text = f"{row['name']} {row['tool']}".lower(), str(row.get("description", "")).lower()
    return sum(3 * (word in name) + (word in text) for word in words)

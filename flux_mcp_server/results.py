"""Executions on the wire: results, handles, questions and errors. The only place that knows the protocol's eras.

One shape holds in every era: `structuredContent` is always an object. An output that is no object is wrapped as `{"result": x}`, in
the output schema too. A call that ends before its workflow does is answered by a *handle*, an object which says what to call next.
An output of content blocks goes to the client as it is. What is too large for a model is left where it is, with a link to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, cast, get_args

import mcp_types as types
from mcp import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from flux.context import ExecutionContext, OpenPause
from flux.decorators import Workflow
from flux.domain.execution import Status
from flux.errors import TaskFailed
from flux.schema import JsonSchema, object_with, output_schema, to_json_value
from flux_mcp_server import asking
from flux_mcp_server._sdk import Context

Reply = types.CallToolResult | types.InputRequiredResult | dict[str, Any]
"""A dict is a task, which the SDK has no type for."""

RESULT = "result"
"""The one property of an output that is no object."""

WAIT = 45  # seconds, what the texts advise for `wait_seconds`
MOST = 50_000  # characters of a result: clients warn, or cut, beyond some 25,000 tokens

TASKS = "io.modelcontextprotocol/tasks"
_TASKS_OF_OLD = "2025-11-25"
_WITHOUT_LINKS = frozenset({"2024-11-05", "2025-03-26"})

_BLOCKS = (
    *(types.TextContent, types.ImageContent, types.AudioContent),
    *(types.ResourceLink, types.EmbeddedResource, types.CallToolResult),
)

_TEXT: JsonSchema = {"type": "string"}
_OBJECT: JsonSchema = {"type": "object"}
_TIME: JsonSchema = {"type": "string", "format": "date-time"}

QUESTION: JsonSchema = {
    "type": "object",
    "properties": {
        "pause": {"type": "string", "description": "Names the question when it is answered"},
        "message": _TEXT,
        "output": {"description": "What the workflow shows with the question"},
        "answer_schema": {
            "type": "object",
            "description": "The JSON Schema of the answer; without one, any answer will do",
        },
        "expires_at": _TIME,
        "for_human": {"type": "boolean", "description": "Whether only a person may answer it, in a form"},
    },
    "required": ["pause", "message"],
}

HANDLE: JsonSchema = {
    "type": "object",
    "description": "The execution goes on without this call, or waits, or its output is too large",
    "properties": {
        "execution_id": _TEXT,
        "workflow": _TEXT,
        "status": {"type": "string", "enum": ["running", "paused", "sleeping", "suspended", "completed"]},
        "progress": {"type": "string", "description": "What it reported last"},
        "questions": {"type": "array", "items": QUESTION},
        "wakes_at": _TIME,
        "next": {"type": "string", "description": "What to do now"},
    },
    "required": ["execution_id", "workflow", "status", "next"],
}

VIEW: JsonSchema = {
    "type": "object",
    "properties": {
        **HANDLE["properties"],
        "status": {"type": "string", "enum": [status.value for status in Status]},
        "created_at": _TIME,
        "updated_at": _TIME,
        "output": {"description": "What the workflow returned"},
        "error": {"type": "string", "description": "Why it failed"},
    },
    "required": ["execution_id", "workflow", "status", "created_at", "updated_at", "next"],
}


# -- what the client can take ------------------------------------------------------------------------------------------

Way = Literal["in the result", "over the call", "not at all"]


def is_modern(client: Context) -> bool:
    return client.protocol_version in MODERN_PROTOCOL_VERSIONS


def way_to_ask(client: Context) -> Way:
    """How this client, or its user, can be asked something while a tool is called."""
    if is_modern(client):
        return "in the result"
    return "over the call" if client.session.can_send_request else "not at all"


def tasks_for(client: Context, *, asked: bool) -> Literal["extension", "older"] | None:
    """Which kind of task the client takes for an answer. `asked`: it has asked for one, as the older kind demands."""
    if is_modern(client):
        capabilities = client.session.client_capabilities
        extensions = None if capabilities is None else capabilities.extensions
        return "extension" if extensions and TASKS in extensions else None
    return "older" if asked and knows_older_tasks(client) else None


def knows_older_tasks(client: Context) -> bool:
    return client.protocol_version == _TASKS_OF_OLD


def missing_tasks() -> MCPError:
    """For a client of today which would have to know tasks."""
    required: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"The client has to declare {TASKS}.", required)


def for_era(client: Context, reply: Reply) -> Reply:
    """The reply without what the client's version of the protocol has no word for."""
    if client.protocol_version in _WITHOUT_LINKS and isinstance(reply, types.CallToolResult):
        kept = [_unlinked(block) for block in reply.content]
        return reply.model_copy(update={"content": kept})
    return reply


def _unlinked(block: types.ContentBlock) -> types.ContentBlock:
    return types.TextContent(text=f"{block.name}: {block.uri}") if isinstance(block, types.ResourceLink) else block


def questions(requests: Mapping[str, asking.Request], state: str, execution: ExecutionContext[Any]) -> Reply:
    """Questions in the result: the client asks them, then makes the same call again with the answers and the state."""
    return types.InputRequiredResult(input_requests=dict(requests), request_state=state, _meta=_meta(execution))


@dataclass(frozen=True, slots=True)
class Guide:
    """What results need to know of the workflows that are served: which tool answers one, and what of a failure is told."""

    resume_tool: Callable[[str], str]
    told: Callable[[ExecutionContext[Any]], str]


# -- how an execution ended --------------------------------------------------------------------------------------------


class Output:
    """The output of one workflow as a tool's structured content."""

    def __init__(self, workflow: Workflow[Any, Any]) -> None:
        self._type = workflow.output
        self._declared = output_schema(workflow.output)

    @cached_property
    def schema(self) -> JsonSchema | None:
        """Either the output or a handle: clients of every era check results against it. None for content blocks."""
        if _is_of_blocks(self._type.annotation):
            return None
        if self._declared is None:
            return _OBJECT
        shape = self._shape
        definitions = shape.pop("$defs", None)
        schema: JsonSchema = {"type": "object", "anyOf": [shape, HANDLE]}
        return schema if definitions is None else {**schema, "$defs": definitions}

    @property
    def _shape(self) -> JsonSchema:
        """What the output alone looks like."""
        if self._declared is None:
            return _OBJECT
        return object_with(RESULT, self._declared) if self._is_wrapped else dict(self._declared)

    def structured(self, output: Any) -> dict[str, Any]:
        value = self._type.to_json_value(output)
        if self._is_wrapped or not isinstance(value, dict):
            return {RESULT: value}
        return cast("dict[str, Any]", value)

    def fault(self, structured: Any) -> str | None:
        """Why clients would refuse the content; None when it fits."""
        found = next(iter(self._validator.iter_errors(structured)), None)
        return None if found is None else f"{found.json_path}: {found.message}"

    @property
    def _is_wrapped(self) -> bool:
        return self._declared is not None and self._declared.get("type") != "object"

    @cached_property
    def _validator(self) -> Any:
        import jsonschema  # noqa: PLC0415 - start-up time: the first answer checks nothing by it

        return jsonschema.Draft202012Validator(self._shape)


def _is_of_blocks(annotation: Any) -> bool:
    return annotation in _BLOCKS or any(_is_of_blocks(each) for each in get_args(annotation))


def _blocks(value: Any) -> list[types.ContentBlock] | types.CallToolResult | None:
    """The output as content, where it is nothing else."""
    if isinstance(value, types.CallToolResult):
        return value
    values: list[Any] = list(cast("list[Any]", value)) if isinstance(value, list | tuple) else [value]
    return values if values and all(isinstance(each, _BLOCKS[:-1]) for each in values) else None


def _of_blocks(
    execution: ExecutionContext[Any], blocks: list[types.ContentBlock] | types.CallToolResult, *, has_schema: bool
) -> types.CallToolResult:
    if isinstance(blocks, types.CallToolResult):
        meta = {**(blocks.meta or {}), **_meta(execution)}
        return blocks.model_copy(update={"content": _bounded(execution, blocks.content), "meta": meta})
    structured: dict[str, Any] | None = None
    if has_schema:  # a workflow without a declared output: clients insist on structured content
        structured = {"execution_id": execution.execution_id, "blocks": len(blocks)}
    content = _bounded(execution, blocks)
    return types.CallToolResult(content=content, structured_content=structured, _meta=_meta(execution))


def _bounded(execution: ExecutionContext[Any], blocks: Sequence[types.ContentBlock]) -> list[types.ContentBlock]:
    """The blocks, their texts as far as there is room for them; where there was none, with a link to all of it."""
    kept: list[types.ContentBlock] = []
    left = MOST
    for block in blocks:
        if isinstance(block, types.TextContent):
            size, block = len(block.text), block.model_copy(update={"text": _cut(block.text, max(left, 0))})
            left -= size
        kept.append(block)
    return kept if left >= 0 else [*kept, _result_link(execution)]


def _result_link(execution: ExecutionContext[Any]) -> types.ResourceLink:
    id = execution.execution_id
    return types.ResourceLink(name=f"result of {id}", uri=result_uri(id), mime_type="application/json", size=None)


def of_workflow(execution: ExecutionContext[Any], output: Output, guide: Guide) -> types.CallToolResult:
    """What the workflow's own tool answers once its execution has ended."""
    if not execution.has_succeeded:
        return _unsuccessful(execution, guide)
    value = execution.output
    blocks = _blocks(value)
    if blocks is not None:
        return _of_blocks(execution, blocks, has_schema=output.schema is not None)
    structured = output.structured(value)
    fault = output.fault(structured)
    if fault is not None:
        said = f"Execution {execution.execution_id} has completed, but its output is not what {execution.workflow_name} declares: {fault}"
        return error(_cut(f"{said}\nThe output: {_compact(structured)}"), execution)
    written = _compact(structured)
    shown = value if isinstance(value, str) else written
    size = max(len(shown), len(written))
    return _too_large(execution, shown, size) if size > MOST else _result(execution, structured, text=shown)


def _cut(text: str, most: int = MOST) -> str:
    return text if len(text) <= most else text[:most] + " ..."


def _too_large(execution: ExecutionContext[Any], shown: str, size: int) -> types.CallToolResult:
    """A handle that leads to the output, and the beginning of it: what clients check it against holds for a handle too."""
    id, uri = execution.execution_id, result_uri(execution.execution_id)
    next = f"It has completed, but its output is too large for a result ({size:,} characters): read the resource {uri}."
    content = {"execution_id": id, "workflow": execution.workflow_name, "status": "completed", "next": next}
    beginning = types.TextContent(text=f"{next}\nIt begins: {_cut(shown, 2000)}")
    return types.CallToolResult(
        content=[beginning, _result_link(execution)], structured_content=content, _meta=_meta(execution)
    )


def _unsuccessful(execution: ExecutionContext[Any], guide: Guide) -> types.CallToolResult:
    name, id = execution.workflow_name, execution.execution_id
    if execution.is_cancelled:
        return error(f"Execution {id} of {name} was cancelled.", execution)
    if isinstance(execution.error, MCPError):  # the workflow says which error of the protocol it wants
        raise execution.error
    return error(_cut(f"{name} failed: {guide.told(execution)}\nThis was execution {id}."), execution)


def said(failure: BaseException | None) -> str:
    if failure is None or isinstance(failure, TaskFailed):
        return str(failure)
    return f"{type(failure).__name__}: {failure}"


# -- executions under way ----------------------------------------------------------------------------------------------


def handle(
    execution: ExecutionContext[Any], guide: Guide, *, progress: str | None = None, unused: Sequence[str] = ()
) -> types.CallToolResult:
    """For a caller who has to come back. `progress` is the last that was reported, `unused` says why answers that were
    given have not been used."""
    content = _handle(execution, guide.resume_tool(execution.workflow_name))
    if progress is not None and execution.is_running:
        content["progress"] = progress
    content["next"] = " ".join([content["next"], *unused])
    shown = {key: value for key, value in content.items() if key != "next"}
    result = _result(execution, content, text=f"{content['next']}\n{_compact(shown)}")
    id = execution.execution_id
    link = types.ResourceLink(name=f"execution {id}", uri=execution_uri(id), mime_type="application/json")
    return result.model_copy(update={"content": [*result.content, link]})


def execution_uri(id: str) -> str:
    return f"flux://executions/{id}"


def result_uri(id: str) -> str:
    return f"{execution_uri(id)}/result"


def _handle(execution: ExecutionContext[Any], resume_tool: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        "execution_id": execution.execution_id,
        "workflow": execution.workflow_name,
        "status": execution.status.value,
        "next": _next(execution, resume_tool),
    }
    if execution.pauses:
        content["questions"] = [_question(execution, pause) for pause in execution.pauses]
    if execution.wake_at is not None:
        content["wakes_at"] = _time(execution.wake_at)
    return content


def _question(execution: ExecutionContext[Any], pause: OpenPause) -> dict[str, Any]:
    names = [each.name for each in execution.pauses]
    question: dict[str, Any] = {
        "pause": pause.name if names.count(pause.name) == 1 else pause.id,
        "message": pause.message or f"The workflow waits for an answer: {pause.name}",
    }
    if pause.output is not None:
        question["output"] = _shown(execution, to_json_value(pause.output))
    if pause.schema is not None:
        question["answer_schema"] = pause.schema
    if pause.expires_at is not None:
        question["expires_at"] = _time(pause.expires_at)
    if pause.for_human:
        question["for_human"] = True
    return question


def _shown(execution: ExecutionContext[Any], value: Any) -> Any:
    """The value, or of one that is too large its beginning."""
    text = _compact(value)
    if len(text) <= MOST:
        return value
    return f"{_cut(text, 2000)} (all of it, {len(text):,} characters, is in {execution_uri(execution.execution_id)}/events)"


def _next(execution: ExecutionContext[Any], resume_tool: str) -> str:
    id = execution.execution_id
    match execution.status:
        case Status.PAUSED if all(pause.for_human for pause in execution.pauses):
            return (
                "Waits for an answer that only a person may give, not you: tell the user to answer in a client that shows forms, "
                f"or with `flux resume {id}`."
            )
        case Status.RUNNING:
            return f"Not finished yet: call get_execution with execution_id {id!r} and wait_seconds {WAIT}."
        case Status.PAUSED if len(execution.pauses) > 1:
            return f"Waits for answers: ask the user, then call {resume_tool} with execution_id {id!r}, pause and answer, once for each."
        case Status.PAUSED:
            return f"Waits for an answer: ask the user, then call {resume_tool} with execution_id {id!r} and answer."
        case Status.SLEEPING:
            return f"Sleeps and goes on by itself: call get_execution with execution_id {id!r} later."
        case Status.SUSPENDED:
            return f"Stopped on request: call resume_execution with execution_id {id!r} to let it go on."
        case Status.COMPLETED:
            return "Nothing: it has completed."
        case Status.FAILED:
            return f"It has failed. Calling {execution.workflow_name} again starts anew."
        case Status.CANCELLED:
            return "Nothing: it was cancelled."


def view(execution: ExecutionContext[Any], guide: Guide, *, result: bool = False) -> types.CallToolResult:
    """All that is known about an execution. With `result`, one that failed or was cancelled is an error."""
    if result and execution.has_finished and not execution.has_succeeded:
        return _unsuccessful(execution, guide)
    content = _handle(execution, guide.resume_tool(execution.workflow_name))
    content |= {"created_at": _time(execution.created_at), "updated_at": _time(execution.updated_at)}
    if execution.has_succeeded:
        output = to_json_value(execution.output)
        if len(_compact(output)) > MOST:
            content["next"] = (
                f"It has completed; its output is too large to show: read {result_uri(execution.execution_id)}."
            )
        else:
            content["output"] = output
    elif execution.has_failed:
        content["error"] = _cut(guide.told(execution))
    return _result(execution, content)


# -- plain answers -----------------------------------------------------------------------------------------------------


def content(structured: dict[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=_compact(structured))], structured_content=structured)


def error(text: str, execution: ExecutionContext[Any] | None = None) -> types.CallToolResult:
    """For the model to read and act on."""
    meta = None if execution is None else _meta(execution)
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True, _meta=meta)


def _result(
    execution: ExecutionContext[Any], structured: dict[str, Any], *, text: str | None = None
) -> types.CallToolResult:
    shown = _compact(structured) if text is None else text
    return types.CallToolResult(
        content=[types.TextContent(text=shown)], structured_content=structured, _meta=_meta(execution)
    )


def _meta(execution: ExecutionContext[Any]) -> dict[str, Any]:
    return {"flux/executionId": execution.execution_id, "flux/status": execution.status.value}


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def time_text(at: float) -> str:
    """Seconds since the epoch as people and models read them."""
    return _time(datetime.fromtimestamp(at, UTC))


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")

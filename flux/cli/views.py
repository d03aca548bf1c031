"""Executions, types and facts as plain JSON and as a few words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from flux.cli import screen
from flux.cli.loading import AnyWorkflow
from flux.context import ExecutionContext, OpenPause
from flux.errors import NotReadable
from flux.schema import to_json_value

# -- executions ----------------------------------------------------------------------------------------------------------


def execution_view(execution: ExecutionContext[Any], workflow: AnyWorkflow | None = None) -> dict[str, Any]:
    """With `workflow` the output is shown as its type says."""
    output = execution.output if execution.has_succeeded else None
    return {
        "execution_id": execution.execution_id,
        "workflow": execution.workflow_name,
        "status": execution.status.value,
        "created_at": screen.iso(execution.created_at),
        "updated_at": screen.iso(execution.updated_at),
        "wake_at": screen.iso(execution.wake_at),
        "output": to_json_value(output) if workflow is None else workflow.output.to_json_value(output),
        "error": error_view(execution),
        "pauses": [pause_view(pause) for pause in execution.pauses],
    }


def error_view(execution: ExecutionContext[Any]) -> dict[str, str] | None:
    error = execution.error
    return None if error is None else {"type": type(error).__name__, "message": str(error)}


def pause_view(pause: OpenPause) -> dict[str, Any]:
    return {
        "id": pause.id,
        "name": pause.name,
        "message": pause.message,
        "output": to_json_value(pause.output),
        "schema": pause.schema,
        "expires_at": screen.iso(pause.expires_at),
    }


def readable(read: Any) -> Any:
    """What `read` gives, as JSON; None where its classes are not to be had here."""
    try:
        return to_json_value(read())
    except NotReadable:
        return None


# -- types ---------------------------------------------------------------------------------------------------------------


def type_words(schema: Mapping[str, Any], *, depth: int = 2) -> str:
    """A JSON Schema in a few words: `{approved: boolean, note?: string | null}`."""
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " | ".join(type_words(choice, depth=depth) for choice in choices)
    match schema.get("type"):
        case "object" if "properties" in schema and depth:
            return "{" + ", ".join(fields_words(schema, depth=depth - 1)) + "}"
        case "array" if isinstance(schema.get("items"), dict) and depth:
            return f"[{type_words(schema['items'], depth=depth - 1)}, ...]"
        case "array":
            return "[...]"
        case "object":
            return "{...}"
        case str() as name:
            return cast(str, schema.get("format", name)) if name == "string" else name
        case list():
            return " | ".join(cast("list[str]", schema["type"]))
        case _:
            return "any"


def fields_words(schema: Mapping[str, Any], *, depth: int = 1) -> Sequence[str]:
    """The properties of an object: `name: type`, with a question mark where one may be left out."""
    required = schema.get("required", ())
    return [
        f"{name}{'' if name in required else '?'}: {type_words(of, depth=depth)}"
        for name, of in schema["properties"].items()
    ]

"""A pause as a question to a person: the form a client can show, what it says, and the answer it gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import mcp_types as types
from mcp import MCPError

from flux.context import ExecutionContext, OpenPause
from flux.errors import FluxError
from flux.schema import JsonSchema, to_json_value
from flux.service import Flux
from flux_mcp_server._sdk import Context

ANSWER = "answer"
"""The one field of a form whose answer is not an object."""

MOST_SHOWN = 4000  # characters of a pause's output in a question

_FIELD_KEYWORDS = frozenset(
    {
        *("type", "title", "description", "default", "enum", "enumNames", "oneOf"),
        *("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"),
    }
)
_FORMATS = frozenset({"email", "uri", "date", "date-time"})
_SCALARS = frozenset({"string", "number", "integer", "boolean"})


@dataclass(frozen=True, slots=True)
class Form:
    """`schema` is flat, as protocols have it; `wrapped` when the answer is the one field `answer`."""

    schema: JsonSchema
    wrapped: bool

    def answer(self, content: Mapping[str, Any] | None) -> Any:
        """What the filled-in form means, not yet validated."""
        given = dict(content or {})
        return given.get(ANSWER) if self.wrapped else given


def form_of(pause: OpenPause) -> Form | None:
    """The form that asks for the pause's answer; None where no flat form can, as for lists of objects."""
    if pause.schema is None:
        return Form({"type": "object", "properties": {ANSWER: {"type": "string", "title": pause.name}}}, True)
    if pause.schema.get("type") == "object" and "properties" in pause.schema:
        return _flat(pause.schema)
    field = _field(pause.schema)
    if field is None:
        return None
    schema: JsonSchema = {"type": "object", "properties": {ANSWER: field}}
    return Form(schema if _is_nullable(pause.schema) else {**schema, "required": [ANSWER]}, True)


def _flat(schema: JsonSchema) -> Form | None:
    fields = {name: _field(declared) for name, declared in schema["properties"].items()}
    if None in fields.values():
        return None
    form: JsonSchema = {"type": "object", "properties": fields}
    if "required" in schema:
        form["required"] = [name for name in schema["required"] if not _is_nullable(schema["properties"][name])]
    return Form(form, False)


def _field(declared: JsonSchema) -> JsonSchema | None:
    kinds: list[str] = [kind for kind in _types(declared) if kind != "null"]
    if len(kinds) != 1:
        return None
    field: JsonSchema = {key: value for key, value in declared.items() if key in _FIELD_KEYWORDS}
    field["type"] = kinds[0]
    if field.get("default", ...) is None:
        del field["default"]
    if "enum" in field:
        field["enum"] = [value for value in field["enum"] if value is not None]
        if not all(isinstance(value, str) for value in field["enum"]):
            return None  # protocols know texts to choose from, nothing else
    if declared.get("format") in _FORMATS:
        field["format"] = declared["format"]
    if kinds[0] in _SCALARS:
        return field
    items = declared.get("items", {})
    if kinds[0] == "array" and items.get("type") == "string" and "enum" in items:
        return {**field, "items": {"type": "string", "enum": items["enum"]}}
    return None


def _types(declared: JsonSchema) -> list[str]:
    given = declared.get("type", [])
    return cast("list[str]", given) if isinstance(given, list) else [given]


def _is_nullable(declared: JsonSchema) -> bool:
    return "null" in _types(declared)


def words_of(execution: ExecutionContext[Any], pause: OpenPause, fault: str | None = None) -> str:
    """The question in words, with what the workflow wants to be seen, and with what was wrong about the answer before."""
    said = [pause.message or f"The workflow {execution.workflow_name} waits for an answer: {pause.name}"]
    if pause.output is not None:
        said.append(_shown(pause.output))
    if fault:
        said.append(f"The last answer could not be used. {fault}")
    return "\n\n".join(said)


def _shown(output: Any) -> str:
    value = to_json_value(output)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + " ..."


def request_for(form: Form, message: str) -> types.ElicitRequest:
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=form.schema))


def is_declared(client: Context) -> bool:
    """Whether the client says that it can show forms. A bare `elicitation: {}` means that it can."""
    capabilities = client.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


async def pushed(
    client: Context, flux: Flux, execution_id: str, pause: OpenPause, *, form: Form, message: str, seconds: float
) -> types.ElicitResult | None:
    """Ask over the open call. None when nobody answers within `seconds`, the client cannot ask, or the pause is answered
    in another way meanwhile."""
    asking = asyncio.ensure_future(client.session.elicit_form(message, form.schema, client.request_id))
    watching = asyncio.ensure_future(_settled(flux, execution_id, pause))
    try:
        await asyncio.wait([asking, watching], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return asking.result() if asking.done() else None
    except MCPError:  # the client declared more than it can do, or is gone
        return None
    finally:
        asking.cancel()
        watching.cancel()
        await asyncio.gather(asking, watching, return_exceptions=True)


async def _settled(flux: Flux, execution_id: str, pause: OpenPause) -> None:
    while True:
        await asyncio.sleep(1.0)
        try:
            execution = await flux.get(execution_id)
        except FluxError:  # the store is busy: look again
            continue
        if all(each.id != pause.id for each in execution.pauses):
            return

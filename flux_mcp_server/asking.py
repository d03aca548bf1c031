"""A pause as a question to a person: the form a client can show, what it says, and the answer it gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
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


Place = tuple[str, ...]
"""Where a field's value stands in the answer, from the root."""


@dataclass(frozen=True, slots=True)
class Form:
    """`schema` is flat, as protocols have it: what is nested has a field for each leaf, `address.street`.

    `places` says where each field belongs, () for the answer itself. `empty` is what an answer begins with: objects that must be
    there, and null for what must be there but was left empty."""

    schema: JsonSchema
    places: Mapping[str, Place]
    empty: Sequence[tuple[Place, Any]] = ()

    def answer(self, content: Mapping[str, Any] | None) -> Any:
        """What the filled-in form means, not yet validated."""
        given = dict(content or {})
        if self.places.get(ANSWER) == ():
            return given.get(ANSWER)
        answer: dict[str, Any] = {}
        for place, value in [*self.empty, *((self.places.get(name, (name,)), value) for name, value in given.items())]:
            _put(answer, place, value)
        return answer


def _put(answer: dict[str, Any], place: Place, value: Any) -> None:
    *parents, name = place
    for parent in parents:
        answer = answer.setdefault(parent, {})
    answer[name] = dict(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType] - JSON


def form_of(pause: OpenPause) -> Form | None:
    """The form that asks for the pause's answer; None where no flat form can, as for lists of objects."""
    if pause.schema is None:
        return _single({"type": "string", "title": pause.name}, required=False)
    if _has_fields(pause.schema):
        return _flat(pause.schema)
    field = _field(pause.schema)
    return None if field is None else _single(field, required=not _is_nullable(pause.schema))


def _single(field: JsonSchema, *, required: bool) -> Form:
    schema: JsonSchema = {"type": "object", "properties": {ANSWER: field}}
    return Form({**schema, "required": [ANSWER]} if required else schema, {ANSWER: ()})


def _flat(schema: JsonSchema) -> Form | None:
    leaves = list(_leaves(schema, (), needed=True))
    places = {".".join(place): place for place, _, _ in leaves}
    fields = {".".join(place): _field(declared) for place, declared, _ in leaves}
    if None in fields.values() or len(places) < len(leaves):
        return None
    required = [".".join(place) for place, declared, needed in leaves if needed and not _is_nullable(declared)]
    nulls = [(place, None) for place, declared, needed in leaves if needed and _is_nullable(declared)]
    form: JsonSchema = {"type": "object", "properties": fields}
    empty: list[tuple[Place, Any]] = [*((place, {}) for place in _needed_objects(schema, ())), *nulls]
    return Form({**form, "required": required} if required else form, places, empty)


def _leaves(schema: JsonSchema, place: Place, *, needed: bool) -> Iterator[tuple[Place, JsonSchema, bool]]:
    """Every value that is no object, and whether there must be one."""
    for name, declared in schema["properties"].items():
        must_be = needed and name in schema.get("required", ())
        if _has_fields(declared):
            yield from _leaves(declared, (*place, name), needed=must_be)
        else:
            yield (*place, name), declared, must_be


def _needed_objects(schema: JsonSchema, place: Place) -> Iterator[Place]:
    for name, declared in schema["properties"].items():
        if name in schema.get("required", ()) and _has_fields(declared):
            yield (*place, name)
            yield from _needed_objects(declared, (*place, name))


def _has_fields(declared: JsonSchema) -> bool:
    return declared.get("type") == "object" and "properties" in declared


def _field(declared: JsonSchema) -> JsonSchema | None:
    kinds: list[str] = [kind for kind in _types(declared) if kind != "null"]
    if len(kinds) != 1 or declared.get("format") == "password":  # protocols forbid forms for secrets
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

"""A pause as a question to a person: the form a client can show, what it says, and the answer it gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import mcp_types as types
from mcp import MCPError
from mcp.shared.message import ServerMessageMetadata
from pydantic import ValidationError

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
        return _flat(_filled_in(pause.schema))
    field = _field(pause.schema)
    return None if field is None else _single(field, required=not _is_nullable(pause.schema))


def _filled_in(schema: JsonSchema) -> JsonSchema:
    """Where fields have to be filled in, or something else will do (as to say no to another server's question), a form is for the
    first."""
    ways: Sequence[Mapping[str, Any]] = schema.get("anyOf", ())
    needed = next((way["required"] for way in ways if list(way) == ["required"]), ())
    return {**schema, "required": [*schema.get("required", ()), *needed]} if needed else schema


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


# -- the question on the wire ------------------------------------------------------------------------------------------

Request = types.ElicitRequest | types.CreateMessageRequest | types.ListRootsRequest
"""What a client, or its user, can be asked. A pause whose output is one of these asks that, word for word."""

DECLINED = "declined to answer"
DISMISSED = "dismissed the question"


@dataclass(frozen=True, slots=True)
class Question:
    """A pause as the client is asked it. Without a form it is a request that the workflow itself has worded."""

    pause: OpenPause
    request: Request
    form: Form | None = None

    def answer(self, given: types.InputResponse) -> Any:
        """What the pause is answered with, not yet validated."""
        if not isinstance(given, types.ElicitResult):
            return given.model_dump(mode="json", by_alias=True, exclude_none=True)
        return dict(given.content or {}) if self.form is None else self.form.answer(given.content)

    @property
    def opens_page(self) -> bool:
        """The answer comes by way of a page that the user is sent to; that they went there is none yet."""
        return isinstance(self.request, types.ElicitRequest) and isinstance(
            self.request.params, types.ElicitRequestURLParams
        )


def question_of(execution: ExecutionContext[Any], pause: OpenPause, fault: str | None = None) -> Question | None:
    """None where no client can be asked this."""
    if isinstance(pause.output, Request):
        return Question(pause, _named(pause.output, pause))
    form = form_of(pause)
    if form is None:
        return None
    words = words_of(execution, pause, fault)
    params = types.ElicitRequestFormParams(message=words, requested_schema=form.schema)
    return Question(pause, types.ElicitRequest(params=params), form)


def _named(request: Request, pause: OpenPause) -> Request:
    """2025-11-25 wants an id for each page that a user is sent to."""
    if isinstance(request, types.ElicitRequest) and isinstance(request.params, types.ElicitRequestURLParams):
        params = request.params.model_copy(update={"elicitation_id": request.params.elicitation_id or pause.id})
        return types.ElicitRequest(params=params)
    return request


def can_take(client: Context, request: Request) -> bool:
    """Whether the client says that it can be asked this. A bare `elicitation: {}` means that it can show forms."""
    capabilities = client.session.client_capabilities
    if capabilities is None:
        return False
    match request:
        case types.CreateMessageRequest():
            return capabilities.sampling is not None
        case types.ListRootsRequest():
            return capabilities.roots is not None
        case types.ElicitRequest(params=types.ElicitRequestURLParams()):
            return capabilities.elicitation is not None and capabilities.elicitation.url is not None
        case _:
            elicitation = capabilities.elicitation
            return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def missing_for(requests: Sequence[Request]) -> MCPError:
    """For requests that only the client itself could answer, which it cannot."""
    names = {"sampling" if isinstance(each, types.CreateMessageRequest) else "roots" for each in requests}
    required: dict[str, Any] = {"requiredCapabilities": {name: {} for name in sorted(names)}}
    said = f"The client has to declare {' and '.join(sorted(names))}."
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, said, required)


_ANSWERS: Mapping[type[Request], Any] = {
    types.ElicitRequest: types.ElicitResult,
    types.CreateMessageRequest: types.CreateMessageResult,
    types.ListRootsRequest: types.ListRootsResult,
}


def response_to(request: Request, given: Any) -> types.InputResponse:
    """The client's answer to the request. Raises MCPError when it is none."""
    if isinstance(given, types.ElicitResult | types.CreateMessageResult | types.ListRootsResult):
        return given
    try:
        return _ANSWERS[type(request)].model_validate(given, by_name=False)
    except ValidationError as exc:
        raise MCPError(types.INVALID_PARAMS, f"This is no answer to {request.method}.") from exc


def related_to_task(question: Question, execution_id: str) -> Question:
    """The same question, which says that it belongs to a task: the older form of tasks wants that."""
    meta: Any = {"io.modelcontextprotocol/related-task": {"taskId": execution_id}}
    params = types.RequestParams() if question.request.params is None else question.request.params
    request: Any = question.request.model_copy(update={"params": params.model_copy(update={"meta": meta})})
    return replace(question, request=request)


async def pushed(
    client: Context, flux: Flux, execution_id: str, question: Question, *, seconds: float | None
) -> types.InputResponse | None:
    """Ask over the open call. None when nobody answers within `seconds`, the client cannot ask, or the pause is answered
    in another way meanwhile."""
    pause = question.pause
    related = ServerMessageMetadata(related_request_id=client.request_id)
    sending = client.session.send_request(question.request, _ANSWERS[type(question.request)], metadata=related)
    asking: asyncio.Future[Any] = asyncio.ensure_future(sending)
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

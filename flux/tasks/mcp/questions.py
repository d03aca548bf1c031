"""Questions of servers as pauses of the workflow, and the answers on their way back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

from flux.domain.calls import CallId
from flux.domain.events import PauseOpened
from flux.engine.fence import check_may_ask
from flux.engine.invoke import recall, replayed
from flux.engine.run import Run
from flux.engine.scope import Site
from flux.errors import UnusableResult
from flux.schema import JsonSchema

ACTIONS = ("accept", "decline", "cancel")

Answer = dict[str, Any]
"""As the protocol has it: `{"action": "accept", "content": {...}}`, or another action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`key` tells it from the others of its call. `url` is where it is answered, if not in a form."""

    key: str
    name: str
    message: str
    schema: JsonSchema
    url: str | None = None
    output: Any = None


def question_of(request: Mapping[str, Any], *, key: str, name: str, server: str) -> Question:
    """`request` is an `elicitation/create`, or its params. Raises UnusableResult for what we have not said we can do."""
    method = request.get("method", "elicitation/create")
    if method != "elicitation/create":
        way_out = "; mcp(..., sampling=...) says which model answers" if method == "sampling/createMessage" else ""
        raise UnusableResult(server, f"it asks for {method!r}, which this client has not offered{way_out}")
    params = cast("Mapping[str, Any]", request.get("params", request))
    message = str(params.get("message", ""))
    if params.get("mode") == "url":
        return Question(key=key, name=name, message=message, schema=_VISITED, url=str(params.get("url", "")))
    return Question(
        key=key, name=name, message=message, schema=_answerable(cast(JsonSchema, params.get("requestedSchema") or {}))
    )


_VISITED: JsonSchema = {
    "type": "object",
    "title": "Open the address, then accept",
    "properties": {"action": {"type": "string", "enum": list(ACTIONS), "default": "accept"}},
}


def _answerable(requested: JsonSchema) -> JsonSchema:
    """The schema of the form, which may also be declined: `{"action": "decline"}` is an answer, too."""
    schema: JsonSchema = {"type": "object", "properties": {}, **requested}
    properties = cast("dict[str, Any]", schema["properties"])
    required = schema.pop("required", None)
    if not required or "action" in properties:
        return schema if required is None else {**schema, "required": required}
    declined: JsonSchema = {"required": ["action"], "properties": {"action": {"enum": list(ACTIONS)}}}
    return {**schema, "anyOf": [{"required": required}, declined]}


def answer_of(question: Question, given: Any) -> Answer:
    """What somebody's answer to the pause means to the server. What a form leaves out is as its schema has it by default."""
    if given is None:
        return {"action": "cancel"}
    said = _action_in(question, given)
    if said is not None and (said["action"] != "accept" or question.url is not None):
        return {"action": said["action"]}
    if question.url is not None:
        return {"action": "accept"}
    content: Any = given if said is None else said.get("content")
    filled = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    return {"action": "accept", "content": {**_defaults(question.schema), **filled}}


def _action_in(question: Question, given: Any) -> dict[str, Any] | None:
    """The answer, if it is none to the form but an action: `{"action": "decline"}`."""
    if isinstance(given, str) and given in ACTIONS and question.url is not None:
        return {"action": given}
    if not isinstance(given, dict) or (question.url is None and "action" in question.schema["properties"]):
        return None
    content = cast("dict[str, Any]", given)
    return content if content.get("action") in ACTIONS and content.keys() <= {"action", "content"} else None


def _defaults(schema: JsonSchema) -> dict[str, Any]:
    fields = cast("dict[str, Any]", schema["properties"])
    return {name: each["default"] for name, each in fields.items() if isinstance(each, dict) and "default" in each}


async def ask(around: Site, question: Question, *, server: str) -> Answer:
    return answer_of(question, await given_to(around, question, server=server))


async def given_to(around: Site, question: Question, *, server: str) -> Any:
    """Pause until somebody has answered. `around` is the call that the question belongs to: in it, the same question has the
    same place however often and in whichever order a server asks."""
    run = around.scope.run
    place = place_of(around.id, question.key, question.message, question.schema, question.url)
    site = Site(around.scope, place, around.file, around.line)
    record = recall(site, question.name)
    if record is not None and record.is_finished:
        return await replayed(site, record, Any)
    if record is None:
        check_may_ask(around.scope.fences, f"The question {question.name!r} of MCP server {server!r}")
        await run.ready()
        await run.journal.record(_opened(run, site.id, question))
    text = await run.wait_for_answer(site.id, None)
    assert text is not None, "a question without a time does not expire"
    await run.journal.order.drained()
    return run.codec.decode(text)


def place_of(around: CallId, *asked: Any) -> CallId:
    """Where in the call that it belongs to a thing stands that a server asks for."""
    text = json.dumps(asked, sort_keys=True)
    number = int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest())
    return CallId(f"{around}.{number}")


def _opened(run: Run, call: CallId, question: Question) -> PauseOpened:
    """With the server's own words and nothing besides: a question may have come through several servers already."""
    output = question.output if question.url is None else {"url": question.url}
    owner = f"question {question.name!r}"
    return PauseOpened(
        at=run.clock.now(),
        call=call,
        name=question.name,
        output=None if output is None else run.codec.encode(output, owner=owner),
        schema=run.codec.encode(question.schema, owner=owner),
        message=question.message,
    )

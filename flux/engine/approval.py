"""Tasks that ask a person first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from flux.domain.calls import Json
from flux.domain.events import PauseOpened
from flux.engine.fence import check_may_ask
from flux.engine.journal import Record
from flux.engine.scope import Site
from flux.engine.spec import Call
from flux.errors import ApprovalRejected, NotReadable


@dataclass(frozen=True, slots=True)
class Approval:
    """The answer to `approval:<task>`."""

    approved: bool
    reason: str = ""


_RESPONSE = Json(json.dumps(f"{Approval.__module__}:{Approval.__qualname__}"))
_SCHEMA = Json(
    json.dumps(
        {
            "type": "object",
            "title": "Approval",
            "properties": {
                "approved": {"type": "boolean", "description": "Whether the task may run."},
                "reason": {"type": "string", "default": "", "description": "Why, or why not."},
            },
            "required": ["approved"],
        }
    )
)


async def ask(call: Call, site: Site, record: Record | None, arguments: Json) -> None:
    """Wait until somebody has said whether the call may be made. Raises ApprovalRejected."""
    run = call.run
    if record is None:
        check_may_ask(call.site.scope.fences, f"The approval of {call.owner}")
        await run.ready()
        await run.journal.record(_question(call, site, arguments))
        run.asks(name_of(call))
    answer = await run.wait_for_answer(site.id, None)
    assert answer is not None, "a question without a time does not expire"
    check(call, run.codec.decode(answer))


def check(call: Call, answer: Any) -> None:
    """Raises ApprovalRejected unless the answer is a yes."""
    if isinstance(answer, dict):  # from a process that knows the schema, but not our class
        given = cast("dict[str, Any]", answer)
        answer = Approval(given.get("approved") is True, str(given.get("reason", "")))
    if not (isinstance(answer, Approval) and answer.approved):
        raise ApprovalRejected(call.name, answer.reason if isinstance(answer, Approval) else "")


def name_of(call: Call) -> str:
    return f"approval:{call.name}"


def _question(call: Call, site: Site, arguments: Json) -> PauseOpened:
    shown = {"task": call.name, "arguments": _readable(call, arguments)}
    return PauseOpened(
        at=call.run.clock.now(),
        call=site.id,
        name=name_of(call),
        output=call.run.codec.encode(shown, owner=f"the approval of {call.owner}"),
        schema=_SCHEMA,
        response=_RESPONSE,
        message=f"May the task {call.name!r} run?",
    )


def _readable(call: Call, arguments: Json) -> Any:
    """The bounded copy, as values where they could be kept."""
    try:
        return call.run.codec.decode(arguments)
    except NotReadable:
        return json.loads(arguments)

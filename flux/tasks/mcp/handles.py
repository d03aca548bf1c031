"""An execution on a server of ours that takes long: the server hands back a handle, and it is followed to its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from flux.errors import ToolExecutionError
from flux.tasks.mcp.asking import Note, Wire
from flux.tasks.mcp.errand import Errand
from flux.tasks.mcp.questions import Answer, Question, given_to
from flux.tasks.mcp.reaching import reached
from flux.tasks.mcp.remote_tasks import rest

LOOK_FOR = 45  # seconds that one of our own servers is asked to wait for news


async def unless_handle(errand: Errand, reply: Wire) -> Wire | None:
    """The reply, unless it is the handle of an execution that goes on there: then None, and it is to be followed."""
    told: Any = reply.get("structuredContent")
    if not errand.asking.is_flux or not _is_handle(told):
        return reply
    if errand.declined:
        raise errand.not_answered(f"execution {told['execution_id']}")
    await errand.write(Note(handle=str(told["execution_id"])))
    return None


def _is_handle(told: Any) -> bool:
    if not isinstance(told, dict):
        return False
    handle = cast(Wire, told)
    live = handle.get("status") in ("running", "paused", "sleeping", "suspended")
    return live and "next" in handle and isinstance(handle.get("execution_id"), str)


async def result_of(errand: Errand, execution: str) -> Wire:
    while True:
        view = await _control(errand, "get_execution", execution_id=execution, wait_seconds=LOOK_FOR)
        match view.get("status"):
            case "completed":
                output = view.get("output")
                return {"structuredContent": output if isinstance(output, dict) else {"result": output}}
            case "failed" | "cancelled" as end:
                said = str(view.get("error") or f"execution {execution} was {end}")
                raise ToolExecutionError(errand.asking.what, said, errand.asking.server)
            case "paused":
                questions = cast("list[Wire]", view.get("questions") or [])
                await _resume(errand, execution, questions[0])
            case "running":
                pass
            case _:
                await rest(errand, 1000)


async def _resume(errand: Errand, execution: str, asked: Wire) -> None:
    name = str(asked.get("pause"))
    question = Question(
        key=f"{execution} {name} {errand.note.given}",
        name=name,
        message=str(asked.get("message", "")),
        schema=cast(Wire, asked.get("answer_schema") or {}),
        output=asked.get("output"),
    )
    known = errand.unused.pop(question.message, None)
    if known is not None:
        answer = _freed(known, question)
    else:
        answer = await given_to(errand.site, question, server=errand.asking.server)
    await errand.write(replace(errand.note, given=errand.note.given + 1))
    await _control(errand, "resume_execution", execution_id=execution, answer=answer, pause=name)


def _freed(answer: Answer, question: Question) -> Any:
    """The answer to a form, as the answer that the form was made for: those that are no objects are its one field."""
    if answer["action"] != "accept":
        raise ToolExecutionError(question.name, "the question was declined")
    content = cast(Wire, answer.get("content") or {})
    is_wrapped = content.keys() == {"answer"}
    return content["answer"] if is_wrapped and question.schema.get("type") != "object" else content


async def _control(errand: Errand, tool: str, **arguments: Any) -> Wire:
    reply = await reached(errand, "tools/call", {"name": tool, "arguments": arguments})
    if reply.get("isError"):
        content = cast("list[Wire]", reply.get("content") or [{}])
        said = str(content[0].get("text", "no reason given"))
        raise ToolExecutionError(errand.asking.what, said, errand.asking.server)
    return cast(Wire, reply.get("structuredContent") or {})

"""The tools: one for each workflow, one to answer each workflow that asks, and six that every server has."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mcp_types as types

from flux.decorators import UNSET, Workflow
from flux.discovery import Problem
from flux.errors import DefinitionError
from flux.schema import InputSchema, JsonSchema, ValueType, input_schema, json_schema
from flux_mcp_server import calls, controls, results
from flux_mcp_server.calls import Call
from flux_mcp_server.pauses import UNKNOWN, Question, questions_of
from flux_mcp_server.results import Output, Reply

LONGEST_NAME = 48
LONGEST_DESCRIPTION = 1024  # bytes

AnyWorkflow = Workflow[Any, Any]
Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool and what it does. `source` says where it comes from, for errors."""

    tool: types.Tool
    handler: Handler
    source: str


@dataclass(frozen=True, slots=True)
class Served:
    """A workflow and the names of its tools; `resume_tool` is the general one where it asks nothing we could see."""

    workflow: AnyWorkflow
    tool: str
    questions: Sequence[Question]

    @property
    def resume_tool(self) -> str:
        return tool_name(f"resume_{self.tool}") if self.questions else controls.RESUME


class Catalog:
    """All tools, by name. Raises DefinitionError for two of one name."""

    def __init__(self, workflows: Iterable[AnyWorkflow], problems: Sequence[Problem] = ()) -> None:
        self.served = {workflow.name: _served(workflow) for workflow in workflows}
        self._offers: dict[str, Offer] = {}
        for served in self.served.values():
            self._add(self._workflow_offer(served))
            if served.questions:
                self._add(self._resume_offer(served))
        listed = controls.Listed([_row(served) for served in self.served.values()], problems)
        for tool, handler in controls.all_of(listed, self.resume_tool):
            self._add(Offer(tool, handler, "a tool that every server has"))
        self.tools = [self._offers[name].tool for name in sorted(self._offers)]

    def get(self, name: str) -> Offer | None:
        return self._offers.get(name)

    def names(self) -> list[str]:
        return [tool.name for tool in self.tools]

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        offer = self._offers.get(name)
        return None if offer is None else offer.tool.input_schema

    def resume_tool(self, workflow: str) -> str:
        """The tool that answers the questions of this workflow."""
        served = self.served.get(workflow)
        return controls.RESUME if served is None else served.resume_tool

    def _add(self, offer: Offer) -> None:
        known = self._offers.setdefault(offer.tool.name, offer)
        if known is not offer:
            raise DefinitionError(
                f"Two tools would be named {offer.tool.name!r}: {known.source}, and {offer.source}. "
                "Give one workflow another name: `@workflow.with_options(name=...)`."
            )

    def _workflow_offer(self, served: Served) -> Offer:
        workflow, arguments = served.workflow, input_schema(served.workflow.input)
        asks = f"It may stop to ask the user; {served.resume_tool} answers." if served.questions else ""
        output = Output(workflow)
        tool = types.Tool(
            name=served.tool,
            title=workflow.title or _readable(workflow.name),
            description=_description(workflow.description or f"Run the workflow {workflow.name}.", asks),
            input_schema=arguments.schema,
            output_schema=output.schema,
            annotations=types.ToolAnnotations(
                read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
            ),
        )
        handler = partial(_run, workflow, arguments, output, self.resume_tool)
        return Offer(tool, handler, f"the workflow {workflow.name!r} ({workflow.source})")

    def _resume_offer(self, served: Served) -> Offer:
        workflow = served.workflow
        arguments = _resume_arguments(served.questions)
        output = Output(workflow)
        tool = types.Tool(
            name=served.resume_tool,
            title=f"Answer {workflow.title or _readable(workflow.name)}",
            description=(
                f"Answer the question that an execution of {served.tool} waits on, with what the user says, and go on with it. "
                "Never make the answer up. Returns what the workflow returns, or what to do next."
            ),
            input_schema=arguments.schema,
            output_schema=output.schema,
            annotations=types.ToolAnnotations(
                read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
            ),
        )
        handler = partial(_resume, workflow, arguments, output, self.resume_tool)
        return Offer(tool, handler, f"the answers to the workflow {workflow.name!r} ({workflow.source})")


async def _run(
    workflow: AnyWorkflow, arguments: InputSchema, output: Output, resume_tool: Callable[[str], str], call: Call
) -> Reply:
    what = f"This call of {call.tool}"
    input = workflow.input.validate(arguments.unwrap(call.arguments, what), what, at=arguments.path)
    execution_id = await calls.execution_for(call, workflow, input)
    return await calls.converse(
        call, execution_id, ending=lambda ended: results.of_workflow(ended, output), resume_tool=resume_tool
    )


async def _resume(
    workflow: AnyWorkflow, arguments: InputSchema, output: Output, resume_tool: Callable[[str], str], call: Call
) -> Reply:
    what = f"This call of {call.tool}"
    asked = _RESUME.validate(arguments.unwrap(call.arguments, what), what)
    answer = asked.answer if "answer" in call.arguments else UNSET
    execution_id = await calls.resume(call, workflow=workflow.name, answer=answer, pause=asked.pause)
    return await calls.converse(
        call, execution_id, ending=lambda ended: results.of_workflow(ended, output), resume_tool=resume_tool
    )


_RESUME = ValueType(controls.Resume)


# -- names and words ---------------------------------------------------------------------------------------------------


def tool_name(name: str) -> str:
    """Names that every client and model API takes: lower case, `_` for what they refuse, 48 characters."""
    slug = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-")[:LONGEST_NAME]
    if not slug:
        raise DefinitionError(
            f"No tool can be named after the workflow {name!r}: clients take letters a-z, digits, `_` and `-`. "
            "Give it another name: `@workflow.with_options(name=...)`."
        )
    return slug


def _served(workflow: AnyWorkflow) -> Served:
    return Served(workflow, tool_name(workflow.name), questions_of(workflow))


def _row(served: Served) -> dict[str, Any]:
    workflow = served.workflow
    row: dict[str, Any] = {
        "name": workflow.name,
        "tool": served.tool,
        "description": _description(workflow.description or "", ""),
        "source": workflow.source,
    }
    if served.questions:
        row["resume_tool"] = served.resume_tool
    return row


def _readable(name: str) -> str:
    words = re.sub(r"[_\-.]+", " ", name).strip()
    return words[:1].upper() + words[1:]


def _description(text: str, addition: str) -> str:
    """At most 1 KB, cut at a word; the addition is always there."""
    room = LONGEST_DESCRIPTION - (len(addition.encode()) + 2 if addition else 0)
    encoded = text.strip().encode("utf-8", "replace")
    if len(encoded) > room:
        text = encoded[: room - 3].decode(errors="ignore").rpartition(" ")[0] + "..."
    return "\n\n".join(part for part in (text.strip(), addition) if part)


# -- the arguments of an answer ----------------------------------------------------------------------------------------


def _resume_arguments(questions: Sequence[Question]) -> InputSchema:
    general = input_schema(controls.Resume).schema
    answer, definitions, required = _answer(questions)
    schema: JsonSchema = {**general, "properties": {**general["properties"], "answer": answer}}
    if required:
        schema["required"] = [*general["required"], "answer"]
    return InputSchema({**schema, "$defs": definitions} if definitions else schema, False)


def _answer(questions: Sequence[Question]) -> tuple[JsonSchema, JsonSchema, bool]:
    """The schema of the answer to any of the questions, its definitions, and whether there must be one."""
    responses = [question.response for question in questions]
    if any(response is UNKNOWN or response is Any for response in responses):
        named = ", ".join(sorted({question.name for question in questions if question.name}))
        return {"description": f"The answer to the question{f' ({named})' if named else ''}"}, {}, False
    schemas: list[JsonSchema] = []
    definitions: JsonSchema = {}
    for response in responses:
        schema = dict(json_schema(response))
        definitions |= schema.pop("$defs", {})
        if schema not in schemas:
            schemas.append(schema)
    optional = any(ValueType(response).admits_none for response in responses)
    return (schemas[0] if len(schemas) == 1 else {"anyOf": schemas}), definitions, not optional

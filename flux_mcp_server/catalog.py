"""The tools: one for each workflow, one to answer each workflow that asks, and six that every server has.

Where there are many workflows a list of all of them is no help to a model: then two tools find and run them."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import mcp_types as types
from mcp import MCPError
from pydantic import TypeAdapter, ValidationError

from flux.context import ExecutionContext
from flux.decorators import UNSET, Workflow
from flux.discovery import Problem
from flux.errors import DefinitionError, InvalidInput
from flux.schema import InputSchema, JsonSchema, ValueType, input_schema, json_schema, value_type
from flux_mcp_server import calls, controls, results
from flux_mcp_server.auth import Caller, Scope
from flux_mcp_server.calls import Call
from flux_mcp_server.pauses import UNKNOWN, Question, named_by, questions_of
from flux_mcp_server.results import Guide, Output, Reply

log = logging.getLogger("flux.mcp")

LONGEST_NAME = 48
LONGEST_DESCRIPTION = 1024  # bytes
MOST_LISTED = 40  # workflows: of more, none is a tool of its own that clients see

AnyWorkflow = Workflow[Any, Any]
Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool and what it does. `source` says where it comes from, for errors. Who calls it needs the scope."""

    tool: types.Tool
    handler: Handler
    source: str
    scope: Scope
    is_listed: bool = True


@dataclass(frozen=True, slots=True)
class Served:
    """A workflow and the names of its tools; `resume_tool` is the general one where it asks nothing we could see."""

    workflow: AnyWorkflow
    tool: str
    questions: Sequence[Question]
    output: Output

    @property
    def title(self) -> str:
        return self.workflow.title or _readable(self.workflow.name)

    @property
    def summary(self) -> str:
        return _description(self.workflow.description or f"Run the workflow {self.workflow.name}.", "")

    @property
    def is_hidden(self) -> bool:
        return self.workflow.options.get("hidden", False)

    @property
    def task(self) -> Literal["auto", "required", "never"]:
        return self.workflow.options.get("task", "auto")

    @property
    def resume_tool(self) -> str:
        return tool_name(f"resume_{self.tool}") if self.questions else controls.RESUME


class Catalog:
    """All tools, by name. Raises DefinitionError for two of one name. `most_listed` is how many workflows may be tools of their own;
    with `mask_errors` clients are told of no failure but those that a workflow declares as its `errors`."""

    def __init__(
        self,
        workflows: Iterable[AnyWorkflow],
        problems: Sequence[Problem] = (),
        *,
        most_listed: int = MOST_LISTED,
        mask_errors: bool = False,
    ) -> None:
        self._most_listed = most_listed
        self._mask_errors = mask_errors
        self.guide = Guide(self.resume_tool, self.told)
        self.replace(workflows, problems)

    def replace(self, workflows: Iterable[AnyWorkflow], problems: Sequence[Problem] = ()) -> None:
        """Offer these from now on. Raises DefinitionError, and then offers what it did before."""
        served = {workflow.name: _served(workflow) for workflow in workflows}
        offers = _Offers()
        is_long = len([each for each in served.values() if not each.is_hidden]) > self._most_listed
        for each in served.values():
            is_listed = not is_long and not each.is_hidden
            offers.add(replace(self._workflow_offer(each), is_listed=is_listed))
            if each.questions:
                offers.add(replace(self._resume_offer(each), is_listed=is_listed))
        rows = [_row(each) for each in served.values() if not each.is_hidden]
        for tool, handler in controls.all_of(controls.Listed(rows, problems), self.guide):
            offers.add(Offer(tool, handler, "a tool that every server has", controls.SCOPES[tool.name]))
        if is_long:
            offers.add(Offer(controls.SEARCH, partial(controls.search, rows, self._schema), "a tool of ours", "read"))
            offers.add(Offer(controls.RUN, self._run_named, "a tool of ours", "run"))
        self.served = served
        self._offers = offers.by_name
        self.tools = [offer.tool for _, offer in sorted(self._offers.items()) if offer.is_listed]

    def add(self, offer: Offer) -> None:
        """One more tool, which is no workflow."""
        self._offers[offer.tool.name] = offer
        self.tools = [each.tool for _, each in sorted(self._offers.items()) if each.is_listed]

    def get(self, name: str) -> Offer | None:
        return self._offers.get(name)

    def tools_for(self, caller: Caller) -> list[types.Tool]:
        return [tool for tool in self.tools if caller.may(self._offers[tool.name].scope)]

    def names(self) -> list[str]:
        return [tool.name for tool in self.tools]

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        offer = self._offers.get(name)
        return None if offer is None else offer.tool.input_schema

    def resume_tool(self, workflow: str) -> str:
        """The tool that answers the questions of this workflow."""
        served = self.served.get(workflow)
        return controls.RESUME if served is None else served.resume_tool

    def told(self, failed: ExecutionContext[Any]) -> str:
        """What a client is told of a failure."""
        return self.error_text(failed, failed.error)

    def error_text(self, execution: ExecutionContext[Any], error: BaseException | None) -> str:
        served = self.served.get(execution.workflow_name)
        declared = () if served is None else tuple(served.workflow.options.get("errors", ()))
        if not self._mask_errors or isinstance(error, (*declared, MCPError)):
            return results.said(error)
        log.info("execution %s failed: %s", execution.execution_id, results.said(error))
        return f"an error that is not told here. `flux show {execution.execution_id}` does, on the server's machine."

    def ending(self, ended: ExecutionContext[Any]) -> types.CallToolResult:
        """What the workflow's tool answers once its execution has ended."""
        served = self.served.get(ended.workflow_name)
        if served is None:
            return results.view(ended, self.guide, result=True)
        return results.of_workflow(ended, served.output, self.guide)

    def described(self, name: str) -> dict[str, Any]:
        """A workflow as a document."""
        from flux.tasks import Graph  # noqa: PLC0415 - start-up time: see there

        served = self.served[name]
        tool = self._offers[served.tool].tool
        graphs = [each for each in named_by(served.workflow) if isinstance(each, Graph)]
        return {
            **_row(served),
            "title": served.title,
            "tags": sorted(served.workflow.tags),
            "input_schema": tool.input_schema,
            "output_schema": tool.output_schema,
            "questions": [_question_row(question) for question in served.questions],
            "mermaid": {graph.name: graph.to_mermaid() for graph in graphs},
        }

    def _schema(self, tool: str) -> JsonSchema:
        return self._offers[tool].tool.input_schema

    async def _run_named(self, call: Call) -> Reply:
        """`run_workflow`: the tool of the workflow, called by way of this one."""
        asked = controls.run_arguments(call)
        served = next(
            (each for each in self.served.values() if asked.workflow in (each.workflow.name, each.tool)), None
        )
        if served is None:
            fault = ("workflow", f"there is none named {asked.workflow!r}; search_workflows finds those there are")
            raise InvalidInput(f"This call of {call.tool}", [fault])
        return await self._offers[served.tool].handler(call.of_tool(served.tool, asked.input))

    def _workflow_offer(self, served: Served) -> Offer:
        workflow, arguments = served.workflow, _arguments(served.workflow)
        asks = f"It may stop to ask the user; {served.resume_tool} answers." if served.questions else ""
        tool = types.Tool(
            name=served.tool,
            title=served.title,
            description=_description(workflow.description or f"Run the workflow {workflow.name}.", asks),
            input_schema=arguments.schema,
            output_schema=served.output.schema,
            annotations=_nature(workflow),
            icons=_icons(workflow),
            execution=types.ToolExecution(task_support=_TASK_SUPPORT[served.task]),
        )
        handler = partial(_run, served, arguments, self.guide)
        return Offer(tool, handler, f"the workflow {workflow.name!r} ({workflow.source})", "run")

    def _resume_offer(self, served: Served) -> Offer:
        workflow = served.workflow
        arguments = _resume_arguments(served.questions)
        tool = types.Tool(
            name=served.resume_tool,
            title=f"Answer {served.title}",
            description=(
                f"Answer the question that an execution of {served.tool} waits on, with what the user says, and go on with it. "
                "Never make the answer up. Returns what the workflow returns, or what to do next."
            ),
            input_schema=arguments.schema,
            output_schema=served.output.schema,
            annotations=types.ToolAnnotations(
                read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
            ),
        )
        handler = partial(_resume, served, arguments, self.guide)
        return Offer(tool, handler, f"the answers to the workflow {workflow.name!r} ({workflow.source})", "run")


class _Offers:
    def __init__(self) -> None:
        self.by_name: dict[str, Offer] = {}

    def add(self, offer: Offer) -> None:
        known = self.by_name.setdefault(offer.tool.name, offer)
        if known is not offer:
            raise DefinitionError(
                f"Two tools would be named {offer.tool.name!r}: {known.source}, and {offer.source}. "
                "Give one workflow another name: `@workflow.with_options(name=...)`."
            )


async def _run(
    served: Served,
    arguments: InputSchema | Verbatim,
    guide: Guide,
    call: Call,
) -> Reply:
    call.may_become_task(served.task)
    workflow, what = served.workflow, f"This call of {call.tool}"
    input = workflow.input.validate(arguments.unwrap(call.arguments, what), what, at=arguments.path)
    execution_id = await calls.execution_for(call, workflow, input)
    return await calls.converse(
        call, execution_id, ending=lambda ended: results.of_workflow(ended, served.output, guide), guide=guide
    )


async def _resume(served: Served, arguments: InputSchema, guide: Guide, call: Call) -> Reply:
    what = f"This call of {call.tool}"
    asked = _RESUME.validate(arguments.unwrap(call.arguments, what), what)
    answer = asked.answer if "answer" in call.arguments else UNSET
    execution_id = await calls.resume(call, workflow=served.workflow.name, answer=answer, pause=asked.pause)
    return await calls.converse(
        call, execution_id, ending=lambda ended: results.of_workflow(ended, served.output, guide), guide=guide
    )


_RESUME = ValueType(controls.Resume)


# -- what a workflow says of itself ------------------------------------------------------------------------------------

_TASK_SUPPORT: Mapping[str, Literal["optional", "required", "forbidden"]] = {
    "auto": "optional",
    "required": "required",
    "never": "forbidden",
}


def _nature(workflow: AnyWorkflow) -> types.ToolAnnotations:
    """What is not known is taken for the worst, as the protocol does."""
    options = workflow.options
    read_only = options.get("read_only", False)
    return types.ToolAnnotations(
        read_only_hint=read_only,
        destructive_hint=options.get("destructive", not read_only),
        idempotent_hint=options.get("idempotent", read_only),
        open_world_hint=options.get("open_world", True),
    )


def _icons(workflow: AnyWorkflow) -> list[types.Icon] | None:
    given = list(workflow.options.get("icons", ()))
    try:
        return _ICONS.validate_python(given) if given else None
    except ValidationError as exc:
        raise DefinitionError(f"The icons of workflow {workflow.name!r} are none: {exc}") from None


_ICONS = TypeAdapter(list[types.Icon])


@dataclass(frozen=True, slots=True)
class Verbatim:
    """A schema that the workflow's author has written: the arguments as a whole are the input."""

    schema: JsonSchema
    takes_input: bool
    path: str = ""

    def unwrap(self, arguments: Mapping[str, Any], what: str) -> Any:
        import jsonschema  # noqa: PLC0415 - start-up time: the first answer checks nothing by it

        errors: Any = jsonschema.Draft202012Validator(self.schema).iter_errors(dict(arguments))  # pyright: ignore[reportUnknownMemberType] - its stubs
        faults = [(error.json_path.removeprefix("$").lstrip("."), error.message) for error in errors]
        if faults:
            raise InvalidInput(what, faults)
        return dict(arguments) if self.takes_input else None


def _arguments(workflow: AnyWorkflow) -> InputSchema | Verbatim:
    given = workflow.options.get("input_schema")
    if given is None:
        return input_schema(workflow.input)
    schema = dict(given)
    if schema.get("type") != "object":
        raise DefinitionError(f"The input_schema of workflow {workflow.name!r} needs `type: object` at its root.")
    return Verbatim(schema, workflow.input_type not in (None, type(None)))


def _question_row(question: Question) -> dict[str, Any]:
    known = question.response is not UNKNOWN and question.response is not Any
    return {"pause": question.name, **({"answer_schema": json_schema(question.response)} if known else {})}


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
    return Served(workflow, tool_name(workflow.name), questions_of(workflow), Output(workflow))


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
    optional = any(value_type(response).admits_none for response in responses)
    return (schemas[0] if len(schemas) == 1 else {"anyOf": schemas}), definitions, not optional

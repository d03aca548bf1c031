"""What an agent can call: tasks, workflows, other agents, tools of MCP servers and plain functions, all as `Tool`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MethodType
from typing import Annotated, Any, Literal, NotRequired, Protocol, Required, cast, runtime_checkable

import typing_extensions
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from pydantic import ConfigDict, Field

from flux import schema
from flux.decorators import UNSET, Task, Workflow
from flux.engine.approval import Approval
from flux.engine.spec import INJECTED
from flux.errors import ApprovalRejected, DefinitionError, InvalidInput
from flux.schema import JsonSchema
from flux.tasks.waiting import pause

Autonomy = Literal["strict", "default", "autonomous"]
Arguments = dict[str, Any]
NAME_LENGTH = 64  # characters that every provider takes

_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]+")


@runtime_checkable
class ForeignTool(Protocol):
    """A tool that brings its own JSON Schema, such as one of an MCP server. Calling it must be a recorded call."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str | None: ...

    @property
    def input_schema(self) -> Mapping[str, Any]: ...

    def __call__(self, **arguments: Any) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`read` checks the arguments that a model gave and makes them what `call` takes; it raises InvalidInput. `server` is
    where a foreign tool comes from."""

    name: str
    description: str
    schema: JsonSchema
    read: Callable[[Arguments], Any]
    call: Callable[[Any], Awaitable[Any]]
    output_type: Any = Any
    server: str | None = None

    def arguments(self, given: str | Mapping[str, Any] | None) -> Any:
        """What the model wrote, as arguments. Raises InvalidInput, which says what is wrong with it."""
        return self.read(_object(given, f"The call of tool {self.name!r}"))

    async def text(self, arguments: Any) -> Any:
        """Call the tool; its result as the model gets it: a text, or JSON."""
        value = await self.call(arguments)
        return value if isinstance(value, str) else schema.to_json_value(value, self.output_type)


def tools_of(things: Iterable[Any], autonomy: Autonomy) -> list[Tool]:
    """The tools, with names that differ. Raises DefinitionError for what cannot be one."""
    return named_apart([_tool(thing, autonomy) for thing in _flat(things)])


def named_apart(tools: Sequence[Tool]) -> list[Tool]:
    """Where several have one name, those of a server get its name before theirs, and what is still the same a number."""
    counts = _count(tool.name for tool in tools)
    prefixed = [
        replace(tool, name=_fit(f"{tool.server}_{tool.name}")) if counts[tool.name] > 1 and tool.server else tool
        for tool in tools
    ]
    taken: set[str] = set()
    apart: list[Tool] = []
    for tool in prefixed:
        name, number = tool.name, 1
        while name in taken:
            number += 1
            name = f"{tool.name[: NAME_LENGTH - 4]}_{number}"
        taken.add(name)
        apart.append(replace(tool, name=name))
    return apart


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _flat(things: Iterable[Any]) -> Iterable[Any]:
    for thing in things:
        if isinstance(thing, Iterable) and not callable(cast("Any", thing)):
            yield from _flat(cast("Iterable[Any]", thing))
        else:
            yield thing


def _tool(thing: Any, autonomy: Autonomy) -> Tool:
    match thing:
        case Tool():
            return thing
        case Workflow():
            return _of_workflow(cast("Workflow[Any, Any]", thing), autonomy)
        case ForeignTool():
            return _foreign(thing, autonomy)
        case Task():
            return _of_task(cast("Task[..., Any]", thing), autonomy)
        case MethodType() if isinstance(cast("Any", thing).__func__, Task):
            return _of_task(cast("Task[..., Any]", thing.__func__), autonomy, bound_to=thing.__self__)
        case _ if callable(thing) and not isinstance(thing, type):
            return _of_task(Task[..., Any](thing), autonomy)
        case _:
            raise DefinitionError(f"{thing!r} cannot be a tool: give a @task, a workflow, an agent or a function.")


# -- tasks and functions ------------------------------------------------------------------------------------------------


def _of_task(task: Task[..., Any], autonomy: Autonomy, bound_to: Any = UNSET) -> Tool:
    if autonomy != "default":
        task = task.with_options(requires_approval=autonomy == "strict")
    leading = () if bound_to is UNSET else (bound_to,)
    parameters = Parameters.of(task, skip=len(leading))
    described, _ = schema.docstring(task.func)
    name = _fit(task.name if "{" not in task.name else task.func.__name__)
    return Tool(
        name=name,
        description=described,
        schema=parameters.json_schema,
        read=partial(parameters.read, what=f"The call of tool {name!r}"),
        call=partial(_call_task, task, parameters, leading),
        output_type=task.spec.output_type,
    )


async def _call_task(
    task: Task[..., Any], parameters: Parameters, leading: tuple[Any, ...], arguments: Arguments
) -> Any:
    args, kwargs = parameters.split(arguments)
    return await task(*leading, *args, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a model may say in a call of a function. `positional` are those that have no keyword."""

    type: schema.ValueType
    json_schema: JsonSchema
    positional: tuple[str, ...]

    @classmethod
    def of(cls, task: Task[..., Any], *, skip: int) -> Parameters:
        signature = list(inspect.signature(task.func).parameters.values())[skip:]
        spec = task.spec
        injected = {name for name in INJECTED if getattr(spec, name)}
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        shown = [p for p in signature if p.kind not in kinds and p.name not in injected]
        declared = _typed_dict(task, shown, is_open=any(p.kind is p.VAR_KEYWORD for p in signature))
        described = declared.json_schema()
        described.pop("description", None)
        described.setdefault("properties", {})
        for parameter in shown:
            if parameter.default is not parameter.empty:
                _put_default(described["properties"][parameter.name], parameter.default)
        positional = tuple(p.name for p in shown if p.kind is p.POSITIONAL_ONLY)
        return cls(type=declared, json_schema=described, positional=positional)

    def read(self, given: Arguments, what: str) -> Arguments:
        return self.type.validate(given, what)

    def split(self, arguments: Arguments) -> tuple[list[Any], Arguments]:
        args = [arguments[name] for name in self.positional if name in arguments]
        return args, {name: value for name, value in arguments.items() if name not in self.positional}


def _typed_dict(task: Task[..., Any], shown: Sequence[inspect.Parameter], *, is_open: bool) -> schema.ValueType:
    """The parameters as a TypedDict: what is not given is left to the function's own defaults."""
    types = schema.parameter_types(task.func, task._frame_types)  # pyright: ignore[reportPrivateUsage] - local classes
    _, described = schema.docstring(task.func)
    fields: dict[str, Any] = {}
    for parameter in shown:
        declared = types[parameter.name]
        if parameter.name in described:
            declared = Annotated[declared, Field(description=described[parameter.name])]
        fields[parameter.name] = Required[declared] if parameter.default is parameter.empty else NotRequired[declared]
    Arguments: Any = typing_extensions.TypedDict("Arguments", fields)  # pyright: ignore[reportArgumentType] - computed
    Arguments.__pydantic_config__ = ConfigDict(extra="allow" if is_open else "forbid", arbitrary_types_allowed=True)
    return schema.ValueType(Arguments)


def _put_default(described: JsonSchema, default: Any) -> None:
    if default is not None and "default" not in described:
        described["default"] = schema.to_json_value(default)


# -- workflows and foreign tools ----------------------------------------------------------------------------------------


def _of_workflow(workflow: Workflow[Any, Any], autonomy: Autonomy) -> Tool:
    name = _fit(workflow.name)
    what = f"The call of tool {name!r}"
    declared = schema.input_schema(workflow.input)

    def read(given: Arguments) -> Any:
        if not declared.names:
            declared.unwrap(given, what)
            return UNSET
        return workflow.input.validate(declared.unwrap(given, what), what, at=declared.path)

    return Tool(
        name=name,
        description=workflow.description or "",
        schema=declared.schema,
        read=read,
        call=_gated(workflow.name, workflow, autonomy),
        output_type=workflow.output_type,
    )


def _foreign(tool: ForeignTool, autonomy: Autonomy) -> Tool:
    name = _fit(getattr(tool, "llm_name", tool.name))
    described: JsonSchema = {"type": "object", "properties": {}, **tool.input_schema}

    def read(given: Arguments) -> Any:
        return _checked(described, given, f"The call of tool {name!r}")

    async def call(arguments: Arguments) -> Any:
        return await tool(**arguments)

    if isinstance(tool, Task) and autonomy != "default":  # it can ask by itself
        tool = cast("Any", tool).with_options(requires_approval=autonomy == "strict")
        autonomy = "default"
    return Tool(
        name=name,
        description=tool.description or "",
        schema=described,
        read=read,
        call=_gated(tool.name, call, autonomy),
        server=getattr(tool, "server", None),
    )


def _checked(described: JsonSchema, given: Arguments, what: str) -> Arguments:
    checking = cast("Any", validator_for)(described, default=Draft202012Validator)(described)
    faults = [(".".join(map(str, fault.absolute_path)), str(fault.message)) for fault in checking.iter_errors(given)]
    if faults:
        raise InvalidInput(what, faults[:20])
    return given


def _gated(name: str, call: Callable[[Any], Awaitable[Any]], autonomy: Autonomy) -> Callable[[Any], Awaitable[Any]]:
    """Where no option of a task can do it: ask a person first."""
    if autonomy != "strict":
        return call

    async def asking(arguments: Any) -> Any:
        shown = None if arguments is UNSET else schema.to_json_value(arguments)
        question = {"task": name, "arguments": shown}
        answer = await pause(f"approval:{name}", question, response=Approval, message=f"May the tool {name!r} run?")
        if not answer.approved:
            raise ApprovalRejected(name, answer.reason)
        return await call(arguments)

    return asking


# -- what models write --------------------------------------------------------------------------------------------------


def _object(given: str | Mapping[str, Any] | None, what: str) -> Arguments:
    if not given or (isinstance(given, str) and not given.strip()):
        return {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as exc:
            raise InvalidInput(what, [("", f"the arguments are no JSON: {exc}")]) from None
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidInput(what, [("", "the arguments have to be a JSON object")])
    return {str(name): value for name, value in cast("Mapping[Any, Any]", given).items()}


def _fit(name: str) -> str:
    return _NO_NAME.sub("_", name)[:NAME_LENGTH].strip("_") or "tool"

"""The tools of a server, each a task of its own; and their arguments, checked before anything is sent."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import keyword
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypedDict, cast

from flux.decorators import Task
from flux.domain.calls import CallId
from flux.engine.invoke import recall
from flux.engine.scope import Scope, Site, require_scope
from flux.errors import FluxError, InvalidInput, NonDeterminismError
from flux.options import TaskOptions
from flux.schema import JsonSchema, to_json_value
from flux.tasks.mcp.asking import Note
from flux.tasks.mcp.errand import Errand, name_of
from flux.tasks.mcp.kept import drop_open_call
from flux.tasks.mcp.reaching import stop
from flux.tasks.mcp.schemas import digest_of, faults_in, is_closed, properties_of, required_of

LONGEST_NAME = 64
"""Characters: what the interfaces of language models take."""

CONTROLS = frozenset(
    {
        *("list_workflows", "get_execution", "list_executions"),
        *("pause_execution", "resume_execution", "cancel_execution"),
    }
)
"""The tools by which a server is known to be one of ours."""

Wire = Mapping[str, Any]


class NoSuchTool(FluxError, AttributeError, KeyError):
    def __init__(self, server: str, name: str, known: Sequence[str]) -> None:
        super().__init__(server, name, list(known))
        self.server = server
        self.name = name

    def __str__(self) -> str:
        server, name, known = cast("tuple[str, str, list[str]]", self.args)
        close = difflib.get_close_matches(name, known, 3) or difflib.get_close_matches(name.lower(), known, 3, 0.4)
        if close:
            return f"MCP server {server!r} has no tool {name!r}. Did you mean {' or '.join(map(repr, close))}?"
        return f"MCP server {server!r} has no tool {name!r}; it has: {', '.join(known) or 'none'}."


class ToolSettings(TypedDict, total=False):
    """What a tool has besides the options of every task. `timeout` is in seconds for an answer, without the time in which
    people are asked. `idempotent`: it may be called twice, or it may not, whatever the server says."""

    timeout: float | None
    idempotent: bool | None


class Tool(Task[..., Any]):
    """A tool of another server as a task. `make` gives the function that calls it, with these settings."""

    def __init__(
        self,
        server: str,
        definition: Wire,
        name: str,
        make: Callable[[Wire, str, ToolSettings], Callable[..., Any]],
        *,
        settings: ToolSettings,
        options: TaskOptions,
        errand: Callable[[Site, str, Note], Errand],
    ) -> None:
        super().__init__(make(definition, name, settings), **{"name": name, **options})
        self.server = server
        self.definition = definition
        self._default_name = name
        self._make = make
        self._settings = settings
        self._errand_of = errand
        self.__signature__ = _signature(properties_of(self.input_schema))  # for graphs, which look at it

    @property
    def tool_name(self) -> str:
        """As the server has it."""
        return str(self.definition["name"])

    @property
    def llm_name(self) -> str:
        """For language models: no other tool of another server has it, as long as the servers' names differ."""
        return short(self._default_name)

    @property
    def title(self) -> str | None:
        annotations = cast(Wire, self.definition.get("annotations") or {})
        return self.definition.get("title") or annotations.get("title")

    @property
    def description(self) -> str | None:
        return self.definition.get("description")

    @property
    def input_schema(self) -> JsonSchema:
        return cast(JsonSchema, self.definition.get("inputSchema") or {"type": "object"})

    @property
    def output_schema(self) -> JsonSchema | None:
        return self.definition.get("outputSchema")

    @property
    def schema(self) -> JsonSchema:
        """The definition for language models."""
        return {"name": self.llm_name, "description": self.description or "", "input_schema": self.input_schema}

    @property
    def digest(self) -> str:
        return digest_of_tool(self.definition)

    def with_options(self, **options: Any) -> Tool:  # pyright: ignore[reportIncompatibleMethodOverride] - takes more
        """The same tool with some options changed: those of every task, and `idempotent`."""
        own: ToolSettings = {**self._settings}
        for key in ("timeout", "idempotent"):
            if key in options:
                own[key] = options.pop(key)
        merged = cast(TaskOptions, {**self.options, **options})
        return Tool(
            self.server,
            self.definition,
            self._default_name,
            self._make,
            settings=own,
            options=merged,
            errand=self._errand_of,
        )

    def __call__(self, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return self._call(args, kwargs, depth=3)  # an argument of the tool may be called `self`

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, depth: int) -> Coroutine[Any, Any, Any]:
        arguments = arguments_of(self.definition, f"The call of tool {self.tool_name!r}", args, kwargs)
        scope = require_scope(f"Tool {self.tool_name!r}")
        made = super()._call((), arguments, depth=depth + 1)
        return self._made(made, scope, CallId(f"{scope.path}{scope.calls - 1}"))

    async def _made(self, made: Coroutine[Any, Any, Any], scope: Scope, id: CallId) -> Any:
        try:
            return await made
        except asyncio.CancelledError:
            if not scope.run.unwinding:
                await self._stop_what_goes_on_without_us(scope, id)
            raise

    async def _stop_what_goes_on_without_us(self, scope: Scope, id: CallId) -> None:
        """The execution was cancelled while it was parked: nothing has looked at the call since, and the server works on."""
        for attempt in range(1, self.spec.retry.max_attempts + 2):
            inside = scope.inside(id, attempt, self.name)
            site = Site(inside, CallId(f"{inside.path}0"), __file__, 0)
            try:
                record = recall(site, name_of(self.name))
            except NonDeterminismError:
                return
            drop_open_call(scope.run.id, site.id)
            if record is not None and record.note is not None:
                await stop(self._errand_of(site, self.name, Note.read(record.note, scope.run.codec)))

    def __repr__(self) -> str:
        return f"<tool {self.tool_name} of MCP server {self.server}>"


class ToolSet:
    """The tools that a server had when it was asked: `tools.search(...)`, `tools["exact name"]`, and as a sequence."""

    def __init__(self, server: str, definitions: Sequence[Wire], make: Callable[[Wire, str], Tool]) -> None:
        self._server = server
        self._definitions = {str(each["name"]): each for each in definitions}
        self._task_names = _task_names(server, list(self._definitions))
        self._make = make
        self._made: dict[str, Tool] = {}

    def __getitem__(self, name: str) -> Tool:
        if name not in self._definitions:
            raise NoSuchTool(self._server, name, self.names)
        if name not in self._made:
            self._made[name] = self._make(self._definitions[name], self._task_names[name])
        return self._made[name]

    def __getattr__(self, name: str) -> Tool:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._definitions:
            return self[name]
        meant = [each for each in self._definitions if attribute_of(each) == name]
        if len(meant) > 1:
            listed = " or ".join(f"tools[{each!r}]" for each in meant)
            raise NoSuchTool(self._server, f"{name} (say {listed})", self.names)
        if not meant:
            raise NoSuchTool(self._server, name, self.names)
        return self[meant[0]]

    def get(self, name: str) -> Tool | None:
        return self[name] if name in self._definitions else None

    def __contains__(self, name: object) -> bool:
        return name in self._definitions

    def __iter__(self) -> Iterator[Tool]:
        return (self[name] for name in self._definitions)

    def __len__(self) -> int:
        return len(self._definitions)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *map(attribute_of, self._definitions)]

    @property
    def names(self) -> list[str]:
        return list(self._definitions)

    @property
    def schemas(self) -> list[JsonSchema]:
        """The definitions for language models."""
        return [tool.schema for tool in self]

    def __repr__(self) -> str:
        return f"<{len(self)} tools of MCP server {self._server}: {', '.join(self.names)}>"


# -- names -------------------------------------------------------------------------------------------------------------


def plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"


def short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}_{_mark(name)}"


def attribute_of(name: str) -> str:
    """What a tool is called in Python: `search-files` is `tools.search_files`, `import` is `tools.import_`."""
    made = re.sub(r"\W", "_", name)
    made = f"_{made}" if not made or made[0].isdigit() else made
    return f"{made}_" if keyword.iskeyword(made) else made


def _task_names(server: str, tools: Sequence[str]) -> dict[str, str]:
    """The names of tasks: of tools that would be the same, those that are not plain get a mark."""
    taken = {plain(tool) for tool in tools if plain(tool) == tool}
    names: dict[str, str] = {}
    for tool in sorted(tools, key=lambda tool: (plain(tool) != tool, tool)):
        made = plain(tool)
        if made != tool and made in taken:
            made = f"{made}_{_mark(tool)}"
        taken.add(made)
        names[tool] = f"mcp_{plain(server)}_{made}"
    return names


def _mark(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def digest_of_tool(definition: Wire) -> str:
    return digest_of(definition.get("inputSchema"), definition.get("outputSchema"))


def _signature(properties: Mapping[str, Any]) -> inspect.Signature:
    named = inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)
    unnamed = [inspect.Parameter("values", inspect.Parameter.VAR_POSITIONAL)] if properties else []
    return inspect.Signature([*unnamed, named])


# -- arguments ---------------------------------------------------------------------------------------------------------


def arguments_of(definition: Wire, what: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as they are sent. Raises InvalidInput, which names the arguments that do not fit."""
    schema = cast(Wire, definition.get("inputSchema") or {})
    properties = properties_of(schema)
    given = {**_positional(schema, what, args, kwargs), **{_spelled(name, properties): kwargs[name] for name in kwargs}}
    arguments = {name: to_json_value(value) for name, value in given.items()}
    for name in [name for name, value in arguments.items() if value is None]:
        if name not in required_of(schema) and faults_in(None, _alone(properties.get(name, {}), schema)):
            del arguments[name]  # None says that it is not given
    faults = faults_in(arguments, schema)
    if faults:
        raise InvalidInput(what, [_named(fault, properties) for fault in faults])
    return arguments


def _positional(schema: Wire, what: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if not args:
        return {}
    properties = properties_of(schema)
    if len(args) == 1 and isinstance(args[0], Mapping) and not kwargs:
        whole = cast("Mapping[str, Any]", args[0])
        fits = properties.keys() >= whole.keys() or not (properties or is_closed(schema))
        if fits:
            return dict(whole)
    required = required_of(schema)
    order = [*(name for name in properties if name in required), *(name for name in properties if name not in required)]
    free = [name for name in order if name not in kwargs]
    if len(args) > len(free):
        takes = ", ".join(order) or "no arguments"
        raise InvalidInput(what, [("", f"{len(args)} arguments without a name are too many; it takes {takes}")])
    return dict(zip(free, args, strict=False))


def _spelled(name: str, properties: Mapping[str, Any]) -> str:
    """`from_` is how Python spells an argument `from`."""
    if name in properties:
        return name
    meant = [each for each in properties if attribute_of(each) == name]
    return meant[0] if len(meant) == 1 else name


def _alone(schema: Any, root: Wire) -> Wire:
    """The schema of one argument, with the definitions that it may refer to."""
    if not isinstance(schema, dict):
        return {}
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return {**definitions, **cast("dict[str, Any]", schema)}


def _named(fault: tuple[str, str], properties: Mapping[str, Any]) -> tuple[str, str]:
    """Faults of the whole tell the name in their message only; what is unknown gets what is meant beside it."""
    path, message = fault
    if path or "unexpected" not in message:
        return fault
    return path, f"{message}; it takes {', '.join(properties) or 'no arguments'}"

"""`agent()`: from a prompt, a model and tools to a task."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict, TypeVar, Unpack, cast, overload

from flux import schema
from flux.decorators import Task
from flux.engine.scope import require_scope
from flux.errors import DefinitionError, ModelNotReady
from flux.options import TaskOptions
from flux.tasks.ai.budget import Budget
from flux.tasks.ai.definition import RETRIES, Definition, Effort
from flux.tasks.ai.longterm import LongTermMemory
from flux.tasks.ai.memory import WorkingMemory
from flux.tasks.ai.skills import SkillCatalog
from flux.tasks.ai.tools import Autonomy, Tool, named_apart, tools_of

R = TypeVar("R")
T = TypeVar("T")

_REQUEST_OPTIONS = (
    *("retry_max_attempts", "retry_delay", "retry_backoff", "retry_max_delay", "retry_jitter"),
    *("retry_on", "no_retry_on"),
)
"""Options that an agent hands on to its requests: another attempt of the whole agent would pay again for what was answered."""


class Agent(Task[..., R]):
    """A task that talks with a model: `await a(instruction, context=...)`.

    Its retry options are for each request to the model, its other options for the agent as a whole."""

    def __init__(self, definition: Definition, description: str, **options: Unpack[TaskOptions]) -> None:
        self.definition = definition
        self._described = description
        super().__init__(_body(definition, description), **options)

    @property
    def description(self) -> str | None:
        return self._described

    def with_options(self, **options: Unpack[TaskOptions]) -> Agent[R]:
        given = {name: value for name, value in options.items() if value is not None}
        retries = {name: given.pop(name) for name in _REQUEST_OPTIONS if name in given}
        name = given.get("name", self.definition.name)
        definition = replace(self.definition, name=name, retries={**self.definition.retries, **retries})
        return Agent(definition, self._described, **cast("TaskOptions", {**self.options, **given}))

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, depth: int) -> Coroutine[Any, Any, R]:
        if self.definition.memory is not None:
            require_scope(f"Agent {self.name!r}")
            self.definition.memory.called_by(self.definition.name)
        return super()._call(args, kwargs, depth=depth + 1)


class AgentOptions(TypedDict, total=False):
    """What `agent` takes besides, for its overloads: see there."""

    name: str | None
    description: str | None
    tools: Iterable[Any] | None
    skills: SkillCatalog | None
    agents: Sequence[Agent[Any]] | None
    max_schema_retries: int
    working_memory: WorkingMemory | None
    long_term_memory: LongTermMemory | None
    max_tool_calls: int
    max_concurrent_tools: int | None
    max_tokens: int | None
    budget: Budget | None
    stream: bool
    reasoning_effort: Effort | None
    autonomy: Autonomy | None
    temperature: float | None
    model_settings: Mapping[str, Any] | None
    base_url: str | None
    api_key: str | None


@overload
def agent(system_prompt: str, *, model: Any, response_format: type[T], **options: Unpack[AgentOptions]) -> Agent[T]: ...
@overload
def agent(
    system_prompt: str, *, model: Any, response_format: None = None, **options: Unpack[AgentOptions]
) -> Agent[str]: ...
@overload
def agent(system_prompt: str, *, model: Any, response_format: Any, **options: Unpack[AgentOptions]) -> Agent[Any]: ...
def agent(
    system_prompt: str,
    *,
    model: Any,
    response_format: Any = None,
    name: str | None = None,
    description: str | None = None,
    tools: Iterable[Any] | None = None,
    skills: SkillCatalog | None = None,
    agents: Sequence[Agent[Any]] | None = None,
    max_schema_retries: int = 2,
    working_memory: WorkingMemory | None = None,
    long_term_memory: LongTermMemory | None = None,
    max_tool_calls: int = 10,
    max_concurrent_tools: int | None = None,
    max_tokens: int | None = None,
    budget: Budget | None = None,
    stream: bool = False,
    reasoning_effort: Effort | None = None,
    autonomy: Autonomy | None = None,
    temperature: float | None = None,
    model_settings: Mapping[str, Any] | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
) -> Agent[Any]:
    """A task that has a language model work on an instruction, with tools, until it has an answer.

    `model` is `provider/name` (`ollama/llama3`, `openai/gpt-4o`, `anthropic/...`, `google/...`), or a model of pydantic-ai;
    `base_url` and `api_key` are for a server of your own. Nothing is looked up before the agent is called.

    `tools` are tasks, workflows, agents, tools of MCP servers and plain functions; `agents` are for work it may hand on;
    `skills` are instructions that it reads when it needs them. `autonomy` says which tools ask a person first: "default"
    those with `requires_approval`, "strict" all, "autonomous" none. After `max_tool_calls` calls it has to answer.

    `response_format` is the type of the answer (a pydantic model, a dataclass, a union, a list, ...), a text without it; an
    answer that does not fit is sent back `max_schema_retries` times. `working_memory` keeps the conversation from call to
    call, `long_term_memory` facts beyond the execution. `budget` bounds what it spends, with the agents it calls.

    `stream` tells tokens and tool calls as progress. `max_tokens` bounds one reply; it, `temperature`, `reasoning_effort`
    and `model_settings` are handed to the model."""
    if not isinstance(cast("Any", system_prompt), str):
        raise DefinitionError(f"agent() takes the system prompt as a text first, not {system_prompt!r}.")
    name = name or _default_name(model)
    if max_tool_calls < 0:
        raise DefinitionError(f"Agent {name!r} has max_tool_calls={max_tool_calls}: it has to be at least 0.")
    if budget is not None and budget.name is None:
        budget.name = name
    definition = Definition(
        name=name,
        instructions=_instructions(system_prompt, skills, long_term_memory),
        model=model,
        tools=_all_tools(name, tools, skills, agents, long_term_memory, autonomy or "default"),
        output=None if response_format in (None, str) else schema.ValueType(response_format),
        memory=working_memory,
        budget=budget,
        settings=_settings(max_tokens, temperature, reasoning_effort, model_settings),
        max_tool_calls=max_tool_calls,
        max_concurrent_tools=max_concurrent_tools,
        max_schema_retries=max_schema_retries,
        stream=stream,
        base_url=base_url,
        api_key=api_key,
        retries=dict(RETRIES),
    )
    return Agent(definition, description or _first_sentence(system_prompt), name=name)


def _body(definition: Definition, description: str) -> Any:
    """The function behind the task."""

    async def run(instruction: Any, context: Any = "") -> Any:
        return await _converse(definition, instruction, context)

    run.__name__ = run.__qualname__ = definition.name
    run.__doc__ = (
        f"{description}\n\nArgs:\n    instruction: What to do, with all that has to be known for it.\n"
        "    context: More to go by, such as results of earlier work."
    )
    answer = definition.output.annotation if definition.output is not None else str
    run.__annotations__ = {"instruction": str, "context": str, "return": answer}
    return run


async def _converse(definition: Definition, instruction: Any, context: Any) -> Any:
    try:
        from flux.tasks.ai.conversation import converse  # noqa: PLC0415 - of the optional extra `ai`, and slow to import
    except ImportError as exc:
        missing = exc.name or str(exc)
        raise ModelNotReady(
            f"Agent {definition.name!r} needs a package that is not there ({missing}); install it with "
            "`pip install 'flux-mcp-server[ai]'`."
        ) from exc
    return await converse(definition, instruction, context)


def _default_name(model: Any) -> str:
    text = model if isinstance(model, str) else f"{getattr(model, 'system', '')}_{getattr(model, 'model_name', '')}"
    return "agent_" + re.sub(r"\W+", "_", text).strip("_")


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", " ".join(text.split()), maxsplit=1)[0]


def _instructions(system_prompt: str, skills: SkillCatalog | None, memory: LongTermMemory | None) -> str:
    parts = [system_prompt]
    if skills:
        parts.append(skills.prompt())
    if memory is not None:
        parts.append(
            "You have a long-term memory that outlives this conversation: recall what you may know already before you "
            "begin, and store what will be worth knowing later."
        )
    return "\n\n".join(parts)


def _settings(
    max_tokens: int | None, temperature: float | None, effort: Effort | None, more: Mapping[str, Any] | None
) -> dict[str, Any]:
    named = {"max_tokens": max_tokens, "temperature": temperature, "thinking": effort}
    return {**{name: value for name, value in named.items() if value is not None}, **(more or {})}


def _all_tools(
    name: str,
    tools: Iterable[Any] | None,
    skills: SkillCatalog | None,
    agents: Sequence[Agent[Any]] | None,
    memory: LongTermMemory | None,
    autonomy: Autonomy,
) -> list[Tool]:
    """Our own tools first: they keep their names, and nobody has to approve them."""
    own: list[Any] = []
    if skills:
        own += skills.tools()
    if agents:
        own.append(_delegate(name, agents))
    if memory is not None:
        own += memory.tools()
    return named_apart([*tools_of(own, "default"), *tools_of(tools or (), autonomy)])


def _delegate(name: str, agents: Sequence[Agent[Any]]) -> Tool:
    """The tool by which an agent hands work on."""
    known: dict[str, Agent[Any]] = {}
    for each in agents:
        if not isinstance(cast("Any", each), Agent):
            raise DefinitionError(f"Agent {name!r} has {each!r} in agents: give what agent() returns.")
        if each.name in known:
            raise DefinitionError(f"Agent {name!r} has two agents named {each.name!r}: give one another name.")
        known[each.name] = each

    async def delegate(agent: str, instruction: str, context: str = "") -> Any:
        return await known[agent](instruction, context)

    listed = "\n".join(f"- {each.name}: {each.description}" for each in agents)
    delegate.__doc__ = (
        f"Hand work on to another agent, and get its answer. There are:\n{listed}\n\nArgs:\n    agent: Which one.\n"
        "    instruction: What to do. It knows nothing of this conversation, so say all that it has to know.\n"
        "    context: More to go by, such as results of earlier work."
    )
    delegate.__annotations__["agent"] = Literal[tuple(known)]
    return tools_of([delegate], "default")[0]

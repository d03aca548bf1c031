"""An agent at work: ask the model, call the tools it wants, until it answers. Each request and each call of a tool is recorded
at a place of its own, so an agent that was killed goes on where it stood."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from flux import schema
from flux.engine.branches import run_branches
from flux.engine.masking import without
from flux.engine.run import Run
from flux.engine.scope import require_scope
from flux.errors import (
    ApprovalRejected,
    BudgetExceeded,
    DefinitionError,
    InvalidInput,
    ModelNotReady,
    ModelRefused,
    NonDeterminismError,
    OutputInvalid,
    TaskFailed,
)
from flux.tasks.ai.budget import in_force
from flux.tasks.ai.definition import Definition
from flux.tasks.ai.memory import Message
from flux.tasks.ai.output import OUTPUT_TOOL, Output
from flux.tasks.ai.providers import model_of
from flux.tasks.ai.requests import Asking, Digest, Reply, exceeded, message_of, raw
from flux.tasks.ai.tools import Tool

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of all messages that we make: it goes nowhere, and must be the same on a replay."""

NO_CALLS_LEFT = "Not called: no tool calls are left. Answer with what you have."
ANSWER_NOW = "You have used up your tool calls. Give your final answer now, without calling tools."

SHORTEST_KEY = 16
"""Characters. A shorter key is none, but a word such as `ollama`, for a server that wants some key."""

SUM_UP = (
    "Sum up this conversation for yourself: facts, decisions, open questions. Be brief, but leave out nothing that may be "
    "needed."
)

_NOT_FOR_THE_MODEL = (NonDeterminismError, BudgetExceeded, DefinitionError, ModelNotReady)


async def converse(definition: Definition, instruction: Any, context: Any) -> Any:
    """One run of an agent; its answer."""
    trace.get_current_span().set_attributes(
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": definition.name}
    )
    budgets = in_force.get()
    if definition.budget is not None and definition.budget not in budgets:
        budgets = (*budgets, definition.budget)
    token = in_force.set(budgets)
    try:
        async with _opened(definition) as model:
            conversation = Conversation(definition, model)
            await conversation.begin(prompt(instruction, context))
            answer = await conversation.answer()
            await conversation.end()
            return answer
    finally:
        in_force.reset(token)


@asynccontextmanager
async def _opened(definition: Definition) -> AsyncGenerator[Model[Any]]:
    """The model, whose connections are closed in the end, unless it is the user's own."""
    run = require_scope("An agent").run

    async def secret(name: str) -> str | None:
        return _hidden(run, name, await run.provisions.secrets.get(name))

    api_key = _hidden(run, "api_key", definition.api_key)
    model = await model_of(definition.model, secret, base_url=definition.base_url, api_key=api_key)
    if model is definition.model:
        yield model
        return
    async with model:
        yield model


def _hidden(run: Run, name: str, key: str | None) -> str | None:
    """The key, which a provider may quote in its refusal: from here on it does not pass into the run's history."""
    if key and len(key) >= SHORTEST_KEY:
        run.codec = without({name: key}, run.codec)
    return key


def prompt(instruction: Any, context: Any) -> str:
    asked = _as_text(instruction)
    if context is None or context == "":
        return asked
    return f"{asked}\n\n<context>\n{_as_text(context)}\n</context>"


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    shown = schema.to_json_value(value)
    return shown if isinstance(shown, str) else _json(shown)


def _json(value: Any) -> str:
    return schema.ValueType(Any).adapter.dump_json(value).decode()


class Conversation:
    """The messages between an agent and its model, at every point a history that any provider takes."""

    def __init__(self, definition: Definition, model: Model[Any]) -> None:
        self._definition = definition
        self._model = model
        self._output = Output(definition.output)
        self._tools = {tool.name: tool for tool in definition.tools}
        self._messages: list[ModelMessage] = []
        self._known = 0  # so many of the messages come from memory
        self._digest = Digest()
        self._tool_calls = 0
        self._corrections = 0
        self._was_last = False  # the request that was answered offered no more tool calls

    # -- from question to answer ------------------------------------------------------------------------------------

    async def begin(self, question: str) -> None:
        memory = self._definition.memory
        if memory is not None:
            messages = await memory.messages()
            due = memory.due(messages)
            if due:
                await memory.compact(due[-1].key, await self._summary(due))
                messages = await memory.messages()
            for message in memory.visible(messages):
                self._add(message_of(message.raw))
        self._known = len(self._messages)
        self._say(UserPromptPart(content=question, timestamp=EPOCH))

    async def answer(self) -> Any:
        while True:
            reply = await self._ask()
            response = reply.response
            self._add(response)
            calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
            output_call = self._output.call_in(response)
            calls_tools = any(call is not output_call for call in calls)
            if output_call is None and calls_tools and not self._must_answer_in(response):
                await self._call_tools(reply, calls)
                continue
            try:
                return self._output.read(response)
            except InvalidInput as fault:
                await self._correct(fault, reply, calls, output_call)

    async def end(self) -> None:
        """Keep what was said, where there is a memory for it."""
        memory = self._definition.memory
        if memory is not None:
            self._messages[-1] = _without_calls(self._messages[-1])
            await memory.remember([raw(message) for message in self._messages[self._known :]])

    @property
    def _is_last_turn(self) -> bool:
        return self._tool_calls >= self._definition.max_tool_calls

    def _must_answer_in(self, response: ModelResponse) -> bool:
        """In the last turn, a text counts as the answer even beside tool calls that nobody will make."""
        return self._was_last and any(isinstance(part, TextPart) and part.content for part in response.parts)

    async def _ask(self) -> Reply:
        tools = [] if self._definition.max_tool_calls == 0 else [_described(tool) for tool in self._tools.values()]
        settings: dict[str, Any] = dict(self._definition.settings)
        self._was_last = bool(tools) and self._is_last_turn
        if self._was_last:
            settings["tool_choice"] = "none"  # still described: some providers want that when the history has calls
        asking = Asking(
            self._definition,
            list(self._messages),
            ModelSettings(**settings),
            self._definition.instructions,
            self._digest.text,
        )
        output_tool = None if self._output.is_text else OUTPUT_TOOL
        while True:
            parameters = self._output.parameters(self._model, tools)
            try:
                return await asking.ask(self._model, parameters, output_tool=output_tool)
            except ModelRefused as refusal:
                if not self._output.falls_back(parameters.output_mode, refusal):
                    raise

    async def _correct(
        self, fault: InvalidInput, reply: Reply, calls: Sequence[ToolCallPart], output_call: ToolCallPart | None
    ) -> None:
        """Tell the model what is wrong with its answer. Raises OutputInvalid when it has been told often enough."""
        self._corrections += 1
        if self._corrections > self._definition.max_schema_retries:
            raise OutputInvalid(f"Agent {self._definition.name!r} gave no answer in the form asked for. {fault}")
        said = self._output.correction(fault)
        if output_call is None:
            unanswered = [_returned(call, NO_CALLS_LEFT, "failed") for call in calls]
            self._say(*unanswered, UserPromptPart(content=said, timestamp=EPOCH))
        else:
            await self._call_tools(reply, calls, {output_call.tool_call_id: _returned(output_call, said, "retried")})

    async def _summary(self, due: Sequence[Message]) -> str:
        memory = self._definition.memory
        assert memory is not None, "only a memory can be full"
        text = "\n\n".join(f"{message.role}: {message.content}" for message in due)
        summing = replace(
            self._definition,
            name=f"{self._definition.name}:compact",
            model=memory.compact_model,
            instructions=SUM_UP,
            tools=(),
            output=None,
            memory=None,
            settings={},
        )
        summary = await converse(summing, text, "")
        return f"What was said before, summed up:\n{summary}"

    # -- tools ------------------------------------------------------------------------------------------------------

    async def _call_tools(
        self, reply: Reply, calls: Sequence[ToolCallPart], known: dict[str, ToolReturnPart] | None = None
    ) -> None:
        """Make the calls of one turn, concurrently, and add their results in the order of the calls."""
        known = known or {}
        wanted = [call for call in calls if call.tool_call_id not in known]
        if self._was_last and wanted:
            self._corrections += 1
            if self._corrections > self._definition.max_schema_retries:
                raise OutputInvalid(f"Agent {self._definition.name!r} used up its tool calls and gave no answer.")
        if reply.tool_calls is not None:
            raise exceeded(in_force.get())
        room = max(0, self._definition.max_tool_calls - self._tool_calls)
        made = wanted[:room]
        self._tool_calls += len(made)
        results = await run_branches(
            [self._result(call) for call in made], max_concurrent=self._definition.max_concurrent_tools
        )
        surplus = [_returned(call, NO_CALLS_LEFT, "failed") for call in wanted[room:]]
        answers = iter([*results, *surplus])
        parts: list[ModelRequestPart] = [known.get(call.tool_call_id) or next(answers) for call in calls]
        if self._is_last_turn:
            parts.append(UserPromptPart(content=ANSWER_NOW, timestamp=EPOCH))
        self._say(*parts)

    async def _result(self, call: ToolCallPart) -> ToolReturnPart:
        tool = self._tools.get(call.tool_name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            return _returned(call, f"There is no tool {call.tool_name!r}; there are: {known}.", "retried")
        try:
            arguments = tool.arguments(call.args)
        except InvalidInput as fault:
            return _returned(call, str(fault), "retried")
        self._tell("tool_start", call)
        result = await self._made(tool, call, arguments)
        self._tell("tool_done", call)
        return result

    async def _made(self, tool: Tool, call: ToolCallPart, arguments: Any) -> ToolReturnPart:
        try:
            return _returned(call, await tool.text(arguments), "success")
        except ApprovalRejected as exc:
            return _returned(call, str(exc), "denied")
        except _NOT_FOR_THE_MODEL:
            raise
        except TaskFailed as exc:
            return _returned(call, str(exc), "failed")
        except Exception as exc:  # noqa: BLE001 - whatever a tool raises, the model is told, and can do something about it
            return _returned(call, f"{type(exc).__name__}: {exc}", "failed")

    def _tell(self, what: str, call: ToolCallPart) -> None:
        if self._definition.stream:
            scope = require_scope("An agent")
            scope.run.tell(self._definition.name, {"type": what, "tool": call.tool_name}, call=scope.call)

    # -- messages ---------------------------------------------------------------------------------------------------

    def _say(self, *parts: ModelRequestPart) -> None:
        self._add(ModelRequest(parts=list(parts)))

    def _add(self, message: ModelMessage) -> None:
        self._messages.append(message)
        self._digest.add(message)


def _returned(call: ToolCallPart, content: Any, outcome: Any) -> ToolReturnPart:
    return ToolReturnPart(
        tool_name=call.tool_name,
        content=content,
        tool_call_id=call.tool_call_id,
        timestamp=EPOCH,
        outcome=outcome,
    )


def _described(tool: Tool) -> ToolDefinition:
    return ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=tool.schema)


def _without_calls(message: ModelMessage) -> ModelMessage:
    """The answer as it is kept: what it wanted to call besides was not called, so nothing may ask for a result of it."""
    if not isinstance(message, ModelResponse):
        return message
    kept = [part for part in message.parts if not isinstance(part, ToolCallPart)]
    calls = [part for part in message.parts if isinstance(part, ToolCallPart) and part.tool_name == OUTPUT_TOOL]
    return replace(message, parts=[*kept, *(TextPart(content=call.args_as_json_str()) for call in calls[:1])])

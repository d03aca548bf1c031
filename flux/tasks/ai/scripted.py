"""A model for tests, which says what the test has written down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, cast

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models import override_allow_model_requests
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.usage import RequestUsage

from flux.engine.scope import current_scope
from flux.schema import to_json_value

Reply = Any
"""A text, `tool_call(...)`, a list of those, a ModelResponse, an exception to raise, any other value to write as JSON, or a
function of the request that gives one of these."""


def tool_call(name: str, arguments: str | None = None, /, **named: Any) -> ToolCallPart:
    """A call of a tool, for a ScriptedModel to make. `arguments` is for text that is no JSON, or none that fits."""
    return ToolCallPart(name, to_json_value(named) if arguments is None else arguments, tool_call_id="")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedRequest:
    """What a model was asked. `place` names the call in its execution."""

    messages: Sequence[ModelMessage]
    instructions: str | None
    tools: Sequence[str]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    info: AgentInfo
    place: str

    @property
    def text(self) -> str:
        """All that the request says, for tests that look for something in it."""
        return "\n".join(self.said)

    @property
    def said(self) -> list[str]:
        """Who said what, in order: `user-prompt: Hello`, `text: Hi.`, `tool-call: look`, `tool-return: nothing`."""
        return [f"{part.part_kind}: {_content(part)}" for message in self.messages for part in message.parts]

    @property
    def results(self) -> list[str]:
        """What the tools gave back that the model called last."""
        return [_content(part) for part in self.messages[-1].parts if part.part_kind == "tool-return"]


class ScriptedModel(FunctionModel):
    """Gives its replies one after the other, in the order of the requests, and keeps the requests.

    When an execution is replayed and makes a request again that it had made at the same place before, it gets the same reply
    again. A request whose history a real provider would refuse is an AssertionError.

    `native=False` is for a model that knows structured output by tools alone, `tools=False` for one without tools."""

    def __init__(
        self, replies: Iterable[Reply], *, name: str = "scripted", native: bool = True, tools: bool = True
    ) -> None:
        profile = ModelProfile(supports_json_schema_output=native, supports_tools=tools)
        super().__init__(self._reply, stream_function=self._stream, model_name=name, profile=profile)
        self.requests: list[ScriptedRequest] = []
        self._replies: Iterator[Reply] = iter(replies)
        self._given: dict[str, Reply] = {}
        self._ids = count(1)

    async def _reply(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        request = ScriptedRequest(
            messages=list(messages),
            instructions=info.instructions,
            tools=[tool.name for tool in info.function_tools],
            settings=cast("dict[str, Any]", dict(info.model_settings or {})),
            info=info,
            place=_place() or f"request {len(self.requests)}",
        )
        self.requests.append(request)
        _check_legal(messages)
        if request.place not in self._given:
            self._given[request.place] = self._next(request)
        reply = self._given[request.place]
        if isinstance(reply, BaseException):
            raise reply
        usage = reply.usage if reply.usage.has_values() else RequestUsage(input_tokens=10, output_tokens=5)
        return replace(reply, parts=list(reply.parts), usage=usage)

    def _next(self, request: ScriptedRequest) -> ModelResponse | BaseException:
        try:
            reply = next(self._replies)
        except StopIteration:
            raise AssertionError(f"the script has no reply left for request {len(self.requests)}") from None
        if callable(reply) and not isinstance(reply, type):
            reply = cast("Callable[[ScriptedRequest], Reply]", reply)(request)
        return reply if isinstance(reply, (ModelResponse, BaseException)) else ModelResponse(self._parts(reply))

    def _parts(self, reply: Reply) -> list[TextPart | ToolCallPart]:
        match reply:
            case str():
                return [TextPart(reply)]
            case ToolCallPart():
                return [ToolCallPart(reply.tool_name, reply.args, reply.tool_call_id or f"call_{next(self._ids)}")]
            case list() if any(isinstance(each, (str, ToolCallPart)) for each in cast("list[Any]", reply)):
                return [part for each in cast("list[Any]", reply) for part in self._parts(each)]
            case _:
                return [TextPart(json.dumps(to_json_value(reply)))]

    async def _stream(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        for index, part in enumerate((await self._reply(messages, info)).parts):
            match part:
                case TextPart():
                    for word in part.content.split(" "):
                        yield word if word == part.content.split(" ")[0] else f" {word}"
                case ToolCallPart():
                    args = part.args if isinstance(part.args, str) else json.dumps(part.args)
                    yield {index: DeltaToolCall(part.tool_name, args, tool_call_id=part.tool_call_id)}
                case _:
                    raise AssertionError(f"a scripted stream has no {part!r}")


def _check_legal(messages: Sequence[ModelMessage]) -> None:
    """Raises AssertionError for a history that some provider would refuse."""
    called: list[str] = []
    for index, message in enumerate(messages):
        returned = [part.tool_call_id for part in message.parts if isinstance(part, ToolReturnPart)]
        assert returned == called, f"message {index} has the results of the calls {returned}, not of {called}"
        assert index or message.kind == "request", "a conversation begins with the user"
        called = [part.tool_call_id for part in message.parts if isinstance(part, ToolCallPart)]
    assert not called, f"nothing was returned for the calls {called}"


def _content(part: Any) -> str:
    return str(part.tool_name if part.part_kind == "tool-call" else part.content)


def _place() -> str | None:
    scope = current_scope()
    return None if scope is None else f"{scope.run.id}/{scope.path}"


@contextmanager
def no_model_requests() -> Generator[None]:
    """Inside, nothing reaches a real model: a request to one is an error. A ScriptedModel is not real."""
    with override_allow_model_requests(False):
        yield

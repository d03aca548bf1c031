"""One request to a model, as a recorded call: what was answered is never asked, nor paid for, again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from opentelemetry import trace
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelHTTPError, UserError
from pydantic_ai.messages import (
    InstructionPart,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.settings import ModelSettings

from flux.decorators import Task
from flux.engine.run import Run
from flux.engine.scope import require_scope
from flux.errors import BudgetExceeded, ModelError, ModelNotReady, ModelRefused
from flux.tasks.ai.budget import Budget, Usage, in_force
from flux.tasks.ai.definition import Definition
from flux.tasks.ai.ledger import ASKED, Entry, ledger_of, own_place
from flux.tasks.ai.output import is_about_form
from flux.tasks.ai.telling import Telling

CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable by which OpenTelemetry lets people have the texts themselves in their spans."""

_PASSING = {408, 409, 425, 429}
"""The HTTP statuses below 500 after which asking again may help."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`tool_calls` is how many of its calls the budgets allow, None for all."""

    response: ModelResponse
    tool_calls: int | None


@dataclass(slots=True)
class Asking:
    """A request before it is made; all that the model gets. `model` is the string or object that the user gave."""

    definition: Definition
    messages: Sequence[ModelMessage]
    settings: ModelSettings
    instructions: str
    digest: str

    async def ask(self, model: Model[Any], parameters: ModelRequestParameters, *, output_tool: str | None) -> Reply:
        """Recall the reply, or make the request and record it. Raises ModelError, ModelRefused, BudgetExceeded."""
        run = require_scope("An agent").run
        described = f"{model.system}/{model.model_name}"

        async def llm(model_name: str, messages: int, digest: str) -> Entry:
            return await self._asked(run, model, parameters, output_tool)

        request = Task[..., Entry](llm, name=f"{_literal(self.definition.name)}{ASKED}", **self.definition.retries)
        entry = await request(described, len(self.messages), self.digest)
        (await ledger_of(run)).add(ASKED, entry)
        return Reply(response_of(entry["message"]), entry["allowed"])

    async def _asked(
        self, run: Run, model: Model[Any], parameters: ModelRequestParameters, output_tool: str | None
    ) -> Entry:
        budgets = in_force.get()
        usages = {budget.label: (budget, await budget.check(run)) for budget in budgets}
        asked_at = run.clock.now()
        response = await self._answered(run, model, parameters)
        usd = _price(response)
        if usd is None and any(budget.max_usd is not None for budget in budgets):
            raise ModelNotReady(
                f"Nobody knows the price of {model.model_name!r}, so a budget in USD cannot hold for it."
            )
        calls = sum(isinstance(part, ToolCallPart) and part.tool_name != output_tool for part in response.parts)
        allowed = _allowed(list(usages.values()), calls)
        return {
            "id": own_place(),
            "message": raw(response),
            "tokens": response.usage.input_tokens + response.usage.output_tokens,
            "usd": usd,
            "asked_at": asked_at,
            "tool_calls": calls if allowed is None else allowed,
            "allowed": allowed,
            "budgets": list(usages),
        }

    async def _answered(self, run: Run, model: Model[Any], parameters: ModelRequestParameters) -> ModelResponse:
        parameters = replace(parameters, instruction_parts=[InstructionPart(content=self.instructions)])
        messages = _instructed(self.messages, self.instructions)
        try:
            if self.definition.stream:
                return await self._streamed(run, model, messages, parameters)
            return await model_request(
                model,
                messages,
                model_settings=self.settings,
                model_request_parameters=parameters,
                instrument=_instrumented(),
            )
        except UserError as exc:
            raise ModelRefused(f"The request cannot be made of {model.model_name!r}: {exc}") from exc
        except AgentRunError as exc:
            raise _failure(model, exc) from exc
        except RuntimeError as exc:
            if "not allowed" not in str(exc):
                raise
            raise ModelNotReady(
                f"Requests to real models are forbidden here, and {model.model_name!r} is one."
            ) from exc

    async def _streamed(
        self, run: Run, model: Model[Any], messages: Sequence[ModelMessage], parameters: ModelRequestParameters
    ) -> ModelResponse:
        asked = model_request_stream(
            model,
            messages,
            model_settings=self.settings,
            model_request_parameters=parameters,
            instrument=_instrumented(),
        )
        telling = Telling(run, self.definition.name)
        try:
            async with asked as stream:
                async for event in stream:
                    telling.hear(event)
        except AgentRunError:
            telling.break_off()
            raise
        telling.end()
        return stream.get()


def _instrumented() -> InstrumentationSettings | bool:
    """Where somebody collects spans each request is one, by the GenAI conventions; with what is said if that is asked for."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return False
    return InstrumentationSettings(include_content=os.environ.get(CONTENT, "").lower() == "true")


def _instructed(messages: Sequence[ModelMessage], instructions: str) -> list[ModelMessage]:
    """Some models read the instructions in the last request, others in the parameters."""
    last = messages[-1]
    assert isinstance(last, ModelRequest), "one asks with a request"
    return [*messages[:-1], replace(last, instructions=instructions)]


def _failure(model: Model[Any], exc: AgentRunError) -> ModelError | ModelRefused:
    said = f"{model.model_name!r} of {model.system}: {exc}"
    if isinstance(exc, ModelHTTPError) and (_is_final(exc.status_code) or is_about_form(str(exc))):
        return ModelRefused(f"The request was refused by {said}")
    if isinstance(exc, ModelAPIError):
        return ModelError(f"No answer from {said}")
    return ModelError(f"No usable answer from {said}")


def _is_final(status: int) -> bool:
    return status < 500 and status not in _PASSING


def _allowed(usages: Sequence[tuple[Budget, Usage]], calls: int) -> int | None:
    left = min((budget.tool_calls_left(usage) for budget, usage in usages), default=float("inf"))
    return None if left >= calls else max(0, int(left))


def exceeded(budgets: Sequence[Budget]) -> BudgetExceeded:
    """The error for a reply whose tool calls a budget does not allow."""
    maximum, name = min((b.max_tool_calls, b.label) for b in budgets if b.max_tool_calls is not None)
    return BudgetExceeded(name, "max_tool_calls", maximum, maximum)


def _price(response: ModelResponse) -> float | None:
    """In USD; None where nobody knows it."""
    if response.provider_name == "ollama":
        return 0.0
    try:
        return float(response.cost().total_price)
    except (LookupError, AssertionError, ValueError):
        return None


def _literal(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


# -- messages as JSON ---------------------------------------------------------------------------------------------------


def raw(message: ModelMessage) -> dict[str, Any]:
    return ModelMessagesTypeAdapter.dump_python([message], mode="json")[0]


def message_of(raw: dict[str, Any]) -> ModelMessage:
    return ModelMessagesTypeAdapter.validate_python([raw])[0]


def response_of(raw: dict[str, Any]) -> ModelResponse:
    return cast("ModelResponse", message_of(raw))


class Digest:
    """A check on a conversation that grows: each message is looked at once."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)

    def add(self, message: ModelMessage) -> None:
        self._hash.update(ModelMessagesTypeAdapter.dump_json([message]))

    @property
    def text(self) -> str:
        return self._hash.hexdigest()

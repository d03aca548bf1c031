"""What a collector of OpenTelemetry is told of agents, by the semantic conventions for generative AI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_ai.exceptions import ModelHTTPError

from flux import ExecutionContext, Flux, Workflow, pause, task, workflow
from flux.tasks.ai import agent
from flux.tasks.ai.requests import CONTENT
from flux.testing import ScriptedModel, tool_call
from tests.spans import Spans, collecting, said

pytestmark = pytest.mark.anyio


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collecting() as spans:
        yield spans


@task
async def look(where: str) -> str:
    return f"nothing in {where}"


def helping(*replies: Any, **options: Any) -> Workflow[Any, Any]:
    model = ScriptedModel(replies, name="gpt-x")
    helper = agent("Help.", model=model, name="helper", tools=[look], **options).with_options(retry_max_attempts=0)

    @workflow
    async def helps(ctx: ExecutionContext[Any]) -> str:
        answer = await helper("Go and look into the red box.")
        await pause("wait")
        return answer

    return helps


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_says_what_was_asked_of_which_model_and_what_it_used(
    flux: Flux, spans: Spans, stream: bool
) -> None:
    paused = await flux.run(helping(tool_call("look", where="box"), "ok", stream=stream))
    requests = spans.named("chat gpt-x")
    assert len(requests) == 2
    for request in requests:
        told = said(request)
        assert told["gen_ai.operation.name"] == "chat"
        assert told["gen_ai.provider.name"] == "function"
        assert told["gen_ai.request.model"] == "gpt-x"
        assert told["gen_ai.response.model"] == "gpt-x"
        assert told["gen_ai.usage.input_tokens"] > 0
        assert told["gen_ai.usage.output_tokens"] > 0
        assert spans.above(request) == "task helper:llm"
    await flux.resume(paused.execution_id, None)
    assert len(spans.named("chat gpt-x")) == 2  # a replay asks nothing, and tells nothing


async def test_an_agents_span_holds_its_requests_and_its_tools(flux: Flux, spans: Spans) -> None:
    await flux.run(helping(tool_call("look", where="box"), "ok"))
    told = said(spans.one("task helper"))
    assert (told["gen_ai.operation.name"], told["gen_ai.agent.name"]) == ("invoke_agent", "helper")
    assert spans.above(spans.one("task helper")) == "workflow helps"
    assert {spans.above(span) for span in spans.named("task helper:llm")} == {"task helper"}
    assert spans.above(spans.one("task look")) == "task helper"


async def test_what_is_said_is_told_only_where_it_is_asked_for(
    flux: Flux, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    await flux.run(helping("ok"))
    assert "red box" not in str([said(span) for span in spans.all])
    monkeypatch.setenv(CONTENT, "true")
    await flux.run(helping("ok").with_options(name="helps again"))
    assert "red box" in str([said(span) for span in spans.all])


async def test_a_refusal_is_an_error_without_what_the_provider_quotes(flux: Flux, spans: Spans) -> None:
    await flux.run(helping(ModelHTTPError(401, "gpt-x", "Incorrect API key: sk-not-a-real-key")))
    (request,) = spans.named("chat gpt-x")
    assert request.status.is_ok is False
    events = [dict(event.attributes or {}) for event in request.events]
    assert "sk-not-a-real-key" not in f"{request.status.description} {events} {said(request)}"

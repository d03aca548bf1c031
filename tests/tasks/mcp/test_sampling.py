"""Servers that ask for the words of a language model."""

from __future__ import annotations

from typing import Any, cast

import mcp_types as types
import pytest
from mcp import MCPError

from flux import Flux, workflow
from flux.domain.events import CallReturned
from flux.errors import ToolExecutionError, UnusableResult
from flux.tasks.ai import agent
from flux.tasks.mcp import mcp
from flux.testing import ScriptedModel, crash_at_every_fact
from tests.tasks.mcp.servers import ERAS, Context, Reply, Small, text

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")]

CAPITAL: types.SamplingMessageContentBlock = types.TextContent(text="Capital of Norway?")


def curious(content: types.SamplingMessageContentBlock = CAPITAL) -> Small:
    """A server with a tool that needs a model, and asks for it in the way of each era."""
    small = Small("curious")
    asked: dict[str, Any] = {
        "messages": [types.SamplingMessage(role="user", content=content)],
        "max_tokens": 50,
        "system_prompt": "One word.",
        "temperature": 0.5,
    }

    @small.tool("think", safe=True)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        if ctx.protocol_version != "2026-07-28":
            try:
                said = await cast(Any, ctx.session).create_message(**asked, related_request_id=ctx.request_id)
            except MCPError as exc:
                return text(str(exc), is_error=True)
        else:
            said = (params.input_responses or {}).get("capital")
            if said is None:
                request = types.CreateMessageRequest(params=types.CreateMessageRequestParams(**asked))
                return types.InputRequiredResult(input_requests={"capital": request}, request_state="s")
        assert isinstance(said, types.CreateMessageResult)
        assert isinstance(said.content, types.TextContent)
        return text(f"{said.role} {said.model}: {said.content.text}")

    return small


def thinks(small: Small, era: str, sampling: Any) -> Any:
    @workflow
    async def thinks() -> Any:
        async with mcp(small.server, protocol=era, sampling=sampling) as client:
            return await (await client.discover()).think()

    return thinks


@pytest.mark.parametrize("era", ERAS)
async def test_a_model_answers_as_the_server_wants_it_to(flux: Flux, era: str) -> None:
    model = ScriptedModel(["Oslo"])
    execution = await flux.run(thinks(curious(), era, model))
    assert execution.output == "assistant scripted: Oslo", execution.error
    assert (model.requests[0].text, model.requests[0].instructions) == ("user-prompt: Capital of Norway?", "One word.")
    assert model.requests[0].settings.items() >= {("max_tokens", 50), ("temperature", 0.5)}


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_answers_in_its_own_way(flux: Flux, era: str) -> None:
    model = ScriptedModel(["Oslo"])
    geographer = agent("You know every capital.", model=model, name="geographer")
    execution = await flux.run(thinks(curious(), era, geographer))
    assert execution.output == "assistant scripted: Oslo", execution.error
    assert model.requests[0].instructions == "You know every capital."
    assert "One word." in model.requests[0].text


async def test_what_a_model_said_is_not_asked_for_again_after_a_crash() -> None:
    model = ScriptedModel(["Oslo"])
    whole = await crash_at_every_fact(thinks(curious(), "2026-07-28", model))
    assert whole.output == "assistant scripted: Oslo", whole.error
    said = [isinstance(event.fact, CallReturned) and "Oslo" in event.fact.value for event in whole.events].index(True)
    assert len(model.requests) == 1 + said  # the whole run, and those that died before it was on disk


@pytest.mark.parametrize(("era", "kind"), [("legacy", ToolExecutionError), ("2026-07-28", UnusableResult)])
async def test_without_a_model_the_request_is_refused(flux: Flux, era: str, kind: type[Exception]) -> None:
    error = (await flux.run(thinks(curious(), era, None))).error
    assert isinstance(error, kind), repr(error)
    assert "ampling" in str(error)


@pytest.mark.parametrize("era", ERAS)
async def test_a_picture_is_not_shown_to_a_model(flux: Flux, era: str) -> None:
    picture = types.ImageContent(data="aGk=", mime_type="image/png")
    error = (await flux.run(thinks(curious(picture), era, ScriptedModel([])))).error
    assert isinstance(error, UnusableResult), repr(error)
    assert "'image'" in str(error)

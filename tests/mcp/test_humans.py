"""Questions that only a person may answer, questions that the workflow words itself, and questions beside a long branch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp import MCPError
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestURLParams,
    ElicitResult,
    SamplingMessage,
    TextContent,
)

from flux import pause, task, workflow
from flux.tasks import parallel
from tests.mcp.serving import ERAS, Era, client_of, data_of, engine, serving, text_of
from tests.mcp.serving import Client as AnyClient

pytestmark = [pytest.mark.anyio, pytest.mark.needs_session]


@workflow
async def signed() -> str:
    return await pause("sign", response=str, channel="human")


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("tool", ["resume_signed", "resume_execution"])
async def test_a_model_cannot_answer_what_is_for_a_person(era: Era, tool: str) -> None:
    async with engine(signed) as flux, serving(signed, flux=flux) as server:
        async with client_of(server, era) as client:
            handle = data_of(await client.call_tool("signed"))
            assert "only a person may give" in handle["next"]
            assert handle["questions"][0]["for_human"] is True
            id = handle["execution_id"]
            refused = data_of(await client.call_tool(tool, {"execution_id": id, "answer": "the model"}))
            assert (refused["status"], refused["next"]) == ("paused", handle["next"])
        await flux.resume(id, "a person")
        assert (await flux.get(id)).output == "a person"


@pytest.mark.parametrize("era", ERAS)
async def test_a_models_answer_to_what_is_for_a_person_becomes_a_form_for_the_person(era: Era) -> None:
    async def person(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"answer": "a person"})

    async with serving(signed) as server:
        async with client_of(server, era) as client:
            id = data_of(await client.call_tool("signed"))["execution_id"]
        async with client_of(server, era, elicitation=person) as client:
            answered = await client.call_tool("resume_signed", {"execution_id": id, "answer": "the model"})
            assert data_of(answered) == {"result": "a person"}


@task
async def long(gate: str) -> str:
    await gates[gate].wait()
    return "long"


gates: dict[str, asyncio.Event] = {}


@workflow
async def beside() -> list[Any]:
    return await parallel(long("gate"), pause("now", response=int))


@pytest.mark.parametrize("era", ERAS)
async def test_a_question_beside_a_long_branch_is_asked_at_once(era: Era) -> None:
    gates["gate"] = asyncio.Event()

    async def answer(context: Any, params: Any) -> ElicitResult:
        gates["gate"].set()  # the branch ends only because the question was asked
        return ElicitResult(action="accept", content={"answer": 7})

    async with serving(beside) as server, client_of(server, era, elicitation=answer) as client:
        result = await asyncio.wait_for(client.call_tool("beside"), 10)
        assert data_of(result) == {"result": ["long", 7]}


# -- questions of the workflow's own words -----------------------------------------------------------------------------


@workflow
async def at_a_page() -> str:
    params = ElicitRequestURLParams(message="Log in there", url="https://example.com/login")
    return f"logged in as {await pause('login', ElicitRequest(params=params), response=str)}"


@pytest.mark.parametrize("era", ERAS)
async def test_a_user_is_sent_to_a_page_and_the_answer_comes_from_there(era: Era) -> None:
    sent: list[Any] = []
    async with engine(at_a_page) as flux, serving(at_a_page, flux=flux) as server:

        async def go(context: Any, params: Any) -> ElicitResult:
            sent.append(params)
            (listing,) = await flux.list()
            await flux.answer(listing.id, "ada")
            return ElicitResult(action="accept")

        async with client_of(server, era, elicitation=go) as client:
            assert text_of(await client.call_tool("at_a_page")) == "logged in as ada"
            assert [params.url for params in sent] == ["https://example.com/login"]


@workflow
async def thinks() -> str:
    message = SamplingMessage(role="user", content=TextContent(text="Why?"))
    asked = CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=10))
    return (await pause("why", asked))["content"]["text"]


@pytest.mark.parametrize("era", ERAS)
async def test_the_clients_model_can_be_asked_and_a_client_without_one_is_told_what_is_missing(era: Era) -> None:
    async def model(context: Any, params: Any) -> CreateMessageResult:
        return CreateMessageResult(role="assistant", content=TextContent(text="Because."), model="m")

    async with serving(thinks) as server:
        async with AnyClient(server, mode=era, sampling_callback=model, cache=None) as client:
            assert text_of(await client.call_tool("thinks")) == "Because."
        async with client_of(server, era) as client:
            with pytest.raises(MCPError) as refused:
                await client.call_tool("thinks")
            assert refused.value.data == {"requiredCapabilities": {"sampling": {}}}

"""Servers that ask: the workflow pauses with their question, and the answer goes back, however much later."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from pydantic import BaseModel

from flux import ExecutionContext, Flux, workflow
from flux.errors import InvalidAnswer, OutcomeUnknown, ToolExecutionError
from flux.stores.memory import MemoryStore
from flux.tasks import parallel, pause
from flux.tasks.mcp import mcp
from flux.tasks.mcp.kept import drop_open_call, open_calls
from flux.testing import crash_at_every_fact
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.server import make_server
from tests.tasks.mcp.servers import ERAS, NAME_FORM, PATIENCE, Context, Reply, Small, schema, text, until

pytestmark = pytest.mark.anyio


def form(message: str = "Your name?") -> types.ElicitRequest:
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=NAME_FORM))


def asking(*, safe: bool = False) -> Small:
    """A server with a tool `greet` that asks for a name, in the way of each era."""
    small = Small("asking")

    @small.tool("greet", safe=safe)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        if ctx.protocol_version != "2026-07-28":
            answer = await ctx.session.elicit_form("Your name?", NAME_FORM, related_request_id=ctx.request_id)
            return text(f"{answer.action} {answer.content}")
        given = (params.input_responses or {}).get("who")
        if given is None:
            return types.InputRequiredResult(input_requests={"who": form()}, request_state="state-1")
        assert params.request_state == "state-1"
        assert isinstance(given, types.ElicitResult)
        return text(f"{given.action} {given.content}")

    return small


def greets(small: Small, era: str = "auto") -> Any:
    @workflow
    async def greets() -> Any:
        async with mcp(small.server, protocol=era) as client:
            return await (await client.discover()).greet()

    return greets


@pytest.mark.parametrize("era", ERAS)
async def test_a_question_becomes_a_pause_and_its_answer_goes_back(flux: Flux, era: str) -> None:
    execution = await flux.run(greets(asking(), era))
    (question,) = execution.pauses
    assert (question.message, question.output) == ("Your name?", None)
    assert question.name == ("greet" if era == "legacy" else "who")
    assert question.schema is not None
    assert question.schema["properties"] == NAME_FORM["properties"]
    with pytest.raises(InvalidAnswer):
        await flux.answer(execution.execution_id, {"nickname": "Bo"})
    execution = await flux.resume(execution.execution_id, {"name": "Bo"})
    assert execution.output == "accept {'name': 'Bo'}", execution.error


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_question_can_be_declined(flux: Flux, era: str, action: str) -> None:
    execution = await flux.run(greets(asking(), era))
    execution = await flux.resume(execution.execution_id, {"action": action})
    assert execution.output == f"{action} None", execution.error


async def test_the_answer_may_come_in_another_process() -> None:
    small, store = asking(), MemoryStore()
    body = greets(small)
    async with Flux(store=store, workflows=[body], recover=False) as flux:
        execution = await flux.run(body)
    async with Flux(store=store, workflows=[body], recover=False) as flux:
        execution = await flux.resume(execution.execution_id, {"name": "Bo"})
    assert execution.output == "accept {'name': 'Bo'}", execution.error
    assert len(small.calls) == 2


async def test_a_workflow_that_is_asked_survives_a_crash_at_every_fact() -> None:
    whole = await crash_at_every_fact(greets(asking(safe=True)), answers={"who": {"name": "Bo"}})
    assert whole.output == "accept {'name': 'Bo'}"


@pytest.mark.parametrize("safe", [True, False])
async def test_an_open_call_that_died_with_its_process_is_made_again_only_if_that_is_safe(safe: bool) -> None:
    small, store = asking(safe=safe), MemoryStore()
    body = greets(small, "legacy")
    async with Flux(store=store, workflows=[body], recover=False) as flux:
        execution = await flux.run(body)
    await _forget_open_calls()
    async with Flux(store=store, workflows=[body], recover=False) as flux:
        execution = await flux.resume(execution.execution_id, {"name": "Bo"})
    if safe:
        assert execution.output == "accept {'name': 'Bo'}", execution.error
    else:
        assert isinstance(execution.error, OutcomeUnknown)


async def _forget_open_calls() -> None:
    """As a new process has none."""
    for key in list(open_calls):
        drop_open_call(*key)


async def test_a_cancelled_execution_gives_up_its_open_call(flux: Flux) -> None:
    small = asking()
    execution = await flux.run(greets(small, "legacy"))
    assert small.open == 1
    await flux.cancel(execution.execution_id)
    assert (await flux.wait(execution.execution_id)).is_cancelled
    await until(lambda: small.open == 0)


async def test_calls_of_one_connection_ask_at_the_same_time(flux: Flux) -> None:
    small = asking()

    @workflow
    async def both() -> Any:
        async with mcp(small.server) as client:
            tools = await client.discover()
            return await parallel(tools.greet(), tools.greet())

    execution = await flux.run(both)
    first, second = execution.pauses
    await flux.answer(execution.execution_id, {"name": "A"}, pause=first.id)
    execution = await flux.resume(execution.execution_id, {"name": "B"}, pause=second.id)
    assert execution.output == ["accept {'name': 'A'}", "accept {'name': 'B'}"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_question_reaches_the_execution_that_it_is_for_also_when_several_share_a_client(
    flux: Flux, era: str
) -> None:
    small = Small()

    @small.tool("ship", schema("order", order={"type": "string"}))
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        order = (params.arguments or {})["order"]
        asked = f"Ship {order}?"
        if ctx.protocol_version == "2026-07-28":
            given = (params.input_responses or {}).get("who")
            if given is None:
                return types.InputRequiredResult(input_requests={"who": form(asked)})
            assert isinstance(given, types.ElicitResult)
        else:
            given = await ctx.session.elicit_form(asked, NAME_FORM, related_request_id=ctx.request_id)
        return text(f"{order} {given.content}")

    client = mcp(small.server, protocol=era)

    @workflow
    async def ships(ctx: ExecutionContext[str]) -> Any:
        return await (await client.discover()).ship(order=ctx.input)

    orders = [f"A{number}" for number in range(5)]
    started = [(await flux.start(ships, order)).execution_id for order in orders]
    parked = [await flux.wait(each) for each in started]
    assert [[each.message for each in one.pauses] for one in parked] == [[f"Ship {order}?"] for order in orders]
    assert small.open == (1 if era == "2026-07-28" else 5)
    ended = [await flux.resume(id, {"name": order.lower()}) for id, order in zip(started, orders, strict=True)]
    assert [each.output for each in ended] == [f"{order} {{'name': '{order.lower()}'}}" for order in orders]
    last = await flux.run(ships, "B1")
    await flux.resume(last.execution_id, {"name": "b1"})
    assert small.opened == (1 if era == "2026-07-28" else 5), "an idle connection is used again"
    await client.aclose()
    await until(lambda: small.open == 0)


async def test_several_questions_of_one_round_are_open_together(flux: Flux) -> None:
    small = Small()

    @small.tool("pair")
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        given = params.input_responses or {}
        if len(given) < 2:
            return types.InputRequiredResult(input_requests={"one": form("One?"), "two": form("Two?")})
        return text(" ".join(str(each.content["name"]) for each in given.values()))  # type: ignore[union-attr,index]

    @workflow
    async def pairs() -> Any:
        async with mcp(small.server) as client:
            return await (await client.discover()).pair()

    execution = await flux.run(pairs)
    assert sorted(each.name for each in execution.pauses) == ["one", "two"]
    await flux.resume(execution.execution_id, {"name": "2"}, pause="two")
    execution = await flux.resume(execution.execution_id, {"name": "1"}, pause="one")
    assert execution.output == "1 2", execution.error


@pytest.mark.parametrize("action", ["accept", "decline"])
async def test_an_address_to_visit_is_a_pause(flux: Flux, action: str) -> None:
    small = Small()
    asked = types.ElicitRequestURLParams(message="Sign in", url="https://example.com/in", elicitation_id="e1")

    @small.tool("mail")
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        if len(small.calls) == 1:
            data = {"elicitations": [asked.model_dump(by_alias=True, exclude_none=True)]}
            raise MCPError(code=types.URL_ELICITATION_REQUIRED, message="Sign in first", data=data)
        return text("sent")

    @workflow
    async def mails() -> Any:
        async with mcp(small.server, protocol="legacy") as client:
            return await (await client.discover()).mail()

    execution = await flux.run(mails)
    (question,) = execution.pauses
    assert (question.name, question.message) == ("mail", "Sign in")
    assert question.output == {"url": "https://example.com/in"}
    execution = await flux.resume(execution.execution_id, {"action": action})
    if action == "accept":
        assert execution.output == "sent", execution.error
    else:
        assert isinstance(execution.error, ToolExecutionError)


# -- a chain of our own servers ----------------------------------------------------------------------------------------


class Approval(BaseModel):
    approved: bool


@workflow
async def far(ctx: ExecutionContext[str]) -> str:
    answer = await pause("approval", message=f"Ship {ctx.input}?", response=Approval)
    return f"shipped {ctx.input}" if answer.approved else "declined"


never_a_task = far.with_options(task="never")


def through(server: Any, tool: str, era: str, name: str) -> Any:
    @workflow.with_options(name=name)
    async def through(ctx: ExecutionContext[str]) -> Any:
        async with mcp(server, name=f"to_{tool}", protocol=era) as client:
            return await (await client.discover())[tool](ctx.input)

    return through


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("end", [far, never_a_task], ids=["task", "call"])
async def test_a_chain_of_servers_carries_a_question_to_the_near_end_and_the_answer_back(era: str, end: Any) -> None:
    async with Flux(store=MemoryStore(), workflows=[end]) as last:
        last_server = make_server(last, Catalog([end], []), name="last", secret=b"k" * 32, patience=45)
        middle_workflow = through(last_server, "far", era, "middle")
        async with Flux(store=MemoryStore(), workflows=[middle_workflow]) as middle:
            middle_server = make_server(
                middle, Catalog([middle_workflow], []), name="middle", secret=b"k" * 32, patience=45
            )
            near = through(middle_server, "middle", era, "near")
            async with Flux(store=MemoryStore(), recover=False) as flux:
                with anyio.fail_after(PATIENCE):
                    execution = await flux.run(near, "A1")
                    (question,) = execution.pauses
                    assert question.message == "Ship A1?"
                    assert question.schema is not None
                    assert "approved" in question.schema["properties"]
                    execution = await flux.resume(execution.execution_id, {"approved": True})
                assert execution.output == {"result": "shipped A1"}, execution.error
        assert len(await last.list()) == 1


async def test_a_handle_of_one_of_our_servers_is_followed_to_its_end() -> None:
    async with Flux(store=MemoryStore(), workflows=[never_a_task]) as last:
        server = make_server(last, Catalog([never_a_task], []), name="last", secret=b"k" * 32, patience=0)
        near = through(server, "far", "legacy", "near")
        async with Flux(store=MemoryStore(), recover=False) as flux:
            with anyio.fail_after(PATIENCE):
                execution = await flux.run(near, "A1")
                assert [each.name for each in execution.pauses] == ["approval"]
                execution = await flux.resume(execution.execution_id, {"approved": True})
            assert execution.output == {"result": "shipped A1"}, execution.error


async def test_a_server_that_does_not_wait_for_the_answer_gets_it_later_and_nobody_is_asked_twice() -> None:
    async with Flux(store=MemoryStore(), workflows=[never_a_task]) as last:
        server = make_server(last, Catalog([never_a_task], []), name="last", secret=b"k" * 32, patience=0.3)
        near = through(server, "far", "legacy", "near")
        async with Flux(store=MemoryStore(), recover=False) as flux:
            with anyio.fail_after(PATIENCE):
                execution = await flux.run(near, "A1")
                ((key, kept),) = open_calls.items()
                assert key[0] == execution.execution_id
                await until(lambda: kept.exchange.pushed[0].answer.done())  # the server waits no more
                execution = await flux.resume(execution.execution_id, {"approved": True})
            assert execution.output == {"result": "shipped A1"}, execution.error or execution.pauses


@workflow
async def twice(ctx: ExecutionContext[str]) -> list[str]:
    return [await pause("more", message="More?", response=str) for _ in range(2)]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("patience", [0.0, 30.0])
@pytest.mark.parametrize("task", ["auto", "never"])
async def test_the_same_question_asked_twice_gets_two_answers(
    era: str, patience: float, task: Literal["auto", "never"]
) -> None:
    end = twice.with_options(task=task)
    async with Flux(store=MemoryStore(), workflows=[end]) as last:
        server = make_server(last, Catalog([end], []), name="last", secret=b"k" * 32, patience=patience)
        near = through(server, "twice", era, "near")
        async with Flux(store=MemoryStore(), recover=False) as flux:
            with anyio.fail_after(PATIENCE):
                execution = await flux.run(near, "A1")
                for answer in ("first", "second"):
                    (question,) = execution.pauses
                    as_form = question.schema is not None and question.schema.get("type") == "object"
                    given = {"answer": answer} if as_form else answer
                    execution = await flux.resume(execution.execution_id, given)
            assert execution.output == {"result": ["first", "second"]}, execution.error or execution.pauses


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("end", [far, never_a_task], ids=["task", "call"])
async def test_a_question_of_our_own_server_that_is_declined_fails_the_call(
    era: str, end: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.tasks.mcp.listening.DECLINED_WITHIN", 0.1)
    async with Flux(store=MemoryStore(), workflows=[end]) as last:
        server = make_server(last, Catalog([end], []), name="last", secret=b"k" * 32, patience=30)
        near = through(server, "far", era, "near")
        async with Flux(store=MemoryStore(), recover=False) as flux:
            with anyio.fail_after(PATIENCE):
                execution = await flux.run(near, "A1")
                execution = await flux.resume(execution.execution_id, {"action": "decline"})
            assert isinstance(execution.error, ToolExecutionError), execution.error or execution.pauses
            assert "was declined" in str(execution.error)


async def test_what_an_answer_leaves_out_is_as_the_form_has_it_by_default(flux: Flux) -> None:
    small = Small()
    size = {"type": "string", "default": "small"}
    form_schema: dict[str, Any] = {"type": "object", "properties": {"size": size, "name": {"type": "string"}}}

    @small.tool("order")
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        answer = await ctx.session.elicit_form("Which?", form_schema, related_request_id=ctx.request_id)
        return text(str(answer.content))

    @workflow
    async def orders() -> Any:
        async with mcp(small.server, protocol="legacy") as client:
            return await (await client.discover()).order()

    execution = await flux.run(orders)
    execution = await flux.resume(execution.execution_id, {"name": "Bo"})
    assert execution.output == "{'size': 'small', 'name': 'Bo'}", execution.error

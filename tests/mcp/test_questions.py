"""How a pause reaches the user, and how the answer comes back."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import anyio
import pytest
from mcp import MCPError
from mcp.client.session import ElicitationFnT
from mcp_types import ElicitRequestFormParams, ElicitResult, InputRequiredResult, InputResponses
from pydantic import BaseModel, Field, SecretStr

from flux import ExecutionContext, OpenPause, pause, task, workflow
from flux.schema import json_schema
from flux.tasks import parallel
from flux.tasks.mcp import mcp
from flux_mcp_server.asking import form_of
from tests.mcp.serving import ERAS, PATIENCE, Era, client_of, data_of, engine, serving

pytestmark = [pytest.mark.anyio, pytest.mark.needs_session]


class Approval(BaseModel):
    approved: bool = Field(description="May it go out?")
    note: str | None = None


class Nested(BaseModel):
    approvals: list[Approval]


class User:
    """Answers each question with what the test has laid out, and remembers what it was asked."""

    def __init__(self, *answers: dict[str, Any] | Literal["decline", "cancel"]) -> None:
        self.answers = list(answers)
        self.asked: list[ElicitRequestFormParams] = []

    @property
    def callback(self) -> ElicitationFnT:
        async def answer(context: Any, params: Any) -> ElicitResult:
            assert isinstance(params, ElicitRequestFormParams)
            self.asked.append(params)
            given = self.answers.pop(0)
            if isinstance(given, str):
                return ElicitResult(action=given)
            return ElicitResult(action="accept", content=given)

        return answer


done: list[str] = []


@task
async def note(text: str) -> None:
    done.append(text)


@workflow
async def publish(ctx: ExecutionContext[str]) -> str:
    await note(f"drafted {ctx.input}")
    answer = await pause("approve", message="Publish it?", output={"post": ctx.input}, response=Approval)
    await note(f"finished {ctx.input}")
    return f"{ctx.input}: {answer.approved} {answer.note}"


@workflow
async def twice(ctx: ExecutionContext[str]) -> list[str]:
    return [await pause("name", response=str), await pause("name", response=str)]


@workflow
async def both() -> list[Any]:
    return await parallel(pause("left", response=int), pause("right", response=bool))


@workflow
async def nested() -> int:
    return len((await pause("all", response=Nested)).approvals)


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@pytest.mark.parametrize("era", ERAS)
async def test_a_question_is_asked_with_a_form_and_its_answer_finishes_the_call(era: Era) -> None:
    user = User({"approved": True, "note": "go"})
    async with serving(publish) as server, client_of(server, era, elicitation=user.callback) as client:
        result = await client.call_tool("publish", {"input": "news"})
        assert data_of(result) == {"result": "news: True go"}
        (asked,) = user.asked
        assert asked.message == 'Publish it?\n\n{\n  "post": "news"\n}'
        assert asked.requested_schema == {
            "type": "object",
            "properties": {
                "approved": {"type": "boolean", "description": "May it go out?"},
                "note": {"type": "string"},
            },
            "required": ["approved"],
        }
        assert done == ["drafted news", "finished news"]


@pytest.mark.parametrize("era", ERAS)
async def test_the_same_call_after_one_that_was_asked_and_answered_is_a_new_one(era: Era) -> None:
    user = User(*[{"approved": True}] * 4)
    async with serving(publish) as server, client_of(server, era, elicitation=user.callback) as client:
        results = [await client.call_tool("publish", {"input": "news"}) for _ in range(4)]
        assert len({(result.meta or {})["flux/executionId"] for result in results}) == 4
        assert len(user.asked) == 4


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_question_that_is_turned_down_stays_open(era: Era, action: Literal["decline", "cancel"]) -> None:
    user = User(action)
    async with serving(publish) as server, client_of(server, era, elicitation=user.callback) as client:
        handle = data_of(await client.call_tool("publish", {"input": "news"}))
        assert handle["status"] == "paused"
        assert "it stays open" in handle["next"]
        assert len(user.asked) == 1
        resumed = {"execution_id": handle["execution_id"], "answer": {"approved": False}}
        assert data_of(await client.call_tool("resume_publish", resumed)) == {"result": "news: False None"}


@pytest.mark.parametrize("era", ERAS)
async def test_a_bad_answer_is_asked_again_with_what_was_wrong(era: Era) -> None:
    user = User({"approved": "perhaps"}, {"approved": True})
    async with serving(publish) as server, client_of(server, era, elicitation=user.callback) as client:
        assert data_of(await client.call_tool("publish", {"input": "news"})) == {"result": "news: True None"}
        assert "The last answer could not be used." in user.asked[1].message
        assert "approved" in user.asked[1].message.rpartition("could not be used.")[2]


@pytest.mark.parametrize("era", ERAS)
async def test_a_user_is_not_asked_for_ever(era: Era) -> None:
    user = User(*[{"approved": "perhaps"}] * 10)
    async with serving(publish) as server, client_of(server, era, elicitation=user.callback) as client:
        handle = data_of(await client.call_tool("publish", {"input": "news"}))
        assert handle["status"] == "paused"
        assert "could not be used" in handle["next"]
        assert len(user.asked) == 3


@pytest.mark.parametrize("era", ERAS)
async def test_questions_that_are_open_together_are_each_answered(era: Era) -> None:
    async def answer(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"answer": 7 if "left" in params.message else True})

    async with serving(both) as server, client_of(server, era, elicitation=answer) as client:
        assert data_of(await client.call_tool("both")) == {"result": [7, True]}


async def test_questions_that_are_open_together_are_asked_together() -> None:
    async with serving(both) as server, client_of(server, "2026-07-28", elicitation=User().callback) as client:
        asked = await first_round(client, "both", {})
        assert asked.input_requests is not None
        assert set(asked.input_requests) == {"left", "right"}


@pytest.mark.parametrize("era", ERAS)
async def test_one_name_asked_twice_is_two_questions(era: Era) -> None:
    user = User({"answer": "first"}, {"answer": "second"})
    async with serving(twice) as server, client_of(server, era, elicitation=user.callback) as client:
        assert data_of(await client.call_tool("twice", {"input": ""})) == {"result": ["first", "second"]}


@pytest.mark.parametrize("era", ERAS)
async def test_a_question_that_fits_no_form_is_a_handle_with_its_schema(era: Era) -> None:
    user = User()
    async with serving(nested) as server, client_of(server, era, elicitation=user.callback) as client:
        handle = data_of(await client.call_tool("nested"))
        (question,) = handle["questions"]
        assert question["answer_schema"] == json_schema(Nested)
        answer = {"approvals": [{"approved": True}]}
        resumed = {"execution_id": handle["execution_id"], "answer": answer}
        assert data_of(await client.call_tool("resume_nested", resumed)) == {"result": 1}


@pytest.mark.parametrize("era", ERAS)
async def test_a_tool_that_answers_asks_the_next_question(era: Era) -> None:
    user = User({"answer": "second"})
    async with serving(twice) as server:
        async with client_of(server, era) as client:
            id = data_of(await client.call_tool("twice", {"input": ""}))["execution_id"]
        async with client_of(server, era, elicitation=user.callback) as client:
            done = await client.call_tool("resume_twice", {"execution_id": id, "answer": "first"})
            assert data_of(done) == {"result": ["first", "second"]}


async def test_a_pushed_question_is_dropped_when_the_call_runs_out_of_time() -> None:
    async def never(context: Any, params: Any) -> ElicitResult:
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        serving(publish, patience=0.2) as server,
        client_of(server, "legacy", elicitation=never) as client,
    ):
        handle = data_of(await client.call_tool("publish", {"input": "news"}))
        assert handle["status"] == "paused"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("far_era", ERAS)
async def test_another_servers_question_is_a_form_that_has_to_be_filled_in(era: Era, far_era: Era) -> None:
    far = publish.with_options(name="far", task="never")
    user = User({"approved": True})
    async with serving(far) as far_server:

        @workflow
        async def near(ctx: ExecutionContext[str]) -> Any:
            async with mcp(far_server, protocol=far_era) as client:
                return (await (await client.discover()).far(ctx.input))["result"]

        async with serving(near) as server, client_of(server, era, elicitation=user.callback) as client:
            assert data_of(await client.call_tool("near", {"input": "news"})) == {"result": "news: True None"}
    (asked,) = user.asked
    assert asked.requested_schema["required"] == ["approved"]


async def test_two_questions_pushed_over_one_connection_each_get_their_own_answer() -> None:
    """An older client: the first question is answered only after the second."""
    second_answered = asyncio.Event()

    async def answer(context: Any, params: Any) -> ElicitResult:
        if "first" in params.message:
            await second_answered.wait()
        else:
            second_answered.set()
        return ElicitResult(action="accept", content={"approved": True, "note": params.message.split(chr(34))[3]})

    async with serving(publish) as server, client_of(server, "legacy", elicitation=answer) as client:
        with anyio.fail_after(PATIENCE):
            first, second = await asyncio.gather(
                client.call_tool("publish", {"input": "first"}), client.call_tool("publish", {"input": "second"})
            )
    assert data_of(first) == {"result": "first: True first"}
    assert data_of(second) == {"result": "second: True second"}


# -- many rounds, one execution ----------------------------------------------------------------------------------------


async def first_round(client: Any, tool: str, arguments: dict[str, Any]) -> InputRequiredResult:
    result = await client.session.call_tool(tool, arguments, allow_input_required=True)
    assert isinstance(result, InputRequiredResult)
    return result


async def test_the_same_round_made_twice_answers_once_and_never_the_next_question() -> None:
    async with serving(twice) as server, client_of(server, "2026-07-28", elicitation=User().callback) as client:
        asked = await first_round(client, "twice", {"input": ""})
        answers: InputResponses = {"name": ElicitResult(action="accept", content={"answer": "first"})}

        async def again() -> Any:
            return await client.session.call_tool(
                "twice",
                {"input": ""},
                input_responses=answers,
                request_state=asked.request_state,
                allow_input_required=True,
            )

        assert isinstance(await again(), InputRequiredResult)
        assert isinstance(await again(), InputRequiredResult)
        listed = data_of(await client.call_tool("list_executions"))["executions"]
        assert [execution["status"] for execution in listed] == ["paused"]


async def test_a_state_works_in_another_server_and_is_refused_when_it_was_tampered_with() -> None:
    async with engine(publish) as flux:
        async with (
            serving(publish, flux=flux) as server,
            client_of(server, "2026-07-28", elicitation=User().callback) as client,
        ):
            asked = await first_round(client, "publish", {"input": "news"})
        answers: InputResponses = {"approve": ElicitResult(action="accept", content={"approved": True})}
        async with (
            serving(publish, flux=flux) as server,
            client_of(server, "2026-07-28", elicitation=User().callback) as client,
        ):
            state = asked.request_state
            assert state is not None
            with pytest.raises(MCPError, match="Invalid or expired requestState"):
                await client.call_tool(
                    "publish", {"input": "news"}, input_responses=answers, request_state=state[:-2] + "xx"
                )
            with pytest.raises(MCPError, match="Invalid or expired requestState"):
                await client.call_tool("publish", {"input": "lies"}, input_responses=answers, request_state=state)
            result = await client.call_tool("publish", {"input": "news"}, input_responses=answers, request_state=state)
            assert data_of(result) == {"result": "news: True None"}  # pyright: ignore[reportArgumentType] - complete by now
        assert done == ["drafted news", "finished news"]


async def test_answers_may_come_with_the_first_call() -> None:
    answers: InputResponses = {"approve": ElicitResult(action="accept", content={"approved": True})}
    async with serving(publish) as server, client_of(server, "2026-07-28", elicitation=User().callback) as client:
        result = await client.call_tool("publish", {"input": "news"}, input_responses=answers)
        assert data_of(result) == {"result": "news: True None"}


# -- forms -------------------------------------------------------------------------------------------------------------


class Address(BaseModel):
    street: str
    zip: str | None


class Options(BaseModel):
    loud: bool = False


class Delivery(BaseModel):
    to: Address
    options: Options
    back_to: Address | None = None
    at: str = "noon"


class Flat(BaseModel):
    to: Address
    options: Options
    at: str = "noon"


def test_what_is_nested_is_flattened_into_a_form_and_folded_back() -> None:
    made = form_of(OpenPause(id="0", name="q", schema=json_schema(Flat)))
    assert made is not None
    assert list(made.schema["properties"]) == ["to.street", "to.zip", "options.loud", "at"]
    assert made.schema["required"] == ["to.street"]
    answer = made.answer({"to.street": "Main Street 1"})
    assert Flat.model_validate(answer) == Flat(to=Address(street="Main Street 1", zip=None), options=Options())
    answer = made.answer({"to.street": "x", "to.zip": "9", "options.loud": True, "at": "ten"})
    assert answer == {"to": {"street": "x", "zip": "9"}, "options": {"loud": True}, "at": "ten"}


def form(response: Any) -> dict[str, Any] | None:
    made = form_of(OpenPause(id="0", name="q", schema=json_schema(response)))
    return None if made is None else made.schema["properties"]


Case = tuple[Any, dict[str, Any] | None]
CASES: list[Case] = [
    (bool, {"answer": {"type": "boolean"}}),
    (Literal["a", "b"], {"answer": {"type": "string", "enum": ["a", "b"]}}),
    (int | None, {"answer": {"type": "integer"}}),
    (list[Literal["a", "b"]], {"answer": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}}),
    (list[str], None),
    (dict[str, int], None),
    (Literal[1, 2], None),
    (Nested, None),
    (Delivery, None),
    (SecretStr, None),
    (int | str, None),
]


@pytest.mark.parametrize(("response", "fields"), CASES)
def test_a_form_is_flat_or_there_is_none(response: Any, fields: dict[str, Any] | None) -> None:
    assert form(response) == fields


def test_where_fields_are_needed_or_something_else_will_do_the_form_is_for_the_fields() -> None:
    declined = {"required": ["action"], "properties": {"action": {"enum": ["decline"]}}}
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "anyOf": [declined, {"required": ["name"]}],
    }
    made = form_of(OpenPause(id="0", name="q", schema=schema))
    assert made is not None
    assert made.schema == {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def test_any_answer_is_asked_for_as_a_text() -> None:
    made = form_of(OpenPause(id="0", name="q"))
    assert made is not None
    assert made.schema == {"type": "object", "properties": {"answer": {"type": "string", "title": "q"}}}
    assert made.answer({"answer": "yes"}) == "yes"
    assert made.answer({}) is None

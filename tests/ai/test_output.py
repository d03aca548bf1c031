"""Answers with a form: by whatever way the model knows, mended when they do not fit, typed live and on replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel

from flux import ExecutionContext, Flux, Workflow, task, workflow
from flux.errors import OutputInvalid
from flux.tasks.ai import agent
from flux.testing import ScriptedModel, crash_at_every_fact, tool_call

pytestmark = pytest.mark.anyio


class Cat(BaseModel):
    name: str
    lives: int = 9


@dataclass
class Dog:
    name: str
    tricks: list[str]


class Bird(TypedDict):
    song: str


@task
async def look(where: str) -> str:
    return f"nothing in {where}"


def answering(form: Any, *replies: Any, **options: Any) -> tuple[ScriptedModel, Workflow[Any, Any]]:
    kinds = {name: options.pop(name) for name in ("native", "tools_known") if name in options}
    model = ScriptedModel(replies, native=kinds.get("native", True), tools=kinds.get("tools_known", True))
    describer = agent("Describe.", model=model, name="describer", response_format=form, **options)

    @workflow
    async def describes(ctx: ExecutionContext[Any]) -> Any:
        return await describer("Go.")

    return model, describes


@pytest.mark.parametrize(
    ("form", "reply", "answer"),
    [
        (Cat, {"name": "Tom"}, Cat(name="Tom")),
        (Dog, {"name": "Rex", "tricks": ["sit"]}, Dog("Rex", ["sit"])),
        (Bird, {"song": "tweet"}, {"song": "tweet"}),
        (list[Cat], {"response": [{"name": "Tom"}]}, [Cat(name="Tom")]),
        (Cat | Dog, {"response": {"name": "Rex", "tricks": []}}, Dog("Rex", [])),
        (int, {"response": 3}, 3),
        (Cat, '```json\n{"name": "Tom"}\n```', Cat(name="Tom")),
    ],
)
async def test_an_answer_comes_back_with_its_type_live_and_on_replay(form: Any, reply: Any, answer: Any) -> None:
    _, describes = answering(form, reply)
    done = await crash_at_every_fact(describes)
    assert done.output == answer
    assert type(done.output) is type(answer)


@pytest.mark.parametrize(
    ("native", "tools_known", "mode"), [(True, True, "native"), (False, True, "tool"), (False, False, "prompted")]
)
async def test_the_form_is_asked_for_in_the_way_that_the_model_knows(
    flux: Flux, native: bool, tools_known: bool, mode: str
) -> None:
    reply = tool_call("final_result", name="Tom") if mode == "tool" else {"name": "Tom"}
    model, describes = answering(Cat, reply, native=native, tools_known=tools_known)
    assert (await flux.run(describes)).output == Cat(name="Tom")
    assert model.requests[0].info.model_request_parameters.output_mode == mode


async def test_an_answer_that_does_not_fit_is_sent_back_with_what_is_wrong(flux: Flux) -> None:
    model, describes = answering(Cat, "A cat!", {"name": 3}, {"name": "Tom"})
    assert (await flux.run(describes)).output == Cat(name="Tom")
    assert "it is no JSON" in model.requests[1].text
    assert "name: should be a valid string" in model.requests[2].text


async def test_the_same_by_the_output_tool_beside_other_calls(flux: Flux) -> None:
    wrong = [tool_call("look", where="box"), tool_call("final_result", name=3)]
    model, describes = answering(Cat, wrong, tool_call("final_result", name="Tom"), native=False, tools=[look])
    assert (await flux.run(describes)).output == Cat(name="Tom")
    looked, wrong_name = model.requests[1].results
    assert looked == "nothing in box"
    assert "name: should be a valid string" in wrong_name


async def test_an_answer_that_never_fits_is_an_error(flux: Flux) -> None:
    model, describes = answering(Cat, "no", "no", "no", "no", max_schema_retries=2)
    error = (await flux.run(describes)).error
    assert isinstance(error, OutputInvalid)
    assert len(model.requests) == 3


async def test_a_form_is_asked_for_beside_tools(flux: Flux) -> None:
    model, describes = answering(Cat, tool_call("look", where="box"), {"name": "Tom"}, tools=[look])
    assert (await flux.run(describes)).output == Cat(name="Tom")
    assert model.requests[0].tools == ["look"]

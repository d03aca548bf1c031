"""Workflows as tools: names, descriptions and schemas."""

from __future__ import annotations

import json
import time
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp_types import ListToolsResult
from pydantic import BaseModel, Field

from flux import ExecutionContext, Workflow, pause, workflow
from flux.discovery import discover
from flux.errors import DefinitionError
from flux_mcp_server.auth import OPEN
from flux_mcp_server.catalog import Catalog, tool_name
from tests.mcp.serving import ERAS, Era, client_of, data_of, serving, text_of

pytestmark = pytest.mark.anyio

SOURCE = '''
{future}
from datetime import datetime
from enum import Enum
from typing import Literal, Optional

from pydantic import BaseModel, Field

from flux import ExecutionContext, workflow


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Address(BaseModel):
    """Where it goes."""

    street: str = Field(min_length=1, description="With the number")
    zip: Optional[str] = None


class Parcel(BaseModel):
    to: Address
    sizes: list[Size]
    service: Literal["slow", "fast"] = "slow"
    due: datetime
    weight: float = Field(default=1.0, gt=0, description="In kilograms")


@workflow
async def send(ctx: ExecutionContext[Parcel]) -> Optional[Address]:
    """Send a parcel."""
    return ctx.input.to
'''


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
async def test_a_tool_is_described_by_its_workflows_types(era: Era, future: str, tmp_path: Path) -> None:
    path = tmp_path / f"parcels_{len(future)}.py"
    path.write_text(SOURCE.format(future=future), "utf-8")
    async with serving(*discover([path]).workflows) as server, client_of(server, era) as client:
        tool = next(tool for tool in (await client.list_tools()).tools if tool.name == "send")
    address = {
        "type": "object",
        "description": "Where it goes.",
        "properties": {
            "street": {"type": "string", "minLength": 1, "description": "With the number"},
            "zip": {"type": ["string", "null"], "default": None},
        },
        "required": ["street"],
    }
    assert (tool.title, tool.description) == ("Send", "Send a parcel.")
    assert tool.input_schema == {
        "type": "object",
        "properties": {
            "to": address,
            "sizes": {"type": "array", "items": {"type": "string", "enum": ["small", "large"]}},
            "service": {"type": "string", "enum": ["slow", "fast"], "default": "slow"},
            "due": {"type": "string", "format": "date-time"},
            "weight": {
                "type": "number",
                "exclusiveMinimum": 0,
                "default": 1.0,
                "description": "In kilograms",
            },
        },
        "required": ["to", "sizes", "due"],
    }
    assert tool.output_schema is not None
    assert tool.output_schema["type"] == "object"
    assert tool.output_schema["anyOf"][0] == {
        "type": "object",
        "properties": {"result": {"anyOf": [address, {"type": "null"}]}},
        "required": ["result"],
        "additionalProperties": False,
    }
    assert "execution_id" in tool.output_schema["anyOf"][1]["properties"]


class Tree(BaseModel):
    name: str
    parts: list[Tree] = []


class Colour(Enum):
    RED = "red"


@workflow
async def grow(ctx: ExecutionContext[Tree]) -> Tree:
    return ctx.input


async def test_only_true_recursion_is_a_reference_and_it_can_be_resolved() -> None:
    async with serving(grow) as server, client_of(server, "2026-07-28") as client:
        tool = next(tool for tool in (await client.list_tools()).tools if tool.name == "grow")
        assert tool.output_schema is not None
        assert set(tool.output_schema["$defs"]) == {"Tree"}
        tree: dict[str, Any] = {"name": "root", "parts": [{"name": "leaf", "parts": []}]}
        assert (await client.call_tool("grow", tree)).structured_content == tree


def answer_schema(*workflows: Workflow[Any, Any], tool: str) -> dict[str, Any]:
    offer = Catalog(workflows).get(tool)
    assert offer is not None
    return {**offer.tool.input_schema["properties"]["answer"], "must": "answer" in offer.tool.input_schema["required"]}


class When(BaseModel):
    at: datetime = Field(description="To the minute")


def test_the_tool_that_answers_has_the_type_of_the_question() -> None:
    @workflow
    async def one(ctx: ExecutionContext[str]) -> When:
        return await pause("when", response=When)

    @workflow
    async def two(ctx: ExecutionContext[str]) -> None:
        await pause("how", response=Literal["fast", "slow"])
        await pause("sure", response=bool)

    @workflow
    async def free(ctx: ExecutionContext[str]) -> None:
        await pause("anything")

    at = {"type": "string", "format": "date-time", "description": "To the minute"}
    assert answer_schema(one, tool="resume_one") == {
        "type": "object",
        "properties": {"at": at},
        "required": ["at"],
        "must": True,
    }
    assert answer_schema(two, tool="resume_two") == {
        "anyOf": [{"enum": ["fast", "slow"], "type": "string"}, {"type": "boolean"}],
        "must": True,
    }
    assert answer_schema(free, tool="resume_free") == {
        "description": "The answer to the question (anything)",
        "must": False,
    }


def named(name: str, text: str = "It is described.") -> Workflow[Any, Any]:
    @workflow.with_options(name=name, description=text)
    async def some(ctx: ExecutionContext[str]) -> None:
        pass

    return some


def test_names_are_what_every_client_takes() -> None:
    assert tool_name("Send Parcel v1.2") == "send_parcel_v1_2"
    assert tool_name("x" * 100) == "x" * 48
    with pytest.raises(DefinitionError, match="clients take letters a-z"):
        tool_name("日本")


@pytest.mark.parametrize(
    ("one", "other"), [("send.it", "send it"), ("list_workflows", None), ("x" * 48 + "a", "x" * 48 + "b")]
)
def test_two_tools_of_one_name_are_an_error_that_names_both(one: str, other: str | None) -> None:
    with pytest.raises(DefinitionError) as caught:
        Catalog([named(one), *([] if other is None else [named(other)])])
    assert repr(one) in str(caught.value)
    assert (repr(other) if other else "every server has") in str(caught.value)


def test_a_description_is_cut_at_a_word_within_a_kilobyte() -> None:
    offer = Catalog([named("long", "wörter " * 500)]).get("long")
    assert offer is not None
    assert offer.tool.description is not None
    assert len(offer.tool.description.encode()) <= 1024
    assert offer.tool.description.endswith("wörter...")


async def test_the_list_of_tools_is_sorted_the_same_every_time_and_may_be_kept() -> None:
    async with serving(named("b"), named("a")) as server, client_of(server, "2026-07-28") as client:
        first, second = await client.list_tools(), await client.list_tools()
        names = [tool.name for tool in first.tools]
        assert names == sorted(names)
        assert json.dumps(first.model_dump(mode="json")) == json.dumps(second.model_dump(mode="json"))
        assert first.ttl_ms == 60_000


# -- what a workflow says of itself ------------------------------------------------------------------------------------


def tool_of(workflow: Workflow[Any, Any]) -> Any:
    offer = Catalog([workflow]).get(tool_name(workflow.name))
    assert offer is not None
    return offer.tool


def test_a_workflow_tells_its_nature_and_what_it_does_not_tell_is_taken_for_the_worst() -> None:
    nature = tool_of(named("plain")).annotations
    assert (nature.read_only_hint, nature.destructive_hint, nature.idempotent_hint, nature.open_world_hint) == (
        *(False, True),
        *(False, True),
    )
    icon = {"src": "https://example.com/i.png", "mimeType": "image/png", "sizes": ["48x48"]}
    told = named("told").with_options(read_only=True, open_world=False, icons=[icon], title="Told")
    nature = tool_of(told).annotations
    assert (nature.read_only_hint, nature.destructive_hint, nature.idempotent_hint, nature.open_world_hint) == (
        *(True, False),
        *(True, False),
    )
    assert tool_of(told).title == "Told"
    assert tool_of(told).icons[0].mime_type == "image/png"
    with pytest.raises(DefinitionError, match="icons of workflow 'bad'"):
        Catalog([named("bad").with_options(icons=[{"nothing": 1}])])


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "$comment": "kept"}}, "required": ["n"]}


@pytest.mark.parametrize("era", ERAS)
async def test_a_schema_that_is_given_is_listed_word_for_word_and_holds(era: Era) -> None:
    @workflow.with_options(input_schema=SCHEMA)
    async def by_hand(ctx: ExecutionContext[dict[str, Any]]) -> Any:
        return ctx.input

    async with serving(by_hand) as server, client_of(server, era) as client:
        tool = next(tool for tool in (await client.list_tools()).tools if tool.name == "by_hand")
        assert tool.input_schema == SCHEMA
        assert data_of(await client.call_tool("by_hand", {"n": 1, "more": 2})) == {"n": 1, "more": 2}
        wrong = await client.call_tool("by_hand", {"n": "one"})
        assert wrong.is_error
        assert "n: 'one' is not of type 'integer'" in text_of(wrong)


@pytest.mark.parametrize("era", ERAS)
async def test_of_many_workflows_none_is_listed_but_two_tools_find_and_run_them(era: Era) -> None:
    @workflow
    async def send_parcel(ctx: ExecutionContext[str]) -> str:
        """Send a parcel to somebody."""
        return f"sent to {ctx.input}"

    many = [send_parcel, *(named(f"other_{n}", "About letters.") for n in range(50))]
    async with serving(*many) as server, client_of(server, era) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names >= {"search_workflows", "run_workflow"}
        assert len(names) == 8
        found = data_of(await client.call_tool("search_workflows", {"query": "parcel"}))
        assert [row["name"] for row in found["workflows"]] == ["send_parcel"]
        assert found["workflows"][0]["input_schema"]["properties"] == {"input": {"type": "string"}}
        assert data_of(await client.call_tool("search_workflows", {"query": "letters", "limit": 3}))["total"] == 50
        ran = await client.call_tool("run_workflow", {"workflow": "send_parcel", "input": {"input": "Ada"}})
        assert text_of(ran) == "sent to Ada"
        lost = await client.call_tool("run_workflow", {"workflow": "nothing", "input": {}})
        assert "search_workflows finds those there are" in text_of(lost)


def test_a_hidden_workflow_is_not_listed() -> None:
    catalog = Catalog([named("seen"), named("unseen").with_options(hidden=True)])
    assert "unseen" not in catalog.names()
    assert catalog.get("unseen") is not None


def test_a_hundred_workflows_are_listed_within_50_milliseconds_the_same_every_time() -> None:
    catalog = Catalog([named(f"w{n}") for n in range(100)], most_listed=1000)
    began = time.thread_time()
    first, second = (ListToolsResult(tools=catalog.tools_for(OPEN)).model_dump_json() for _ in range(2))
    assert (time.thread_time() - began) / 2 < 0.05
    assert first == second

"""The list of tools over many kinds of types: the same in every process, and without references but true recursion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from flux import ExecutionContext, Workflow, pause, workflow
from flux_mcp_server.catalog import Catalog
from tests.mcp.serving import ERAS, Era, client_of, serving

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    """Where somebody lives."""

    street: str
    since: date | None = None


class Person(BaseModel):
    name: str
    home: Address
    work: Address | None = None
    colours: set[Colour] = Field(default_factory=set[Colour])


@dataclass
class Box:
    width: float
    label: Colour | None = None


class Corner(NamedTuple):
    x: int
    y: int


class Options(TypedDict, total=False):
    loud: bool
    boxes: list[Box]


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: str | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    owner: Person


class Dog(BaseModel):
    kind: Literal["dog"]
    owner: Person


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Tree(BaseModel):
    name: str
    home: Address
    parts: list[Tree] = []


class Branch(BaseModel):
    leaves: list[Leaf] = []


class Leaf(BaseModel):
    on: Branch | None = None
    home: Address


FLAT: list[Any] = [
    *(int, float, str, bool, bytes, Decimal, UUID, datetime, timedelta, Path, Any, None),
    *(Colour, Address, Person, Box, Corner, Options, Page[Person], Page[Box]),
    *(list[Person], dict[str, Address], tuple[Person, Box], set[Colour], Person | None, Person | Box, list[Pet]),
    *(Literal["a", "b"], dict[str, list[Page[Address]]], Annotated[int, Field(ge=1)], frozenset[int]),
]
RECURSIVE: list[Any] = [Tree, list[Tree], Page[Tree], Branch, dict[str, Leaf] | None]


def turning(number: int, kind: Any) -> Workflow[Any, Any]:
    """A workflow that takes the type, asks for it and returns it."""

    async def body(ctx: Any) -> Any:
        return await pause("again", response=kind)

    body.__annotations__ = {"ctx": ExecutionContext[kind], "return": kind}
    return workflow.with_options(name=f"turn_{number:02}")(body)


def catalog(kinds: list[Any]) -> Catalog:
    return Catalog([turning(number, kind) for number, kind in enumerate(kinds)], most_listed=1000)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():  # pyright: ignore[reportUnknownVariableType] - JSON
            if key == "$ref":
                yield value.rpartition("/")[2]  # pyright: ignore[reportUnknownMemberType] - the same
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:  # pyright: ignore[reportUnknownVariableType] - the same
            yield from references(value)


def reached(name: str, definitions: dict[str, Any]) -> set[str]:
    """The definitions that are needed to say what this one is."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for other in references(definitions[todo.pop()]):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def schemas(made: Catalog) -> Iterator[tuple[str, dict[str, Any]]]:
    for tool in made.tools:
        yield tool.name, tool.input_schema
        if tool.output_schema is not None:
            yield tool.name, tool.output_schema


def test_no_schema_has_a_reference_where_none_is_needed() -> None:
    for name, schema in schemas(catalog(FLAT)):
        assert list(references(schema)) == [], name
        assert "$defs" not in schema, name


def test_what_is_truly_recursive_is_a_reference_to_something_that_leads_back_to_itself() -> None:
    named = 0
    for name, schema in schemas(catalog(RECURSIVE)):
        definitions = schema.get("$defs", {})
        assert set(references(schema)) == set(definitions), name
        for definition in definitions:
            assert definition in reached(definition, definitions), f"{definition} of {name} could be inlined"
        named += len(definitions)
    assert named >= 2 * len(RECURSIVE)


@pytest.mark.parametrize("era", ERAS)
async def test_every_kind_of_type_can_be_listed(era: Era) -> None:
    workflows = [turning(number, kind) for number, kind in enumerate([*FLAT, *RECURSIVE])]
    async with serving(*workflows) as server, client_of(server, era) as client:
        first, second = [(await client.list_tools()).model_dump_json() for _ in range(2)]
        assert first == second


def test_the_list_is_the_same_in_every_process() -> None:
    """Sets are in another order in each."""
    code = "from tests.mcp.test_listing import *; print(json.dumps([*schemas(catalog([*FLAT, *RECURSIVE]))]))"
    lists = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert lists[0] == lists[1]
    assert len(json.loads(lists[0])) > 100


@pytest.mark.parametrize("era", ERAS)
async def test_a_list_that_was_made_is_kept_until_the_tools_change(era: Era) -> None:
    made = catalog([int])
    async with serving(catalog=made) as server, client_of(server, era) as client:
        assert "turn_00" in {tool.name for tool in (await client.list_tools()).tools}
        made.replace([turning(7, int)])
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "turn_07" in names
        assert "turn_00" not in names
